//! The worker: collect, compute, commit, again and again.
//!
//! Comes in: records of the partitions that the group gives it. Goes out: one transaction per [`cycle`].
//! Guarantees: while it computes and commits it does not poll, so no partition changes hands within a cycle; a
//! revoke while it collects discards what came from that partition; state changes only after the commit; a partition
//! that has seen newer rules or tables than are at hand waits for them.
//! On failure: see [`Failure`]; a cycle that was aborted is read again from the committed offsets; records that are
//! no longer in the log are told as lost, exactly, before the worker goes on behind them.

pub(super) mod check;
mod collect;
mod cycle;
pub(super) mod lost;
mod show;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::kafka_security::RENEWED;
use weir_shared::pulse::Pulse;
use weir_shared::supervise::Stop;
use weir_shared::tls::Renewals;

use super::assignment::{Partition, Partitions, Place, Rebalances, list};
use super::engine::{Engine, World};
use super::measures::{Measures, RuleMeasures};
use super::state::restore::Restored;
use super::transaction::{self, Deliveries, Failure};
use super::{Ended, Input, Lost, ProcessConfig, Versions};
use crate::faults;
use crate::kafka::{ASK, KafkaConfig, Member};
use check::Topics;
use collect::Coming;

/// A fenced consumer hears of it with its next heartbeat, if the coordinator answers.
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
    /// What it reads.
    pub(super) inputs: &'static [Input],
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
    consumer: Member<Rebalances>,
    producer: transaction::Client,
    renewals: Option<Renewals>,
    partitions: Partitions,
    coming: Coming,
    committed: Option<Instant>,
    /// Our id in the group, as it was last seen.
    member: String,
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
        let renewals = kafka.security.renewals();
        let topics = check::topics(kafka, &config.group, &config.more_topics).map_err(Ended::Broken)?;
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
        let joining = kafka.consumer(&config.group, &name.slot);
        let topics_read: Vec<_> = name.inputs.iter().map(|input| input.topic()).collect();
        let consumer =
            Member::join(&joining, Rebalances::default(), &topics_read).map_err(|e| broken("consumer", e))?;
        Ok(Self {
            config,
            kafka,
            name,
            measures,
            versions,
            rule_measures: RuleMeasures::default(),
            topics,
            consumer,
            producer: Arc::new(producer),
            renewals,
            partitions: Partitions::default(),
            coming: Coming::default(),
            committed: None,
            member: String::new(),
            shown: clock::instant(),
        })
    }

    /// When this incarnation last committed a cycle.
    pub(super) fn committed_at(&self) -> Option<Instant> {
        self.committed
    }

    /// The id that this incarnation had in the group; empty when it was never a member for long.
    pub(super) fn member(&self) -> &str {
        &self.member
    }

    /// Works until told to stop or until something breaks.
    pub(super) fn run(&mut self, ready: &Health, pulse: &Pulse, stop: &Stop) -> Ended {
        let mut engine =
            Engine::new(self.config.alerts_by_severity, self.config.hold).timed_by(clock::instant);
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(5));
        while !stop.is_stopped() {
            let Some(world) = self.versions.current() else {
                return Ended::Broken("no tables or rules yet".to_owned());
            };
            pulse.beat();
            if self.renewals.as_mut().is_some_and(Renewals::came) {
                return Ended::Broken(RENEWED.to_owned());
            }
            let result = self.cycle(&mut engine, &world);
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
                    pulse.beat();
                    if let Err(why) = self.take_back() {
                        return Ended::Broken(why);
                    }
                    pulse.beat();
                    if stop.wait_for(backoff.wait()) {
                        break;
                    }
                }
                Err(Failure::OutOfRange(why)) => {
                    let told =
                        self.tell_lost(&why).map(|()| "told what is lost, going on behind it".to_owned());
                    return Ended::Broken(told.unwrap_or_else(|why| why));
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

    /// Takes up new partitions whose state is there.
    fn restore(&mut self, world: &World) -> Result<(), Failure> {
        let mut there = std::mem::take(&mut self.coming.behind);
        for restore in &mut self.coming.restores {
            let waits_until = Deadline::after(BEHIND_MAX);
            there.extend(
                restore.take().map_err(Failure::Broken)?.into_iter().map(|restored| (restored, waits_until)),
            );
        }
        self.coming.restores.retain(|restore| !restore.is_done());
        for (mut restored, waits_until) in there {
            let number = restored.state.seen().rules;
            if number > 0 && !self.versions.have_rules() {
                // Without them it would show what a mask hides.
                let (topic, partition) = (restored.place.0.topic(), restored.place.1);
                return Err(Failure::Broken(format!(
                    "{topic} [{partition}] was processed under rule set {number}, and this process has no rules: set \
                     rules.url as in the other processes"
                )));
            }
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
        let (who, topic, next) = (&self.name.who, input.topic(), restored.next);
        let (marks, held) = (restored.state.marks.len(), restored.state.held.len());
        tracing::info!(
            "{who}: {topic} [{partition}] from offset {next} with {marks} marks and {held} readings that wait"
        );
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

    /// Tells which records are gone from the log; new clients then go on behind them (librdkafka does not seek in a partition
    /// that it could not read).
    fn tell_lost(&mut self, why: &str) -> Result<(), String> {
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
        let told = lost::tell(&self.producer, &self.consumer, &gaps).map_err(Failure::into_text);
        if let Err(why) = told {
            transaction::abort(&self.producer).map_err(Failure::into_text)?;
            return Err(why);
        }
        self.measures.lost(&gaps);
        Ok(())
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
