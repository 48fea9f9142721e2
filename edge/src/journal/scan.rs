//! Finding whole batches among bytes that may be damaged.
//!
//! Comes in: the bytes of a segment, and the position at which a batch should begin. Goes out: that batch, or where
//! the next whole one begins, or that there is none. Guarantees: a batch is found only at the place that it says
//! itself, with the right checksum; memory is bounded by the largest batch that the file has room for; every byte is
//! looked at. On failure: a read that the disk refuses is an error, as opposed to damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{BATCH_HEADER, BATCH_MAGIC, Batch, SEGMENT_HEADER};
use crate::faults;

const CHUNK: usize = 64 << 10;

/// Bytes at places.
pub(super) trait Bytes {
    /// Fills as much of the buffer as there is; how much that was.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// How many there are.
    fn length(&self) -> io::Result<u64>;
}

impl Bytes for File {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Bytes for [u8] {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).map_or(self.len(), |at| at.min(self.len()));
        let length = buffer.len().min(self.len() - from);
        buffer[..length].copy_from_slice(&self[from..from + length]);
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// What stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole batch: it is in the buffer.
    Batch,
    /// Something else, up to the next whole batch; `blank` when it is nothing but zeros.
    Gap {
        /// Where that batch begins.
        to: u64,
        /// Whether there is nothing but zeros.
        blank: bool,
    },
    /// No whole batch any more, and so many bytes up to the last that is not zero.
    End(u64),
}

/// A segment to be searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// The position at which the segment begins.
    pub(super) base: u64,
    /// No batch that begins here or above is looked for.
    pub(super) begin: u64,
    /// No batch goes beyond.
    pub(super) end: u64,
}

/// What stands at `position`, which is not below the segment's base.
pub(super) fn find<B: Bytes + ?Sized>(
    bytes: &B,
    range: Range,
    position: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Found> {
    if load(bytes, range, position, buffer)? {
        return Ok(Found::Batch);
    }
    let mut chunk = vec![0; CHUNK];
    let mut at = position;
    let mut last = None;
    while at < range.end {
        let length = bytes.read(&mut chunk, offset(range.base, at))?;
        let blank = chunk[..length].iter().fold(0, |any, byte| any | byte) == 0;
        for i in (0..length).filter(|_| !blank) {
            if chunk[i] == 0 {
                continue;
            }
            let here = at + i as u64;
            // What begins at the end of the chunk is looked at by its first byte alone.
            let magic = BATCH_MAGIC.iter().zip(&chunk[i..length]).all(|(m, b)| m == b);
            if magic && here > position && here < range.begin && load(bytes, range, here, buffer)? {
                if faults::is_broken("bad.cut_damage") {
                    return Ok(Found::End(here - position));
                }
                return Ok(Found::Gap { to: here, blank: last.is_none() });
            }
            if here < range.end {
                last = Some(here);
            }
        }
        at += length as u64;
        if length < CHUNK {
            break;
        }
    }
    Ok(Found::End(last.map_or(0, |last| last + 1 - position)))
}

/// Fills the buffer with the whole batch at `position`, if one is there.
fn load<B: Bytes + ?Sized>(bytes: &B, range: Range, position: u64, buffer: &mut Vec<u8>) -> io::Result<bool> {
    if position >= range.begin {
        return Ok(false);
    }
    let mut head = [0; BATCH_HEADER];
    let at = offset(range.base, position);
    let length = bytes.read(&mut head, at)?;
    let Some(length) = Batch::claimed(&head[..length], position) else { return Ok(false) };
    if position.saturating_add(length as u64) > range.end || at + length as u64 > bytes.length()? {
        return Ok(false);
    }
    buffer.resize(length, 0);
    Ok(bytes.read(buffer, at)? == length && Batch::is_whole(buffer, position))
}

/// Where in the file a position stands.
pub(super) const fn offset(base: u64, position: u64) -> u64 {
    SEGMENT_HEADER as u64 + (position - base)
}
