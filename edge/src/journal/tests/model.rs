//! Random lives of a journal against a model: appends, commits, acknowledgements, failures, crashes at any operation of
//! the disk, full disks, giving up, restarts.
//!
//! What must hold: a commit that went well stands for ever, in order, none twice, none altered, until it is acknowledged
//! or given up; numbers have no gap; what was given up is what the plan said; a commit that failed stands whole or not
//! at all; the cursor never goes back; every start succeeds (with room), and knows every message that stood and was not
//! proven, whatever became of its segment.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

mod stands;

use stands::{Stands, same};

use super::faults::{Failure, Faults};
use super::*;
use crate::journal::disk::Disk;

type Line = (StreamId, Sent, u32);
/// Values, and whether each is urgent.
type Order = Vec<(String, bool)>;

#[derive(Clone, Copy, Debug)]
enum Op {
    Data(usize),
    Urgent,
    Commit(bool),
    /// Kafka has acknowledged this many of the batches behind the cursor, and one line further.
    Acknowledge(usize),
    Proven,
    OpenStream,
    GiveUp,
    Fail(u32, Failure),
    Full(bool),
    /// The machine goes down in so many operations, or now.
    Crash(Option<u32>, u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let failure = prop_oneof![Just(Failure::Once), Just(Failure::NoRoom)];
    prop_oneof![
        8 => (1usize..200).prop_map(Op::Data),
        3 => Just(Op::Urgent),
        8 => any::<bool>().prop_map(Op::Commit),
        3 => (1usize..6).prop_map(Op::Acknowledge),
        2 => Just(Op::Proven),
        1 => Just(Op::OpenStream),
        2 => Just(Op::GiveUp),
        2 => (0u32..12, failure).prop_map(|(after, failure)| Op::Fail(after, failure)),
        1 => any::<bool>().prop_map(Op::Full),
        2 => (prop::option::of(0u32..12), any::<u64>()).prop_map(|(after, random)| Op::Crash(after, random)),
        1 => Just(Op::Restart),
    ]
}

/// Nothing but what waits for room: among all else it comes to that too seldom.
fn op_without_room() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1usize..200).prop_map(Op::Data),
        3 => Just(Op::Urgent),
        6 => any::<bool>().prop_map(Op::Commit),
        2 => (0u32..6).prop_map(|after| Op::Fail(after, Failure::NoRoom)),
        3 => prop::bool::weighted(0.7).prop_map(Op::Full),
    ]
}

struct Life {
    folder: Folder,
    faults: Faults,
    config: WriterConfig,
    segments: Segments,
    writer: Writer,
    streams: u8,
    values: u64,
    /// In order; what may be gone was acknowledged or given up.
    stands: Vec<Stands>,
    may_be_gone: BTreeSet<String>,
    next: HashMap<Line, u64>,
    /// In each order that it may have: a commit that found no room may have moved to the front what is urgent.
    waiting: Vec<Order>,
    /// What commits that failed tried to write, and where, as long as nothing else came there.
    tried: Vec<(u64, Vec<String>)>,
    random: u64,
    cursor: u64,
    /// Packet identifier of each value that came as a message.
    packets: HashMap<String, u16>,
}

impl Life {
    fn new(config: WriterConfig) -> Self {
        let folder = Folder::new(&format!("model-{:?}", std::thread::current().id()));
        let faults = Faults::new(&folder.0.join("side"));
        let segments = Segments::open_on(&folder.0, Disk::with(faults.clone())).unwrap();
        let mut writer = Writer::open(segments.clone(), config, opening(1), Recovered::default()).unwrap();
        writer.topics(TOPICS, NOW);
        writer.session(7, 0, NOW);
        commit(&mut writer);
        Self {
            folder,
            faults,
            config,
            segments,
            writer,
            streams: 1,
            values: 0,
            stands: Vec::new(),
            may_be_gone: BTreeSet::new(),
            next: HashMap::new(),
            waiting: vec![Order::new()],
            tried: Vec::new(),
            random: 1,
            cursor: 0,
            packets: HashMap::new(),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Data(length) => self.append(length, false),
            Op::Urgent => self.append(20, true),
            Op::Commit(data) => drop(self.commit(if data { Urgency::Data } else { Urgency::Control })),
            Op::Acknowledge(batches) => self.acknowledge(batches),
            Op::Proven => self.writer.proven(self.writer.position(), NOW),
            Op::OpenStream => self.open_stream(),
            Op::GiveUp => self.give_up(),
            Op::Fail(after, failure) => self.faults.fail_after(after, failure),
            Op::Full(full) => self.faults.full(full),
            Op::Crash(Some(after), random) => {
                self.random = random;
                self.faults.fail_after(after, Failure::Crash);
            }
            Op::Crash(None, random) => self.crash(Some(random)),
            Op::Restart => self.crash(None),
        }
    }

    fn append(&mut self, length: usize, urgent: bool) {
        self.values += 1;
        let value = format!("{:0length$}", self.values);
        // Both kinds of frames share lines, so that their numbers get mixed.
        let kind = if self.values.is_multiple_of(3) { Sent::Rejection } else { Sent::Reading };
        let place = self.writer.place(kind, &self.values.to_le_bytes()).unwrap();
        let records =
            std::iter::once(Record::Sent { place, closing: false, key: b"k", value: value.as_bytes() });
        if urgent {
            self.writer.urgent(records, NOW);
        } else {
            let packet = u16::try_from(self.values).unwrap();
            self.writer.message(
                &FrameHead { session: 7, packet, digest: self.values.into(), arrived: NOW },
                records,
            );
            self.packets.insert(value.clone(), packet);
        }
        self.waiting.iter_mut().for_each(|order| order.push((value.clone(), urgent)));
    }

    /// Whether it went well.
    fn commit(&mut self, urgency: Urgency) -> bool {
        let result = self.writer.commit(urgency).map(|_| ());
        self.committed(urgency, result)
    }

    /// What is urgent may have gone ahead, when there was no room at first.
    fn committed(&mut self, urgency: Urgency, result: Result<(), Error>) -> bool {
        for mut ahead in self.waiting.clone() {
            ahead.sort_by_key(|(_, urgent)| !urgent);
            if !self.waiting.contains(&ahead) {
                self.waiting.push(ahead);
            }
        }
        let urgent = values(self.waiting[0].iter().filter(|(_, urgent)| *urgent));
        let mut trying: Vec<_> = self.waiting.iter().map(|order| values(order.iter())).collect();
        if urgency == Urgency::Control {
            trying = vec![urgent.clone()];
        }
        let known = self.stands.len();
        match &result {
            Ok(()) => self.stood(&trying),
            Err(Error::Full { .. }) => self.stood(&[Vec::new(), urgent.clone()]),
            Err(_) => {}
        }
        let stood: BTreeSet<_> = self.stands[known..].iter().map(|s| s.value.clone()).collect();
        self.waiting.iter_mut().for_each(|order| order.retain(|(value, _)| !stood.contains(value)));
        let Err(error) = result else { return true };
        if urgency == Urgency::Data {
            trying.push(urgent);
            trying.extend(self.waiting.iter().map(|order| values(order.iter())));
        }
        self.failed(&error, trying);
        false
    }

    fn failed(&mut self, error: &Error, tried: Vec<Vec<String>>) {
        self.tried.extend(tried.into_iter().map(|values| (self.writer.position(), values)));
        if !matches!(error, Error::Full { .. }) {
            let random = self.random;
            self.crash(Some(random));
        }
    }

    /// As the forwarder would: whole batches, and part of a line behind them.
    fn acknowledge(&mut self, batches: usize) {
        let from = self.writer.controls().cursor.position;
        let mut reader = Reader::new(self.segments.clone(), from);
        let mut ends = vec![from];
        while let Some(Step::Batch(batch)) = reader.next(self.writer.position()).unwrap() {
            ends.push(batch.end());
        }
        let position = ends[batches.min(ends.len() - 1)];
        let mut prefixes: BTreeMap<Line, u64> = BTreeMap::new();
        for s in self.stands.iter().filter(|s| s.position < position) {
            prefixes.insert(s.line, s.number + 1);
            self.may_be_gone.insert(s.value.clone());
        }
        if let Some(s) = self.stands.iter().find(|s| s.position >= position) {
            prefixes.insert(s.line, s.number + 1);
            self.may_be_gone.insert(s.value.clone());
        }
        let prefix = |((stream, kind, partition), number)| Acknowledged {
            stream,
            next: Place { kind, partition, number },
        };
        self.writer.cursor(Cursor { position, prefixes: prefixes.into_iter().map(prefix).collect() }, NOW);
    }

    fn open_stream(&mut self) {
        self.streams += 1;
        let (stream, before) = (StreamId([self.streams; 16]), self.writer.stream());
        match self.writer.open_stream(stream, NOW) {
            Ok(_) => {
                self.committed(Urgency::Data, Ok(()));
                assert_eq!(self.writer.stream(), stream);
            }
            Err(error) => {
                assert_eq!(self.writer.stream(), before);
                if self.writer.waiting_bytes() == 0 {
                    self.committed(Urgency::Data, Ok(()));
                    self.failed(&error, Vec::new());
                } else {
                    self.committed(Urgency::Data, Err(error));
                }
            }
        }
    }

    fn give_up(&mut self) {
        // The cursor that counts is the last one that was appended.
        if !self.commit(Urgency::Control) {
            return;
        }
        let Some(plan) = self.writer.plan_give_up().unwrap() else { return };
        let acknowledged = &self.writer.controls().cursor.prefixes;
        let below = |s: &&Stands| {
            let (stream, kind, partition) = s.line;
            acknowledged.iter().any(|a| {
                (a.stream, a.next.kind, a.next.partition) == (stream, kind, partition)
                    && s.number < a.next.number
            })
        };
        let goes: Vec<_> = self
            .stands
            .iter()
            .filter(|s| (plan.from..plan.to).contains(&s.position) && !below(s))
            .cloned()
            .collect();
        same(&plan, &goes);
        self.may_be_gone.extend(goes.into_iter().map(|s| s.value));
        match self.writer.give_up(plan, NOW) {
            Ok(()) => self.stood(&[Vec::new()]),
            Err(error) => self.failed(&error, Vec::new()),
        }
    }

    /// The process ends, and, with `random`, the machine too; then both start.
    fn crash(&mut self, random: Option<u64>) {
        match random {
            Some(random) => self.faults.crash(random),
            None => self.faults.restart(),
        }
        let mut one_of: Vec<_> = self.tried.drain(..).map(|(_, values)| values).collect();
        one_of.push(Vec::new());
        self.waiting = vec![Order::new()];
        self.streams += 1;
        loop {
            self.segments = Segments::open_on(&self.folder.0, Disk::with(self.faults.clone())).unwrap();
            let recovered = recover(&self.segments).unwrap();
            assert_eq!(recovered.damage, [], "a crash damages nothing");
            self.recognised(&recovered);
            let numbers = recovered.numbers.clone().unwrap();
            match Writer::open(self.segments.clone(), self.config, opening(self.streams), recovered) {
                Ok(writer) => {
                    self.writer = writer;
                    self.stood(&one_of);
                    for place in numbers.next {
                        let line = (numbers.stream, place.kind, place.partition);
                        assert_eq!(self.next.get(&line).copied().unwrap_or(0), place.number, "{line:?}");
                    }
                    return;
                }
                Err(Error::Full { .. }) => self.faults.full(false),
                Err(error) => panic!("a start failed: {error}"),
            }
        }
    }
}

fn values<'o>(order: impl Iterator<Item = &'o (String, bool)>) -> Vec<String> {
    order.map(|(value, _)| value.clone()).collect()
}

fn live(ops: Vec<Op>, budget_bytes: u64, retain_bytes: u64) {
    let mut life =
        Life::new(WriterConfig { segment_bytes: 1500, budget_bytes, retain_bytes, reserve_bytes: 4096 });
    for op in ops {
        life.step(op);
    }
    life.crash(Some(3));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_life_keeps_what_was_committed(
        ops in prop::collection::vec(op(), 1..40),
        budget in prop_oneof![Just(0u64), Just(14_000)],
        retain_bytes in prop_oneof![Just(0u64), Just(2_000)],
    ) {
        live(ops, budget, retain_bytes);
    }

    #[test]
    fn a_life_without_room_keeps_order_and_numbers(ops in prop::collection::vec(op_without_room(), 1..40)) {
        live(ops, 0, 0);
    }
}
