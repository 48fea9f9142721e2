//! The metrics of one sink.
//!
//! Goes out: `weir_cloud_sink_…`, labelled with the sink, and with the topic where that helps; never with a device.
//! Guarantees: for each topic received = rows + dead letters + skipped.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::SinkName;
use super::batch::{Batch, Topic};

/// Counters, gauges and histograms of one sink.
pub(super) struct Measures {
    topics: Vec<OfTopic>,
    batches: Counter,
    retries: Counter,
    sent_again: Counter,
    write: Histogram,
    from_device: Histogram,
    from_receipt: Histogram,
    fenced: Gauge,
    failing: Gauge,
    paused: Gauge,
}

/// Those of one topic.
struct OfTopic {
    topic: Topic,
    received: Counter,
    rows: Counter,
    skipped: Counter,
    dead_letters: Counter,
    lag: Gauge,
    age: Gauge,
}

/// When a reading was taken and received, ms since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// By its device's clock.
    pub(super) taken: i64,
    /// By its edge's clock.
    pub(super) received: i64,
}

impl Times {
    /// The same time for both.
    pub(super) const fn at(ms: i64) -> Self {
        Self { taken: ms, received: ms }
    }
}

/// Most readings of a batch whose latency is measured: a histogram's sample costs as much as making a row.
const SAMPLES_MAX: usize = 512;

/// Of the readings of a batch, evenly spread ones.
#[derive(Debug)]
pub(super) struct Receipts {
    samples: Vec<Times>,
    /// One of so many is taken.
    every: usize,
    /// So many are passed over before the next is taken.
    over: usize,
}

impl Default for Receipts {
    fn default() -> Self {
        Self { samples: Vec::new(), every: 1, over: 0 }
    }
}

impl Receipts {
    /// One more row.
    pub(super) fn add(&mut self, times: Times) {
        if self.over > 0 {
            self.over -= 1;
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            let mut at = 0;
            self.samples.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.every *= 2;
        }
        self.samples.push(times);
        self.over = self.every - 1;
    }
}

/// Records by topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(Vec<u64>);

impl Count {
    /// One more.
    pub(super) fn add(&mut self, topic: Topic) {
        let place = topic.index();
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        self.0[place] += 1;
    }

    /// Those of a topic.
    pub(super) fn of_topic(&self, topic: Topic) -> u64 {
        self.0.get(topic.index()).copied().unwrap_or(0)
    }

    /// Those of an iterator.
    pub(super) fn of(topics: impl Iterator<Item = Topic>) -> Self {
        let mut count = Self::default();
        topics.for_each(|topic| count.add(topic));
        count
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(other.0).for_each(|(n, more)| *n += more);
    }
}

/// What one batch came to; every other record of it became a row.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// When readings of the batch were taken and received.
    pub(super) receipts: Receipts,
    /// Records that no store can hold, now in `weir.rejected`.
    pub(super) dead_letters: Count,
    /// Records that go only to other stores.
    pub(super) skipped: Count,
    /// Rows that were refused for now and sent again within the batch.
    pub(super) sent_again: u64,
}

impl Measures {
    pub(super) fn new(which: SinkName, topics: &[Topic]) -> Self {
        let sink = which.name();
        let of_topic = |topic: &Topic| {
            let count = |name: &'static str| counter!(name, "sink" => sink, "topic" => topic.name());
            let now = |name: &'static str| gauge!(name, "sink" => sink, "topic" => topic.name());
            OfTopic {
                topic: *topic,
                received: count("weir_cloud_sink_received_total"),
                rows: count("weir_cloud_sink_rows_total"),
                skipped: count("weir_cloud_sink_skipped_total"),
                dead_letters: count("weir_cloud_sink_dead_letters_total"),
                lag: now("weir_cloud_sink_lag_records"),
                age: now("weir_cloud_sink_lag_seconds"),
            }
        };
        let latency =
            |from: &'static str| histogram!("weir_event_latency_seconds", "hop" => sink, "from" => from);
        let measures = Self {
            topics: topics.iter().map(of_topic).collect(),
            batches: counter!("weir_cloud_sink_batches_total", "sink" => sink),
            retries: counter!("weir_cloud_sink_retries_total", "sink" => sink),
            sent_again: counter!("weir_cloud_sink_sent_again_total", "sink" => sink),
            write: histogram!("weir_cloud_sink_write_seconds", "sink" => sink),
            from_device: latency("device"),
            from_receipt: latency("received"),
            fenced: gauge!("weir_cloud_sink_fenced", "sink" => sink),
            failing: gauge!("weir_cloud_sink_failing", "sink" => sink),
            paused: gauge!("weir_cloud_sink_paused", "sink" => sink),
        };
        measures.failing(false);
        measures.rests(false);
        measures.fenced(false);
        measures
    }

    /// A batch is stored, `seconds` after its writing began, at wall time `now_ms`.
    pub(super) fn stored(&self, batch: &Batch, stored: &Stored, seconds: f64, now_ms: i64) {
        let received = Count::of(batch.records().iter().map(|r| r.part.topic));
        for of in &self.topics {
            let (received, letters) = (received.of_topic(of.topic), stored.dead_letters.of_topic(of.topic));
            let skipped = stored.skipped.of_topic(of.topic);
            of.received.increment(received);
            of.dead_letters.increment(letters);
            of.skipped.increment(skipped);
            of.rows.increment(received.saturating_sub(letters + skipped));
        }
        self.batches.increment(1);
        self.sent_again.increment(stored.sent_again);
        self.write.record(seconds);
        let since = |ms: i64| now_ms.saturating_sub(ms).max(0) as f64 / 1000.0;
        for times in &stored.receipts.samples {
            self.from_device.record(since(times.taken));
            self.from_receipt.record(since(times.received));
        }
    }

    /// A batch was given up and will be tried again.
    pub(super) fn retry(&self) {
        self.retries.increment(1);
    }

    /// Whether the store took nothing when it was last tried.
    pub(super) fn failing(&self, failing: bool) {
        self.failing.set(if failing { 1.0 } else { 0.0 });
    }

    /// Whether it rests, as somebody wants; then nothing is known of what waits.
    pub(super) fn rests(&self, rests: bool) {
        self.paused.set(if rests { 1.0 } else { 0.0 });
        self.failing(false);
    }

    /// Whether it stays away because another works under its name.
    pub(super) fn fenced(&self, fenced: bool) {
        self.fenced.set(if fenced { 1.0 } else { 0.0 });
    }

    /// How long the oldest record of each topic that waits to be stored has been in Kafka.
    pub(super) fn age(&self, oldest: &[(Topic, i64)], now_ms: i64) {
        for of in &self.topics {
            let oldest = oldest.iter().filter(|(topic, _)| *topic == of.topic).map(|(_, ms)| *ms).min();
            of.age.set(oldest.map_or(0.0, |ms| now_ms.saturating_sub(ms).max(0) as f64 / 1000.0));
        }
    }

    /// Offsets not stored yet, summed over the partitions of each topic.
    pub(super) fn lag(&self, lags: impl Iterator<Item = (Topic, u64)>) {
        let mut sums: BTreeMap<Topic, u64> = BTreeMap::new();
        for (topic, lag) in lags {
            *sums.entry(topic).or_default() += lag;
        }
        for of in &self.topics {
            of.lag.set(sums.get(&of.topic).copied().unwrap_or(0) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_large_batch_evenly_spread_readings_are_measured() {
        let mut receipts = Receipts::default();
        let times = Times::at;
        (0..3).for_each(|n| receipts.add(times(n)));
        assert_eq!(receipts.samples, [times(0), times(1), times(2)]);
        (3..5_000).for_each(|n| receipts.add(times(n)));
        let found: Vec<i64> = receipts.samples.iter().map(|times| times.taken).collect();
        assert_eq!(found, (0..5_000).step_by(16).collect::<Vec<i64>>());
    }
}
