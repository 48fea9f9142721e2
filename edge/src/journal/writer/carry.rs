//! Letting go of segments that are kept for one thing alone: to recognise what a source sends again.
//!
//! Comes in: the want of room. Goes out: a segment less. Guarantees: room never depends on a source, which may itself
//! wait for room before it proves anything: the messages of the oldest such segment are told, in 8 bytes each, by a
//! durable urgent frame before it goes, and its own such frames with them. On failure: a full reserve lets nothing go.

use super::super::format::{Record, Seen};
use super::super::reader::{Reader, Step};
use super::super::{Error, redelivery};
use super::Writer;

impl Writer {
    /// Lets the oldest segment go that is needed for redeliveries alone; false when there is none, or no room to tell.
    pub(super) fn carry(&mut self) -> Result<bool, Error> {
        let bases = self.segments.bases();
        let [base, end, ..] = bases[..] else { return Ok(false) };
        if end > self.controls.cursor.position || end > self.needed_from || end <= self.carried {
            return Ok(false);
        }
        if end > self.carrying {
            let keys = self.seen(base)?;
            let record = Record::Seen(self.seen_below(end, &keys));
            self.urgent(std::iter::once(record), self.now);
            self.carrying = end;
        }
        match self.commit_urgent() {
            Ok(()) => Ok(self.reclaim(true) || self.segments.bases().first() != Some(&base)),
            Err(Error::Full { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The messages of a segment that a source may send again.
    pub(super) fn seen(&self, base: u64) -> Result<Vec<u8>, Error> {
        let (session, _) = self.controls.session.unwrap_or_default();
        let end = self.segments.next_base(base + 1).unwrap_or(self.position);
        let mut reader = Reader::new(self.segments.clone(), base);
        let mut keys = Vec::new();
        while let Some(step) = reader.next(end)? {
            let Step::Batch(batch) = step else { continue };
            if batch.position < self.controls.proven {
                continue;
            }
            for frame in batch.frames() {
                let head = frame.head;
                if head.packet != 0 && head.session == session {
                    keys.extend_from_slice(&redelivery::key(head.packet, head.digest).to_le_bytes());
                }
                for record in frame.records() {
                    match record {
                        Record::Seen(seen) if seen.session == session => keys.extend_from_slice(seen.keys),
                        _ => {}
                    }
                }
            }
        }
        Ok(keys)
    }

    pub(super) fn seen_below<'k>(&self, below: u64, keys: &'k [u8]) -> Seen<'k> {
        let (session, _) = self.controls.session.unwrap_or_default();
        Seen { below, session, keys }
    }
}
