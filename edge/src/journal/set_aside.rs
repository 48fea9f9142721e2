//! Files that the journal cannot use, kept for people to look at.
//!
//! Comes in: a file of the journal's folder. Goes out: the same file in `set-aside/`. Guarantees: at most
//! [`FILES_MAX`] files and [`BYTES_MAX`] bytes are kept, the oldest go first; each is counted.
//! On failure: a file that cannot be moved stays where it is; that is an error of the file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::{Error, measures};

const FOLDER: &str = "set-aside";
const FILES_MAX: usize = 8;
const BYTES_MAX: u64 = 64 << 20;

/// Moves a file there, and makes room. What the names say is durable only after the next fsync of the folders.
pub(super) fn put(disk: &Disk, dir: &Path, file: &Path) -> Result<(), Error> {
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let free = |n: &u32| !folder.join(format!("{name}.{n}")).exists();
    let number = (0..).find(free).unwrap_or(0);
    let target = folder.join(format!("{name}.{number}"));
    disk.rename(file, &target).map_err(Error::io(&target))?;
    measures::count(measures::SET_ASIDE, 1);
    tracing::warn!(file = %file.display(), to = %target.display(), "journal: a file was set aside");
    prune(&folder).map_err(Error::io(&folder))
}

/// Bytes of all that is kept.
pub(super) fn bytes(dir: &Path) -> u64 {
    files(&dir.join(FOLDER)).map_or(0, |files| files.iter().map(|file| file.bytes).sum())
}

fn prune(folder: &Path) -> io::Result<()> {
    let mut files = files(folder)?;
    files.sort();
    let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let mut left = files.len();
    for file in &files {
        if left <= FILES_MAX && bytes <= BYTES_MAX {
            break;
        }
        fs::remove_file(&file.path)?;
        (left, bytes) = (left - 1, bytes - file.bytes);
    }
    Ok(())
}

/// By when they came.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    came: (i64, i64),
    path: PathBuf,
    bytes: u64,
}

fn files(folder: &Path) -> io::Result<Vec<Kept>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() {
            let came = (meta.ctime(), meta.ctime_nsec());
            files.push(Kept { came, path: entry.path(), bytes: meta.len() });
        }
    }
    Ok(files)
}
