//! A machine of the model: a process on a disk, which ends as by `kill -9`.
//!
//! Guarantees: what it appends, commits and sends goes through the real journal, cursor, ranges and progress; only Kafka
//! itself is replaced, by what flies. Each look at the disk is held against the model.

use std::collections::HashSet;

use weir_shared::clock::Now;

use super::super::ranges::{Range, ticket_of};
use super::super::*;
use super::world::{Disk, Flying, Identity, Wire, World};
use crate::journal::controls::opens_stream;
use crate::journal::format::{FrameHead, Place, Record};
use crate::journal::reader::{Step, Why};
use crate::journal::writer::{Opening, Urgency};
use crate::journal::{Reader, Writer, WriterConfig, recover};

const NOW: Now = Now { wall_ms: 1_790_000_000_042, mono_ns: 0x1234_5678_0000, trusted: true };
const HEAD: FrameHead = FrameHead { session: 7, packet: 0, digest: 0, arrived: NOW };
const TOPICS: Partitions = [2, 2, 1, 1, 1];
const SIZES: WriterConfig =
    WriterConfig { segment_bytes: 1500, budget_bytes: 0, retain_bytes: 0, reserve_bytes: 0 };
/// A process on a disk.
pub(super) struct Machine {
    pub(super) disk: Disk,
    writer: Writer,
    forwarder: Forwarder,
    notes: Receiver<Event>,
    ranges: Ranges,
    wire: Wire,
    /// All below is in the model.
    looked: u64,
    /// Values that wait for a commit.
    waiting: HashSet<u64>,
}

impl Machine {
    /// As the pipeline does it.
    pub(super) fn start(disk: Disk, world: &mut World) -> Self {
        let segments = Segments::open(&disk.folder).unwrap();
        let mut found = recover(&segments).unwrap();
        assert_eq!(found.damage, []);
        found.controls.topics = Some(TOPICS);
        let (position, cursor) = (found.end(), found.controls.cursor.clone());
        let opening = Opening { stream: world.draw_stream(), boot: [9; 16], now: NOW };
        let writer = Writer::open(segments.clone(), SIZES, opening, found).unwrap();
        let (events, notes) = flume::unbounded();
        let wiring = Wiring {
            pulse: weir_shared::pulse::Pulse::default(),
            lane: 0,
            flow: String::new(),
            who: String::new(),
            events,
            wake: flume::bounded(1).1,
            durable: writer.durable(),
            segments: segments.clone(),
            clocks: Clocks::default(),
            ready: Health::default(),
        };
        let live_first = world.live_first;
        let start = Start { stream: opening.stream, position, topics: Some(TOPICS), cursor, live_first };
        let forwarder = Forwarder::new(config(), wiring, start);
        let ranges = Ranges::new(&segments, &forwarder.bounds, &forwarder.prefixes);
        let (wire, waiting, looked) = (Wire::new(), HashSet::new(), writer.position());
        Self { disk, writer, forwarder, notes, ranges, wire, looked, waiting }
    }

    /// The process ends as by kill -9.
    pub(super) fn stop(&mut self, world: &mut World) -> Disk {
        world.late.push(std::mem::take(&mut self.wire));
        std::mem::take(&mut self.disk)
    }

    fn new_value(&mut self, world: &mut World) -> String {
        world.values += 1;
        self.waiting.insert(world.values);
        format!("{:040}", world.values)
    }

    pub(super) fn append(&mut self, count: usize, world: &mut World) {
        for _ in 0..count {
            let value = self.new_value(world);
            let kind = if world.values.is_multiple_of(3) { Sent::Rejection } else { Sent::Reading };
            let place = self.writer.place(kind, &world.values.to_le_bytes()).unwrap();
            let record = Record::Sent { place, closing: false, key: b"k", value: value.as_bytes() };
            self.writer.message(&HEAD, std::iter::once(record));
        }
    }

    /// A record of the edge's own.
    fn urgent(&mut self, place: Place, closing: bool, world: &mut World) {
        let value = self.new_value(world);
        let record = Record::Sent { place, closing, key: b"", value: value.as_bytes() };
        self.writer.urgent(std::iter::once(record), NOW);
    }

    pub(super) fn commit(&mut self, urgency: Urgency, world: &mut World) {
        self.writer.commit(urgency).unwrap();
        self.look(world);
        assert!(urgency == Urgency::Control || self.waiting.is_empty(), "not written: {:?}", self.waiting);
    }

    /// Under which numbers what was committed stands.
    fn look(&mut self, world: &mut World) {
        let mut reader = Reader::new(self.writer.segments().clone(), self.looked);
        while let Some(step) = reader.next(self.writer.position()).unwrap() {
            let Step::Batch(batch) = step else { panic!("{step:?}") };
            for (identity, value, _) in
                batch.frames().flat_map(|f| f.records()).filter_map(|r| sent(batch.stream, &r))
            {
                assert!(self.waiting.remove(&value), "{value} was not appended");
                let first = *world.numbered.entry(identity).or_insert(value);
                assert_eq!(first, value, "two values are {identity:?}");
                self.disk.stands.insert(identity);
            }
        }
        self.looked = self.writer.position();
    }

    pub(super) fn send(&mut self, mut batches: usize) {
        let durable = self.writer.durable().load(Ordering::Acquire);
        for range in self.ranges.newest_first() {
            while batches > 0 && read(range, durable, &mut self.wire) {
                batches -= 1;
            }
        }
    }

    /// `counts`: how many arrive in a partition, and of how many that is known.
    pub(super) fn arrive(&mut self, mut counts: impl FnMut() -> (usize, usize), world: &mut World) {
        for flying in self.wire.values_mut() {
            let (arrive, known) = counts();
            for sent in flying.iter_mut().take(arrive).filter(|sent| !sent.arrived) {
                sent.arrived = true;
                world.arrive(sent.identity, sent.value);
            }
            let known = flying.iter().take(known).take_while(|sent| sent.arrived).count();
            for sent in flying.drain(..known) {
                let (stream, place) = self.ranges.acknowledged(sent.ticket).unwrap();
                assert_eq!(((stream, place.kind, place.partition), place.number), sent.identity);
            }
        }
    }

    /// As the lane journals the forwarder's notes.
    pub(super) fn cursor(&mut self, world: &mut World) {
        self.forwarder.note_cursor(&mut self.ranges, &mut clock::instant()).unwrap();
        while let Ok(Event::Lane(_, note)) = self.notes.try_recv() {
            let (cursor, done) = match note {
                Note::Cursor { cursor, done } => (cursor, done),
                // Nothing is ever damaged here.
                other => panic!("{other:?}"),
            };
            for Acknowledged { stream, next } in done {
                assert_ne!(stream, self.writer.stream(), "it goes on");
                let line = (stream, next.kind, next.partition);
                let mut open = self.disk.stands.range((line, 0)..=(line, u64::MAX));
                let is_done = |id: &_| world.seen.contains(id) || self.disk.given_up.contains(id);
                assert!(open.all(is_done), "closed too early: {line:?}");
                let place = self.writer.place_in(next.kind, next.partition).unwrap();
                self.urgent(place, true, world);
            }
            self.writer.cursor(cursor, NOW);
        }
        self.writer.proven(self.writer.position(), NOW);
    }

    pub(super) fn new_producer(&mut self, split: bool, world: &mut World) {
        world.late.push(std::mem::take(&mut self.wire));
        let bounds = &mut self.forwarder.bounds;
        if split && world.live_first && bounds.len() < RANGES_MAX {
            let position = self.writer.open_stream(world.draw_stream(), NOW).unwrap();
            bounds.last_mut().unwrap().end = position;
            bounds.push(Bounds { position, end: u64::MAX });
            self.look(world);
        }
        let Forwarder { bounds, prefixes, .. } = &self.forwarder;
        self.ranges = Ranges::new(self.writer.segments(), bounds, prefixes);
    }

    pub(super) fn give_up(&mut self, world: &mut World) {
        let Some(plan) = self.writer.plan_give_up().unwrap() else { return };
        for _ in &plan.ranges {
            let place = self.writer.place(Sent::Gap, b"edge").unwrap();
            self.urgent(place, false, world);
        }
        for identity in &self.disk.stands {
            let ((stream, kind, partition), number) = *identity;
            if plan.holds(stream, &Place { kind, partition, number }) {
                self.disk.given_up.insert(*identity);
                world.given_up.insert(*identity);
            }
        }
        self.writer.give_up(plan, NOW).unwrap();
        self.look(world);
    }

    /// Until nothing is left to be sent: one more value, and what its cursor closes.
    pub(super) fn drain(&mut self, world: &mut World) {
        self.append(1, world);
        self.commit(Urgency::Data, world);
        let mut stood = 0;
        while stood < self.disk.stands.len() {
            stood = self.disk.stands.len();
            self.send(usize::MAX);
            self.arrive(|| (usize::MAX, usize::MAX), world);
            self.cursor(world);
            self.commit(Urgency::Data, world);
        }
        let own = |a: &Acknowledged| a.stream == self.writer.stream();
        assert!(self.forwarder.prefixes.iter().all(own), "streams pile up: {:?}", self.forwarder.prefixes);
        let here = self.disk.stands.difference(&self.disk.given_up);
        let never: Vec<_> = here.filter(|identity| !world.seen.contains(identity)).collect();
        assert!(never.is_empty(), "never sent: {never:?}");
    }
}

fn config() -> KafkaConfig {
    KafkaConfig {
        edge: String::new(),
        brokers: String::new(),
        partitions: 0,
        linger_ms: 0,
        compression: "none",
        in_flight_records_max: 0,
        record_bytes_max: 0,
        cursor: Duration::ZERO,
        bytes_per_s_max: 0,
        security: weir_shared::kafka_security::Security::default(),
        options: Vec::new(),
    }
}

/// What a record to be sent is, its value, and whether it closes a stream.
fn sent(stream: StreamId, record: &Record<'_>) -> Option<(Identity, u64, bool)> {
    let Record::Sent { place, closing, value, .. } = record else { return None };
    let value = std::str::from_utf8(value).unwrap().parse().unwrap();
    Some((((stream, place.kind, place.partition), place.number), value, *closing))
}

/// As [`Forwarder::read`] does it, but for what needs Kafka.
fn read(range: &mut Range, durable: u64, wire: &mut Wire) -> bool {
    let durable = range.durable(durable);
    let Range { reader, progress, slot, .. } = range;
    let batch = match reader.next(durable).unwrap() {
        None => {
            progress.caught_up();
            return false;
        }
        Some(Step::Skipped { to, why, .. }) => {
            assert_eq!(why, Why::GivenUp);
            progress.skipped(to, true);
            return true;
        }
        Some(Step::Batch(batch)) => batch,
    };
    progress.batch(batch.end(), batch.stream, opens_stream(&batch));
    for record in batch.frames().flat_map(|frame| frame.records()) {
        if let Record::Numbers(numbers) = &record {
            progress.numbered(numbers.stream, &numbers.next);
        }
        let Some((identity, value, closing)) = sent(batch.stream, &record) else { continue };
        let ((_, kind, partition), number) = identity;
        if let Some(ticket) = progress.sending(Place { kind, partition, number }, closing) {
            let flying = Flying { identity, value, ticket: ticket_of(*slot, ticket), arrived: false };
            wire.entry((kind, partition)).or_default().push_back(flying);
        }
    }
    true
}
