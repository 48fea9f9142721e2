//! Reading the journal in order, up to what is durable.
//!
//! Comes in: a position at which a batch begins, and the durable position. Goes out: whole batches.
//! Guarantees: nothing at or above the durable position is ever given out. On failure: damage names file and place.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{BATCH_HEADER, Batch, SEGMENT_HEADER};
use super::{Error, Segments};

/// Reads batch after batch.
#[derive(Debug)]
pub(crate) struct Reader {
    segments: Segments,
    position: u64,
    open: Option<Open>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    base: u64,
    end: Option<u64>,
}

impl Reader {
    /// Starts at `position`.
    pub(crate) const fn new(segments: Segments, position: u64) -> Self {
        Self { segments, position, open: None, buffer: Vec::new() }
    }

    /// The next batch, if one begins below `durable`.
    pub(crate) fn next(&mut self, durable: u64) -> Result<Option<Batch<'_>>, Error> {
        if self.position >= durable {
            return Ok(None);
        }
        self.open_segment()?;
        let Some(open) = &self.open else { unreachable!("it was just opened") };
        let offset = SEGMENT_HEADER as u64 + (self.position - open.base);
        let damaged =
            || Error::Damaged { path: self.segments.path(open.base), offset, position: self.position };
        self.buffer.resize(BATCH_HEADER, 0);
        open.file.read_exact_at(&mut self.buffer, offset).map_err(|_| damaged())?;
        let length = Batch::claimed_length(&self.buffer).ok_or_else(damaged)?;
        self.buffer.resize(BATCH_HEADER + length, 0);
        let (_, frames) = self.buffer.split_at_mut(BATCH_HEADER);
        open.file.read_exact_at(frames, offset + BATCH_HEADER as u64).map_err(|_| damaged())?;
        let batch = Batch::read(&self.buffer, self.position).ok_or_else(damaged)?;
        self.position = batch.end();
        Ok(Some(batch))
    }

    /// Opens the segment that holds the position. The newest segment may have got a successor since it was opened.
    fn open_segment(&mut self) -> Result<(), Error> {
        let missing = || Error::Missing { path: self.segments.dir().to_owned(), position: self.position };
        let stays = |o: &Open| o.end.is_some_and(|end| (o.base..end).contains(&self.position));
        if self.open.as_ref().is_some_and(stays) {
            return Ok(());
        }
        let (base, end) = self.segments.holding(self.position).ok_or_else(missing)?;
        match &mut self.open {
            Some(open) if open.base == base => open.end = end,
            open => {
                let path = self.segments.path(base);
                let file = File::open(&path).map_err(Error::io(&path))?;
                *open = Some(Open { file, base, end });
            }
        }
        Ok(())
    }
}
