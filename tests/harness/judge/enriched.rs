//! What the processor made of a run: `weir.enriched`, read committed.
//!
//! Comes in: the brokers, a run, how many readings are to come. Goes out: how many records there are, and how many
//! different readings. On failure: an error when Kafka does not answer.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_shared::clock::Deadline;
use weir_shared::wire;

use super::run::Run;
use super::tape;

/// So long nothing new comes when the processor has done everything.
const QUIET: Duration = Duration::from_secs(15);
/// What would be too much comes within this time.
const AFTER: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(100);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enriched {
    /// Records of the run.
    pub records: usize,
    /// Different readings among them.
    pub readings: usize,
    /// Records that say what was never published.
    pub wrong: usize,
    /// What is wrong with the first of them.
    pub first_wrong: Option<String>,
}

/// Reads until `expected` readings are there, and a little longer.
///
/// # Errors
/// When Kafka does not answer.
pub fn read(brokers: &str, run: &Run, expected: usize) -> anyhow::Result<Enriched> {
    let consumer: BaseConsumer = tape::consumer(brokers)?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..tape::partitions_of(&consumer, wire::ENRICHED)? {
        assignment.add_partition_offset(wire::ENRICHED, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut found, mut numbers) = (Enriched::default(), HashSet::new());
    let mut silent = Deadline::after(QUIET);
    while !silent.passed() {
        let Some(message) = consumer.poll(POLL) else { continue };
        match run.number_of(message?.payload().unwrap_or_default()) {
            Ok(None) => continue,
            Ok(Some(number)) => {
                numbers.insert(number);
            }
            Err(why) => {
                found.wrong += 1;
                found.first_wrong.get_or_insert(why);
            }
        }
        found.records += 1;
        silent = Deadline::after(if numbers.len() < expected { QUIET } else { AFTER });
    }
    found.readings = numbers.len();
    Ok(found)
}
