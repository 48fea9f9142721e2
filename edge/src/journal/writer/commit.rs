//! Making durable what waits, and the files for it.
//!
//! Comes in: what waits, and how urgent it is. Goes out: the durable position. Guarantees: one batch, one fsync; what a
//! commit returned is on disk, in order, and nothing that was not committed says how things stand.
//! On failure: after a failed write or fsync the file is never written again; everything since the last good fsync
//! (that is the batch at hand) goes into a new segment at the last durable position, once. If that fails too, the error
//! is for the process to end by, with nothing acknowledged. A full disk or budget is [`Error::Full`]: everything waits
//! as it was, and the next commit tries again; urgent frames may go ahead, into the reserve.

use std::sync::atomic::Ordering;

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::super::disk::is_full;
use super::super::format::{self, BATCH_HEADER, Numbers, Record, SEGMENT_HEADER, Seal};
use super::super::numbering::Numbering;
use super::super::redelivery::MESSAGES_MAX;
use super::super::{Error, measures};
use super::{Opening, Waiting, Writer};
use crate::faults;

/// What must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// All that waits.
    Data,
    /// Only what frees room; the reserve may be used.
    Control,
}

/// What a commit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// All below is durable.
    pub position: u64,
    /// Whether data still waits.
    pub waits: bool,
}

impl Writer {
    /// Writes what waits and fsyncs it; then removes the segments that nobody needs any more.
    pub(crate) fn commit(&mut self, urgency: Urgency) -> Result<Committed, Error> {
        loop {
            let done = self.try_commit(urgency);
            let Err(Error::Full { error, .. }) = &done else { return done };
            if urgency == Urgency::Control {
                return done;
            }
            let in_budget = error.is_none();
            if self.carry()? {
                continue;
            }
            let little = self.config.segment_bytes.max(self.config.reserve_bytes);
            let needed = self.position.saturating_sub(self.needed_from);
            if !in_budget || self.held_bytes().max(needed) > little {
                return done;
            }
            // Nothing is held that could go, nor needed by the windows: what is left of a small budget must not stop it for ever.
            let budget = std::mem::take(&mut self.config.budget_bytes);
            let done = self.try_commit(urgency);
            self.config.budget_bytes = budget;
            return done;
        }
    }

    fn try_commit(&mut self, urgency: Urgency) -> Result<Committed, Error> {
        if urgency == Urgency::Control && self.waiting.urgent < self.waiting.frames {
            self.commit_urgent()?;
        } else if self.waiting.frames > 0 {
            self.write(urgency)?;
            self.numbering.wrote_all();
            self.take_controls();
            self.waiting.clear();
            self.reclaim(false);
        }
        Ok(Committed { position: self.position, waits: self.waiting.frames > 0 })
    }

    /// The next batch begins a new segment under another stream, whose numbers begin at 0; what waits is committed
    /// before it. Where it begins.
    pub(crate) fn open_stream(&mut self, stream: StreamId, now: Now) -> Result<u64, Error> {
        self.commit(Urgency::Data)?;
        let before = self.opening;
        let numbers = [self.numbering.written()];
        self.opening = Opening { stream, now, ..before };
        let begun = self.position;
        if let Err(error) = self.begin_segment(&numbers, 0, Urgency::Data) {
            self.opening = before;
            return Err(error);
        }
        self.numbering = Numbering::new(stream, self.controls.topics);
        Ok(begun)
    }

    /// Writes the urgent frames alone, ahead of the data.
    pub(super) fn commit_urgent(&mut self) -> Result<(), Error> {
        if self.waiting.urgent == 0 {
            return Ok(());
        }
        let (mut urgent, mut data) = std::mem::replace(&mut self.waiting, Waiting::new()).split();
        let written =
            self.numbering.reorder(&mut urgent.batch[BATCH_HEADER..], &mut data.batch[BATCH_HEADER..]);
        self.waiting = urgent;
        let result = self.write(Urgency::Control);
        if result.is_ok() {
            self.numbering.wrote(written);
            self.take_controls();
            self.waiting.clear();
        }
        // As renumbered: what is urgent comes first.
        self.waiting.append(&data);
        if result.is_ok() {
            self.reclaim(false);
        }
        result
    }

    /// Writes what waits as one batch, in a file with room for it.
    fn write(&mut self, urgency: Urgency) -> Result<(), Error> {
        let mut tried = false;
        loop {
            let length = self.waiting.batch.len();
            let end = (self.position - self.base) + (SEGMENT_HEADER + length) as u64;
            let kept = self.in_reserve && urgency == Urgency::Data;
            if self.file.is_none() || end > self.room || kept {
                let numbers = [self.numbering.written()];
                self.begin_segment(&numbers, length, urgency)?;
            }
            let Err(error) = self.put() else { return Ok(()) };
            self.file = None;
            let path = self.segments.path(self.base);
            if tried {
                return Err(if is_full(&error) {
                    Error::full(length, error)
                } else {
                    Error::io(&path)(error)
                });
            }
            tried = true;
            if is_full(&error) && urgency == Urgency::Data {
                return Err(Error::full(length, error));
            }
            tracing::error!(file = %path.display(), %error, "journal: written again, to a new segment");
            measures::count(measures::REWRITTEN, 1);
        }
    }

    fn put(&mut self) -> std::io::Result<()> {
        let seal = Seal {
            position: self.position,
            durable: self.durable.load(Ordering::Relaxed),
            stream: self.opening.stream,
            boot: format::boot_of(&self.opening.boot),
            frames: self.waiting.frames,
        };
        format::seal_batch(&mut self.waiting.batch, &seal);
        let offset = SEGMENT_HEADER as u64 + (self.position - self.base);
        let Some(file) = &self.file else { unreachable!("it was just made") };
        faults::kill_at("edge.e1");
        self.segments.disk().write(file, &self.waiting.batch, offset)?;
        match self.segments.disk().sync(file) {
            Err(error) if !faults::is_broken("bad.ignore_eio") => return Err(error),
            _ => {}
        }
        faults::kill_at("edge.e2");
        self.position += self.waiting.batch.len() as u64;
        self.durable.store(self.position, Ordering::Release);
        if let Some((_, messages)) = self.messages_by_segment.back_mut() {
            *messages += self.waiting.messages;
        }
        Ok(())
    }

    /// What was written says how things stand.
    fn take_controls(&mut self) {
        for noted in &self.waiting.noted {
            for record in format::frames(&self.waiting.batch[noted.bytes.clone()]).flat_map(|f| f.records()) {
                match record {
                    Record::GivenUp { from, to } => self.segments.give_up(from, to),
                    Record::Seen(seen) => self.carried = self.carried.max(seen.below),
                    control => self.controls.take(control),
                }
            }
        }
    }

    /// Everything before is durable, so the new segment begins where it ends, with room for a batch of this length.
    fn begin_segment(&mut self, numbers: &[Numbers], length: usize, urgency: Urgency) -> Result<(), Error> {
        let at = self.position;
        let bytes = self.controls.snapshot(&self.opening, numbers, &self.segments.gaps(), at, at);
        let room = self.config.segment_bytes.max((SEGMENT_HEADER + bytes.len() + length) as u64);
        let mut made = self.create(&bytes, room, urgency);
        while matches!(made, Err(Error::Full { .. }))
            && (self.reclaim(true) || self.leave_reserve(room, urgency))
        {
            made = self.create(&bytes, room, urgency);
        }
        match made {
            Err(Error::Full { .. }) if urgency == Urgency::Control => {
                self.emergency(&bytes, (SEGMENT_HEADER + bytes.len() + length) as u64)?;
            }
            other => other?,
        }
        self.begun(at, bytes.len());
        Ok(())
    }

    fn begun(&mut self, base: u64, length: usize) {
        self.base = base;
        self.position = base + length as u64;
        self.durable.store(self.position, Ordering::Release);
        self.messages_by_segment.push_back((base, 0));
    }

    /// Makes the file of a segment at the position; once more, elsewhere on the disk, if that fails.
    pub(super) fn create(&mut self, bytes: &[u8], room: u64, urgency: Urgency) -> Result<(), Error> {
        if urgency == Urgency::Data {
            self.make_reserve()?;
            if !self.find_reserve() {
                let needed_bytes = room + self.config.reserve_bytes;
                return Err(Error::Full { needed_bytes, error: None });
            }
        }
        if self.over_budget(room) {
            return Err(Error::Full { needed_bytes: room, error: None });
        }
        let made = self.segments.create(self.position, bytes, room);
        let made = match made {
            Err(Error::Io { path, error }) if !is_full(&error) => {
                tracing::error!(file = %path.display(), %error, "journal: a segment is made once more");
                measures::count(measures::REWRITTEN, 1);
                self.segments.create(self.position, bytes, room)
            }
            other => other,
        };
        self.file = Some(made.map_err(|e| e.or_full(room))?);
        (self.room, self.in_reserve) = (room, false);
        Ok(())
    }

    /// The first segment of a process: behind the tail, which may not be durable, or further up.
    pub(super) fn open_segment(
        &mut self,
        tail: Vec<u8>,
        numbers: &[Numbers],
        begin_min: u64,
        newest: Option<(u64, u64)>,
    ) -> Result<(), Error> {
        let end = self.base + tail.len() as u64;
        let mut bytes = tail;
        if begin_min > end && !bytes.is_empty() {
            self.first(&bytes, bytes.len() as u64, newest)?;
            self.begun(self.base, bytes.len());
            bytes.clear();
        }
        let at = end.max(begin_min);
        (self.base, self.position) = (at - bytes.len() as u64, at - bytes.len() as u64);
        let gaps = self.segments.gaps();
        let snapshot = self.controls.snapshot(&self.opening, numbers, &gaps, at, self.base);
        bytes.extend_from_slice(&snapshot);
        self.first(&bytes, self.config.segment_bytes, newest)?;
        self.begun(self.base, bytes.len());
        if let Some((base, end)) = newest.filter(|(base, _)| *base != self.base) {
            self.segments.trim(base, end);
        }
        Ok(())
    }

    /// A start on a full disk takes what it can get.
    fn first(&mut self, bytes: &[u8], room: u64, newest: Option<(u64, u64)>) -> Result<(), Error> {
        let needed = (SEGMENT_HEADER + bytes.len()) as u64;
        let wanted = room.max(needed);
        self.find_reserve();
        match self.create(bytes, wanted, Urgency::Control) {
            Err(Error::Full { .. }) => {}
            other => return other,
        }
        if let Some((base, end)) = newest {
            self.segments.trim(base, end);
        }
        let budget = std::mem::take(&mut self.config.budget_bytes);
        let made = match self.create(bytes, needed, Urgency::Control) {
            Err(Error::Full { .. }) => self.use_reserve(bytes, needed),
            other => other,
        };
        self.config.budget_bytes = budget;
        made
    }

    /// Removes the segments that nobody needs any more; whether any went. A segment goes when all of it is
    /// acknowledged by Kafka (as a durable cursor says), the windows do not need it, and nothing in it is needed to
    /// recognise redeliveries: because it is proven, because as many came since as are remembered, or because a newer
    /// one tells ([`super::carry`]). `pressed`: the
    /// oldest goes even if it is to be kept for a replay.
    pub(super) fn reclaim(&mut self, pressed: bool) -> bool {
        let (mut any, mut open) = (false, true);
        let acknowledged = self.controls.cursor.position;
        let retain = if pressed { 0 } else { self.config.retain_bytes };
        for pair in self.segments.bases().windows(2) {
            let (base, end) = (pair[0], pair[1]);
            if end > acknowledged || end > self.needed_from {
                break;
            }
            let later: usize =
                self.messages_by_segment.iter().filter(|(b, _)| *b > base).map(|(_, n)| n).sum();
            let sent_again = end > self.controls.proven.max(self.carried) && later < MESSAGES_MAX;
            open &= !sent_again && acknowledged - end >= retain;
            if !open && self.segments.given_up(base).is_none() {
                continue;
            }
            if let Err(error) = self.segments.remove(base) {
                tracing::warn!(%error, "journal: a segment that nobody needs stays");
                break;
            }
            self.messages_by_segment.retain(|(b, _)| *b != base);
            any = true;
            if pressed {
                break;
            }
        }
        any
    }
}
