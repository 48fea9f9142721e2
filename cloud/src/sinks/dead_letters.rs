//! What a store cannot hold goes to `weir.rejected`, with its reason and its bytes.
//!
//! Comes in: records with the reason why not. Goes out: one transaction that carries them, and, where the sink's
//! progress is in Kafka, also the progress: then no crash doubles a dead letter.
//! Guarantees: acknowledged by all replicas before [`DeadLetters::send`] returns `Ok`. The sink of MySQL keeps its
//! progress elsewhere: a crash just between the two commits repeats its dead letter (never loses it).
//! On failure: the transaction is aborted, the producer dropped, the batch given up; the next producer with this
//! name ends whatever is left open.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Serialize;
use weir_shared::clock::Deadline;
use weir_shared::record::Identity;
use weir_shared::wire;

use super::batch::{Batch, Part, Record};
use super::consumer::{Commit, Source, commit_list};
use super::{Failure, SinkName, row};
use crate::kafka::{KafkaConfig, queue};

/// How much of the refused record a dead letter carries: with base64 it stays under the usual 1 MB limit.
const RAW_BYTES_MAX: usize = 512 * 1024;
/// How much of the detail, in bytes: a store may quote the whole record.
const DETAIL_BYTES_MAX: usize = 1_000;
/// So many of a batch are logged one by one.
const LOGGED_MAX: usize = 5;
/// Each step of the transaction.
const STEP: Duration = Duration::from_secs(10);

/// A record that was refused.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) record: Record,
    pub(super) reason: String,
    pub(super) detail: String,
    /// The tables that have no row of it.
    pub(super) tables: Vec<&'static str>,
    /// Other rows of the record may stand in the store.
    pub(super) partly: bool,
}

/// The dead letters of a batch: one for each record, however many tables have no row of it.
#[derive(Debug, Default)]
pub(super) struct Letters(BTreeMap<(Part, i64), Letter>);

impl Letters {
    /// Adds a letter to what is said of its record: the first reason stays.
    pub(super) fn add(&mut self, letter: Letter) {
        match self.0.entry((letter.record.part, letter.record.offset)) {
            Entry::Vacant(entry) => drop(entry.insert(letter)),
            Entry::Occupied(mut entry) => {
                let said = entry.get_mut();
                if !said.detail.contains(&letter.detail) {
                    said.detail = format!("{}; {}", said.detail, letter.detail);
                }
                said.tables.extend(letter.tables);
                said.partly |= letter.partly;
            }
        }
    }

    /// Whether there is one of a record.
    pub(super) fn has(&self, record: &Record) -> bool {
        self.0.contains_key(&(record.part, record.offset))
    }

    /// In the order of their partitions and offsets.
    pub(super) fn into_list(self) -> Vec<Letter> {
        self.0.into_values().collect()
    }
}

#[derive(Serialize)]
struct LetterJson<'a> {
    weir: OriginJson<'a>,
    stage: &'a str,
    reason: &'a str,
    detail: &'a str,
    source: &'a str,
    topic: &'a str,
    received: i64,
    bytes: usize,
    tables: &'a [&'a str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partly: bool,
    raw: &'a str,
}

#[derive(Serialize)]
struct OriginJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    partition: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    edge: &'a str,
    topic: &'a str,
    offset: i64,
}

/// The producer of one sink's dead letters, made when the first is needed.
pub(super) struct DeadLetters {
    config: rdkafka::ClientConfig,
    which: SinkName,
    producer: Option<BaseProducer>,
}

impl DeadLetters {
    pub(super) fn new(kafka: &KafkaConfig, which: SinkName, slot: &str) -> Self {
        let config = kafka.transactional_producer(&format!("{slot}-{}", which.stage()));
        Self { config, which, producer: None }
    }

    /// Sends the letters, and `progress` with them if there is any, in one transaction.
    pub(super) fn send(
        &mut self,
        batch: &Batch,
        letters: &[Letter],
        progress: &[Commit],
        source: &Source,
    ) -> Result<(), Failure> {
        for letter in &letters[..letters.len().min(LOGGED_MAX)] {
            let (part, offset) = (letter.record.part, letter.record.offset);
            tracing::warn!(%part, offset, reason = letter.reason, detail = letter.detail, "dead letter");
        }
        if letters.len() > LOGGED_MAX {
            tracing::warn!(
                more = letters.len() - LOGGED_MAX,
                "dead letters: `weir-cloud dlq ls` counts them"
            );
        }
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => open(&self.config).map_err(failed)?,
        };
        // Kept only when all went well: after any doubt the next one starts by ending this one's transaction.
        transact(&producer, self.which, batch, letters, progress, source)?;
        self.producer = Some(producer);
        Ok(())
    }
}

fn open(config: &rdkafka::ClientConfig) -> Result<BaseProducer, KafkaError> {
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(STEP)?;
    Ok(producer)
}

fn transact(
    producer: &BaseProducer,
    which: SinkName,
    batch: &Batch,
    letters: &[Letter],
    progress: &[Commit],
    source: &Source,
) -> Result<(), Failure> {
    producer.begin_transaction().map_err(failed)?;
    let sent = (|| {
        for letter in letters {
            produce(producer, which, batch.value(&letter.record), letter).map_err(failed)?;
        }
        if !progress.is_empty() {
            let metadata = source.group_metadata()?;
            producer.send_offsets_to_transaction(&commit_list(progress)?, &metadata, STEP).map_err(failed)?;
        }
        producer.commit_transaction(STEP).map_err(failed)
    })();
    if sent.is_err()
        && let Err(error) = producer.abort_transaction(STEP)
    {
        tracing::debug!(%error, "the next producer will end this transaction");
    }
    sent
}

fn produce(
    producer: &BaseProducer,
    which: SinkName,
    value: &[u8],
    letter: &Letter,
) -> Result<(), KafkaError> {
    // What the others are is not a number of a stream alone; their position is exact.
    let is_reading = letter.record.part.topic.has_readings();
    let reading = if is_reading { row::reading(value, which).ok().flatten() } else { None };
    let identity = reading.as_ref().map(|r| r.identity);
    let edge = reading.as_ref().map_or("", |r| &*r.edge);
    let json = letter_json(which.stage(), value, letter, identity, edge);
    let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(wire::REJECTED).payload(&json);
    if let Some(reading) = &reading {
        record = record.key(&*reading.device);
    }
    if let Some(identity) = identity {
        let (stream, number) = (identity.stream.to_hex(), identity.number.to_string());
        let headers = OwnedHeaders::new()
            .insert(Header { key: wire::EDGE, value: Some(edge.as_bytes()) })
            .insert(Header { key: wire::STREAM, value: Some(&stream[..]) })
            .insert(Header { key: wire::NUMBER, value: Some(number.as_bytes()) });
        record = record.headers(headers);
    }
    queue(producer, record, Deadline::after(STEP))
}

/// The value of a dead letter. `received` is the Kafka timestamp of the refused record, so that a repeated letter is
/// the same letter.
fn letter_json(
    stage: &str,
    value: &[u8],
    letter: &Letter,
    identity: Option<Identity>,
    edge: &str,
) -> Vec<u8> {
    let part = letter.record.part;
    let raw = BASE64.encode(&value[..value.len().min(RAW_BYTES_MAX)]);
    let json = LetterJson {
        weir: OriginJson {
            stream: identity.map(|i| i.stream.to_string()),
            partition: identity.map_or(part.partition, |i| i.partition),
            number: identity.map(|i| i.number),
            edge,
            topic: part.topic.name(),
            offset: letter.record.offset,
        },
        stage,
        reason: &letter.reason,
        detail: &letter.detail[..letter.detail.floor_char_boundary(DETAIL_BYTES_MAX)],
        source: "kafka",
        topic: part.topic.name(),
        received: letter.record.timestamp.max(0),
        bytes: value.len(),
        tables: &letter.tables,
        partly: letter.partly,
        raw: &raw,
    };
    serde_json::to_vec(&json).expect("strings and numbers always serialise")
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: KafkaError) -> Failure {
    Failure::Kafka(format!("dead letters: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::batch::Topic;
    use super::super::table::{Cell, Row, table};
    use super::*;
    use weir_shared::record::StreamId;

    #[test]
    fn a_letter_decodes_as_a_rejection() {
        let mut batch = Batch::default();
        batch.push(Part { topic: Topic::Enriched, partition: 4 }, 99, 1_790_000_000_000, b"\xff{broken");
        let record = batch.records()[0];
        let tables = vec!["weir_readings"];
        let (reason, detail) = ("row_malformed".into(), "it \"is\"".into());
        let letter = Letter { record, reason, detail, tables, partly: false };
        let json = letter_json("sink.mysql", batch.value(&record), &letter, None, "");
        let rejected = table(Topic::Rejected).unwrap();
        let r = Row::decode(rejected, &json, SinkName::Mysql).unwrap().unwrap();
        let position = (r.identity(), r.integer("stream_partition"), r.integer("origin_offset"));
        assert_eq!(position, (None, Some(4), Some(99)));
        let texts = ["origin", "stage", "reason"].map(|name| r.text(name));
        assert_eq!(texts, ["weir.enriched", "sink.mysql", "row_malformed"]);
        assert_eq!((r.time(), r.integer("bytes")), (1_790_000_000_000, Some(8)));
        assert_eq!(*r.get("raw"), Cell::Bytes(b"\xff{broken".to_vec()));
        let identity = Identity { stream: StreamId([9; 16]), partition: 1, number: 5 };
        let json = letter_json("sink.mysql", b"", &letter, Some(identity), "gw");
        let r = Row::decode(rejected, &json, SinkName::Mysql).unwrap().unwrap();
        assert_eq!(r.identity(), Some(identity));
    }

    #[test]
    fn one_letter_says_which_tables_have_no_row_of_the_record() {
        let mut batch = Batch::default();
        batch.push(Part { topic: Topic::Enriched, partition: 4 }, 99, 1_790_000_000_000, b"{}");
        let record = batch.records()[0];
        let letter = |table, detail: &str, partly| Letter {
            record,
            reason: "r".into(),
            detail: detail.into(),
            tables: vec![table],
            partly,
        };
        let mut letters = Letters::default();
        letters.add(letter("weir_readings", "no device", false));
        letters.add(letter("power", "table power: no device", true));
        let [letter] = &letters.into_list()[..] else { panic!("one record, one letter") };
        let json = letter_json("sink.mysql", b"{}", letter, None, "");
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["tables"], serde_json::json!(["weir_readings", "power"]));
        assert_eq!(
            (&json["partly"], &json["detail"]),
            (&true.into(), &"no device; table power: no device".into())
        );
    }

    #[test]
    fn a_long_detail_is_cut_between_two_characters() {
        let mut batch = Batch::default();
        batch.push(Part { topic: Topic::Enriched, partition: 4 }, 99, 1_790_000_000_000, b"{}");
        let record = batch.records()[0];
        let detail = format!("x{}", "ü".repeat(600));
        let letter = Letter { record, reason: "r".into(), detail, tables: Vec::new(), partly: false };
        let json = letter_json("sink.mysql", b"{}", &letter, None, "");
        let r = Row::decode(table(Topic::Rejected).unwrap(), &json, SinkName::Mysql).unwrap().unwrap();
        assert_eq!(r.text("detail"), format!("x{}", "ü".repeat(499)));
    }
}
