//! The worker: collect, compute, commit, again and again.
//!
//! Comes in: records of the partitions that the group gives it. Goes out: one transaction per cycle.
//! Guarantees: while it computes and commits it does not poll, so no partition changes hands within a cycle; a
//! revoke while it collects discards what came from that partition; marks change only after the commit.
//! On failure: see [`Failure`]; a cycle that was aborted is read again from the committed offsets.

pub(super) mod check;
mod collect;

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::pulse::Pulse;
use weir_shared::supervise::Stop;

use super::assignment::{Partition, Partitions, Place, Rebalances, list};
use super::engine::{Engine, Outgoing};
use super::join::Dimensions;
use super::measures::{Measures, Tally};
use super::state::restore::Restore;
use super::state::{mark_key, mark_value};
use super::transaction::{self, Deliveries, Failure, Transaction, classify};
use super::{Ended, Input, ProcessConfig, WHO};
use crate::kafka::{ASK, KafkaConfig, native};

/// How often lag and sizes are shown.
const SHOWN: Duration = Duration::from_secs(1);
/// A fenced consumer hears of it with its next heartbeat; this is two of them.
const HEARTBEATS: Duration = Duration::from_secs(4);
/// How long the predecessor's transaction may take to end.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// Consumer, producer and state of one incarnation.
pub(super) struct Worker<'a> {
    config: &'a ProcessConfig,
    kafka: &'a KafkaConfig,
    measures: &'a Measures,
    consumer: BaseConsumer<Rebalances>,
    producer: BaseProducer<Deliveries>,
    partitions: Partitions,
    restores: Vec<Restore>,
    committed: bool,
    shown: Instant,
}

impl<'a> Worker<'a> {
    /// Takes over the slot: ends the predecessor's transaction, then joins the group.
    pub(super) fn build(
        config: &'a ProcessConfig,
        kafka: &'a KafkaConfig,
        slot: &str,
        measures: &'a Measures,
    ) -> Result<Self, Ended> {
        check::topics(kafka, &config.group).map_err(Ended::Broken)?;
        let broken = |what: &str, e: KafkaError| Ended::Broken(format!("{what}: {e}"));
        let mut producing = kafka.transactional_producer(slot);
        // A successful delivery is known from the count of those that are left.
        producing.set("delivery.report.only.error", "true");
        let producer: BaseProducer<Deliveries> =
            producing.create_with_context(Deliveries::default()).map_err(|e| broken("producer", e))?;
        producer.init_transactions(TAKE_OVER).map_err(|e| broken("taking over the slot", e))?;
        let consumer: BaseConsumer<Rebalances> = kafka
            .consumer(&config.group, slot)
            .create_with_context(Rebalances::default())
            .map_err(|e| broken("consumer", e))?;
        consumer.subscribe(&Input::ALL.map(Input::topic)).map_err(|e| broken("subscribe", e))?;
        Ok(Self {
            config,
            kafka,
            measures,
            consumer,
            producer,
            partitions: Partitions::default(),
            restores: Vec::new(),
            committed: false,
            shown: clock::instant(),
        })
    }

    /// Whether this incarnation ever committed a cycle.
    pub(super) fn has_committed(&self) -> bool {
        self.committed
    }

    /// Works until told to stop or until something breaks.
    pub(super) fn run(
        &mut self,
        dimensions: &Dimensions,
        ready: &Health,
        pulse: &Pulse,
        stop: &Stop,
    ) -> Ended {
        let mut engine = Engine::new(dimensions);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
        while !stop.is_stopped() {
            let result = self.cycle(&mut engine, pulse);
            pulse.idle();
            match result {
                Ok(worked) => {
                    self.show(ready);
                    if worked {
                        backoff.reset();
                    }
                }
                Err(Failure::Abort(why)) => {
                    tracing::warn!("process: {why}; the cycle is taken back");
                    self.measures.aborted();
                    engine.abort();
                    if let Err(why) = self.take_back() {
                        return Ended::Broken(why);
                    }
                    if stop.wait_for(backoff.wait()) {
                        break;
                    }
                }
                Err(Failure::Broken(why)) => return Ended::Broken(why),
                Err(Failure::Twin(why)) => return Ended::Fenced(why),
                Err(Failure::ProducerFenced(why)) => {
                    return if self.twin_shows() { Ended::Fenced(why) } else { Ended::Broken(why) };
                }
            }
        }
        Ended::Stopped
    }

    /// One cycle; true when it committed something.
    fn cycle(&mut self, engine: &mut Engine<'_>, pulse: &Pulse) -> Result<bool, Failure> {
        let batch = collect::collect(&self.consumer, self.config, &mut self.partitions, &mut self.restores)?;
        if batch.is_empty() {
            drop(batch);
            self.restore()?;
            return Ok(false);
        }
        pulse.working();
        let began = clock::instant();
        let transaction = Transaction::begin(&self.producer)?;
        let mut tallies = [Tally::default(), Tally::default()];
        // The next offset of every partition that this cycle touches.
        let mut ends: Vec<(Place, i64)> = Vec::new();
        for message in &batch {
            let Some(input) = Input::from_topic(message.topic()) else { continue };
            let place = (input, message.partition());
            let Some(Partition::Ready { marks, .. }) = self.partitions.get(place) else { continue };
            match ends.iter_mut().find(|(p, _)| *p == place) {
                Some((_, end)) => *end = message.offset() + 1,
                None => ends.push((place, message.offset() + 1)),
            }
            let incoming = collect::incoming(input, message);
            if let Some(out) = engine.process(&incoming, marks, &mut tallies[input.index()]) {
                send(&transaction, &out, engine.value())?;
            }
        }
        drop(batch);
        send_marks(&transaction, &mut self.partitions, &ends)?;
        transaction.commit(&self.consumer, &offsets(&ends)?)?;
        for (place, end) in ends {
            if let Some(Partition::Ready { marks, next }) = self.partitions.get(place) {
                marks.commit();
                *next = end;
            }
        }
        self.committed = true;
        engine.commit();
        self.measures.committed(&tallies, clock::instant().saturating_duration_since(began));
        self.restore()?;
        Ok(true)
    }

    /// Goes on reading back the state of new partitions.
    fn restore(&mut self) -> Result<(), Failure> {
        for restore in &mut self.restores {
            let restored =
                restore.step(&self.consumer, self.kafka, &self.config.group).map_err(Failure::Broken)?;
            for done in restored {
                let skipped = match self.partitions.get(done.place) {
                    Some(Partition::Restoring { skipped }) => *skipped,
                    _ => continue,
                };
                if skipped {
                    seek(&self.consumer, &[(done.place, done.next)]).map_err(Failure::Broken)?;
                }
                self.consumer
                    .resume(&list([done.place]))
                    .map_err(|e| Failure::Broken(format!("resume: {e}")))?;
                let (topic, partition, marks) = (done.place.0.topic(), done.place.1, done.marks.len());
                tracing::info!("process: {topic} [{partition}] from offset {} with {marks} marks", done.next);
                self.measures.restored(done.took);
                self.partitions.put(done.place, Partition::Ready { marks: done.marks, next: done.next });
            }
        }
        self.restores.retain(|restore| !restore.is_done());
        Ok(())
    }

    /// Aborts, forgets what was staged, and goes back to the committed offsets.
    fn take_back(&mut self) -> Result<(), String> {
        match transaction::abort(&self.producer) {
            Ok(()) => {}
            Err(
                Failure::Abort(why)
                | Failure::Broken(why)
                | Failure::ProducerFenced(why)
                | Failure::Twin(why),
            ) => {
                return Err(why);
            }
        }
        let mut ready = Vec::new();
        for (place, partition) in self.partitions.iter() {
            if matches!(partition, Partition::Ready { .. }) {
                ready.push(place);
            }
        }
        for partition in self.partitions.iter_mut() {
            if let Partition::Ready { marks, .. } = partition {
                marks.abort();
            }
        }
        let committed = self
            .consumer
            .committed_offsets(list(ready), ASK)
            .map_err(|e| format!("committed offsets: {e}"))?;
        let mut ends = Vec::new();
        for element in committed.elements() {
            match (Input::from_topic(element.topic()), element.error(), element.offset()) {
                (Some(input), Ok(()), Offset::Offset(next)) => {
                    ends.push(((input, element.partition()), next));
                }
                _ => return Err(format!("no committed offset of {} to go back to", element.topic())),
            }
        }
        seek(&self.consumer, &ends)
    }

    /// After the producer was fenced: whether a twin took the consumer's place too. If not, the broker fenced a
    /// transaction that took too long.
    fn twin_shows(&self) -> bool {
        let deadline = Deadline::after(HEARTBEATS);
        while !deadline.passed() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Err(error)) if matches!(collect::judge(&error), Some(Failure::Twin(_))) => return true,
                _ => {}
            }
            if matches!(self.consumer.client().fatal_error(), Some((RDKafkaErrorCode::FencedInstanceId, _))) {
                return true;
            }
        }
        false
    }

    fn show(&mut self, ready: &Health) {
        let (mut held, mut restoring, mut marks_held) = (0, 0, 0);
        for (_, partition) in self.partitions.iter() {
            match partition {
                Partition::Restoring { .. } => restoring += 1,
                Partition::Ready { marks, .. } => {
                    held += 1;
                    marks_held += marks.len();
                }
            }
        }
        match (held, restoring) {
            (0, 0) => ready.bad(WHO, "no partitions assigned"),
            (_, 0) => ready.good(WHO),
            _ => ready.bad(WHO, format!("reading back the state of {restoring} partitions")),
        }
        let now = clock::instant();
        if now.saturating_duration_since(self.shown) < SHOWN {
            return;
        }
        self.shown = now;
        self.measures.holding(held, marks_held);
        for input in Input::ALL {
            let lag =
                self.partitions.iter().filter(|(place, _)| place.0 == input).map(|(place, partition)| {
                    let Partition::Ready { next, .. } = partition else { return 0 };
                    native::cached_end(&self.consumer, input.topic(), place.1)
                        .map_or(0, |end| (end - next).max(0))
                });
            self.measures.lag(input, lag.sum());
        }
    }
}

fn send(transaction: &Transaction<'_>, out: &Outgoing<'_>, value: &[u8]) -> Result<(), Failure> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(out.topic).payload(value);
    if let Some(key) = &out.key {
        record = record.key(key);
    }
    if let Some(headers) = &out.headers {
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(*value) });
        }
        record = record.headers(owned);
    }
    transaction.send(record)
}

fn send_marks(
    transaction: &Transaction<'_>,
    partitions: &mut Partitions,
    ends: &[(Place, i64)],
) -> Result<(), Failure> {
    for (place, _) in ends {
        let Some(Partition::Ready { marks, .. }) = partitions.get(*place) else { continue };
        let topic = place.0.state_topic();
        for (stream, next) in marks.staged() {
            let (key, value) = (mark_key(stream), mark_value(next));
            let record = BaseRecord::to(&topic).partition(place.1).key(&key).payload(value.as_slice());
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

fn seek(consumer: &BaseConsumer<Rebalances>, ends: &[(Place, i64)]) -> Result<(), String> {
    let mut positions = TopicPartitionList::new();
    for ((input, partition), next) in ends {
        positions
            .add_partition_offset(input.topic(), *partition, Offset::Offset(*next))
            .map_err(|e| format!("seek: {e}"))?;
    }
    let sought = consumer.seek_partitions(positions, ASK).map_err(|e| format!("seek: {e}"))?;
    match sought.elements().iter().find_map(|e| e.error().err()) {
        Some(error) => Err(format!("seek: {error}")),
        None => Ok(()),
    }
}
