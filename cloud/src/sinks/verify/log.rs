//! The log that stores are compared with: which records it has, in order, and the dead letters of a store.
//!
//! Guarantees: read committed; joins no group and commits nothing. On failure: a broker that gives nothing for
//! [`PATIENCE`] is an error, never an end.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;
use weir_shared::clock::Deadline;
use weir_shared::supervise::Error;

use super::super::batch::{Batch, Part, Topic};
use super::super::{SinkName, row};
use crate::kafka::{ASK, KafkaConfig, Quiet};

/// How long Kafka may give nothing although there is more.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Who asks Kafka.
pub(in crate::sinks) struct Logs {
    kafka: KafkaConfig,
    asker: BaseConsumer,
}

/// What a dead letter of a store says it was: topic, offset, and the identity of a reading or else the partition.
pub(super) type LetterOf = (Topic, i64, String);

/// A record that is not in a store.
pub(super) struct Place {
    pub(super) part: Part,
    pub(super) offset: i64,
    /// How its dead letter would name it.
    pub(super) letter: LetterOf,
}

impl Place {
    pub(super) fn of(batch: &Batch, part: Part, offset: i64) -> Self {
        let records = batch.records();
        let record =
            records.binary_search_by_key(&offset, |record| record.offset).map(|at| &records[at]).ok();
        let reading = record.filter(|_| part.topic == Topic::Enriched).map(|record| batch.value(record));
        // Any store's decoder says the same of the identity.
        let identity = reading
            .and_then(|json| SinkName::ALL.iter().find_map(|which| row::reading(json, *which).ok()?));
        let who = match identity.map(|reading| reading.identity) {
            Some(identity) => format!("{} {}", identity.stream, identity.number),
            None => part.partition.to_string(),
        };
        Self { part, offset, letter: (part.topic, offset, who) }
    }
}

impl Logs {
    pub(super) fn open(kafka: &KafkaConfig) -> Result<Self, Error> {
        Ok(Self { kafka: kafka.clone(), asker: kafka.client().create()? })
    }

    /// The partitions of a topic.
    pub(in crate::sinks) fn parts(&self, topic: Topic) -> Result<Vec<Part>, KafkaError> {
        let metadata = self.asker.fetch_metadata(Some(topic.name()), ASK)?;
        let count =
            metadata.topics().iter().find(|t| t.name() == topic.name()).map_or(0, |t| t.partitions().len());
        Ok((0..i32::try_from(count).unwrap_or(0)).map(|partition| Part { topic, partition }).collect())
    }

    /// All partitions that sinks read.
    pub(super) fn all_parts(&self) -> Result<Vec<Part>, KafkaError> {
        let mut parts = Vec::new();
        for topic in Topic::ALL {
            parts.extend(self.parts(topic)?);
        }
        Ok(parts)
    }

    /// What the group of a sink has committed.
    pub(in crate::sinks) fn committed(&self, which: SinkName) -> Result<Vec<(Part, i64)>, KafkaError> {
        let mut config = self.kafka.client();
        config.set("group.id", which.group()).set("enable.auto.commit", "false");
        let group: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        for part in self.all_parts()? {
            list.add_partition(part.topic.name(), part.partition);
        }
        let committed = group.committed_offsets(list, ASK)?;
        let stored = |topic: &str, partition, offset| match (Topic::from_name(topic), offset) {
            (Some(topic), Offset::Offset(end)) => Some((Part { topic, partition }, end)),
            _ => None,
        };
        Ok(committed.elements().iter().filter_map(|e| stored(e.topic(), e.partition(), e.offset())).collect())
    }

    /// The offsets of a span of time that the log has.
    pub(super) fn range(
        &self,
        part: Part,
        from_ms: Option<i64>,
        to_ms: Option<i64>,
    ) -> Result<Range<i64>, Error> {
        let (name, partition) = (part.topic.name(), part.partition);
        let (low, high) =
            self.asker.fetch_watermarks(name, partition, ASK).map_err(|e| format!("{part}: {e}"))?;
        let at = |time: i64| {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(name, partition, Offset::Offset(time.max(0)))?;
            let found = self.asker.offsets_for_times(times, ASK)?;
            // No offset: everything is older.
            let offset = found.elements().first().map(|element| element.offset());
            Ok::<_, Error>(if let Some(Offset::Offset(offset)) = offset { offset } else { high })
        };
        let start = from_ms.map(at).transpose()?.unwrap_or(low).max(low);
        Ok(start..to_ms.map(at).transpose()?.unwrap_or(high))
    }

    /// All dead letters of a stage that the log has.
    pub(super) fn letters_of(&self, stage: &str) -> Result<HashSet<LetterOf>, Error> {
        let mut letters = HashSet::new();
        let mut batch = Batch::default();
        for part in self.parts(Topic::Rejected)? {
            let range = self.range(part, None, None)?;
            let mut log = Log::read(self, part, range.start, range.end)?;
            while log.chunk(&mut batch, super::CHUNK_RECORDS)? {
                let values = batch.records().iter().map(|record| batch.value(record));
                letters.extend(values.filter_map(|value| letter(value, stage)));
            }
        }
        Ok(letters)
    }
}

fn letter(value: &[u8], wanted: &str) -> Option<LetterOf> {
    #[derive(Deserialize)]
    struct Letter<'a> {
        #[serde(borrow)]
        weir: Origin<'a>,
        #[serde(borrow)]
        stage: std::borrow::Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct Origin<'a> {
        stream: Option<String>,
        number: Option<u64>,
        partition: Option<i32>,
        #[serde(borrow)]
        topic: Option<std::borrow::Cow<'a, str>>,
        offset: Option<i64>,
    }
    let letter: Letter<'_> = serde_json::from_slice(value).ok()?;
    if letter.stage != wanted {
        return None;
    }
    let who = match (letter.weir.stream, letter.weir.number) {
        (Some(stream), Some(number)) => format!("{stream} {number}"),
        _ => letter.weir.partition?.to_string(),
    };
    Some((Topic::from_name(&letter.weir.topic?)?, letter.weir.offset?, who))
}

/// Reads a partition up to an offset.
pub(super) struct Log {
    consumer: BaseConsumer<Quiet>,
    part: Part,
    next: i64,
    end: i64,
}

impl Log {
    pub(super) fn read(logs: &Logs, part: Part, from: i64, end: i64) -> Result<Self, Error> {
        let mut config = logs.kafka.consumer("weir-verify", "weir-verify");
        // It never joins a group; the end of a partition tells where only ends of transactions follow.
        config.remove("group.instance.id");
        config.set("enable.partition.eof", "true");
        let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
        if from < end {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(part.topic.name(), part.partition, Offset::Offset(from))?;
            consumer.assign(&list)?;
        }
        Ok(Self { consumer, part, next: from, end })
    }

    /// The offset before which it reads.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// The next records, at most so many; false when there are none left.
    pub(super) fn chunk(&mut self, batch: &mut Batch, records: usize) -> Result<bool, Error> {
        batch.clear();
        let mut patience = Deadline::after(PATIENCE);
        while self.next < self.end && batch.records().len() < records {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    patience = Deadline::after(PATIENCE);
                    self.next = message.offset() + 1;
                    if message.offset() < self.end {
                        let timestamp = message.timestamp().to_millis().unwrap_or(0);
                        batch.push(
                            self.part,
                            message.offset(),
                            timestamp,
                            message.payload().unwrap_or_default(),
                        );
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.next = self.end,
                Some(Err(error)) => tracing::debug!("verify: {error}"),
                None => {}
            }
            if patience.passed() {
                let (part, seconds) = (self.part, PATIENCE.as_secs());
                return Err(
                    format!("{part}: Kafka gave nothing after offset {} for {seconds} s", self.next).into()
                );
            }
        }
        Ok(!batch.is_empty())
    }
}
