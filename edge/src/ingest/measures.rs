//! The metrics of the ingest stage.
//!
//! The books: `weir_edge_messages_received_total` = messages journaled + `weir_edge_messages_redelivered_total`; their
//! readings are journaled (by topic), kept (for windows alone), rejected or filtered; and for each topic
//! `weir_edge_records_journaled_total` = `weir_edge_records_forwarded_total` + given up (`weir_edge_gap_records_total`)
//! + held.

use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use weir_shared::clock::{self, Now};
use weir_shared::timeline::Timeline;

use super::gaps::Why;
use super::lane::Lane;
use crate::decode::{Decoded, Reason};
use crate::journal::format::Sent;

/// A device whose clock is off by more than this is counted, in ms.
const SKEW_MS: u64 = 60_000;
/// How often growth is looked at, in seconds.
const GROWTH_S: f64 = 5.0;

pub(super) struct Measures {
    received: Counter,
    received_bytes: Counter,
    /// Messages and their bytes so far.
    so_far: (u64, u64),
    pub(super) redelivered: Counter,
    pub(super) acknowledged: Counter,
    commit_seconds: Histogram,
    from_device: Histogram,
    /// When the first reading of the commit to come was taken, by its device's clock, ms since 1970.
    taken: Option<i64>,
    pub(super) filtered: Counter,
    pub(super) kept: Counter,
    pub(super) given_up_bytes: Counter,
    /// 1 while there is no room.
    pub(super) full: Gauge,
    skewed: Counter,
    gaps: Vec<(Counter, Counter)>,
    clock_trusted: Gauge,
    clock_steps: Gauge,
    clock_disbelieved_ms: Gauge,
    journal_bytes: Gauge,
    budget_bytes: Gauge,
    written_bytes: Gauge,
    disk_bytes: Gauge,
    write_amplification: Gauge,
    disk_bytes_per_message: Gauge,
    seconds_until_full: Gauge,
    growth: Growth,
    journaled: [Counter; Sent::ALL.len()],
    rejected: Vec<Counter>,
}

impl Measures {
    pub(super) fn new() -> Self {
        let measures = Self {
            received: counter!("weir_edge_messages_received_total"),
            received_bytes: counter!("weir_edge_received_bytes_total"),
            so_far: (0, 0),
            redelivered: counter!("weir_edge_messages_redelivered_total"),
            acknowledged: counter!("weir_edge_messages_acknowledged_total"),
            commit_seconds: histogram!("weir_edge_journal_commit_seconds"),
            from_device: histogram!("weir_event_latency_seconds", "hop" => "journal", "from" => "device"),
            taken: None,
            filtered: counter!("weir_edge_filtered_total"),
            kept: counter!("weir_edge_readings_kept_total"),
            given_up_bytes: counter!("weir_edge_given_up_bytes_total"),
            full: gauge!("weir_edge_journal_full"),
            skewed: counter!("weir_edge_device_clock_off_total"),
            gaps: Why::ALL
                .map(|why| {
                    let reason = why.as_str();
                    (
                        counter!("weir_edge_gaps_total", "reason" => reason),
                        counter!("weir_edge_gap_records_total", "reason" => reason),
                    )
                })
                .to_vec(),
            clock_trusted: gauge!("weir_edge_clock_trusted"),
            clock_steps: gauge!("weir_edge_clock_steps"),
            clock_disbelieved_ms: gauge!("weir_edge_clock_disbelieved_milliseconds"),
            journal_bytes: gauge!("weir_edge_journal_bytes"),
            budget_bytes: gauge!("weir_edge_journal_budget_bytes"),
            written_bytes: gauge!("weir_edge_journal_written_bytes"),
            disk_bytes: gauge!("weir_edge_disk_written_bytes"),
            write_amplification: gauge!("weir_edge_write_amplification_ratio"),
            disk_bytes_per_message: gauge!("weir_edge_disk_written_bytes_per_message"),
            seconds_until_full: gauge!("weir_edge_journal_seconds_until_full"),
            growth: Growth::default(),
            journaled: Sent::ALL
                .map(|kind| counter!("weir_edge_records_journaled_total", "topic" => kind.topic())),
            rejected: Reason::ALL
                .iter()
                .map(|reason| counter!("weir_edge_rejected_total", "reason" => reason.as_str()))
                .collect(),
        };
        for zero in measures
            .rejected
            .iter()
            .chain(&measures.journaled)
            .chain([&measures.received, &measures.redelivered, &measures.filtered, &measures.kept])
            .chain([&measures.given_up_bytes, &measures.skewed])
            .chain(measures.gaps.iter().flat_map(|(gaps, records)| [gaps, records]))
        {
            zero.increment(0);
        }
        measures.full.set(0.0);
        measures
    }

    /// A message came.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received.increment(1);
        self.received_bytes.increment(bytes as u64);
        self.so_far = (self.so_far.0 + 1, self.so_far.1 + bytes as u64);
    }

    /// What the disk takes for what comes in, state and images included.
    fn disk(&self) {
        let Some(written) = disk_written_bytes() else { return };
        let (messages, bytes) = self.so_far;
        self.disk_bytes.set(written as f64);
        if bytes > 0 {
            self.write_amplification.set(written as f64 / bytes as f64);
            self.disk_bytes_per_message.set(written as f64 / messages as f64);
        }
    }

    /// A gap over this many records.
    pub(super) fn gap(&self, why: Why, records: u64) {
        if let Some((gaps, count)) = Why::ALL.iter().position(|w| *w == why).and_then(|at| self.gaps.get(at))
        {
            gaps.increment(1);
            count.increment(records);
        }
    }

    /// Devices whose clocks are off, as far as the edge can tell.
    pub(super) fn skew(&mut self, decoded: &[Decoded], arrived: &Now) {
        if !arrived.trusted {
            return;
        }
        for reading in decoded {
            let Decoded::Reading(reading) = reading else { continue };
            self.taken.get_or_insert(reading.time);
            if reading.time.abs_diff(arrived.wall_ms) > SKEW_MS {
                self.skewed.increment(1);
            }
        }
    }

    /// What came is on disk, so long after its commit began.
    pub(super) fn committed(&mut self, took: Duration) {
        self.commit_seconds.record(took);
        if let Some(taken) = self.taken.take() {
            self.from_device.record(clock::wall_ms().saturating_sub(taken).max(0) as f64 / 1000.0);
        }
    }

    /// What the clock is worth.
    pub(super) fn clock(&self, line: &Timeline) {
        self.clock_trusted.set(if line.is_trusted() { 1.0 } else { 0.0 });
        self.clock_steps.set(line.steps() as f64);
        self.clock_disbelieved_ms.set(line.disbelieved_ms().unwrap_or(0) as f64);
    }

    /// What the journals hold, and when the first of them will be full at the pace of the last seconds.
    pub(super) fn journals(&mut self, lanes: &[Lane]) {
        let now = clock::instant();
        let Some(seconds) = self.growth.since(now) else { return };
        let bytes = |lane: &Lane| lane.writer.bytes() + lane.state_bytes();
        let total: u64 = lanes.iter().map(bytes).sum();
        let held: Vec<u64> = lanes.iter().map(|lane| lane.writer.held_bytes()).collect();
        let mut until_full = f64::INFINITY;
        for ((lane, held), before) in lanes.iter().zip(&held).zip(&self.growth.held) {
            let pace = (*held as f64 - *before as f64) / seconds;
            if lane.flow.budget_bytes > 0 && pace > 0.0 {
                let room = lane.flow.budget_bytes.saturating_sub(bytes(lane)) as f64;
                until_full = until_full.min(room / pace);
            }
        }
        self.journal_bytes.set(total as f64);
        let budgets = || lanes.iter().map(|lane| lane.flow.budget_bytes);
        // 0: one of them has none.
        let budget = if budgets().all(|budget| budget > 0) { budgets().sum::<u64>() } else { 0 };
        self.budget_bytes.set(budget as f64);
        for lane in lanes {
            // Where the disk does not say it, the page does not either.
            let Ok(disk) = rustix::fs::statvfs(&lane.flow.dir) else { continue };
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            gauge!("weir_edge_disk_free_bytes", "flow" => lane.flow.name.clone()).set(free as f64);
        }
        self.written_bytes.set(lanes.iter().map(|lane| lane.writer.written_bytes()).sum::<u64>() as f64);
        self.seconds_until_full.set(until_full);
        self.disk();
        self.growth = Growth { looked: Some(now), held };
    }

    pub(super) fn journaled(&self, kind: Sent) {
        self.journaled[kind.index()].increment(1);
    }

    pub(super) fn rejected(&self, reason: Reason) {
        let at = Reason::ALL.iter().position(|r| *r == reason);
        if let Some(counter) = at.and_then(|at| self.rejected.get(at)) {
            counter.increment(1);
        }
    }
}

/// What was held at the last look.
#[derive(Default)]
struct Growth {
    looked: Option<Instant>,
    held: Vec<u64>,
}

impl Growth {
    /// Seconds since the last look, when it is time for another.
    fn since(&self, now: Instant) -> Option<f64> {
        let seconds = self.looked.map_or(f64::INFINITY, |looked| (now - looked).as_secs_f64());
        (seconds >= GROWTH_S).then_some(seconds)
    }
}

/// What this process made the disks write, as the kernel counts it.
fn disk_written_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}
