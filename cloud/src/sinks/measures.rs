//! The metrics of one sink.
//!
//! Goes out: `weir_cloud_sink_…`, labelled with the sink, and with the topic where that helps; never with a device.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::SinkName;
use super::batch::{Batch, Topic};

/// Counters, gauges and histograms of one sink.
pub(super) struct Measures {
    rows: [Counter; 2],
    batches: Counter,
    retries: Counter,
    dead_letters: Counter,
    lag: [Gauge; 2],
    write: Histogram,
    latency: Histogram,
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

/// What one batch came to.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// When the readings of the batch were received.
    pub(super) receipts: Receipts,
    /// Records that no store can hold, now in `weir.rejected`.
    pub(super) dead_letters: u64,
}

impl Measures {
    pub(super) fn new(which: SinkName) -> Self {
        let sink = which.name();
        let rows = |t: Topic| counter!("weir_cloud_sink_rows_total", "sink" => sink, "topic" => t.name());
        let lag = |t: Topic| gauge!("weir_cloud_sink_lag_records", "sink" => sink, "topic" => t.name());
        Self {
            rows: Topic::ALL.map(rows),
            batches: counter!("weir_cloud_sink_batches_total", "sink" => sink),
            retries: counter!("weir_cloud_sink_retries_total", "sink" => sink),
            dead_letters: counter!("weir_cloud_sink_dead_letters_total", "sink" => sink),
            lag: Topic::ALL.map(lag),
            write: histogram!("weir_cloud_sink_write_seconds", "sink" => sink),
            latency: histogram!("weir_cloud_sink_event_latency_seconds", "sink" => sink),
        }
    }

    /// A batch is stored, `seconds` after its writing began, at wall time `now_ms`.
    pub(super) fn stored(&self, batch: &Batch, stored: &Stored, seconds: f64, now_ms: i64) {
        for (topic, counter) in Topic::ALL.into_iter().zip(&self.rows) {
            let rows = batch.records().iter().filter(|r| r.part.topic == topic).count();
            counter.increment(rows as u64);
        }
        self.batches.increment(1);
        self.dead_letters.increment(stored.dead_letters);
        self.write.record(seconds);
        for &(received, count) in &stored.receipts.0 {
            self.latency.record_many(now_ms.saturating_sub(received).max(0) as f64 / 1000.0, count);
        }
    }

    /// A batch was given up and will be tried again.
    pub(super) fn retry(&self) {
        self.retries.increment(1);
    }

    /// Offsets not stored yet, summed over the partitions of each topic.
    pub(super) fn lag(&self, lags: impl Iterator<Item = (Topic, u64)>) {
        let mut sums = [0u64; 2];
        for (topic, lag) in lags {
            sums[topic as usize] += lag;
        }
        for (gauge, sum) in self.lag.iter().zip(sums) {
            gauge.set(sum as f64);
        }
    }
}
