//! A wall clock that can be turned while a program runs, by libfaketime.
//!
//! Comes in: an offset to the real time. Goes out: the environment of a program, which from then on reads the offset from
//! a file. The monotonic clock stays true. Waits until a time of the wall clock end when that clock says so; those of C11,
//! which libfaketime leaves alone, by a library of ours.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::shim::compiled;

const TIMED_WAIT: &str = include_str!("timed_wait.c");

/// The clock of one program.
#[derive(Debug)]
pub struct FakeClock {
    file: PathBuf,
    timed_wait: PathBuf,
}

impl FakeClock {
    /// Begins at this offset in seconds.
    ///
    /// # Errors
    /// When the file cannot be written or the library not compiled.
    pub fn new(folder: &Path, offset_s: i64) -> anyhow::Result<Self> {
        let timed_wait = compiled(folder, "timed_wait", TIMED_WAIT)?;
        let clock = Self { file: folder.join("faketime"), timed_wait };
        clock.turn(offset_s)?;
        Ok(clock)
    }

    /// Turns it to this offset to the real time, in seconds.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn turn(&self, offset_s: i64) -> anyhow::Result<()> {
        // Replaced at once: the program may be reading it.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset_s:+}s\n"))?;
        Ok(fs::rename(next, &self.file)?)
    }

    /// What the program needs in its environment.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn environment(&self) -> anyhow::Result<Vec<(String, String)>> {
        let libraries = format!("{}:{}", library("faketime/libfaketimeMT.so.1")?, self.timed_wait.display());
        let pairs = [
            ("LD_PRELOAD", libraries),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Ok(pairs.map(|(name, value)| (name.to_owned(), value)).to_vec())
    }
}

/// libeatmydata: fsync does nothing.
///
/// # Errors
/// When it is not installed.
pub fn eatmydata() -> anyhow::Result<Vec<(String, String)>> {
    Ok(vec![("LD_PRELOAD".to_owned(), library("libeatmydata.so.1")?)])
}

/// A preloadable library of Debian, on any architecture.
fn library(name: &str) -> anyhow::Result<String> {
    let folders = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    Ok(found.with_context(|| format!("{name} is not installed"))?.display().to_string())
}
