//! One cycle of a worker: collect, compute, commit.
//!
//! Comes in: a batch of records, and readings that wait no longer. Goes out: one transaction with what was made of them,
//! the changed state of their partitions, and the offsets of every partition it touches, moved or not.
//! On failure: nothing of it is visible; the worker takes it back.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::BaseRecord;
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::admin::status::ALERTS_MAX;
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use super::{Worker, collect, seek};
use crate::faults;
use crate::process::assignment::{Partition, Partitions, Place};
use crate::process::engine::{Cycle, Due, Emit, Engine, Outgoing, World};
use crate::process::measures::Tally;
use crate::process::transaction::{self, Failure, Transaction, classify};
use crate::process::{INPUTS, Input};

/// Computing takes no longer: the rest of the batch is read again. The transaction has 6 s.
const COMPUTE_MAX: Duration = Duration::from_secs(2);
/// How many records pass between two looks at the clock.
const LOOK_EVERY: usize = 256;

impl Worker<'_> {
    /// One cycle; true when it committed something.
    pub(super) fn cycle(&mut self, engine: &mut Engine, world: &World) -> Result<bool, Failure> {
        let batch = collect::collect(
            &self.consumer,
            (self.kafka, self.config),
            &mut self.partitions,
            &mut self.coming,
        )?;
        let now_ms = clock::wall_ms();
        let due = due(&mut self.partitions, engine, world, now_ms);
        if batch.is_empty() && due.is_empty() {
            drop(batch);
            self.restore(world)?;
            return Ok(false);
        }
        faults::kill_at("cloud.s0");
        let began = clock::instant();
        let transaction = Transaction::begin(&self.producer)?;
        let mut tallies: [Tally; INPUTS] = Default::default();
        let mut cycle = engine.begin(world, now_ms);
        let mut sending = Sending { transaction: &transaction, alerts: Vec::new() };
        let Touched { ends, rest } =
            compute(&mut self.partitions, &mut cycle, world, (&due, &batch), &mut tallies, &mut sending)?;
        drop(batch);
        let alerts = sending.alerts;
        self.measures.computed(&tallies);
        faults::kill_at("cloud.s1");
        send_state(&transaction, &mut self.partitions, &ends)?;
        faults::kill_at("cloud.s2");
        transaction.commit(&self.consumer, &offsets(&ends)?)?;
        faults::kill_at("cloud.s5");
        if transaction::outside() {
            let _as_if_it_were_enough = self.consumer.commit(&offsets(&ends)?, CommitMode::Sync);
        }
        for (place, end) in ends {
            if let Some(Partition::Ready { state, next }) = self.partitions.get(place) {
                state.commit();
                *next = end;
            }
        }
        self.committed = Some(clock::instant());
        if !rest.is_empty() {
            seek(&self.consumer, &rest).map_err(Failure::Broken)?;
        }
        cycle.commit();
        self.measures.committed(
            &tallies,
            clock::instant().saturating_duration_since(began),
            clock::wall_ms(),
        );
        self.measures.told(alerts);
        self.judge_rules(engine, world);
        self.restore(world)?;
        Ok(true)
    }

    /// Counts how the rules fared; one that fails too often is reported.
    fn judge_rules(&mut self, engine: &mut Engine, world: &World) {
        let set = &world.rules.set;
        if set.is_empty() {
            return;
        }
        for rule in self.rule_measures.count(set, &engine.take_counts(), clock::wall_ms()) {
            let (id, version) = (&rule.id, rule.version);
            tracing::error!(
                "{}: rule {id} version {version} fails too often and is switched off",
                self.name.who
            );
            self.versions.tripped(rule);
        }
    }
}

/// The partitions that a cycle touches.
#[derive(Default)]
struct Touched {
    /// The next offset of each.
    ends: Vec<(Place, i64)>,
    /// The first offset that the cycle leaves out, where it leaves some out.
    rest: Vec<(Place, i64)>,
}

/// Readings that wait no longer, then the batch, as far as the time goes.
fn compute(
    partitions: &mut Partitions,
    cycle: &mut Cycle<'_>,
    world: &World,
    (due, batch): (&[(Place, Vec<Due>)], &[BorrowedMessage<'_>]),
    tallies: &mut [Tally; INPUTS],
    sending: &mut Sending<'_>,
) -> Result<Touched, Failure> {
    let Touched { mut ends, mut rest } = Touched::default();
    for (place, readings) in due {
        let Some(Partition::Ready { state, next }) = partitions.get(*place) else { continue };
        ends.push((*place, *next));
        state.applies(world.rules.number, world.tables.numbers());
        for reading in readings {
            cycle.release(place.1, reading, state, &mut tallies[place.0.index()], sending)?;
        }
    }
    let stop_at = Deadline::after(COMPUTE_MAX);
    for (n, message) in batch.iter().enumerate() {
        let Some(input) = Input::from_topic(message.topic()) else { continue };
        let place = (input, message.partition());
        if !rest.is_empty() || (n % LOOK_EVERY == LOOK_EVERY - 1 && stop_at.passed()) {
            if !rest.iter().any(|(left, _)| *left == place) {
                rest.push((place, message.offset()));
            }
            continue;
        }
        let Some(Partition::Ready { state, .. }) = partitions.get(place) else { continue };
        match ends.iter_mut().find(|(p, _)| *p == place) {
            Some((_, end)) => *end = message.offset() + 1,
            None => {
                ends.push((place, message.offset() + 1));
                state.applies(world.rules.number, world.tables.numbers());
            }
        }
        let incoming = collect::incoming(input, message);
        cycle.process(&incoming, state, &mut tallies[input.index()], sending)?;
    }
    Ok(Touched { ends, rest })
}

/// Readings that wait no longer, by partition; nearly always none.
fn due(
    partitions: &mut Partitions,
    engine: &mut Engine,
    world: &World,
    now_ms: i64,
) -> Vec<(Place, Vec<Due>)> {
    let mut all = Vec::new();
    for (place, partition) in partitions.iter_mut() {
        let Partition::Ready { state, .. } = partition else { continue };
        let due = engine.due(world, &mut state.held, now_ms);
        if !due.is_empty() {
            all.push((place, due));
        }
    }
    all
}

/// Puts results into the open transaction.
struct Sending<'t> {
    transaction: &'t Transaction<'t>,
    /// Some of the alerts, for the status page.
    alerts: Vec<String>,
}

impl Emit for Sending<'_> {
    fn emit(&mut self, out: Outgoing<'_>) -> Result<(), Failure> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(out.topic).payload(out.value);
        if let Some(key) = out.key {
            record = record.key(key);
        }
        if out.topic == wire::ALERTS && self.alerts.len() < ALERTS_MAX {
            self.alerts.push(String::from_utf8_lossy(out.value).into_owned());
        }
        self.transaction.send(record)
    }
}

/// Changed state goes to the changelog, in the same transaction.
fn send_state(
    transaction: &Transaction<'_>,
    partitions: &mut Partitions,
    ends: &[(Place, i64)],
) -> Result<(), Failure> {
    if faults::is_broken("bad.skip_changelog") {
        return Ok(());
    }
    for (place, _) in ends {
        let Some(Partition::Ready { state, .. }) = partitions.get(*place) else { continue };
        state.tidy();
        let topic = place.0.state_topic();
        for (key, value) in state.staged() {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).partition(place.1).key(&key);
            if let Some(value) = &value {
                record = record.payload(value);
            }
            transaction.send(record)?;
        }
    }
    Ok(())
}

fn offsets(ends: &[(Place, i64)]) -> Result<TopicPartitionList, Failure> {
    let mut offsets = TopicPartitionList::new();
    for ((input, partition), end) in ends {
        offsets
            .add_partition_offset(input.topic(), *partition, Offset::Offset(*end))
            .map_err(|e| classify("offsets", &e))?;
    }
    Ok(offsets)
}
