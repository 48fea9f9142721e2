//! Reading the journal in order, up to what is durable.
//!
//! Comes in: a position at which a batch begins, and the durable position. Goes out: whole batches, and what had to be
//! skipped between them. Guarantees: nothing that begins at or above the durable position is ever given out; every
//! intact batch is; memory is bounded by the largest batch. On failure: damage, a missing segment and what was given
//! up by policy are steps of their own; only a disk that refuses to read is an error.

use std::fs::File;
use std::io;

use super::format::Batch;
use super::scan::{self, Found, Range};
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

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A whole batch.
    Batch(Batch<'a>),
    /// The journal holds nothing up to another position.
    Skipped {
        /// That position.
        to: u64,
        /// Why.
        why: Why,
    },
}

/// Positions that the journal does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// The first.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
    /// Why.
    pub why: Why,
}

/// Why the journal does not hold a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its bytes are not what was written.
    Damaged,
    /// Its segment is gone.
    Missing,
    /// It was removed by policy, and gaps say what it held.
    GivenUp,
}

impl Reader {
    /// Starts at `position`.
    pub(crate) const fn new(segments: Segments, position: u64) -> Self {
        Self { segments, position, open: None, buffer: Vec::new() }
    }

    /// Where the next step begins.
    #[cfg(test)]
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at `position`.
    pub(crate) const fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// What comes next, if it begins below `durable`.
    pub(crate) fn next(&mut self, durable: u64) -> Result<Option<Step<'_>>, Error> {
        if self.position >= durable {
            return Ok(None);
        }
        if let Some(to) = self.segments.given_up(self.position) {
            return Ok(Some(self.skip(to.min(durable), Why::GivenUp)));
        }
        if !self.open_segment()? {
            let to = self.segments.next_base(self.position).map_or(durable, |base| base.min(durable));
            return Ok(Some(self.skipped(None, to, Why::Missing)));
        }
        let Some(open) = &self.open else { unreachable!("it was just opened") };
        let (base, end) = (open.base, open.end.unwrap_or(u64::MAX));
        let range = Range { base, begin: durable.min(end), end };
        let found = scan::find(&open.file, range, self.position, &mut self.buffer)
            .map_err(Error::io(&self.segments.path(base)))?;
        let (to, blank) = match found {
            Found::Batch => {
                let batch = Batch::of(&self.buffer);
                self.position = batch.end();
                return Ok(Some(Step::Batch(batch)));
            }
            Found::Gap { to, blank } => (to, blank),
            Found::End(bytes) => (range.begin, bytes == 0),
        };
        let why = if blank { Why::Missing } else { Why::Damaged };
        Ok(Some(self.skipped(Some(base), to, why)))
    }

    fn skipped(&mut self, base: Option<u64>, to: u64, why: Why) -> Step<'static> {
        // The segment may have gone since this was last asked.
        if self.segments.given_up(self.position).is_some() {
            return self.skip(to, Why::GivenUp);
        }
        self.segments.tell(base, &Skipped { from: self.position, to, why });
        self.skip(to, why)
    }

    const fn skip(&mut self, to: u64, why: Why) -> Step<'static> {
        self.position = to;
        Step::Skipped { to, why }
    }

    /// Opens the segment that holds the position, if there is one. The newest segment may have got a successor since
    /// it was opened.
    fn open_segment(&mut self) -> Result<bool, Error> {
        let stays = |o: &Open| o.end.is_some_and(|end| (o.base..end).contains(&self.position));
        if self.open.as_ref().is_some_and(stays) {
            return Ok(true);
        }
        while let Some((base, end)) = self.segments.holding(self.position) {
            match &mut self.open {
                Some(open) if open.base == base => {
                    open.end = end;
                    return Ok(true);
                }
                open => {
                    let path = self.segments.path(base);
                    match File::open(&path) {
                        Ok(file) => {
                            *open = Some(Open { file, base, end });
                            return Ok(true);
                        }
                        Err(e) if e.kind() == io::ErrorKind::NotFound => self.segments.forget(base),
                        Err(e) => return Err(Error::io(&path)(e)),
                    }
                }
            }
        }
        Ok(false)
    }
}
