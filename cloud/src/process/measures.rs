//! What the processor shows. The books balance: received = enriched + filtered + rejected + repeats + controls + held −
//! released, counted after the commit. Held − released is what waits now, less what waited when the counting began: one
//! process may hold a reading and another let it go.
//!
//! Comes in: what a cycle did. Goes out: metrics `weir_cloud_process_…`. Guarantees: no label per device.

mod rules;

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

pub(super) use rules::RuleMeasures;

use weir_shared::admin::Feed;

use super::state::held::Why;
use super::worker::lost::Gap;
use super::{INPUTS, Input};

/// What one cycle did with the records of one input topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Records taken from the log.
    pub(super) received: u64,
    /// Kafka's timestamp of the oldest of them, ms since 1970.
    pub(super) oldest_ms: Option<i64>,
    /// Readings, window results and gaps sent on.
    pub(super) enriched: u64,
    /// Dead letters, by reason.
    pub(super) rejected: HashMap<&'static str, u64>,
    /// Dropped, because they were accepted before.
    pub(super) repeats: u64,
    /// Records that tell something and are no data.
    pub(super) controls: u64,
    /// Of those received, records of dead letters that are sent through again.
    pub(super) retried: u64,
    /// Readings that a filter dropped, or that a route sent nowhere.
    pub(super) filtered: u64,
    /// Readings that began to wait for a row.
    pub(super) held: u64,
    /// Readings that wait no longer, as in [`Why::ALL`]; what became of them is counted as of those that just came.
    pub(super) released: [u64; Why::ALL.len()],
    /// Alerts sent.
    pub(super) alerts: u64,
    /// Dead letters of rules; the records themselves are counted elsewhere.
    pub(super) rule_failures: u64,
    /// Numbers that did not come before a higher one.
    pub(super) missing: u64,
    /// Records of streams that had been closed: clones of an edge make them.
    pub(super) reopened: u64,
}

/// What was committed longer ago says nothing of what waits now.
const LATELY_MS: i64 = 2_000;

/// Handles of all metrics of the processor.
pub(super) struct Measures {
    topics: [Topic; INPUTS],
    /// For the status page.
    feed: Feed,
    committed: Counter,
    aborted: Counter,
    fenced: Counter,
    rebuilt: Counter,
    cycle: Histogram,
    latency: Histogram,
    restore: Histogram,
    held: Counter,
    released: [Counter; Why::ALL.len()],
    alerts: Counter,
    rule_failures: Counter,
    partitions: Gauge,
    marks: Gauge,
    rule_states: Gauge,
    held_records: Gauge,
}

struct Topic {
    name: &'static str,
    received: Counter,
    enriched: Counter,
    repeats: Counter,
    controls: Counter,
    retried: Counter,
    missing: Counter,
    reopened: Counter,
    filtered: Counter,
    lag: Gauge,
    age: Gauge,
    /// Kafka's timestamp of the oldest record that is computed and not committed.
    computed_ms: Cell<Option<i64>>,
    /// The same of the cycle that was committed last, and when it was.
    committed_ms: Cell<Option<(i64, i64)>>,
}

impl Measures {
    /// Registers those of one worker, so that each shows its zero from the start.
    pub(super) fn new(who: &str, feed: Feed) -> Self {
        let worker = || who.to_owned();
        let topics = Input::ALL.map(|input| {
            let name = input.topic();
            Topic {
                name,
                received: counter!("weir_cloud_process_received_total", "topic" => name),
                enriched: counter!("weir_cloud_process_enriched_total", "topic" => name),
                repeats: counter!("weir_cloud_process_repeats_total", "topic" => name),
                controls: counter!("weir_cloud_process_controls_total", "topic" => name),
                retried: counter!("weir_cloud_process_retried_total", "topic" => name),
                missing: counter!("weir_cloud_process_missing_total", "topic" => name),
                reopened: counter!("weir_cloud_process_reopened_total", "topic" => name),
                filtered: counter!("weir_cloud_process_filtered_total", "topic" => name),
                lag: gauge!("weir_cloud_process_lag_records", "topic" => name, "worker" => worker()),
                age: gauge!("weir_cloud_process_lag_seconds", "topic" => name, "worker" => worker()),
                computed_ms: Cell::default(),
                committed_ms: Cell::default(),
            }
        });
        Self {
            topics,
            feed,
            committed: counter!("weir_cloud_process_commits_total", "outcome" => "committed"),
            aborted: counter!("weir_cloud_process_commits_total", "outcome" => "aborted"),
            fenced: counter!("weir_cloud_process_fenced_total"),
            rebuilt: counter!("weir_cloud_process_rebuilt_total"),
            cycle: histogram!("weir_cloud_process_cycle_seconds"),
            latency: histogram!("weir_event_latency_seconds", "hop" => "process", "from" => "kafka"),
            restore: histogram!("weir_cloud_process_restore_seconds"),
            held: counter!("weir_cloud_process_held_total"),
            released: Why::ALL.map(|why| counter!("weir_cloud_process_released_total", "why" => why.name())),
            alerts: counter!("weir_cloud_process_alerts_total"),
            rule_failures: counter!("weir_cloud_process_rule_failures_total"),
            partitions: gauge!("weir_cloud_process_partitions", "worker" => worker()),
            marks: gauge!("weir_cloud_process_marks", "worker" => worker()),
            rule_states: gauge!("weir_cloud_process_rule_states", "worker" => worker()),
            held_records: gauge!("weir_cloud_process_held_records", "worker" => worker()),
        }
    }

    /// Shows alerts that were sent.
    pub(super) fn told(&self, alerts: Vec<String>) {
        if !alerts.is_empty() {
            self.feed.add(alerts);
        }
    }

    /// A cycle has been committed.
    pub(super) fn committed(&self, tallies: &[Tally; INPUTS], took: Duration, now_ms: i64) {
        self.committed.increment(1);
        self.cycle.record(took);
        for (topic, tally) in self.topics.iter().zip(tallies) {
            topic.received.increment(tally.received);
            topic.computed_ms.set(None);
            if let Some(oldest) = tally.oldest_ms {
                topic.committed_ms.set(Some((oldest, now_ms)));
                self.latency.record(now_ms.saturating_sub(oldest).max(0) as f64 / 1000.0);
            }
            topic.enriched.increment(tally.enriched);
            topic.repeats.increment(tally.repeats);
            topic.controls.increment(tally.controls);
            topic.retried.increment(tally.retried);
            topic.missing.increment(tally.missing);
            topic.reopened.increment(tally.reopened);
            topic.filtered.increment(tally.filtered);
            self.held.increment(tally.held);
            for (counter, n) in self.released.iter().zip(tally.released) {
                counter.increment(n);
            }
            self.alerts.increment(tally.alerts);
            self.rule_failures.increment(tally.rule_failures);
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

    /// Records were gone from the log before they were processed.
    pub(super) fn lost(&self, gaps: &[Gap]) {
        for gap in gaps {
            let count = (gap.end - gap.from).unsigned_abs();
            counter!("weir_cloud_process_lost_offsets_total", "topic" => gap.place.0.topic())
                .increment(count);
        }
    }

    /// A cycle is computed, and to be committed.
    pub(super) fn computed(&self, tallies: &[Tally; INPUTS]) {
        for (topic, tally) in self.topics.iter().zip(tallies) {
            topic.computed_ms.set(tally.oldest_ms.or(topic.computed_ms.get()));
        }
    }

    /// Records that wait in an input topic; the end of a transaction counts as one. While cycles are committed, the oldest of
    /// them is about as old as the oldest of the last cycle; while they fail, it is known.
    pub(super) fn lag(&self, input: Input, records: i64, now_ms: i64) {
        let topic = &self.topics[input.index()];
        topic.lag.set(records as f64);
        let lately = |(_, at): &(i64, i64)| records > 0 && now_ms - at < LATELY_MS;
        let oldest =
            topic.computed_ms.get().or(topic.committed_ms.get().filter(lately).map(|(oldest, _)| oldest));
        topic.age.set(oldest.map_or(0.0, |ms| now_ms.saturating_sub(ms).max(0) as f64 / 1000.0));
    }

    /// What is in memory.
    pub(super) fn holding(&self, sizes: &Sizes) {
        self.partitions.set(sizes.partitions as f64);
        self.marks.set(sizes.marks as f64);
        self.rule_states.set(sizes.rule_states as f64);
        self.held_records.set(sizes.held as f64);
    }
}

/// What a worker has in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    /// Partitions that are worked on.
    pub(super) partitions: usize,
    /// Marks of their streams.
    pub(super) marks: usize,
    /// States of their rules.
    pub(super) rule_states: usize,
    /// Readings that wait for a row.
    pub(super) held: usize,
}
