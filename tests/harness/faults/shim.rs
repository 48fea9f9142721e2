//! A preloaded library that makes the disk of one program fail or slow, switched while it runs.
//!
//! Comes in: [`Fault`]s. Goes out: the environment of the program; counts of what happened to it. The library is
//! compiled from `shim.c` with gcc when it is first needed. On failure: gcc's own words.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run;

const SOURCE: &str = include_str!("shim.c");
/// The places in the control file.
const MODE: u64 = 0;
const DELAY: u64 = 1;
const INSIDE: u64 = 2;
const DONE: u64 = 3;
const FAILED: u64 = 4;

/// What happens to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The next fsync fails with EIO, later ones do not.
    EioOnce,
    /// Every fsync fails with EIO.
    EioAlways,
    /// Every fsync takes so much longer.
    Slow(Duration),
    /// Every write fails with ENOSPC.
    Full,
}

/// The disk of one program.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    control: PathBuf,
    words: File,
    below: PathBuf,
}

impl Shim {
    /// For a program whose files below `below` are to be hurt.
    ///
    /// # Errors
    /// When the library cannot be compiled or the control file not written.
    pub fn new(folder: &Path, below: &Path) -> anyhow::Result<Self> {
        let library = compiled(folder, "shim", SOURCE)?;
        let control = folder.join("shim.control");
        fs::write(&control, [0; 40])?;
        let words = File::options().read(true).write(true).open(&control)?;
        Ok(Self { library, control, words, below: below.to_owned() })
    }

    /// Switches.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn set(&self, fault: Fault) -> anyhow::Result<()> {
        let (mode, delay) = match fault {
            Fault::None => (0, Duration::ZERO),
            Fault::EioOnce => (1, Duration::ZERO),
            Fault::EioAlways => (2, Duration::ZERO),
            Fault::Slow(delay) => (3, delay),
            Fault::Full => (4, Duration::ZERO),
        };
        self.put(DELAY, u64::try_from(delay.as_millis())?)?;
        self.put(MODE, mode)
    }

    /// Fsyncs going on now.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn inside(&self) -> anyhow::Result<u64> {
        self.get(INSIDE)
    }

    /// Fsyncs that ended well.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn done(&self) -> anyhow::Result<u64> {
        self.get(DONE)
    }

    /// Calls that were made to fail.
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn failed(&self) -> anyhow::Result<u64> {
        self.get(FAILED)
    }

    /// What the program needs in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [("LD_PRELOAD", &self.library), ("WEIR_SHIM", &self.control), ("WEIR_SHIM_DIR", &self.below)]
            .map(|(name, path)| (name.to_owned(), path.display().to_string()))
            .to_vec()
    }

    fn put(&self, place: u64, value: u64) -> anyhow::Result<()> {
        Ok(self.words.write_all_at(&value.to_ne_bytes(), place * 8)?)
    }

    fn get(&self, place: u64) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.words.read_exact_at(&mut bytes, place * 8)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

/// A library to be preloaded, from its source in C.
pub(super) fn compiled(folder: &Path, name: &str, source: &str) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let (from, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    fs::write(&from, source)?;
    let (from, to) = (from.display().to_string(), library.display().to_string());
    run(&["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", &to, &from, "-ldl"])?;
    Ok(library)
}
