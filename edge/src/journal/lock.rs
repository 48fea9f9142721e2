//! One process at a journal.
//!
//! Comes in: the folder of a journal. Goes out: a lock that lasts as long as the value, and no longer than the process.
//! Guarantees: of a running edge and a replay, or of two edges, one has the folder: each start tidies it up, which the
//! other one would take for loss. Nothing is written for it.
//! On failure: [`Error::InUse`] when another process keeps it for longer than the wait. A file system that knows no
//! locks gives none; that is logged.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

use weir_shared::clock::Deadline;

use super::Error;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(20);

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

impl Lock {
    /// Takes the folder, which is made if need be; waits so long for another process to let go of it.
    pub(crate) fn take(dir: &Path, wait: Duration) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let folder = File::open(dir).map_err(Error::io(dir))?;
        let deadline = Deadline::after(wait);
        loop {
            match folder.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if deadline.passed() => {
                    return Err(Error::InUse { path: dir.to_owned() });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(RETRY),
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(dir = %dir.display(), %error, "journal: cannot be locked; let only one process work on it");
                    break;
                }
            }
        }
        Ok(Self { _folder: folder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = std::env::temp_dir().join(format!("weir-lock-{}", std::process::id()));
        let first = Lock::take(&dir, Duration::ZERO).unwrap();
        let shown = Lock::take(&dir, Duration::ZERO).unwrap_err().to_string();
        assert!(shown.contains("another weir-edge works on it"), "{shown}");
        let waits = std::thread::spawn({
            let dir = dir.clone();
            move || Lock::take(&dir, Duration::from_secs(60)).map(drop)
        });
        drop(first);
        waits.join().unwrap().unwrap();
        drop(Lock::take(&dir, Duration::ZERO).unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }
}
