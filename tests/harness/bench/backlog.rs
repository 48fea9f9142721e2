//! A backlog in `weir.readings`: put there, and how much of it the processor has left.
//!
//! Comes in: how many readings of how many devices. Goes out: they stand in the topic, with the identities that an edge
//! would give them, put there by an idempotent producer; and the records that the processor's group has not committed.
//! Guarantees: one stream, numbers without holes in each partition, devices in turn; when [`put`] returns, Kafka has all.
//! On failure: Kafka's error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use weir_shared::clock;
use weir_shared::record::StreamId;
use weir_shared::wire;

const PATIENCE: Duration = Duration::from_secs(60);
/// How many readings a pace is kept over.
const PACED_TOGETHER: u64 = 500;

/// What to put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) readings: u64,
    pub(super) devices: u64,
    /// 0: as fast as Kafka takes them.
    pub(super) per_second: u64,
    /// Writes the value of a reading: device, its number among all, ms since 1970.
    pub(super) value: fn(&mut String, &str, u64, i64),
}

/// Where it begins: partition and offset.
pub(super) type Begin = BTreeMap<i32, i64>;

/// The name of a device.
pub(super) fn device(n: u64) -> String {
    format!("pump-{n:04}")
}

/// Puts it and waits until Kafka has all.
pub(super) fn put(brokers: &str, backlog: &Backlog) -> anyhow::Result<Begin> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("batch.size", "524288")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    let begin = ends(&producer)?;
    let partitions = i32::try_from(begin.len())?;
    // Where each device goes is worked out once.
    let devices: Vec<(String, i32)> = (0..backlog.devices)
        .map(|n| device(n * 7 % backlog.devices))
        .map(|device| (wire::partition_of(device.as_bytes(), partitions), device))
        .map(|(partition, device)| (device, partition))
        .collect();
    let stream = StreamId(
        (u128::from(clock::wall_ms().cast_unsigned()) << 32 | u128::from(std::process::id())).to_be_bytes(),
    );
    let hex = stream.to_hex();
    let mut numbers: BTreeMap<i32, u64> = BTreeMap::new();
    let (mut value, mut text) = (String::new(), String::new());
    let (began, mut now) = (clock::instant(), clock::wall_ms());
    for ((device, partition), n) in devices.iter().cycle().zip(0..backlog.readings) {
        if n % PACED_TOGETHER == 0 {
            keep_pace(&producer, began, n, backlog.per_second);
            now = clock::wall_ms();
        }
        let number = numbers.entry(*partition).or_default();
        value.clear();
        (backlog.value)(&mut value, device, n, now);
        text.clear();
        write!(text, "{number}")?;
        let headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header { key: wire::EDGE, value: Some("bench") })
            .insert(Header { key: wire::STREAM, value: Some(&hex) })
            .insert(Header { key: wire::NUMBER, value: Some(&text) });
        let mut record =
            BaseRecord::to(wire::READINGS).partition(*partition).key(device).payload(&value).headers(headers);
        while let Err((error, unsent)) = producer.send(record) {
            ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), error);
            producer.poll(Duration::from_millis(1));
            record = unsent;
        }
        *number += 1;
    }
    producer.flush(PATIENCE).context("putting the backlog into weir.readings")?;
    Ok(begin)
}

/// Waits until it is time for the `n`th.
fn keep_pace(producer: &BaseProducer, began: Instant, n: u64, per_second: u64) {
    if per_second > 0 {
        let due = Duration::from_secs_f64(n as f64 / per_second as f64);
        std::thread::park_timeout(due.saturating_sub(clock::since(began)));
    }
    producer.poll(Duration::ZERO);
}

fn ends(producer: &BaseProducer) -> anyhow::Result<Begin> {
    let metadata = producer.client().fetch_metadata(Some(wire::READINGS), PATIENCE)?;
    let topic = metadata.topics().first().context("weir.readings")?;
    topic
        .partitions()
        .iter()
        .map(|p| Ok((p.id(), producer.client().fetch_watermarks(wire::READINGS, p.id(), PATIENCE)?.1)))
        .collect()
}

/// Asks how far the processor's group is.
pub(super) struct Lag {
    consumer: BaseConsumer,
    partitions: Vec<i32>,
}

impl Lag {
    pub(super) fn new(brokers: &str) -> anyhow::Result<Self> {
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
    pub(super) fn records(&self) -> anyhow::Result<u64> {
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
