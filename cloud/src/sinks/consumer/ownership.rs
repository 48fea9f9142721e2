//! Which partitions the group gave to this member, and where each is.
//!
//! Comes in: rebalances, served inside `poll`; what the sink collected and stored.
//! Guarantees: a new partition is acknowledged with an empty assignment and waits until its store said from where to read
//! it; one that is taken away stops at once and is named in [`Owned::take_revoked`]. While a batch is written nothing is
//! taken away: who owns a partition next finds what this process wrote of it, and nothing comes after.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::super::batch::{Part, Topic};
use super::super::own::OwnTables;
use crate::kafka::Heard;

/// Where a partition is: stored up to, and handed out up to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) stored: i64,
    pub(super) collected: i64,
    /// Kafka's timestamp of the first record that was handed out and is not stored.
    oldest_ms: Option<i64>,
    /// The same of what was handed out since the writing began.
    ahead_ms: Option<i64>,
}

impl Position {
    /// The store has it up to `end` now.
    pub(super) fn store(&mut self, end: i64) {
        self.stored = end;
        self.oldest_ms = self.ahead_ms.take();
    }
}

/// Where a partition that is not being read was, as far as known.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    stored: Option<i64>,
    oldest_ms: Option<i64>,
}

/// What the group gave to this member.
#[derive(Debug, Default)]
pub(super) struct Owned {
    /// Ours, but not being read.
    waiting: BTreeMap<Part, Waiting>,
    /// Being read.
    started: BTreeMap<Part, Position>,
    /// Taken away since the last look.
    revoked: Vec<Part>,
    /// A batch is being written.
    writing: bool,
}

impl Owned {
    /// What wait for [`Owned::start`].
    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = Part> {
        self.waiting.keys().copied()
    }

    /// Reads this one from here on: whether it was waiting.
    pub(super) fn start(&mut self, part: Part, offset: i64) -> bool {
        let waiting = self.waiting.remove(&part);
        let position = waiting.map(|was| Position {
            stored: offset,
            collected: offset,
            oldest_ms: was.oldest_ms,
            ahead_ms: None,
        });
        self.started.extend(position.map(|position| (part, position)));
        position.is_some()
    }

    /// All that are being read wait from now on; gives them.
    pub(super) fn stop(&mut self) -> Vec<Part> {
        let stopped = std::mem::take(&mut self.started);
        let parts = stopped.keys().copied().collect();
        let wait = |Position { stored, oldest_ms, ahead_ms, .. }| Waiting {
            stored: Some(stored),
            oldest_ms: oldest_ms.or(ahead_ms),
        };
        self.waiting.extend(stopped.into_iter().map(|(part, position)| (part, wait(position))));
        parts
    }

    /// Where a partition is that is being read.
    pub(super) fn position(&self, part: Part) -> Option<&Position> {
        self.started.get(&part)
    }

    /// The same, to be moved on.
    pub(super) fn position_mut(&mut self, part: Part) -> Option<&mut Position> {
        self.started.get_mut(&part)
    }

    /// A record of a partition that is being read was handed out, of this time.
    pub(super) fn collected(&mut self, part: Part, offset: i64, timestamp: i64) {
        let writing = self.writing;
        if let Some(position) = self.started.get_mut(&part) {
            position.collected = offset + 1;
            let first = if writing { &mut position.ahead_ms } else { &mut position.oldest_ms };
            first.get_or_insert(timestamp);
        }
    }

    /// Whether a batch is being written.
    pub(super) const fn is_writing(&self) -> bool {
        self.writing
    }

    /// Up to where each one that is being read is stored.
    pub(super) fn progress(&self) -> Vec<(Part, i64)> {
        self.started.iter().map(|(part, position)| (*part, position.stored)).collect()
    }

    /// Up to where each one is stored, as far as known, and whether it is being read.
    pub(super) fn stored(&self) -> Vec<(Part, i64, bool)> {
        let started = self.started.iter().map(|(part, position)| (*part, position.stored, true));
        let waiting = self.waiting.iter().filter_map(|(part, was)| Some((*part, was.stored?, false)));
        started.chain(waiting).collect()
    }

    /// When Kafka got the oldest record of each that was collected and is not stored.
    pub(super) fn oldest(&self) -> Vec<(Topic, i64)> {
        let oldest = |position: &Position| position.oldest_ms.or(position.ahead_ms);
        let started = self.started.iter().map(|(part, position)| (part.topic, oldest(position)));
        let waiting = self.waiting.iter().map(|(part, was)| (part.topic, was.oldest_ms));
        started.chain(waiting).filter_map(|(topic, oldest)| Some((topic, oldest?))).collect()
    }

    /// What was taken away since the last look.
    pub(super) fn take_revoked(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.revoked)
    }

    /// Takes these away: those that were being read.
    fn revoke(&mut self, parts: Vec<Part>) -> Vec<Part> {
        self.waiting.retain(|part, _| !parts.contains(part));
        let stopping = parts.iter().copied().filter(|part| self.started.remove(part).is_some()).collect();
        self.revoked.extend(parts);
        stopping
    }
}

/// Follows the rebalances.
#[derive(Debug)]
pub(super) struct Ownership {
    owned: Mutex<Owned>,
    written: Condvar,
    tables: OwnTables,
    /// Of the connections.
    pub(super) heard: Heard,
}

impl Ownership {
    pub(super) fn new(tables: OwnTables) -> Self {
        Self { owned: Mutex::default(), written: Condvar::new(), tables, heard: Heard::logging() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is being written from now on.
    pub(super) fn begin_writing(&self) {
        self.lock().writing = true;
    }

    /// It is written, or given up.
    pub(super) fn end_writing(&self) {
        let mut owned = self.lock();
        owned.writing = false;
        for position in owned.started.values_mut() {
            position.oldest_ms = position.oldest_ms.or(position.ahead_ms.take());
        }
        self.written.notify_all();
    }

    /// Takes these away, as soon as nothing is being written: those that were being read.
    fn revoke(&self, parts: Vec<Part>) -> Vec<Part> {
        let owned = self.written.wait_while(self.lock(), |owned| owned.writing);
        owned.unwrap_or_else(PoisonError::into_inner).revoke(parts)
    }

    /// The topic of a name.
    pub(super) fn topic(&self, name: &str) -> Option<Topic> {
        self.tables.topic(name)
    }
}

impl ClientContext for Ownership {
    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }
}

impl ConsumerContext for Ownership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let part = |name: &str, partition| self.topic(name).map(|topic| Part { topic, partition });
        let parts: Vec<Part> =
            list.elements().iter().filter_map(|e| part(e.topic(), e.partition())).collect();
        let partitions = parts.len();
        let done = if error == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::info!(partitions, "partitions assigned");
            self.lock().waiting.extend(parts.into_iter().map(|part| (part, Waiting::default())));
            consumer.incremental_assign(&TopicPartitionList::new())
        } else {
            tracing::info!(partitions, lost = consumer.assignment_lost(), "partitions revoked");
            consumer.incremental_unassign(&list_of(&self.revoke(parts)))
        };
        if let Err(error) = done {
            tracing::error!(%error, "rebalance refused by the client library");
        }
    }
}

/// These partitions as librdkafka takes them.
pub(super) fn list_of(parts: &[Part]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(parts.len());
    for part in parts {
        list.add_partition(part.topic.name(), part.partition);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;

    const PART: Part = Part { topic: Topic::Enriched, partition: 3 };

    fn owns_part() -> Ownership {
        let ownership = Ownership::new(OwnTables::default());
        ownership.lock().waiting.insert(PART, Waiting::default());
        assert!(ownership.lock().start(PART, 10));
        ownership
    }

    #[test]
    fn nothing_is_taken_away_while_a_batch_is_written() {
        let ownership = owns_part();
        ownership.begin_writing();
        let begins = Barrier::new(2);
        std::thread::scope(|threads| {
            let revoke = threads.spawn(|| {
                begins.wait();
                ownership.revoke(vec![PART])
            });
            begins.wait();
            // It would be done at once.
            std::thread::park_timeout(Duration::from_millis(50));
            assert!(!revoke.is_finished(), "it did not wait");
            ownership.lock().position_mut(PART).unwrap().store(20);
            ownership.end_writing();
            assert_eq!(revoke.join().unwrap(), [PART]);
        });
        assert_eq!(ownership.lock().take_revoked(), [PART]);
        assert!(ownership.lock().position(PART).is_none());
    }

    #[test]
    fn the_oldest_record_is_the_first_that_is_not_stored() {
        let ownership = owns_part();
        let oldest = || ownership.lock().oldest();
        let collected = |offset, ms| ownership.lock().collected(PART, offset, ms);
        assert!(oldest().is_empty());
        collected(10, 1_000);
        collected(11, 1_001);
        ownership.begin_writing();
        collected(12, 1_002);
        collected(13, 1_003);
        assert_eq!(oldest(), [(PART.topic, 1_000)]);
        ownership.lock().position_mut(PART).unwrap().store(12);
        ownership.end_writing();
        assert_eq!(oldest(), [(PART.topic, 1_002)]);
        ownership.begin_writing();
        collected(14, 1_004);
        assert_eq!(ownership.lock().stop(), [PART]);
        assert_eq!(oldest(), [(PART.topic, 1_002)], "also of what was given up");
    }
}
