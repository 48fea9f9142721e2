//! Disks for a journal: an ext4 in an image that can be photographed while it is written, and one that is small.
//!
//! Comes in: a folder of the stack. Goes out: mount points. Guarantees: unmounted when dropped; [`sweep`] unmounts what
//! a killed run left. A photograph holds what a power cut at that moment would leave: the file system writes on its own
//! only every 300 s, so besides what was fsynced there is next to nothing. On failure: the command's own words.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::run;

const MIB: u64 = 1 << 20;
/// What is copied or left out as a whole.
const CHUNK: usize = 64 * 1024;

/// A mounted file system.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// An ext4 in a new image file of `megabytes`.
    ///
    /// # Errors
    /// When it cannot be made or mounted.
    pub fn new_image(image: &Path, at: &Path, megabytes: u64) -> anyhow::Result<Self> {
        File::create(image).and_then(|f| f.set_len(megabytes * MIB)).with_context(|| text(image))?;
        run(&["mkfs.ext4", "-q", "-F", &text(image)])?;
        Self::image(image, at)
    }

    /// The ext4 in an image file.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn image(image: &Path, at: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(at)?;
        run(&["mount", "-t", "ext4", "-o", "loop,commit=300", &text(image), &text(at)])?;
        Ok(Self { at: at.to_owned() })
    }

    /// A file system in memory of so many kilobytes.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn small(at: &Path, kilobytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(at)?;
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "weir-chaos", &text(at)])?;
        Ok(Self { at: at.to_owned() })
    }

    /// Where.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes all room that is left; gives the file that holds it.
    ///
    /// # Errors
    /// When it fails in another way than by being full.
    pub fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.at.join("filler");
        let mut file = File::create(&path)?;
        let mut chunk = CHUNK;
        let zeros = vec![0xaa; CHUNK];
        while chunk > 0 {
            match file.write(&zeros[..chunk]) {
                Ok(count @ 1..) => chunk = chunk.min(count.max(4096)),
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    chunk = if chunk > 4096 { 4096 } else { 0 }
                }
                Err(error) => return Err(error).context("filling the disk"),
            }
        }
        Ok(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if run(&["umount", &text(&self.at)]).is_err() {
            let _told_by_the_next_mount = run(&["umount", "-l", &text(&self.at)]);
        }
    }
}

/// Unmounts everything below a folder.
///
/// # Errors
/// When something cannot be unmounted.
pub fn sweep(folder: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let prefix = format!("{}/", folder.display());
    let below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| at.starts_with(&prefix))
        .collect();
    below.iter().rev().try_for_each(|at| run(&["umount", "-l", at]))
}

/// Copies an image as it is now; empty chunks stay holes.
///
/// # Errors
/// When it cannot be read or written.
pub fn photograph(image: &Path, copy: &Path) -> anyhow::Result<()> {
    let (mut from, mut to) = (File::open(image)?, File::create(copy)?);
    to.set_len(from.metadata()?.len())?;
    let (mut chunk, mut at) = (vec![0; CHUNK], 0);
    loop {
        let count = from.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        if chunk[..count].iter().any(|b| *b != 0) {
            to.seek(SeekFrom::Start(at))?;
            to.write_all(&chunk[..count])?;
        }
        at += count as u64;
    }
}

/// Copies a folder with all that is in it.
///
/// # Errors
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).with_context(|| text(&path))?;
        }
    }
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
