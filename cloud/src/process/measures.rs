//! What the processor shows. The books balance: received = enriched + rejected + repeats + controls, counted after the commit.
//!
//! Comes in: what a cycle did. Goes out: metrics `weir_cloud_process_…`. Guarantees: no label per device.

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::Input;

/// What one cycle did with the records of one input topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Records taken from the log.
    pub(super) received: u64,
    /// Readings sent on.
    pub(super) enriched: u64,
    /// Dead letters, by reason.
    pub(super) rejected: HashMap<&'static str, u64>,
    /// Dropped, because they were accepted before.
    pub(super) repeats: u64,
    /// Records that tell something and are no data.
    pub(super) controls: u64,
    /// Numbers that never came.
    pub(super) missing: u64,
}

/// Handles of all metrics of the processor.
pub(super) struct Measures {
    topics: [Topic; 2],
    committed: Counter,
    aborted: Counter,
    fenced: Counter,
    rebuilt: Counter,
    cycle: Histogram,
    restore: Histogram,
    partitions: Gauge,
    marks: Gauge,
}

struct Topic {
    name: &'static str,
    received: Counter,
    enriched: Counter,
    repeats: Counter,
    controls: Counter,
    missing: Counter,
    lag: Gauge,
}

impl Measures {
    /// Registers them all, so that each shows its zero from the start.
    pub(super) fn new() -> Self {
        let topics = Input::ALL.map(|input| {
            let name = input.topic();
            Topic {
                name,
                received: counter!("weir_cloud_process_received_total", "topic" => name),
                enriched: counter!("weir_cloud_process_enriched_total", "topic" => name),
                repeats: counter!("weir_cloud_process_repeats_total", "topic" => name),
                controls: counter!("weir_cloud_process_controls_total", "topic" => name),
                missing: counter!("weir_cloud_process_missing_total", "topic" => name),
                lag: gauge!("weir_cloud_process_lag_records", "topic" => name),
            }
        });
        Self {
            topics,
            committed: counter!("weir_cloud_process_commits_total", "outcome" => "committed"),
            aborted: counter!("weir_cloud_process_commits_total", "outcome" => "aborted"),
            fenced: counter!("weir_cloud_process_fenced_total"),
            rebuilt: counter!("weir_cloud_process_rebuilt_total"),
            cycle: histogram!("weir_cloud_process_cycle_seconds"),
            restore: histogram!("weir_cloud_process_restore_seconds"),
            partitions: gauge!("weir_cloud_process_partitions"),
            marks: gauge!("weir_cloud_process_marks"),
        }
    }

    /// A cycle has been committed.
    pub(super) fn committed(&self, tallies: &[Tally; 2], took: Duration) {
        self.committed.increment(1);
        self.cycle.record(took);
        for (topic, tally) in self.topics.iter().zip(tallies) {
            topic.received.increment(tally.received);
            topic.enriched.increment(tally.enriched);
            topic.repeats.increment(tally.repeats);
            topic.controls.increment(tally.controls);
            topic.missing.increment(tally.missing);
            for (reason, n) in &tally.rejected {
                counter!("weir_cloud_process_rejected_total", "topic" => topic.name, "reason" => *reason)
                    .increment(*n);
            }
        }
    }

    /// A cycle has been taken back.
    pub(super) fn aborted(&self) {
        self.aborted.increment(1);
    }

    /// A twin with the same slot was met.
    pub(super) fn fenced(&self) {
        self.fenced.increment(1);
    }

    /// Consumer and producer are made anew.
    pub(super) fn rebuilt(&self) {
        self.rebuilt.increment(1);
    }

    /// The state of some partitions has been read back.
    pub(super) fn restored(&self, took: Duration) {
        self.restore.record(took);
    }

    /// Records that wait in an input topic.
    pub(super) fn lag(&self, input: Input, records: i64) {
        self.topics[input.index()].lag.set(records as f64);
    }

    /// Partitions that are worked on, and the marks in memory.
    pub(super) fn holding(&self, partitions: usize, marks: usize) {
        self.partitions.set(partitions as f64);
        self.marks.set(marks as f64);
    }
}
