//! The journal: what stands here, fsynced, is what the edge has acknowledged.
//!
//! Comes in: batches of frames (one frame per source message, with its records). Goes out: the same records, in
//! order, to everything downstream, which reads only what is already fsynced.
//! Guarantees: a position, once reported durable, survives kill -9 and power loss; positions only grow; a start
//! never appends to an old segment, and what was written but perhaps not fsynced is written and fsynced again before
//! it counts. On failure: a torn tail is cut; damage is skipped, counted and told, and a start always succeeds (but for
//! a segment of a later version, and a disk that cannot be read); what a failed write or fsync left in doubt is written
//! again to a new segment, or the process ends and nothing of that batch is acknowledged; a full disk makes it wait.
//!
//! ```text
//! numbering ─▶ writer ─▶ format ─▶ segments ─▶ disk        recovery, reader ─▶ scan ─▶ format
//!                └─ commit, overflow    └─ set_aside        redelivery, controls: what was recovered
//! ```

pub(crate) mod controls;
pub(crate) mod disk;
pub(crate) mod format;
pub(crate) mod lock;
mod measures;
mod numbering;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod redelivery;
mod scan;
pub(crate) mod segments;
mod set_aside;
pub(crate) mod writer;

pub(crate) use reader::Reader;
pub(crate) use recovery::{Recovered, recover};
pub(crate) use redelivery::Redelivery;
pub(crate) use segments::Segments;
pub(crate) use writer::{Writer, WriterConfig};

use std::path::{Path, PathBuf};

use weir_shared::record::StreamId;

/// Kept on disk so that a full one can be left again.
pub(crate) const RESERVE_BYTES: u64 = 1 << 20;

/// Why the journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file system refused: the process must end, and acknowledge nothing of what waits.
    #[error("journal {path}: {error}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// No room on the disk or in the budget: everything waits as it was, and the next commit tries again.
    #[error("journal: no room for {needed_bytes} bytes{}", error.as_ref().map_or_else(|| " in its budget".to_owned(), |e| format!(": {e}")))]
    Full {
        /// How much would be needed.
        needed_bytes: u64,
        /// What the file system said; `None` when the budget is used up.
        error: Option<std::io::Error>,
    },
    /// Another process has it.
    #[error(
        "journal {path}: another weir-edge works on it (run or replay); stop that one first, or work on a copy"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Written by a later version.
    #[error(
        "journal {path}: format version {version}; this program reads version 1. Use the program that wrote it"
    )]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        |error| Self::Io { path: path.to_owned(), error }
    }

    fn full(bytes: usize, error: std::io::Error) -> Self {
        Self::Full { needed_bytes: bytes as u64, error: Some(error) }
    }

    /// A full disk is no broken one.
    fn or_full(self, needed_bytes: u64) -> Self {
        match self {
            Self::Io { error, .. } if disk::is_full(&error) => {
                Self::Full { needed_bytes, error: Some(error) }
            }
            other => other,
        }
    }
}

/// The id of a stream that is opened now: no other has it.
pub(crate) fn random_stream() -> Result<StreamId, String> {
    let mut stream = [0; 16];
    getrandom::fill(&mut stream).map_err(|e| format!("no random bits for a stream id: {e}"))?;
    Ok(StreamId(stream))
}

/// Reads any bytes as a segment: must end without a panic and in bounded memory.
pub(crate) fn fuzz(bytes: &[u8]) {
    recovery::fuzz(bytes);
}

#[cfg(test)]
mod tests;
