//! The one writer of the journal.
//!
//! Comes in: frames, then the wish to commit. Goes out: the durable position. Guarantees: what [`Writer::commit`]
//! returned is on disk; a stream id is drawn anew at each start (and where the caller opens another stream) and
//! fsynced before its first record; what a segment says of how things stand was written before it, never only with
//! what still waits. Two kinds of frames wait: *data*, and *urgent* ones that free room (cursor, proofs, gaps, results),
//! which a full disk takes ahead of the data, into the reserve if need be.
//! On failure: see [`commit`].

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::controls::Controls;
use super::format::{
    Acknowledged, BATCH_HEADER, Correction, Cursor, FrameHead, Partitions, Place, Record, Sent,
};
use super::numbering::Numbering;
use super::{Error, Recovered, Segments};

mod carry;
mod commit;
pub(crate) mod overflow;
pub(crate) mod reserve;
mod waiting;

pub(crate) use commit::Urgency;
use overflow::Bump;
pub(crate) use overflow::{GivenUp, Range as GivenUpRange};
use waiting::Waiting;

/// Sizes of the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterConfig {
    /// Preallocated size of a segment.
    pub segment_bytes: u64,
    /// Most bytes of segments and reserve; 0 for as many as the disk has.
    pub budget_bytes: u64,
    /// At least so much that is acknowledged is kept, to be replayed, as long as there is room.
    pub retain_bytes: u64,
    /// Preallocated for urgent frames when the disk is full; 0 for none.
    pub reserve_bytes: u64,
}

/// Who opens the stream, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// The new stream.
    pub stream: StreamId,
    /// Boot id of the machine.
    pub boot: [u8; 16],
    /// When.
    pub now: Now,
}

/// Appends and commits.
#[derive(Debug)]
pub(crate) struct Writer {
    segments: Segments,
    config: WriterConfig,
    opening: Opening,
    /// As of what is written.
    controls: Controls,
    numbering: Numbering,
    /// `None` when the file can be trusted no more: the next batch goes into a new one.
    file: Option<File>,
    base: u64,
    room: u64,
    /// The file was the reserve, or is beyond the budget: its room is for urgent frames.
    in_reserve: bool,
    position: u64,
    durable: Arc<AtomicU64>,
    waiting: Waiting,
    messages_by_segment: VecDeque<(u64, usize)>,
    needed_from: u64,
    /// Segments that end at or below it are not needed to recognise redeliveries: newer ones tell. The same of what waits.
    carried: u64,
    carrying: u64,
    /// When the last frame was appended.
    now: Now,
    other_bytes: u64,
    /// The last cursor that was appended, and what was given up above the forwarder's.
    cursor: Cursor,
    bump: Option<Bump>,
}

impl Writer {
    /// Opens the stream in a new segment, behind the tail that was recovered. A full disk does not hinder it as long
    /// as the reserve is there.
    pub(crate) fn open(
        segments: Segments,
        config: WriterConfig,
        opening: Opening,
        recovered: Recovered,
    ) -> Result<Self, Error> {
        let Recovered { durable: base, tail, controls, read, numbers, begin_min, newest, .. } = recovered;
        let topics = controls.topics;
        let mut writer = Self {
            file: None,
            config,
            opening,
            cursor: controls.cursor.clone(),
            controls,
            numbering: Numbering::new(opening.stream, topics),
            base,
            room: 0,
            in_reserve: false,
            position: base,
            durable: Arc::new(AtomicU64::new(base)),
            waiting: Waiting::new(),
            messages_by_segment: read.into_iter().filter(|(b, _)| *b != base).collect(),
            needed_from: u64::MAX,
            carried: 0,
            carrying: 0,
            now: opening.now,
            other_bytes: 0,
            bump: None,
            segments,
        };
        let numbers: Vec<_> = numbers.into_iter().collect();
        writer.open_segment(tail, &numbers, begin_min, newest)?;
        writer.make_reserve()?;
        Ok(writer)
    }

    /// Where the next batch will begin, once all before it is durable.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The stream that is numbered now.
    #[cfg(test)]
    pub(crate) const fn stream(&self) -> StreamId {
        self.opening.stream
    }

    /// The durable position, for readers.
    pub(crate) fn durable(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.durable)
    }

    /// How things stand, as of what is written.
    pub(crate) const fn controls(&self) -> &Controls {
        &self.controls
    }

    /// The files.
    pub(crate) const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Bytes on disk: segments, reserve, and what was set aside.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.bytes()
    }

    /// Bytes written by this process.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.segments.disk().written_bytes()
    }

    /// Where the journal begins.
    #[cfg(test)]
    pub(crate) fn oldest(&self) -> u64 {
        self.segments.next_base(0).unwrap_or(self.base)
    }

    /// Bytes that wait for the next commit.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.batch.len() - BATCH_HEADER
    }

    /// The place of the next record of this kind; `None` while the partition count is not known. Each place must be
    /// appended before the next commit, in the order in which they were given out.
    pub(crate) fn place(&mut self, kind: Sent, key: &[u8]) -> Option<Place> {
        self.numbering.place(kind, key)
    }

    /// The same in a partition that the caller knows.
    pub(crate) fn place_in(&mut self, kind: Sent, partition: u32) -> Option<Place> {
        self.numbering.place_in(kind, partition)
    }

    /// Appends the frame of one message with its records.
    pub(crate) fn message<'r>(&mut self, head: &FrameHead, records: impl Iterator<Item = Record<'r>>) {
        self.now = head.arrived;
        self.waiting.frame(head, false, records);
    }

    /// Appends a frame of the edge's own that does not wait for data when the disk is full.
    pub(crate) fn urgent<'r>(&mut self, records: impl Iterator<Item = Record<'r>>, now: Now) {
        self.now = now;
        self.waiting.frame(&own(now), true, records);
    }

    /// Notes the source's session.
    pub(crate) fn session(&mut self, session: u64, subscriptions: u64, now: Now) {
        self.data(Record::Session { session, subscriptions }, now);
    }

    /// Notes the partition counts.
    pub(crate) fn topics(&mut self, topics: Partitions, now: Now) {
        self.numbering.topics(topics);
        self.data(Record::Topics(topics), now);
    }

    /// Notes that only time has passed.
    pub(crate) fn tick(&mut self, now: Now) {
        self.data(Record::Tick, now);
    }

    /// Notes the window rules from here on.
    pub(crate) fn rules(&mut self, text: &str, now: Now) {
        self.data(Record::Rules(text), now);
    }

    /// Notes that a source is there again.
    pub(crate) fn resumed(&mut self, now: Now) {
        self.data(Record::Resumed, now);
    }

    /// Notes how the untrusted times of a boot are to be read.
    pub(crate) fn clock(&mut self, correction: Correction, now: Now) {
        self.data(Record::Clock(correction), now);
    }

    /// Notes how far the forwarder is. It never goes back behind what was given up.
    pub(crate) fn cursor(&mut self, cursor: Cursor, now: Now) {
        let cursor = self.merged(cursor);
        self.cursor = cursor.clone();
        self.urgent(std::iter::once(Record::Cursor(cursor)), now);
    }

    /// Notes that no source will send again what stands below this position.
    pub(crate) fn proven(&mut self, position: u64, now: Now) {
        self.urgent(std::iter::once(Record::Proven(position)), now);
    }

    /// Appends results, and that they are those over all batches that end at or below `position`.
    pub(crate) fn results<'r>(&mut self, records: impl Iterator<Item = Record<'r>>, position: u64, now: Now) {
        self.urgent(records.chain(std::iter::once(Record::Results(position))), now);
    }

    /// Whether urgent frames wait.
    pub(crate) const fn urgent_waits(&self) -> bool {
        self.waiting.urgent > 0
    }

    /// How much a full disk always has room for.
    pub(crate) const fn reserve_bytes(&self) -> u64 {
        self.config.reserve_bytes
    }

    /// The windows still need the journal from here on; `u64::MAX` for not at all.
    pub(crate) const fn needed_from(&mut self, position: u64) {
        self.needed_from = position;
    }

    /// What counts in the budget beside the journal's own files.
    pub(crate) const fn other_bytes(&mut self, bytes: u64) {
        self.other_bytes = bytes;
    }

    /// What is durable and not acknowledged.
    pub(crate) const fn held_bytes(&self) -> u64 {
        self.position.saturating_sub(self.controls.cursor.position)
    }

    /// Breaks the promise that what waits is kept: for the fault tests alone.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    fn data(&mut self, record: Record<'_>, now: Now) {
        self.now = now;
        self.waiting.frame(&own(now), false, std::iter::once(record));
    }

    /// The forwarder's cursor may be older than what was given up.
    fn merged(&mut self, mut cursor: Cursor) -> Cursor {
        self.bump = self.bump.take().filter(|bump| cursor.position < bump.position);
        let Some(bump) = &self.bump else { return cursor };
        cursor.position = bump.position;
        merge(&mut cursor.prefixes, &bump.prefixes);
        cursor
    }
}

/// The higher one of each line.
fn merge(prefixes: &mut Vec<Acknowledged>, others: &[Acknowledged]) {
    for other in others {
        let line = |a: &Acknowledged| (a.stream, a.next.kind, a.next.partition);
        match prefixes.iter_mut().find(|a| line(a) == line(other)) {
            Some(known) => known.next.number = known.next.number.max(other.next.number),
            None => prefixes.push(*other),
        }
    }
}

/// Head of a frame of the edge's own.
const fn own(now: Now) -> FrameHead {
    FrameHead { session: 0, packet: 0, digest: 0, arrived: now }
}
