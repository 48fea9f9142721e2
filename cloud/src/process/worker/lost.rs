//! Records that are gone from an input topic before they were processed (retention, or somebody deleted them).
//!
//! Comes in: partitions whose next record cannot be fetched. Goes out: exactly which offsets are lost, as records of
//! `weir.losses`, in one transaction with the offset behind them.
//! Guarantees: never silent, and never a guess: a log that ends before our position is not skipped over but refused.

use std::fmt;

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::BaseRecord;
use weir_shared::clock;
use weir_shared::wire;

use crate::faults;
use crate::kafka::ASK;
use crate::process::assignment::{Partitions, Place, Rebalances, list};
use crate::process::outputs::{self, Loss, Origin};
use crate::process::transaction::{Client, Failure, Transaction, classify};

/// Offsets of one partition that are gone.
pub(in crate::process) struct Gap {
    pub(in crate::process) place: Place,
    /// The first that was not processed.
    pub(in crate::process) from: i64,
    /// The first that is still there.
    pub(in crate::process) end: i64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, partition) = (self.place.0.topic(), self.place.1);
        write!(
            f,
            "offsets {} to {} of {topic} [{partition}] are gone from the log and were never processed",
            self.from,
            self.end - 1
        )
    }
}

/// The partitions whose next record is gone: of all that are ours, so that it is told of once. What is committed is what was
/// processed.
///
/// # Errors
/// When a broker does not answer, or a log ends before our position.
pub(super) fn find(consumer: &BaseConsumer<Rebalances>, partitions: &Partitions) -> Result<Vec<Gap>, String> {
    let mut gaps = Vec::new();
    let ours = list(partitions.iter().map(|(place, _)| place));
    let committed = consumer.committed_offsets(ours, ASK).map_err(|e| format!("committed offsets: {e}"))?;
    for (place, _) in partitions.iter() {
        let (topic, number) = (place.0.topic(), place.1);
        let offset = committed.find_partition(topic, number).map(|element| element.offset());
        let Some(Offset::Offset(next)) = offset else { continue };
        let (low, high) = consumer
            .fetch_watermarks(topic, number, ASK)
            .map_err(|e| format!("the range of {topic} [{number}]: {e}"))?;
        if next > high {
            return Err(format!(
                "{topic} [{number}] ends at offset {high}, but {next} was to be processed next: the log was cut \
                 (unclean election) or the topic made anew, and what is new cannot be told from what was processed"
            ));
        }
        if next < low {
            gaps.push(Gap { place, from: next, end: low });
        }
    }
    Ok(gaps)
}

/// Writes them down, and commits the offsets behind them.
pub(super) fn tell(
    producer: &Client,
    consumer: &BaseConsumer<Rebalances>,
    gaps: &[Gap],
) -> Result<(), Failure> {
    let transaction = Transaction::begin(producer)?;
    let mut offsets = TopicPartitionList::new();
    let mut value = Vec::new();
    for Gap { place: (input, partition), from, end } in gaps {
        let origin = Origin { topic: input.topic(), partition: *partition, offset: *end, identity: None };
        let loss = Loss {
            reason: "gone_from_the_log",
            edge: "",
            stream: None,
            from: from.unsigned_abs(),
            to: (end - 1).unsigned_abs(),
            noticed: clock::wall_ms(),
        };
        outputs::found_loss(&mut value, &origin, &loss);
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(wire::LOSSES).payload(&value);
        if !faults::is_broken("bad.skip_loss") {
            transaction.send(record)?;
        }
        offsets
            .add_partition_offset(input.topic(), *partition, Offset::Offset(*end))
            .map_err(|e| classify("offsets", &e))?;
    }
    transaction.commit(consumer, &offsets)
}
