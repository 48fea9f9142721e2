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
    latency: Histogram,
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

/// Time a reading needs from its edge's receipt to the store, by runs of equal receipt.
#[derive(Debug, Default)]
pub(super) struct Receipts(Vec<(i64, usize)>);

impl Receipts {
    /// One more row, received at `ms`.
    pub(super) fn add(&mut self, ms: i64) {
        match self.0.last_mut() {
            Some((last, count)) if *last == ms => *count += 1,
            _ => self.0.push((ms, 1)),
        }
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
    /// When the readings of the batch were received.
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
        Self {
            topics: topics.iter().map(of_topic).collect(),
            batches: counter!("weir_cloud_sink_batches_total", "sink" => sink),
            retries: counter!("weir_cloud_sink_retries_total", "sink" => sink),
            sent_again: counter!("weir_cloud_sink_sent_again_total", "sink" => sink),
            write: histogram!("weir_cloud_sink_write_seconds", "sink" => sink),
            latency: histogram!("weir_cloud_sink_event_latency_seconds", "sink" => sink),
        }
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
        for &(received, count) in &stored.receipts.0 {
            self.latency.record_many(now_ms.saturating_sub(received).max(0) as f64 / 1000.0, count);
        }
    }

    /// A batch was given up and will be tried again.
    pub(super) fn retry(&self) {
        self.retries.increment(1);
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
