//! Making durable what waits, and the files for it.
//!
//! Comes in: what waits, and how urgent it is. Goes out: the durable position. Guarantees: one batch, one fsync; what a
//! commit returned is on disk, in order, and nothing that was not committed says how things stand.
//! On failure: after a failed write or fsync the file is never written again; everything since the last good fsync
//! (that is the batch at hand) goes into a new segment at the last durable position, once. If that fails too, the error
//! is for the process to end by, with nothing acknowledged. A full disk or budget is [`Error::Full`]: everything waits
//! as it was, and the next commit tries again; urgent frames may go ahead, into the reserve.

use std::path::PathBuf;
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

/// What is no journal counts in the budget up to this part of it: more would leave nothing for data.
pub(crate) const OTHER_SHARE: u64 = 4;
/// Room for more urgent frames in a segment beyond the budget.
const BEYOND_BYTES: u64 = 1 << 16;
/// The file of the reserve.
const RESERVE: &str = "reserve.wjr";

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
    fn create(&mut self, bytes: &[u8], room: u64, urgency: Urgency) -> Result<(), Error> {
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

    const fn budget(&self) -> u64 {
        if self.config.budget_bytes == 0 { u64::MAX } else { self.config.budget_bytes }
    }

    fn over_budget(&self, bytes: u64) -> bool {
        let other = self.other_bytes.min(self.budget() / OTHER_SHARE);
        (self.segments.budgeted_bytes() + other).saturating_add(bytes) > self.budget()
    }

    fn reserve_path(&self) -> PathBuf {
        self.segments.dir().join(RESERVE)
    }

    /// Makes the reserve if it is not there and there is room.
    pub(super) fn make_reserve(&mut self) -> Result<(), Error> {
        let bytes = self.config.reserve_bytes;
        if self.find_reserve() || self.over_budget(bytes) {
            return Ok(());
        }
        let path = self.reserve_path();
        match self.segments.disk().create(&path, bytes) {
            Ok(_) => {
                self.segments.reserved(bytes);
                Ok(())
            }
            Err(error) if is_full(&error) => Ok(()),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Whether the reserve is there, in its full size.
    fn find_reserve(&self) -> bool {
        let bytes = self.config.reserve_bytes;
        if self.segments.reserve_bytes() < bytes {
            let there = std::fs::metadata(self.reserve_path()).is_ok_and(|m| m.is_file() && m.len() == bytes);
            self.segments.reserved(if there { bytes } else { 0 });
        }
        self.segments.reserve_bytes() >= bytes
    }

    /// A segment for urgent frames: the reserve; or, once that is used up and only the budget is, not the disk, a small
    /// one beyond the budget: what the frames let go is more, and without them nothing would ever go.
    fn emergency(&mut self, bytes: &[u8], needed: u64) -> Result<(), Error> {
        match self.use_reserve(bytes, needed) {
            Err(Error::Full { .. }) => {}
            other => return other,
        }
        let budget = std::mem::take(&mut self.config.budget_bytes);
        let made = self.create(bytes, needed + BEYOND_BYTES.min(self.config.segment_bytes), Urgency::Control);
        self.config.budget_bytes = budget;
        made?;
        self.in_reserve = true;
        tracing::warn!(bytes = needed, "journal: beyond its budget, to make room");
        Ok(())
    }

    /// Gives back what the segment in the reserve has not used, if that makes room in the budget for this much data.
    fn leave_reserve(&mut self, bytes: u64, urgency: Urgency) -> bool {
        let used = SEGMENT_HEADER as u64 + self.position - self.base;
        let spare = self.room.saturating_sub(used);
        if urgency != Urgency::Data || !self.in_reserve || spare == 0 {
            return false;
        }
        let reserve = if self.find_reserve() { 0 } else { self.config.reserve_bytes };
        if self.over_budget((bytes + reserve).saturating_sub(spare)) {
            return false;
        }
        self.segments.trim(self.base, self.position);
        self.room = used;
        true
    }

    /// The reserve becomes a segment.
    fn use_reserve(&mut self, bytes: &[u8], needed: u64) -> Result<(), Error> {
        let path = self.reserve_path();
        let room = self.segments.reserve_bytes();
        if room < needed {
            return Err(Error::Full { needed_bytes: needed, error: None });
        }
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(Error::io(&path))?;
        self.segments.reserved(0);
        let made = self.segments.finish(&path, file, self.position, bytes, room);
        if made.is_err() {
            self.segments.disk().remove(&path).map_err(Error::io(&path))?;
        }
        self.file = Some(made.map_err(|e| e.or_full(needed))?);
        (self.room, self.in_reserve) = (room, true);
        measures::count(measures::RESERVE_USED, 1);
        tracing::warn!(bytes = room, "journal: full; the reserve is in use");
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
