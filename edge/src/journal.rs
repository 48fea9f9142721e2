//! The journal: what stands here, fsynced, is what the edge has acknowledged.
//!
//! Comes in: batches of frames (one frame per source message, with its records). Goes out: the same records, in
//! order, to everything downstream, which reads only what is already fsynced.
//! Guarantees: a position, once reported durable, survives kill -9 and power loss; positions only grow; a start
//! never appends to an old segment, and what was written but perhaps not fsynced is written and fsynced again before
//! it counts. On failure: a torn tail is cut; damage below the durable position ends the start with the place; a
//! failed write or fsync ends the process, and nothing of that batch is acknowledged.

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod recovery;
pub(crate) mod redelivery;
pub(crate) mod segments;
pub(crate) mod writer;

pub(crate) use reader::Reader;
pub(crate) use recovery::{Recovered, recover};
pub(crate) use redelivery::Redelivery;
pub(crate) use segments::Segments;
pub(crate) use writer::Writer;

/// Why the journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file system refused.
    #[error("journal {path}: {error}")]
    Io {
        /// File or folder.
        path: std::path::PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// Bytes that were durable are not what was written.
    #[error(
        "journal {path}: damaged at byte {offset} (position {position}), and later batches say that it was durable; \
         nothing was changed. Move the folder aside to start empty, or restore it"
    )]
    Damaged {
        /// The segment.
        path: std::path::PathBuf,
        /// Where in the file.
        offset: u64,
        /// Where in the journal.
        position: u64,
    },
    /// Written by a later version.
    #[error(
        "journal {path}: format version {version}; this program reads version 1. Use the program that wrote it"
    )]
    Version {
        /// The segment.
        path: std::path::PathBuf,
        /// Its version.
        version: u32,
    },
    /// Positions that no segment holds.
    #[error("journal {path}: position {position} is wanted, and no segment holds it")]
    Missing {
        /// The folder.
        path: std::path::PathBuf,
        /// The position.
        position: u64,
    },
}

impl Error {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        |error| Self::Io { path: path.to_owned(), error }
    }
}

#[cfg(test)]
mod tests;
