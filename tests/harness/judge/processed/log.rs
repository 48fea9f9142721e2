//! Reading a topic from where the last reading ended, and looking for canaries.
//!
//! Guarantees: reads committed records only, all that stand when it begins. On failure: an error when Kafka does not
//! answer in time, or has deleted the place where the last reading ended (unless that is what was done on purpose).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_cloud::reference::Record;
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use super::PATIENCE;
use crate::judge::run::number_in;
use crate::oracle::kafka::is_passing;

const READ: Duration = Duration::from_secs(120);
/// Brokers answer again within this time.
const COMES_BACK: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// A record, and its partition.
pub(super) struct Entry {
    pub(super) partition: i32,
    pub(super) record: Record,
}

/// How far a topic was read.
pub(super) struct Log {
    topic: &'static str,
    next: BTreeMap<i32, i64>,
}

impl Log {
    pub(super) fn new(topic: &'static str) -> Self {
        Self { topic, next: BTreeMap::new() }
    }

    /// Everything since the last time, in the order of each partition.
    pub(super) fn read(&mut self, brokers: &str) -> anyhow::Result<Vec<Entry>> {
        let reader = asker(brokers, "weir-chaos", "read_committed")?;
        let count = partitions(&reader, self.topic)?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..count {
            let (low, _) = watermarks(&reader, self.topic, partition)?;
            let next = self.next.entry(partition).or_insert(low);
            *next = low.max(*next);
            assignment.add_partition_offset(self.topic, partition, Offset::Offset(*next))?;
        }
        reader.assign(&assignment)?;
        let (mut entries, mut ended) = (Vec::new(), BTreeSet::new());
        let deadline = Deadline::after(READ);
        while ended.len() < usize::try_from(count)? {
            ensure!(!deadline.passed(), "{} could not be read within {READ:?}", self.topic);
            match reader.poll(POLL) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(error)) => ensure!(is_passing(&error), "reading {}: {error}", self.topic),
                Some(Ok(message)) => {
                    self.next.insert(message.partition(), message.offset() + 1);
                    entries.push(Entry { partition: message.partition(), record: record(&message) });
                }
            }
        }
        Ok(entries)
    }

    /// Partitions that an open transaction holds up, even after `patience`.
    pub(super) fn open_transactions(
        &self,
        brokers: &str,
        patience: Duration,
    ) -> anyhow::Result<Option<String>> {
        let committed = asker(brokers, "weir-chaos", "read_committed")?;
        let all = asker(brokers, "weir-chaos", "read_uncommitted")?;
        let deadline = Deadline::after(patience);
        loop {
            let mut open = None;
            for partition in 0..partitions(&all, self.topic)? {
                let (_, stable) = watermarks(&committed, self.topic, partition)?;
                let (_, end) = watermarks(&all, self.topic, partition)?;
                if stable < end {
                    open = Some(format!(
                        "{} [{partition}]: an open transaction from {stable} to {end}",
                        self.topic
                    ));
                }
            }
            if open.is_none() || deadline.passed() {
                return Ok(open);
            }
            std::thread::park_timeout(POLL);
        }
    }
}

fn record(message: &impl Message) -> Record {
    let mut record = Record {
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        ..Record::default()
    };
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let value = header.value.map(<[u8]>::to_vec);
        match header.key {
            wire::EDGE => record.edge = value,
            wire::STREAM => record.stream = value,
            wire::NUMBER => record.number = value,
            wire::CONTROL => record.control = value,
            wire::BACKLOG => record.backlog = true,
            wire::RETRY => record.retry = true,
            _ => {}
        }
    }
    record
}

/// A consumer that joins no group.
pub(super) fn asker(brokers: &str, group: &str, isolation: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "500")
        .set("allow.auto.create.topics", "false")
        .set("log_level", "0")
        .create()
        .context("a consumer of the judge")
}

/// Where a log begins and ends. A broker that is just coming back may not know yet: it is asked again.
pub(super) fn watermarks(asker: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
    let deadline = Deadline::after(COMES_BACK);
    loop {
        match asker.fetch_watermarks(topic, partition, PATIENCE) {
            Ok(found) => return Ok(found),
            Err(error) if deadline.passed() => return Err(error.into()),
            Err(_) => std::thread::park_timeout(POLL),
        }
    }
}

pub(super) fn partitions(asker: &BaseConsumer, topic: &str) -> anyhow::Result<i32> {
    let metadata = asker.fetch_metadata(Some(topic), PATIENCE)?;
    let count = metadata.topics().first().map_or(0, |found| found.partitions().len());
    ensure!(count > 0, "there is no topic {topic}");
    Ok(i32::try_from(count)?)
}

/// Waits at the end of `weir.enriched` for readings with certain ids.
pub struct Canary(BaseConsumer);

impl Canary {
    /// From now on.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn watch(brokers: &str) -> anyhow::Result<Self> {
        let reader = asker(brokers, "weir-chaos", "read_committed")?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions(&reader, wire::ENRICHED)? {
            let (_, end) = reader.fetch_watermarks(wire::ENRICHED, partition, PATIENCE)?;
            assignment.add_partition_offset(wire::ENRICHED, partition, Offset::Offset(end))?;
        }
        reader.assign(&assignment)?;
        Ok(Self(reader))
    }

    /// Whether all of them come in time; how long that took.
    #[must_use]
    pub fn all(&self, ids: &[u64], patience: Duration) -> Option<Duration> {
        let (begun, deadline) = (clock::instant(), Deadline::after(patience));
        let mut left: HashSet<u64> = ids.iter().copied().collect();
        while !left.is_empty() {
            if deadline.passed() {
                return None;
            }
            if let Some(Ok(message)) = self.0.poll(POLL)
                && let Some(id) = number_in(message.payload().unwrap_or_default())
            {
                left.remove(&id);
            }
        }
        Some(clock::since(begun))
    }
}
