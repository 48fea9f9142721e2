//! The worker: collect, compute, commit, again and again.
//!
//! Comes in: records of the partitions that the group gives it. Goes out: one transaction per cycle.
//! Guarantees: while it computes and commits it does not poll, so no partition changes hands within a cycle; a
//! revoke while it collects discards what came from that partition; state changes only after the commit; a partition
//! that has seen newer rules or tables than are at hand waits for them.
//! On failure: see [`Failure`]; a cycle that was aborted is read again from the committed offsets; records that are
//! no longer in the log are told as lost, exactly, before the worker goes on behind them.

pub(super) mod check;
mod collect;
pub(super) mod lost;

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::pulse::Pulse;
use weir_shared::supervise::Stop;

use super::assignment::{Partition, Partitions, Place, Rebalances, list};
use super::engine::{Emit, Engine, Outgoing, World};
use super::measures::{Measures, RuleMeasures, Tally};
use super::state::restore::Restored;
use super::transaction::{self, Deliveries, Failure, Transaction, classify};
use super::{Ended, INPUTS, Input, Lost, ProcessConfig, Versions};
use crate::faults;
use crate::kafka::{ASK, KafkaConfig, native};
use check::Topics;
use collect::Coming;

/// How often lag and sizes are shown.
const SHOWN: Duration = Duration::from_secs(1);
/// A fenced consumer hears of it with its next heartbeat; this is two of them.
const HEARTBEATS: Duration = Duration::from_secs(4);
/// How long the predecessor's transaction may take to end.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// How long a partition waits for rules and tables as new as those it has seen. Longer waits mean that the
/// database was set back: then what there is now is right.
const BEHIND_MAX: Duration = Duration::from_secs(15);

/// What a worker is called, where.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    /// In the consumer group, and of its producer.
    pub(crate) slot: String,
    /// In logs, metrics and `/ready`.
    pub(crate) who: String,
}

/// Consumer, producer and state of one incarnation.
pub(super) struct Worker<'a> {
    config: &'a ProcessConfig,
    kafka: &'a KafkaConfig,
    name: &'a Name,
    measures: &'a Measures,
    versions: &'a Versions,
    rule_measures: RuleMeasures,
    topics: Topics,
    consumer: BaseConsumer<Rebalances>,
    producer: BaseProducer<Deliveries>,
    partitions: Partitions,
    coming: Coming,
    committed: Option<Instant>,
    shown: Instant,
}

impl<'a> Worker<'a> {
    /// Takes over the slot: ends the predecessor's transaction, then joins the group.
    pub(super) fn build(
        config: &'a ProcessConfig,
        kafka: &'a KafkaConfig,
        name: &'a Name,
        versions: &'a Versions,
        measures: &'a Measures,
    ) -> Result<Self, Ended> {
        let topics = check::topics(kafka, &config.group).map_err(Ended::Broken)?;
        let broken = |what: &str, e: KafkaError| Ended::Broken(format!("{what}: {e}"));
        let mut producing = kafka.transactional_producer(&name.slot);
        if faults::is_broken("bad.ignore_fence") {
            producing.set("transactional.id", format!("{}-{}", name.slot, std::process::id()));
            producing.set("transaction.timeout.ms", "300000");
        }
        // A successful delivery is known from the count of those that are left.
        producing.set("delivery.report.only.error", "true");
        let producer: BaseProducer<Deliveries> =
            producing.create_with_context(Deliveries::default()).map_err(|e| broken("producer", e))?;
        producer.init_transactions(TAKE_OVER).map_err(|e| broken("taking over the slot", e))?;
        faults::kill_at("cloud.r1");
        let consumer: BaseConsumer<Rebalances> = kafka
            .consumer(&config.group, &name.slot)
            .create_with_context(Rebalances::default())
            .map_err(|e| broken("consumer", e))?;
        consumer.subscribe(&Input::ALL.map(Input::topic)).map_err(|e| broken("subscribe", e))?;
        Ok(Self {
            config,
            kafka,
            name,
            measures,
            versions,
            rule_measures: RuleMeasures::default(),
            topics,
            consumer,
            producer,
            partitions: Partitions::default(),
            coming: Coming::default(),
            committed: None,
            shown: clock::instant(),
        })
    }

    /// When this incarnation last committed a cycle.
    pub(super) fn committed_at(&self) -> Option<Instant> {
        self.committed
    }

    /// Works until told to stop or until something breaks.
    pub(super) fn run(&mut self, ready: &Health, pulse: &Pulse, stop: &Stop) -> Ended {
        let mut engine = Engine::new(self.config.alerts_by_severity);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
        while !stop.is_stopped() {
            let Some(world) = self.versions.current() else {
                return Ended::Broken("no tables or rules yet".to_owned());
            };
            let result = self.cycle(&mut engine, &world, pulse);
            pulse.idle();
            match result {
                Ok(worked) => {
                    self.show(ready);
                    if worked {
                        backoff.reset();
                    }
                }
                Err(Failure::Abort(why)) => {
                    tracing::warn!("{}: {why}; the cycle is taken back", self.name.who);
                    self.measures.aborted();
                    engine.take_counts();
                    if let Err(why) = self.take_back() {
                        return Ended::Broken(why);
                    }
                    if stop.wait_for(backoff.wait()) {
                        break;
                    }
                }
                Err(Failure::OutOfRange(why)) => {
                    if let Err(why) = self.go_on_behind(&why) {
                        return Ended::Broken(why);
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
    fn cycle(&mut self, engine: &mut Engine, world: &World, pulse: &Pulse) -> Result<bool, Failure> {
        let batch = collect::collect(&self.consumer, self.config, &mut self.partitions, &mut self.coming)?;
        if batch.is_empty() {
            drop(batch);
            self.restore(world)?;
            return Ok(false);
        }
        pulse.working();
        faults::kill_at("cloud.s0");
        let began = clock::instant();
        let transaction = Transaction::begin(&self.producer)?;
        let mut tallies: [Tally; INPUTS] = Default::default();
        // The next offset of every partition that this cycle touches.
        let mut ends: Vec<(Place, i64)> = Vec::new();
        let mut cycle = engine.begin(world);
        for message in &batch {
            let Some(input) = Input::from_topic(message.topic()) else { continue };
            let place = (input, message.partition());
            let Some(Partition::Ready { state, .. }) = self.partitions.get(place) else { continue };
            match ends.iter_mut().find(|(p, _)| *p == place) {
                Some((_, end)) => *end = message.offset() + 1,
                None => {
                    ends.push((place, message.offset() + 1));
                    state.applies(world.rules.number, world.tables.numbers());
                }
            }
            let incoming = collect::incoming(input, message);
            cycle.process(&incoming, state, &mut tallies[input.index()], &mut Sending(&transaction))?;
        }
        drop(batch);
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
        cycle.commit();
        self.measures.committed(&tallies, clock::instant().saturating_duration_since(began));
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

    /// Goes on reading back the state of new partitions, and takes them up when it is there.
    fn restore(&mut self, world: &World) -> Result<(), Failure> {
        let mut there = std::mem::take(&mut self.coming.behind);
        for restore in &mut self.coming.restores {
            let step = restore.step(&self.consumer, self.kafka, &self.config.group);
            let waits_until = Deadline::after(BEHIND_MAX);
            there.extend(step.map_err(Failure::Broken)?.into_iter().map(|restored| (restored, waits_until)));
        }
        self.coming.restores.retain(|restore| !restore.is_done());
        for (mut restored, waits_until) in there {
            let ahead = restored.state.seen().ahead_of(world.rules.number, world.tables.numbers());
            match ahead {
                Some(_) if !waits_until.passed() => self.coming.behind.push((restored, waits_until)),
                Some(what) => {
                    let (topic, partition) = (restored.place.0.topic(), restored.place.1);
                    let who = &self.name.who;
                    tracing::warn!(
                        "{who}: {topic} [{partition}] has seen {what}; it goes on with what is there now"
                    );
                    restored.state.forget_seen();
                    self.take_up(restored)?;
                }
                None => self.take_up(restored)?,
            }
        }
        Ok(())
    }

    fn take_up(&mut self, mut restored: Restored) -> Result<(), Failure> {
        let Some(Partition::Restoring { skipped }) = self.partitions.get(restored.place) else {
            return Ok(());
        };
        let skipped = *skipped;
        let (input, partition) = restored.place;
        let id = self.topics.id(input);
        if !id.is_empty() && !restored.state.topic().is_empty() && id != restored.state.topic() {
            return Err(Failure::Broken(check::made_anew(input, &self.config.group)));
        }
        restored.state.set_topic(id);
        faults::kill_at("cloud.r2");
        if skipped {
            seek(&self.consumer, &[(restored.place, restored.next)]).map_err(Failure::Broken)?;
        }
        self.consumer.resume(&list([restored.place])).map_err(|e| Failure::Broken(format!("resume: {e}")))?;
        let (who, topic, marks) = (&self.name.who, input.topic(), restored.state.marks.len());
        tracing::info!("{who}: {topic} [{partition}] from offset {} with {marks} marks", restored.next);
        self.measures.restored(restored.took);
        let ready = Partition::Ready { state: restored.state, next: restored.next };
        self.partitions.put(restored.place, ready);
        Ok(())
    }

    /// Aborts, forgets what was staged, and goes back to the committed offsets.
    fn take_back(&mut self) -> Result<(), String> {
        transaction::abort(&self.producer).map_err(Failure::into_text)?;
        let mut ready = Vec::new();
        for (place, partition) in self.partitions.iter_mut() {
            if let Partition::Ready { state, .. } = partition {
                // A broken program takes what was not committed for done.
                if faults::is_broken("bad.forget_abort") {
                    state.commit();
                } else {
                    state.abort();
                }
                ready.push(place);
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

    /// Tells which records are gone from the log, and goes on behind them.
    fn go_on_behind(&mut self, why: &str) -> Result<(), String> {
        let gaps = lost::find(&self.consumer, &self.partitions)?;
        if gaps.is_empty() {
            return Err(format!("{why}, but all partitions are within their logs"));
        }
        for gap in &gaps {
            tracing::error!("{}: ALARM: {gap}", self.name.who);
        }
        if self.config.lost == Lost::Stop {
            return Err(format!(
                "{}; with process.lost_records = \"stop\" the way on is yours: set the offsets of {}, or \"report\"",
                gaps[0], self.config.group
            ));
        }
        let silent = faults::is_broken("bad.skip_loss");
        let gaps_told = if silent { &[][..] } else { &gaps };
        let told = lost::tell(&self.producer, &self.consumer, gaps_told).map_err(Failure::into_text);
        if let Err(why) = told {
            transaction::abort(&self.producer).map_err(Failure::into_text)?;
            return Err(why);
        }
        self.measures.lost(&gaps);
        let ends: Vec<_> = gaps.iter().map(|gap| (gap.place, gap.end)).collect();
        for (place, end) in &ends {
            if let Some(Partition::Ready { next, .. }) = self.partitions.get(*place) {
                *next = *end;
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

    fn joined(&self) -> bool {
        native::generation(&self.consumer).is_some_and(|generation| generation >= 0)
    }

    fn show(&mut self, ready: &Health) {
        let (mut held, mut restoring, mut marks_held, mut rules_held) = (0, 0, 0, 0);
        for (_, partition) in self.partitions.iter() {
            match partition {
                Partition::Restoring { .. } => restoring += 1,
                Partition::Ready { state, .. } => {
                    held += 1;
                    marks_held += state.marks.len();
                    rules_held += state.rules.len();
                }
            }
        }
        match (held, restoring) {
            // More workers than partitions are a reserve, not a fault, once there was a first rebalance.
            (0, 0) if !self.joined() => ready.bad(&self.name.who, "no partitions assigned"),
            (_, 0) => ready.good(&self.name.who),
            _ => ready.bad(&self.name.who, format!("reading back the state of {restoring} partitions")),
        }
        let now = clock::instant();
        if now.saturating_duration_since(self.shown) < SHOWN {
            return;
        }
        self.shown = now;
        self.measures.holding(held, marks_held, rules_held);
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

/// Puts results into the open transaction.
struct Sending<'t>(&'t Transaction<'t>);

impl Emit for Sending<'_> {
    fn emit(&mut self, out: Outgoing<'_>) -> Result<(), Failure> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(out.topic).payload(out.value);
        if let Some(key) = out.key {
            record = record.key(key);
        }
        self.0.send(record)
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
