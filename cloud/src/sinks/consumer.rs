//! The Kafka side that the three sinks share: who owns which partition, collecting, and committing.
//!
//! Comes in: the group and the slot. Goes out: batches; the next offset of each partition; commits.
//! Guarantees: a partition is read only from where its store said (never from where Kafka guesses); a revoke waits for the
//! batch that is being written, and what was collected of its partitions meanwhile is dropped, so a revoke always falls
//! between two batches; a commit is refused while this process is no member of the group.
//! On failure: an error that librdkafka mends by itself is logged; any other gives [`Failure::Kafka`], and the caller
//! drops this consumer and joins again (as a static member: without disturbing the others).

mod ownership;

use std::sync::MutexGuard;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::clock::Deadline;
use weir_shared::supervise::Stop;
use xxhash_rust::xxh3::xxh3_64;

use self::ownership::{Owned, Ownership, list_of};
use super::batch::{Batch, Part, Topic};
use super::config::Limits;
use super::own::OwnTables;
use super::{Failure, SinkName};
use crate::kafka::{ASK, KafkaConfig, Member, native, topic_ids};

/// How long an idle sink sleeps in one poll: bounds how late it hears the wish to stop.
pub(super) const IDLE_POLL: Duration = Duration::from_millis(100);
/// What librdkafka fetches before it is polled.
const QUEUE_KB: &str = "16384";
/// How late collecting ahead sees that the batch before is written.
const AHEAD_POLL: Duration = Duration::from_millis(5);
/// Asking for the end of a partition's log.
const WATERMARK: Duration = Duration::from_millis(500);

/// One member of the sink's group.
pub(super) struct Source {
    consumer: Member<Ownership>,
}

/// What Kafka keeps for a partition of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) part: Part,
    /// `None` where the group never committed.
    pub(super) offset: Option<i64>,
    pub(super) metadata: String,
}

/// What is to be committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) part: Part,
    pub(super) offset: i64,
    pub(super) metadata: String,
}

/// The name of a static member. One that comes back gets the partitions that it had: a broker does not ask whether it
/// wants other topics now. So it has another name with other topics.
fn instance(slot: &str, which: SinkName, topics: &[&str]) -> String {
    let (name, fixed) = (which.name(), Topic::ALL.map(Topic::name));
    let mut more: Vec<&str> = topics.iter().copied().filter(|topic| !fixed.contains(topic)).collect();
    if more.is_empty() {
        return format!("{slot}-{name}");
    }
    more.sort_unstable();
    format!("{slot}-{name}-{:08x}", xxh3_64(more.join(" ").as_bytes()) >> 32)
}

impl Source {
    /// Joins the group.
    pub(super) fn open(
        kafka: &KafkaConfig,
        which: SinkName,
        slot: &str,
        tables: OwnTables,
    ) -> Result<Self, KafkaError> {
        let topics: Vec<&str> = tables.topics(which).into_iter().map(Topic::name).collect();
        let mut config = kafka.consumer(which.group(), &instance(slot, which, &topics));
        kafka.prefer(&mut config, &[("queued.max.messages.kbytes", QUEUE_KB)]);
        Ok(Self { consumer: Member::join(&config, Ownership::new(tables), &topics)? })
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.consumer.context().topic(name)
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.consumer.context().lock()
    }

    /// Adds to `batch` until it is full, or its time has passed, or there is something else to do. Returns at once
    /// after a rebalance, and after [`IDLE_POLL`] when nothing came.
    pub(super) fn collect(&self, batch: &mut Batch, limits: &Limits, stop: &Stop) -> Result<(), Failure> {
        while !stop.is_stopped() && !batch.is_full(limits) {
            let left = batch.left_of(limits.wait);
            if !batch.is_empty() && left.is_zero() {
                break;
            }
            self.poll(batch, if batch.is_empty() { IDLE_POLL } else { left.min(IDLE_POLL) })?;
            if batch.is_empty() || self.owned().waiting().len() > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Adds to `next` while another batch is written, until that is done, or this is full, or there is something else to
    /// do.
    pub(super) fn collect_ahead(
        &self,
        next: &mut Batch,
        limits: &Limits,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let goes_on = || {
            let owned = self.owned();
            owned.is_writing() && owned.waiting().len() == 0 && !stop.is_stopped()
        };
        while goes_on() && !next.is_full(limits) {
            self.poll(next, AHEAD_POLL)?;
        }
        Ok(())
    }

    fn poll(&self, batch: &mut Batch, wait: Duration) -> Result<(), Failure> {
        let polled = self.consumer.poll(wait);
        self.forget_revoked(batch);
        match polled {
            Some(Ok(message)) => self.take(batch, &message),
            Some(Err(error)) => self.mended(error),
            None => Ok(()),
        }
    }

    /// Lets `write` write while `meanwhile` collects on another thread; nothing is taken away before the first has ended.
    pub(super) fn beside<T, U: Send>(
        &self,
        write: impl FnOnce() -> T,
        meanwhile: impl FnOnce() -> U + Send,
    ) -> (T, U) {
        /// Also when the writing panics: a rebalance must not wait for ever.
        struct Writing<'a>(&'a Ownership);
        impl Drop for Writing<'_> {
            fn drop(&mut self) {
                self.0.end_writing();
            }
        }
        std::thread::scope(|threads| {
            let context = self.consumer.context();
            context.begin_writing();
            let writing = Writing(context);
            let meanwhile = threads.spawn(meanwhile);
            let written = write();
            drop(writing);
            (written, meanwhile.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn take(&self, batch: &mut Batch, message: &BorrowedMessage<'_>) -> Result<(), Failure> {
        let Some(topic) = self.topic(message.topic()) else {
            return Err(Failure::Kafka(format!("got a record of {}, never asked for", message.topic())));
        };
        let part = Part { topic, partition: message.partition() };
        let offset = message.offset();
        let mut owned = self.owned();
        // A record of a partition that was stopped a moment ago: it will be read again from where the store is.
        let Some(position) = owned.position(part) else { return Ok(()) };
        if offset < position.collected {
            return Err(Failure::Kafka(format!("{part}: offset {offset} came twice")));
        }
        let timestamp = message.timestamp().to_millis().unwrap_or(0);
        owned.collected(part, offset, timestamp);
        batch.push(part, offset, timestamp, message.payload().unwrap_or_default());
        Ok(())
    }

    /// Polls for `wait` while nothing is being read: keeps the membership and follows rebalances.
    pub(super) fn rest(&self, wait: Duration, stop: &Stop) -> Result<(), Failure> {
        let deadline = Deadline::after(wait);
        while !deadline.passed() && !stop.is_stopped() {
            if let Some(Err(error)) = self.consumer.poll(deadline.left().min(IDLE_POLL)) {
                self.mended(error)?;
            }
        }
        Ok(())
    }

    /// An error that librdkafka mends by itself is kept and logged now and then.
    fn mended(&self, error: KafkaError) -> Result<(), Failure> {
        let said = error.to_string();
        let says_why = error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown);
        triage(error)?;
        if says_why {
            self.consumer.context().heard.also(&said);
        }
        Ok(())
    }

    /// Why nothing comes, as far as Kafka said it of late.
    pub(super) fn trouble(&self) -> Option<String> {
        self.consumer.context().heard.why()
    }

    /// After a fatal error the client is told nothing any more and reads nothing, whatever it is asked.
    pub(super) fn must_be_alive(&self) -> Result<(), Failure> {
        match self.consumer.client().fatal_error() {
            None => Ok(()),
            Some((RDKafkaErrorCode::FencedInstanceId, _)) => Err(Failure::Fenced),
            Some((_, why)) => Err(Failure::Kafka(format!("fatal: {why}"))),
        }
    }

    fn forget_revoked(&self, batch: &mut Batch) {
        let revoked = self.owned().take_revoked();
        if !revoked.is_empty() {
            batch.drop_parts(&revoked);
        }
    }

    /// Partitions that are ours and wait for [`Source::start`].
    pub(super) fn waiting(&self) -> Vec<Part> {
        self.owned().waiting().collect()
    }

    /// Whether others have all partitions.
    pub(super) fn owns_nothing(&self) -> bool {
        let owned = self.owned();
        owned.waiting().len() == 0 && owned.progress().is_empty()
    }

    /// Reads these partitions from these offsets on, those of them that are still ours.
    pub(super) fn start(&self, from: &[(Part, i64)]) -> Result<(), Failure> {
        let mut list = TopicPartitionList::new();
        for &(part, offset) in from {
            if self.owned().start(part, offset) {
                list.add_partition_offset(part.topic.name(), part.partition, Offset::Offset(offset))
                    .map_err(|e| Failure::Kafka(format!("{part}: offset {offset}: {e}")))?;
            }
        }
        self.consumer.incremental_assign(&list).map_err(kafka)
    }

    /// Stops reading; all partitions wait for [`Source::start`] again.
    pub(super) fn stop_reading(&self) -> Result<(), Failure> {
        let stopped = self.owned().stop();
        self.consumer.incremental_unassign(&list_of(&stopped)).map_err(kafka)
    }

    /// Up to where a started partition is stored; 0 for any other.
    pub(super) fn stored(&self, part: Part) -> i64 {
        self.owned().position(part).map_or(0, |position| position.stored)
    }

    /// The store has this partition up to `end` now.
    pub(super) fn set_stored(&self, part: Part, end: i64) {
        if let Some(position) = self.owned().position_mut(part) {
            position.store(end);
        }
    }

    /// Up to where each started partition is stored.
    pub(super) fn progress(&self) -> Vec<(Part, i64)> {
        self.owned().progress()
    }

    /// When Kafka got the oldest record of each topic that was collected and is not stored, ms since 1970.
    pub(super) fn oldest(&self) -> Vec<(Topic, i64)> {
        self.owned().oldest()
    }

    /// How many offsets of each partition are not stored yet. The log's end is the one that the last fetch saw, or,
    /// where nothing is being read, asked for. Transaction markers count.
    pub(super) fn lags(&self) -> Vec<(Part, u64)> {
        let known = self.owned().stored();
        let lag = |(part, stored, fetched): (Part, i64, bool)| {
            let (topic, partition) = (part.topic.name(), part.partition);
            let end = if fetched {
                native::cached_end(&self.consumer, topic, partition)
            } else {
                self.consumer.fetch_watermarks(topic, partition, WATERMARK).ok().map(|(_, end)| end)
            };
            (part, u64::try_from(end.unwrap_or(stored) - stored).unwrap_or(0))
        };
        known.into_iter().map(lag).collect()
    }

    /// What the group committed; waits out a transaction that is about to commit.
    pub(super) fn committed(&self, parts: &[Part]) -> Result<Vec<Committed>, Failure> {
        let list = self.consumer.committed_offsets(list_of(parts), ASK).map_err(kafka)?;
        let mut committed = Vec::with_capacity(parts.len());
        for element in list.elements() {
            element.error().map_err(kafka)?;
            let Some(topic) = self.topic(element.topic()) else { continue };
            let offset = match element.offset() {
                Offset::Offset(n) => Some(n),
                _ => None,
            };
            let part = Part { topic, partition: element.partition() };
            committed.push(Committed { part, offset, metadata: element.metadata().to_owned() });
        }
        Ok(committed)
    }

    /// Kafka's ids of the topics of these partitions; empty from brokers that know none.
    pub(super) fn topic_ids(&self, parts: &[Part]) -> Result<Vec<(Topic, String)>, Failure> {
        let mut topics: Vec<Topic> = parts.iter().map(|part| part.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        let names: Vec<&str> = topics.iter().map(|topic| topic.name()).collect();
        let ids = topic_ids::ask(&self.consumer, &names, ASK);
        let ids = ids.map_err(|e| Failure::Kafka(format!("asking for the ids of the topics: {e}")))?;
        Ok(topics.into_iter().zip(ids).collect())
    }

    /// Commits and waits for the broker's answer. The broker refuses it when another member owns the partitions now.
    pub(super) fn commit(&self, commits: &[Commit]) -> Result<(), Failure> {
        self.must_be_member()?;
        let list = commit_list(commits)?;
        self.consumer.commit(&list, CommitMode::Sync).map_err(kafka)
    }

    /// Commits for tools that show lag; whether it arrives does not matter.
    pub(super) fn commit_for_show(&self, commits: &[Commit]) {
        let sent = self
            .must_be_member()
            .and_then(|()| commit_list(commits))
            .and_then(|list| self.consumer.commit(&list, CommitMode::Async).map_err(kafka));
        if let Err(error) = sent {
            tracing::debug!(%error, "offsets not shown to the group");
        }
    }

    /// What a transaction needs to carry commits of this member, fresh.
    pub(super) fn group_metadata(&self) -> Result<ConsumerGroupMetadata, Failure> {
        self.must_be_member()?;
        self.consumer.group_metadata().ok_or_else(|| Failure::Kafka("no group".to_owned()))
    }

    /// A commit without a generation would not be fenced.
    fn must_be_member(&self) -> Result<(), Failure> {
        match native::generation(&self.consumer) {
            Some(generation) if generation >= 0 => Ok(()),
            _ => Err(Failure::Kafka("no member of the group now".to_owned())),
        }
    }
}

/// The commits as librdkafka takes them.
pub(super) fn commit_list(commits: &[Commit]) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for commit in commits {
        let mut element = list.add_partition(commit.part.topic.name(), commit.part.partition);
        element.set_offset(Offset::Offset(commit.offset)).map_err(kafka)?;
        element.set_metadata(&commit.metadata);
    }
    Ok(list)
}

/// Whether librdkafka mends it by itself.
pub(super) fn triage(error: KafkaError) -> Result<(), Failure> {
    match error {
        error if is_fenced(&error) => Err(Failure::Fenced),
        KafkaError::MessageConsumptionFatal(code) => Err(Failure::Kafka(format!("fatal: {code}"))),
        KafkaError::MessageConsumption(
            code @ (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange),
        ) => Err(Failure::Kafka(format!(
            "the log no longer has the offset to read from ({code}): records expired before they were stored, or \
             the topic was made anew; nothing is skipped by itself"
        ))),
        _ => Ok(()),
    }
}

/// What an error of the client means to the sink.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(super) fn kafka(error: KafkaError) -> Failure {
    if is_fenced(&error) { Failure::Fenced } else { Failure::Kafka(error.to_string()) }
}

fn is_fenced(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::FencedInstanceId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_wants_other_topics_is_another_member() {
        let named = |more: &[&str]| {
            let fixed = Topic::ALL.map(Topic::name);
            instance("a", SinkName::Mysql, &[&fixed[..], more].concat())
        };
        assert_eq!(named(&[]), "a-mysql");
        assert_eq!(named(&["hall"]), named(&["hall"]));
        assert!(named(&["hall"]).starts_with("a-mysql-") && named(&["hall"]) != named(&["hall", "roof"]));
    }
}
