//! The budget on disk, and the reserve beside it: a file of fixed size that becomes a segment when there is no other room.
//!
//! Guarantees: data never uses the reserve; urgent frames, which free room, may, and once that is used up a small segment
//! beyond the budget.
//! On failure: [`Error::Full`], and the reserve is as it was or gone.

use std::path::PathBuf;

use super::super::disk::is_full;
use super::super::format::SEGMENT_HEADER;
use super::super::{Error, measures};
use super::Writer;
use super::commit::Urgency;

/// What is no journal counts in the budget up to this part of it: more would leave nothing for data.
pub(crate) const OTHER_SHARE: u64 = 4;
/// Room for more urgent frames in a segment beyond the budget.
const BEYOND_BYTES: u64 = 1 << 16;
/// The file of the reserve.
const RESERVE: &str = "reserve.wjr";

impl Writer {
    const fn budget(&self) -> u64 {
        if self.config.budget_bytes == 0 { u64::MAX } else { self.config.budget_bytes }
    }

    pub(super) fn over_budget(&self, bytes: u64) -> bool {
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
    pub(super) fn find_reserve(&self) -> bool {
        let bytes = self.config.reserve_bytes;
        if self.segments.reserve_bytes() < bytes {
            let there = std::fs::metadata(self.reserve_path()).is_ok_and(|m| m.is_file() && m.len() == bytes);
            self.segments.reserved(if there { bytes } else { 0 });
        }
        self.segments.reserve_bytes() >= bytes
    }

    /// A segment for urgent frames: the reserve; or, once that is used up and only the budget is, not the disk, a small
    /// one beyond the budget: what the frames let go is more, and without them nothing would ever go.
    pub(super) fn emergency(&mut self, bytes: &[u8], needed: u64) -> Result<(), Error> {
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
    pub(super) fn leave_reserve(&mut self, bytes: u64, urgency: Urgency) -> bool {
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
    pub(super) fn use_reserve(&mut self, bytes: &[u8], needed: u64) -> Result<(), Error> {
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
}
