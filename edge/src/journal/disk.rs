//! What the journal does to the file system, in one place.
//!
//! Comes in: files, bytes, names. Goes out: whether it was done. Guarantees: every byte written is counted; nothing is
//! durable before [`Disk::sync`] (a file's bytes) or [`Disk::sync_dir`] (names) returned well.
//! On failure: what the file system said; [`is_full`] tells a full disk from a broken one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cheap to clone: all clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    written: Arc<AtomicU64>,
    #[cfg(test)]
    faults: super::tests::faults::Faults,
}

impl Disk {
    #[cfg(test)]
    pub(super) fn with(faults: super::tests::faults::Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Bytes written since the process began.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Makes a file with room for `bytes`; one that is there goes.
    pub(super) fn create(&self, path: &Path, bytes: u64) -> io::Result<File> {
        #[cfg(test)]
        self.faults.creating(path)?;
        fs::remove_file(path)
            .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            Err(error) if is_full(&error.into()) => {
                fs::remove_file(path).ok();
                return Err(error.into());
            }
            // A file system that cannot preallocate costs speed, not safety.
            Err(_) => file.set_len(bytes)?,
        }
        Ok(file)
    }

    /// Writes at a place.
    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.writing(file, bytes, offset)?;
        file.write_all_at(bytes, offset)?;
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes what was written durable. After a failure nobody knows what is: the file must not be trusted again.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.syncing(file)? {
            return Ok(());
        }
        if crate::faults::is_broken("bad.skip_fsync") {
            return Ok(());
        }
        file.sync_data()
    }

    /// Gives a file its name, in place of another one that has it.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.renaming(from, to)?;
        fs::rename(from, to)
    }

    /// Removes a file; one that is not there counts as removed.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.removing(path)?;
        fs::remove_file(path).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    }

    /// Makes the names in a folder durable.
    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.syncing_dir()? {
            return Ok(());
        }
        File::open(dir)?.sync_all()
    }
}

/// Whether there is no room, as opposed to something being broken.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
