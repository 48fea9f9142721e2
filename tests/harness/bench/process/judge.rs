//! Whether an output topic has every reading of a stage once, and joined.
//!
//! Comes in: the topic, where it ended before the stage, where the readings began. Goes out: nothing, when it is right.
//! Guarantees: read committed; a reading is told by partition and number, so neither doubles nor holes can hide behind
//! a right count. On failure: an error with what was found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use weir_shared::clock::Deadline;

use crate::bench::backlog::Begin;
use crate::oracle::kafka::is_passing;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Enriched<'a> {
    weir: Identity,
    #[serde(borrow)]
    dims: Dims<'a>,
}

#[derive(Deserialize)]
struct Identity {
    partition: i32,
    number: i64,
    joined: bool,
}

#[derive(Deserialize)]
struct Dims<'a> {
    #[serde(borrow)]
    devices: Option<Devices<'a>>,
}

#[derive(Deserialize)]
struct Devices<'a> {
    #[serde(borrow)]
    site: Option<std::borrow::Cow<'a, str>>,
}

/// Reads `topic` from `from` to its end. `first`: the first number of each partition.
pub(super) fn exactly(
    brokers: &str,
    topic: &str,
    from: &Begin,
    first: &Begin,
    readings: u64,
) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "weir-bench") // never joined: partitions are assigned by hand
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for (&partition, &offset) in from {
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    consumer.assign(&assignment)?;
    let mut at_end = BTreeSet::new();
    let mut found = Found::default();
    let mut patience = Deadline::after(PATIENCE);
    // Until nothing more is there; what is not committed yet is waited for.
    while at_end.len() < from.len() || found.records < readings {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => {
                let value = record.payload().unwrap_or_default();
                found.take(value, first).with_context(|| String::from_utf8_lossy(value).into_owned())?;
                at_end.remove(&record.partition());
                patience = Deadline::after(PATIENCE);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
            }
            Some(Err(error)) if !is_passing(&error) => {
                return Err(error).with_context(|| format!("reading {topic}"));
            }
            _ if patience.passed() => break,
            _ => {}
        }
    }
    ensure!(
        (found.records, found.distinct, found.joined) == (readings, readings, readings),
        "{topic} of {readings} readings: {} records, {} distinct, {} joined",
        found.records,
        found.distinct,
        found.joined
    );
    Ok(())
}

#[derive(Default)]
struct Found {
    records: u64,
    distinct: u64,
    joined: u64,
    seen: BTreeMap<i32, Vec<bool>>,
}

impl Found {
    fn take(&mut self, value: &[u8], first: &Begin) -> anyhow::Result<()> {
        let Enriched { weir, dims } = serde_json::from_slice(value)?;
        let at = weir.number - first.get(&weir.partition).copied().unwrap_or(0);
        let at = usize::try_from(at).context("a number from before the stage")?;
        let seen = self.seen.entry(weir.partition).or_default();
        if seen.len() <= at {
            seen.resize(at + 1, false);
        }
        self.records += 1;
        self.distinct += u64::from(!std::mem::replace(&mut seen[at], true));
        self.joined += u64::from(weir.joined && dims.devices.is_some_and(|row| row.site.is_some()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_unjoined_readings_are_told() {
        let mut found = Found::default();
        let value = |number, joined, dims| {
            format!(
                r#"{{"weir":{{"partition":1,"number":{number},"joined":{joined}}},"dims":{dims},"device":"d"}}"#
            )
        };
        let first = Begin::from([(1, 100)]);
        let row = r#"{"devices":{"site":"Graz","line":3}}"#;
        for value in [value(100, true, row), value(101, false, "{}"), value(100, true, row)] {
            found.take(value.as_bytes(), &first).unwrap();
        }
        assert_eq!((found.records, found.distinct, found.joined), (3, 2, 2));
        assert!(found.take(value(99, true, row).as_bytes(), &first).is_err());
    }
}
