//! The log that stores are compared with: which records it has, in order, and the dead letters of a store.
//!
//! Guarantees: read committed; joins no group and commits nothing. On failure: a broker that gives nothing for
//! [`PATIENCE`] is an error, never an end.

use std::collections::{BTreeMap, HashMap, HashSet};
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
use super::super::own::{OwnTables, Target};
use super::super::{SinkName, row};
use crate::kafka::{ASK, KafkaConfig, Quiet};

/// How long Kafka may give nothing although there is more.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Who asks Kafka.
pub(in crate::sinks) struct Logs {
    kafka: KafkaConfig,
    asker: BaseConsumer,
    tables: OwnTables,
    /// One for each topic, kept: to connect anew takes longer than to read.
    readers: Vec<BaseConsumer<Quiet>>,
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
        let reading = record.filter(|_| part.topic.has_readings()).map(|record| batch.value(record));
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
    pub(super) fn open(kafka: &KafkaConfig, tables: OwnTables) -> Result<Self, Error> {
        let mut reading = kafka.consumer("weir-verify", "weir-verify");
        // It never joins a group; the end of a partition tells where only ends of transactions follow.
        reading.remove("group.instance.id");
        reading.set("enable.partition.eof", "true");
        let topics = SinkName::ALL.into_iter().flat_map(|which| tables.topics(which)).map(Topic::index);
        let count = topics.max().map_or(0, |last| last + 1);
        let readers = (0..count).map(|_| reading.create_with_context(Quiet));
        let readers = readers.collect::<Result<_, _>>()?;
        Ok(Self { kafka: kafka.clone(), asker: kafka.client().create()?, tables, readers })
    }

    /// The partitions of a topic.
    pub(in crate::sinks) fn parts(&self, topic: Topic) -> Result<Vec<Part>, KafkaError> {
        let metadata = self.asker.fetch_metadata(Some(topic.name()), ASK)?;
        let count =
            metadata.topics().iter().find(|t| t.name() == topic.name()).map_or(0, |t| t.partitions().len());
        Ok((0..i32::try_from(count).unwrap_or(0)).map(|partition| Part { topic, partition }).collect())
    }

    /// All partitions that a sink reads.
    pub(super) fn all_parts(&self, which: SinkName) -> Result<Vec<Part>, KafkaError> {
        let mut parts = Vec::new();
        for topic in self.tables.topics(which) {
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
        for part in self.all_parts(which)? {
            list.add_partition(part.topic.name(), part.partition);
        }
        let committed = group.committed_offsets(list, ASK)?;
        let stored = |topic: &str, partition, offset| match (self.tables.topic(topic), offset) {
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

    /// All dead letters of a stage that the log has, each with the tables that have no row of its record.
    pub(super) fn letters_of(&self, stage: &str) -> Result<HashMap<LetterOf, HashSet<String>>, Error> {
        let mut ranges = Vec::new();
        for part in self.parts(Topic::Rejected)? {
            ranges.push((part, self.range(part, None, None)?));
        }
        let mut letters: HashMap<LetterOf, HashSet<String>> = HashMap::new();
        let mut log = Log::read(self, Topic::Rejected, ranges)?;
        while let Some(chunk) = log.chunk(super::CHUNK_RECORDS)? {
            let values = chunk.batch.records().iter().map(|record| chunk.batch.value(record));
            for (of, refused_by) in values.filter_map(|value| letter(value, stage, self.tables)) {
                letters.entry(of).or_default().extend(refused_by);
            }
        }
        Ok(letters)
    }

    /// Of these ranges of a topic, those that hold more than ends of transactions.
    pub(super) fn with_records(
        &self,
        topic: Topic,
        ranges: Vec<(Part, Range<i64>)>,
    ) -> Result<Vec<Part>, Error> {
        let mut log = Log::read(self, topic, ranges)?;
        let mut parts = Vec::new();
        while let Some(chunk) = log.chunk(1)? {
            log.left.remove(&chunk.part);
            parts.push(chunk.part);
        }
        Ok(parts)
    }
}

fn letter(value: &[u8], wanted: &str, tables: OwnTables) -> Option<(LetterOf, Vec<String>)> {
    #[derive(Deserialize)]
    struct Letter<'a> {
        #[serde(borrow)]
        weir: Origin<'a>,
        #[serde(borrow)]
        stage: std::borrow::Cow<'a, str>,
        #[serde(default)]
        detail: String,
        tables: Option<Vec<String>>,
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
    Some((
        (tables.topic(&letter.weir.topic?)?, letter.weir.offset?, who),
        letter.tables.unwrap_or_else(|| tables_of(&letter.detail)),
    ))
}

/// The tables of a letter from before it said which: those that its detail names, else that of the topic.
fn tables_of(detail: &str) -> Vec<String> {
    let named = detail.split("table ").skip(1).filter_map(|rest| Some(rest.split_once(": ")?.0.to_owned()));
    let fixed = Topic::ALL.into_iter().map(|topic| Target::Fixed(topic).name().to_owned());
    named.chain(fixed.filter(|_| !detail.starts_with("table "))).collect()
}

/// Records of one partition, in their order.
pub(super) struct Chunk {
    pub(super) part: Part,
    pub(super) batch: Batch,
    /// Where the partition's range ends.
    pub(super) end: i64,
}

/// What is left of a partition's range.
struct Left {
    next: i64,
    end: i64,
    batch: Batch,
}

impl Left {
    fn is_due(&self, records: usize) -> bool {
        self.next >= self.end || self.batch.records().len() >= records
    }
}

/// Reads ranges of the partitions of a topic, all at the same time; one at a time for each topic of [`Logs`].
pub(super) struct Log<'a> {
    consumer: &'a BaseConsumer<Quiet>,
    topic: Topic,
    left: BTreeMap<Part, Left>,
}

impl<'a> Log<'a> {
    pub(super) fn read(logs: &'a Logs, topic: Topic, ranges: Vec<(Part, Range<i64>)>) -> Result<Self, Error> {
        let mut list = TopicPartitionList::new();
        let mut left = BTreeMap::new();
        for (part, range) in ranges.into_iter().filter(|(_, range)| !range.is_empty()) {
            list.add_partition_offset(topic.name(), part.partition, Offset::Offset(range.start))?;
            left.insert(part, Left { next: range.start, end: range.end, batch: Batch::default() });
        }
        let consumer = &logs.readers[topic.index()];
        if !left.is_empty() {
            consumer.assign(&list)?;
        }
        Ok(Self { consumer, topic, left })
    }

    /// The next records of some partition: so many, or the last ones of its range; `None` when nothing is left.
    pub(super) fn chunk(&mut self, records: usize) -> Result<Option<Chunk>, Error> {
        let mut patience = Deadline::after(PATIENCE);
        while !self.left.is_empty() {
            if let Some(chunk) = self.due(records) {
                return Ok(Some(chunk));
            }
            if self.poll() {
                patience = Deadline::after(PATIENCE);
            } else if patience.passed()
                && let Some((part, left)) = self.left.first_key_value()
            {
                let seconds = PATIENCE.as_secs();
                return Err(
                    format!("{part}: Kafka gave nothing after offset {} for {seconds} s", left.next).into()
                );
            }
        }
        Ok(None)
    }

    /// What is to be handed out; a partition at its end is left, and handed out if there is anything of it.
    fn due(&mut self, records: usize) -> Option<Chunk> {
        let part = *self.left.iter().find(|(_, left)| left.is_due(records))?.0;
        let left = self.left.get_mut(&part)?;
        let (batch, end, is_over) = (std::mem::take(&mut left.batch), left.end, left.next >= left.end);
        if is_over {
            self.left.remove(&part);
        }
        if batch.is_empty() { self.due(records) } else { Some(Chunk { part, batch, end }) }
    }

    /// Whether Kafka gave something.
    fn poll(&mut self) -> bool {
        match self.consumer.poll(POLL) {
            Some(Ok(message)) => {
                let part = Part { topic: self.topic, partition: message.partition() };
                // What is not wanted any more may still come.
                let Some(left) = self.left.get_mut(&part) else { return false };
                let offset = message.offset();
                left.next = offset + 1;
                if offset < left.end {
                    let timestamp = message.timestamp().to_millis().unwrap_or(0);
                    left.batch.push(part, offset, timestamp, message.payload().unwrap_or_default());
                }
                true
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(left) = self.left.get_mut(&Part { topic: self.topic, partition }) {
                    left.next = left.end;
                }
                true
            }
            Some(Err(error)) => {
                tracing::debug!("verify: {error}");
                false
            }
            None => false,
        }
    }
}
