//! What the processors made of the input topics: equal to the engine run over them, and right without it.
//!
//! Comes in: what the fleet issued, the topics from where the last judgement ended. Goes out: a [`Verdict`].
//! Guarantees: two independent judges. The [`compare`] judge runs the engine single-threaded over each input partition,
//! with the table and the rules of the versions that each output names, and wants the same bytes in the same order per key and input
//! partition. The [`identities`] judge knows no engine: each acknowledged record must be there once, and end with the
//! bytes that were issued. The input must be quiet and drained: see [`Judge::drained`].
//! On failure: an error when Kafka does not answer.

mod compare;
mod identities;
mod log;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::ensure;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_cloud::reference::Reference;
use weir_shared::clock::Deadline;
use weir_shared::wire;

use super::Verdict;
use crate::faults::fleet::Issued;
pub use log::Canary;
use log::{Entry, Log};
pub use tables::{History, Rows};

/// What the processors read.
pub const INPUTS: [&str; 4] = [wire::READINGS, wire::EDGE_REJECTED, wire::WINDOWS, wire::GAPS];
/// What they write.
const OUTPUTS: [&str; 5] = [wire::ENRICHED, wire::AGGREGATES, wire::LOSSES, wire::REJECTED, wire::ALERTS];
/// Name of the only dimension table.
pub const TABLE: &str = "devices";
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Offsets of an input partition that were deleted before they were processed; both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gone {
    /// Topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The first.
    pub from: i64,
    /// The last.
    pub to: i64,
}

/// Judges again and again, each time what came since the last time.
pub struct Judge {
    brokers: String,
    group: String,
    reference: Reference,
    inputs: BTreeMap<&'static str, Log>,
    outputs: BTreeMap<&'static str, Log>,
}

impl Judge {
    /// From the beginning of the topics.
    #[must_use]
    pub fn new(brokers: &str, group: &str) -> Self {
        let logs = |topics: &[&'static str]| topics.iter().map(|topic| (*topic, Log::new(topic))).collect();
        Self {
            brokers: brokers.to_owned(),
            group: group.to_owned(),
            reference: Reference::default(),
            inputs: logs(&INPUTS),
            outputs: logs(&OUTPUTS),
        }
    }

    /// Waits until the group has committed all of the input: how much is left, by partition.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn drained(&self, patience: Duration) -> anyhow::Result<Vec<String>> {
        let asker = log::asker(&self.brokers, &self.group, "read_uncommitted")?;
        let deadline = Deadline::after(patience);
        loop {
            let left: Vec<String> = lags(&asker)?
                .into_iter()
                .filter(|(_, _, left)| *left != 0)
                .map(|(topic, partition, left)| format!("{left} of {topic} [{partition}]"))
                .collect();
            if left.is_empty() || deadline.passed() {
                return Ok(left);
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Sum of all committed offsets of the group.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn committed(&self) -> anyhow::Result<i64> {
        let asker = log::asker(&self.brokers, &self.group, "read_uncommitted")?;
        Ok(committed(&asker)?.values().sum())
    }

    /// The group's committed offset of each input partition.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn offsets(&self) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
        committed(&log::asker(&self.brokers, &self.group, "read_committed")?)
    }

    /// Where each input partition ends.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn ends(&self) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
        let asker = log::asker(&self.brokers, &self.group, "read_uncommitted")?;
        let offsets = committed(&asker)?;
        let lags = lags(&asker)?;
        Ok(lags
            .into_iter()
            .map(|(topic, partition, left)| {
                let offset = offsets.get(&(topic.clone(), partition)).copied().unwrap_or(0);
                ((topic, partition), offset + left)
            })
            .collect())
    }

    /// Judges what came since the last time. `gone` are ranges that were deleted on purpose.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn judge(
        &mut self,
        issued: &[Issued],
        gone: &[Gone],
        history: &mut History,
    ) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        for log in self.outputs.values() {
            verdict.problems.extend(log.open_transactions(&self.brokers, Duration::from_secs(20))?);
        }
        let read = |logs: &mut BTreeMap<&'static str, Log>| -> anyhow::Result<HashMap<&str, Vec<Entry>>> {
            logs.iter_mut().map(|(topic, log)| Ok((*topic, log.read(&self.brokers)?))).collect()
        };
        let (inputs, outputs) = (read(&mut self.inputs)?, read(&mut self.outputs)?);
        let found = compare::Found::parse(&outputs, &mut verdict);
        for number in found.rule_sets().filter(|number| !history.knows_rules(*number)) {
            verdict.wrong += 1;
            verdict.problems.push(format!("outputs name rule set {number}: weir_rules_sets has no such row"));
        }
        let expected = compare::expected(&mut self.reference, &inputs, &found, history);
        compare::compare(&expected, &found, &mut verdict);
        identities::judge(issued, gone, &found, &mut verdict);
        let records: usize = inputs.values().map(Vec::len).sum();
        verdict.repeats = records.saturating_sub(issued.len());
        history.forget();
        Ok(verdict)
    }
}

fn committed(asker: &BaseConsumer) -> anyhow::Result<BTreeMap<(String, i32), i64>> {
    let mut list = TopicPartitionList::new();
    for topic in INPUTS {
        list.add_partition_range(topic, 0, log::partitions(asker, topic)? - 1);
    }
    let committed = asker.committed_offsets(list, PATIENCE)?;
    let mut offsets = BTreeMap::new();
    for element in committed.elements() {
        let offset = if let Offset::Offset(offset) = element.offset() { offset } else { 0 };
        offsets.insert((element.topic().to_owned(), element.partition()), offset);
    }
    ensure!(!offsets.is_empty(), "there are no committed offsets");
    Ok(offsets)
}

fn lags(asker: &BaseConsumer) -> anyhow::Result<Vec<(String, i32, i64)>> {
    let mut lags = Vec::new();
    for ((topic, partition), offset) in committed(asker)? {
        let (_, end) = log::watermarks(asker, &topic, partition)?;
        lags.push((topic, partition, end - offset));
    }
    Ok(lags)
}
