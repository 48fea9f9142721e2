//! Reading a range of offsets again, outside of the group.
//!
//! Comes in: ranges of different partitions, whose last records were once read. Goes out: their records.
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

/// Longest that it may take.
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

    /// All records of the ranges. Their last ones were committed when the ranges were planned, so they come.
    pub(super) fn read(&self, ranges: &[Range], stop: &Stop) -> Result<Batch, Failure> {
        let consumer: BaseConsumer = self.config.create().map_err(kafka)?;
        let mut list = TopicPartitionList::new();
        let mut left: Vec<(Range, i64)> = ranges.iter().map(|range| (*range, range.start)).collect();
        for Range { part, start, .. } in ranges {
            let (topic, partition) = (part.topic.name(), part.partition);
            list.add_partition_offset(topic, partition, Offset::Offset(*start)).map_err(kafka)?;
        }
        consumer.assign(&list).map_err(kafka)?;
        let mut batch = Batch::default();
        let deadline = Deadline::after(REREAD);
        while let Some((Range { part, start, end }, next)) = left.first() {
            if deadline.passed() || stop.is_stopped() {
                return Err(Failure::Kafka(format!("{part}: read {start}..{end} again only up to {next}")));
            }
            match consumer.poll(IDLE_POLL) {
                Some(Ok(message)) => {
                    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
                    let is_of =
                        |range: &Range| (range.part.topic.name(), range.part.partition) == (topic, partition);
                    // A partition that is done may still send what it had fetched.
                    let Some(place) = left.iter().position(|(range, _)| is_of(range)) else { continue };
                    let (Range { part, end, .. }, next) = &mut left[place];
                    *next = offset + 1;
                    if *next <= *end {
                        let timestamp = message.timestamp().to_millis().unwrap_or(0);
                        batch.push(*part, offset, timestamp, message.payload().unwrap_or_default());
                    }
                    if *next >= *end {
                        left.swap_remove(place);
                        let mut done = TopicPartitionList::new();
                        done.add_partition(topic, partition);
                        consumer.pause(&done).map_err(kafka)?;
                    }
                }
                Some(Err(error)) => triage(error)?,
                None => {}
            }
        }
        Ok(batch)
    }
}
