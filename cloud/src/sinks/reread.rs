//! Reading a range of offsets again, outside of the group.
//!
//! Comes in: a range whose last record was once read. Goes out: its records.
//! Guarantees: all of them (read committed, so the same as the first time), or an error; commits nothing, joins nothing.
//! On failure: the log no longer has them, or the broker is away: the plan they belong to stays open.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use weir_shared::clock::Deadline;
use weir_shared::supervise::Stop;

use super::batch::{Batch, Range};
use super::consumer::{IDLE_POLL, kafka, triage};
use super::{Failure, SinkName};
use crate::kafka::KafkaConfig;

/// Longest that one range may take.
const REREAD: Duration = Duration::from_secs(60);

/// Reads ranges of offsets again, outside of the group.
pub(super) struct Reread {
    config: ClientConfig,
}

impl Reread {
    pub(super) fn new(config: &KafkaConfig, which: SinkName, slot: &str) -> Self {
        // Never subscribes, so it is no member of this group; the name only shows who reads.
        Self { config: config.consumer(&format!("{}-reread", which.group()), slot) }
    }

    /// All records of the range. Its last record was committed when the range was planned, so it comes.
    pub(super) fn read(&self, range: Range, stop: &Stop) -> Result<Batch, Failure> {
        let Range { part, start, end } = range;
        let consumer: BaseConsumer = self.config.create().map_err(kafka)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(part.topic.name(), part.partition, Offset::Offset(start)).map_err(kafka)?;
        consumer.assign(&list).map_err(kafka)?;
        let mut batch = Batch::default();
        let deadline = Deadline::after(REREAD);
        let mut next = start;
        while next < end {
            if deadline.passed() || stop.is_stopped() {
                return Err(Failure::Kafka(format!("{part}: read {start}..{end} again only up to {next}")));
            }
            match consumer.poll(IDLE_POLL) {
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    if next <= end {
                        let timestamp = message.timestamp().to_millis().unwrap_or(0);
                        batch.push(part, message.offset(), timestamp, message.payload().unwrap_or_default());
                    }
                }
                Some(Err(error)) => triage(error)?,
                None => {}
            }
        }
        Ok(batch)
    }
}
