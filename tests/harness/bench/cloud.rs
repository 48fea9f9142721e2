//! How fast the cloud drains a backlog.
//!
//! 500,000 readings of about 200 bytes from 1,000 devices wait in `weir.readings`, put there by an idempotent producer
//! with the identities that an edge would give them. First each role alone: `weir-cloud process`, by the committed
//! offsets of its group; then each sink, by the rows in its store. Then another backlog with all roles in one process
//! (`weir-cloud run`). Time counts from the last look at which nothing had moved yet, so that starting is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use weir_shared::clock::{self, Deadline};
use weir_shared::record::StreamId;
use weir_shared::wire;

use super::{COUNT_EVERY, LOOK_EVERY, seconds, usage, watch};
use crate::oracle::{Oracle, Rows, Store};
use crate::programs::{Program, Programs};
use crate::stack::Stack;

const READINGS: u64 = 500_000;
const DEVICES: u64 = 1000;
const WITHIN: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);
/// requirements.md, E.
const WANTED_PER_SECOND: u64 = 100_000;
const WANTED_MB: u64 = 512;
const SINKS: [Store; 3] = [Store::Mysql, Store::Elasticsearch, Store::Clickhouse];

/// Measures; the cloud is stopped before and after, and the edge must not run.
///
/// # Errors
/// When a store does not end with exactly the backlog, or something fails.
pub fn measure(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    let brokers = stack.addresses().kafka;
    let lag = Lag::new(&brokers)?;
    let mut figures = serde_json::Map::new();

    let before = oracle.rows()?;
    put_backlog(&brokers)?;
    programs.start_role(&["process"])?;
    let drained = || Ok(Some(READINGS - lag.records()?.min(READINGS)));
    let process = watch(READINGS, WITHIN, LOOK_EVERY, drained)?;
    let process_mb = usage::of(programs.pid(Program::Cloud)?.context("process ended")?)?.resident_mb_max;
    programs.stop_one(Program::Cloud)?;
    tell(&format!("process alone: {} events/s, {process_mb} MB", process.per_second()));
    figures.insert("process_alone_per_second".to_owned(), process.per_second().into());
    for sink in SINKS {
        programs.start_role(&["sink", sink.name()])?;
        let drained = watch(READINGS, WITHIN, COUNT_EVERY, || Ok(Some(rows_of(sink, oracle, &before)?)))?;
        programs.stop_one(Program::Cloud)?;
        tell(&format!("{} alone: {} rows/s", sink.name(), drained.per_second()));
        figures.insert(format!("{}_alone_per_second", sink.name()), drained.per_second().into());
    }
    exactly(oracle, &before)?;

    let before = oracle.rows()?;
    put_backlog(&brokers)?;
    programs.start(Program::Cloud)?;
    let together = all_at_once(&lag, oracle, &before)?;
    let usage = usage::of(programs.pid(Program::Cloud)?.context("weir-cloud ended")?)?;
    programs.stop_one(Program::Cloud)?;
    exactly(oracle, &before)?;
    tell(&format!("all in one process: {together:?}, {} MB", usage.resident_mb_max));
    figures.insert("together_seconds".to_owned(), json!(together));
    figures.insert("together_cpu_seconds".to_owned(), json!((usage.cpu_seconds * 10.0).round() / 10.0));
    figures.insert("resident_mb_max".to_owned(), usage.resident_mb_max.into());
    figures.insert("process_resident_mb_max".to_owned(), process_mb.into());
    figures.insert("readings".to_owned(), READINGS.into());
    let wanted = json!({"process_alone_per_second": WANTED_PER_SECOND, "resident_mb_max": WANTED_MB});
    figures.insert("wanted".to_owned(), wanted);
    let ok = process.per_second() >= WANTED_PER_SECOND && usage.resident_mb_max <= WANTED_MB;
    figures.insert("ok".to_owned(), ok.into());
    Ok(Value::Object(figures))
}

/// Seconds until the processor, and each store, had everything.
fn all_at_once(lag: &Lag, oracle: &Oracle, before: &Rows) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let deadline = Deadline::after(WITHIN);
    let (mut first_look, mut moved) = (clock::instant(), false);
    let mut count_next = Deadline::after(Duration::ZERO);
    let mut done = BTreeMap::new();
    while done.len() <= SINKS.len() {
        ensure!(!deadline.passed(), "after {WITHIN:?} only these have everything: {done:?}");
        let now = clock::instant();
        let behind = lag.records()?;
        if !moved && behind >= READINGS {
            first_look = now;
        }
        moved |= behind < READINGS;
        if behind == 0 {
            done.entry("process").or_insert_with(|| seconds(first_look.elapsed()));
        }
        if count_next.passed() {
            for sink in SINKS {
                if !done.contains_key(sink.name()) && rows_of(sink, oracle, before)? >= READINGS {
                    done.insert(sink.name(), seconds(first_look.elapsed()));
                }
            }
            count_next = Deadline::after(COUNT_EVERY);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(done)
}

fn rows_of(sink: Store, oracle: &Oracle, before: &Rows) -> anyhow::Result<u64> {
    Ok(oracle.rows_of(sink)? - before.of(sink))
}

fn exactly(oracle: &Oracle, before: &Rows) -> anyhow::Result<()> {
    for sink in SINKS {
        let rows = rows_of(sink, oracle, before)?;
        ensure!(rows == READINGS, "{} has {rows} rows of {READINGS}", sink.name());
    }
    Ok(())
}

/// Asks how far the processor's group is.
struct Lag {
    consumer: BaseConsumer,
    partitions: Vec<i32>,
}

impl Lag {
    fn new(brokers: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "weir-process") // never joined: only its offsets are read
            .set("isolation.level", "read_committed")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(wire::READINGS), PATIENCE)?;
        let topic = metadata.topics().first().context("weir.readings")?;
        let partitions = topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
        Ok(Self { consumer, partitions })
    }

    /// Records of `weir.readings` that are not committed yet.
    fn records(&self) -> anyhow::Result<u64> {
        let mut asked = TopicPartitionList::new();
        let mut behind = 0;
        for &partition in &self.partitions {
            asked.add_partition(wire::READINGS, partition);
            behind += self.consumer.fetch_watermarks(wire::READINGS, partition, PATIENCE)?.1;
        }
        for element in self.consumer.committed_offsets(asked, PATIENCE)?.elements() {
            if let Offset::Offset(offset) = element.offset() {
                behind -= offset;
            }
        }
        Ok(behind.max(0).cast_unsigned())
    }
}

fn put_backlog(brokers: &str) -> anyhow::Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("batch.size", "524288")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    let metadata = producer.client().fetch_metadata(Some(wire::READINGS), PATIENCE)?;
    let partitions = metadata.topics().first().context("weir.readings")?.partitions().len();
    let partitions = i32::try_from(partitions)?;
    let stream = StreamId(
        (u128::from(clock::wall_ms().cast_unsigned()) << 32 | u128::from(std::process::id())).to_be_bytes(),
    );
    let hex = stream.to_hex();
    let mut numbers: BTreeMap<i32, u64> = BTreeMap::new();
    for n in 0..READINGS {
        let device = format!("pump-{:04}", n * 7 % DEVICES);
        let partition = wire::partition_of(device.as_bytes(), partitions);
        let number = numbers.entry(partition).or_default();
        let (value, text) = (reading(&device, n), number.to_string());
        let headers = OwnedHeaders::new()
            .insert(Header { key: wire::EDGE, value: Some("bench") })
            .insert(Header { key: wire::STREAM, value: Some(&hex) })
            .insert(Header { key: wire::NUMBER, value: Some(&text) });
        let mut record =
            BaseRecord::to(wire::READINGS).partition(partition).key(&device).payload(&value).headers(headers);
        while let Err((error, unsent)) = producer.send(record) {
            ensure!(error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull), error);
            producer.poll(Duration::from_millis(1));
            record = unsent;
        }
        *number += 1;
    }
    producer.flush(PATIENCE).context("putting the backlog into weir.readings")
}

fn reading(device: &str, n: u64) -> String {
    let now = clock::wall_ms();
    let values =
        format!(r#"{{"t":{}.{},"p":1.0135,"rpm":{},"on":true}}"#, 20 + n % 10, n % 97, 1400 + n % 200);
    format!(
        r#"{{"device":"{device}","time":{now},"values":{values},"tags":{{"line":"3","plant":"north"}},"received":{now},"clock":"trusted"}}"#
    )
}
