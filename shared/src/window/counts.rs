//! Count and sliding count windows of one key.
//!
//! Comes in: readings, in the order of the log. Goes out: results. Guarantees: every `slide` readings, once there are `n`,
//! one result over the last `n`; times have no say in it, so nothing is late. No two results after one another
//! have the same start and the same end. On failure: nothing can fail; a window that never fills stays.

use super::codec::{Corrupt, Cursor, put_length, put_signed};
use super::entry::{Entry, Placed};
use super::form::Form;
use super::outputs::Emit;
use super::panes::decode_panes;
use super::tally::Tally;
use super::tree::{Pane, Tree};

/// Readings in chunks.
#[derive(Debug)]
pub(super) struct Counts {
    chunks: Vec<Pane>,
    tree: Tree,
    /// Readings so far.
    total: i64,
    /// Start and end of the last result.
    sent: (i64, i64),
}

impl Counts {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), tree: Tree::default(), total: 0, sent: (-1, -1) }
    }

    pub(super) const fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn add(&mut self, emit: &mut Emit<'_>, entry: &Entry<'_>) -> Placed {
        let form = emit.form;
        let index = self.total / form.chunk;
        if self.chunks.last().is_none_or(|c| c.index != index) {
            self.chunks.push(Pane::new(index, Tally::new()));
            self.tree.forget(index);
        }
        let at = self.chunks.len() - 1;
        self.tree.change(&mut self.chunks[at]);
        entry.put(&form.plan, &mut self.chunks[at].tally);
        self.total += 1;
        if self.total % form.chunk != 0 {
            return Placed::Entered;
        }
        let full = self.total / form.chunk;
        if full % form.slide == 0 && full >= form.size {
            self.send(emit, full - form.size..full);
            let keep = full + form.slide - form.size;
            let gone = self.chunks.partition_point(|c| c.index < keep);
            for chunk in self.chunks.drain(..gone) {
                self.tree.forget(chunk.index);
            }
        }
        Placed::Entered
    }

    fn send(&mut self, emit: &mut Emit<'_>, chunks: std::ops::Range<i64>) {
        let Some(tally) = self.tree.tally(&emit.form.plan, &mut self.chunks, chunks) else { return };
        let (start, mut end) = (tally.first, tally.last + 1);
        if start == self.sent.0 {
            end = end.max(self.sent.1 + 1);
        }
        self.sent = (start, end);
        emit.window(start, end, 0, emit.why(start, tally.why), &tally);
    }

    /// Marks the open windows.
    pub(super) fn mark(&mut self, why: u8) {
        for chunk in self.chunks.iter_mut().filter(|c| c.tally.why == 0) {
            self.tree.change(chunk);
            chunk.tally.why = why;
        }
    }

    /// Sends what would be the next window as it is.
    pub(super) fn flush(&mut self, emit: &mut Emit<'_>) {
        let end = self.chunks.last().map_or(0, |c| c.index + 1);
        self.send(emit, (end - emit.form.size).max(0)..end);
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_length(out, self.chunks.len());
        for chunk in &self.chunks {
            put_signed(out, chunk.index);
            chunk.tally.encode(out);
        }
        put_signed(out, self.total);
        put_signed(out, self.sent.0);
        put_signed(out, self.sent.1);
    }

    pub(super) fn decode(form: &Form, fields: usize, cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let chunks = decode_panes(form, fields, cursor)?;
        let counts = Self {
            chunks,
            tree: Tree::default(),
            total: cursor.time()?,
            sent: (cursor.time()?, cursor.time()?),
        };
        let last = counts.chunks.last().map_or(0, |c| c.index);
        if counts.total < 0
            || last > counts.total / form.chunk
            || counts.chunks.first().is_some_and(|c| c.index < 0)
        {
            return Err(Corrupt("chunks do not fit their count"));
        }
        Ok(counts)
    }
}
