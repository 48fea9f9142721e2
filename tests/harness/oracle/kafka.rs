//! What the topics `weir.enriched` and `weir.rejected` hold of a run, read committed.
//!
//! Comes in: all records since the run began. Goes out: offsets at its beginning, and records to a tally, which
//! counts identities here too: the stores' keys would hide doubles.
//! On failure: Kafka's error, or [`PATIENCE`] without a record before the end was reached.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_shared::clock::Deadline;
use weir_shared::wire::{ENRICHED, REJECTED};

use super::document;
use super::tally::Tally;
use crate::simulator::ledger::{Issued, Offsets};

const PATIENCE: Duration = Duration::from_secs(15);

fn consumer(brokers: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "weir-oracle") // never joined: partitions are assigned by hand
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()
        .context("Kafka consumer of the oracle")
}

/// Where both topics end now.
pub(super) fn offsets(brokers: &str) -> anyhow::Result<Offsets> {
    let consumer = consumer(brokers)?;
    let mut offsets = Offsets::new();
    for topic in [ENRICHED, REJECTED] {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let found = metadata.topics().first().filter(|t| t.error().is_none() && !t.partitions().is_empty());
        let Some(found) = found else { bail!("Kafka has no topic {topic}: `weir-cloud init` makes it") };
        for partition in found.partitions() {
            let (_, end) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?;
            offsets.insert((topic.to_owned(), partition.id()), end);
        }
    }
    Ok(offsets)
}

/// Counts every record of the run.
pub(super) fn read(brokers: &str, issued: &Issued, tally: &mut Tally<'_>) -> anyhow::Result<()> {
    read_topic(brokers, issued, ENRICHED, |value| document::count_reading(value, &issued.run, true, tally))?;
    read_topic(brokers, issued, REJECTED, |value| match document::dead_letter(value) {
        Some(letter) => tally.dead_letter(&letter),
        None => tally.unreadable("a record of weir.rejected"),
    })
}

fn read_topic(
    brokers: &str,
    issued: &Issued,
    topic: &str,
    mut take: impl FnMut(&[u8]),
) -> anyhow::Result<()> {
    let consumer = consumer(brokers)?;
    let mut assignment = TopicPartitionList::new();
    let mut open = BTreeSet::new();
    for ((_, partition), &offset) in issued.offsets.iter().filter(|((t, _), _)| t == topic) {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
        open.insert(*partition);
    }
    ensure!(!open.is_empty(), "the run does not say where {topic} ended when it began");
    consumer.assign(&assignment)?;
    let mut patience = Deadline::after(PATIENCE);
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                take(record.payload().unwrap_or_default());
                patience = Deadline::after(PATIENCE);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) if is_passing(&error) && !patience.passed() => {}
            Some(Err(error)) => return Err(error).with_context(|| format!("reading {topic}")),
            None if patience.passed() => bail!("{topic}: no end of partitions {open:?} within {PATIENCE:?}"),
            None => {}
        }
    }
    Ok(())
}

/// What a client says of a broker that is away for a moment; it goes on by itself.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(error.rdkafka_error_code(), Some(BrokerTransportFailure | AllBrokersDown | OperationTimedOut))
}
