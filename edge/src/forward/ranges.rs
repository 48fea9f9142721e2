//! The ranges of the journal that are sent side by side: one, or, live first, the newest stream and what lies before it.
//!
//! Comes in: what is acknowledged of each range. Goes out: which range a ticket belongs to, one cursor for all.
//! Guarantees: a range begins where a stream begins, so every stream lies in one range and goes out in order; the
//! cursor's position is that of the oldest range. Pure but for the readers' files.

use std::collections::VecDeque;

use weir_shared::record::StreamId;

use super::progress::{Progress, TICKETS};
use crate::events::Missing;
use crate::journal::format::{Acknowledged, Cursor, Place};
use crate::journal::{Reader, Segments};

/// Most ranges at a time; as many bits of a ticket say which.
pub(super) const RANGES_MAX: usize = 7;

/// Where a range begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// All below is acknowledged.
    pub(super) position: u64,
    /// Where the next range begins; `u64::MAX` for the newest.
    pub(super) end: u64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) slot: usize,
    bounds: Bounds,
    pub(super) reader: Reader,
    pub(super) progress: Progress,
}

impl Range {
    /// What is durable of it.
    pub(super) fn durable(&self, durable: u64) -> u64 {
        durable.min(self.bounds.end)
    }

    /// Whether newer records are sent before it.
    pub(super) const fn is_backlog(&self) -> bool {
        self.bounds.end != u64::MAX
    }
}

/// A ticket that also says which range it belongs to.
pub(super) const fn ticket_of(slot: usize, ticket: usize) -> usize {
    ticket | slot << TICKETS.count_ones()
}

/// All of them, oldest first.
#[derive(Debug)]
pub(super) struct Ranges {
    list: VecDeque<Range>,
    finished: Vec<Acknowledged>,
}

impl Ranges {
    /// Goes on from `bounds`, of which there is at least one; what a cursor counts as acknowledged is left out.
    pub(super) fn new(segments: &Segments, bounds: &[Bounds], prefixes: &[Acknowledged]) -> Self {
        let range = |(slot, bounds): (usize, &Bounds)| {
            let cursor = Cursor { position: bounds.position, prefixes: prefixes.to_vec() };
            let reader = Reader::new(segments.clone(), bounds.position);
            Range { slot, bounds: *bounds, reader, progress: Progress::new(&cursor, slot == 0) }
        };
        Self { list: bounds.iter().enumerate().map(range).collect(), finished: Vec::new() }
    }

    /// Newest first: that is how they are filled.
    pub(super) fn newest_first(&mut self) -> impl Iterator<Item = &mut Range> {
        self.list.iter_mut().rev()
    }

    /// Records sent and not acknowledged.
    pub(super) fn in_flight(&self) -> usize {
        self.list.iter().map(|range| range.progress.in_flight()).sum()
    }

    /// What a ticket stands for.
    pub(super) fn place(&self, ticket: usize) -> Option<(StreamId, Place)> {
        let slot = ticket >> TICKETS.count_ones();
        self.list.iter().find(|range| range.slot == slot)?.progress.place(ticket & TICKETS)
    }

    /// Whether a ticket stands for a control record.
    pub(super) fn is_closing(&self, ticket: usize) -> bool {
        let slot = ticket >> TICKETS.count_ones();
        self.list.iter().any(|range| range.slot == slot && range.progress.is_closing(ticket & TICKETS))
    }

    /// A record is acknowledged.
    pub(super) fn acknowledged(&mut self, ticket: usize) -> Option<(StreamId, Place)> {
        let slot = ticket >> TICKETS.count_ones();
        self.list.iter_mut().find(|range| range.slot == slot)?.progress.acknowledged(ticket & TICKETS)
    }

    /// Whether anything was acknowledged since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        self.list.iter_mut().fold(false, |news, range| range.progress.take_news() | news)
    }

    /// Numbers found missing since this was last asked.
    pub(super) fn take_missing(&mut self) -> Vec<Missing> {
        self.list.iter_mut().flat_map(|range| range.progress.take_missing()).collect()
    }

    /// One cursor for all, where each range is, and the lines of streams that are done.
    pub(super) fn cursor(&mut self) -> (Cursor, Vec<Bounds>, Vec<Acknowledged>) {
        let mut prefixes = Vec::new();
        let mut done = std::mem::take(&mut self.finished);
        for range in &mut self.list {
            let (cursor, mut streams) = range.progress.cursor();
            range.bounds.position = cursor.position;
            prefixes.extend(cursor.prefixes);
            done.append(&mut streams);
        }
        while self.list.front().is_some_and(|oldest| oldest.bounds.position >= oldest.bounds.end) {
            let streams = self.list.pop_front().map(|range| range.progress.finish()).unwrap_or_default();
            prefixes.retain(|prefix| !streams.contains(prefix));
            done.extend(streams);
        }
        // Every range was given the prefixes of all streams.
        prefixes.sort_by_key(|a| (a.stream, a.next.kind, a.next.partition, std::cmp::Reverse(a.next.number)));
        prefixes.dedup_by_key(|a| (a.stream, a.next.kind, a.next.partition));
        done.retain(|d| !prefixes.iter().any(|p| p.stream == d.stream));
        let position = self.list.front().map_or(0, |oldest| oldest.bounds.position);
        let bounds = self.list.iter().map(|range| range.bounds).collect();
        (Cursor { position, prefixes }, bounds, done)
    }
}
