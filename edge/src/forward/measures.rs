//! The metrics of the forwarder.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use weir_shared::clock;

use crate::journal::format::Sent;

pub(super) struct Measures {
    pub(super) restarts: Counter,
    /// Control records that close a stream in one partition.
    pub(super) closed: Counter,
    pub(super) in_flight: Gauge,
    pub(super) held_bytes: Gauge,
    /// How long the oldest record that is held has been here.
    pub(super) held_seconds: Gauge,
    connected: Gauge,
    latency: Histogram,
    /// The record whose way is measured, one at a time: its ticket, and when it was received.
    sample: Option<(usize, i64)>,
    forwarded: [Counter; Sent::ALL.len()],
    backlog: [Counter; Sent::ALL.len()],
}

impl Measures {
    pub(super) fn new(flow: &str) -> Self {
        let of_flow = |name: &'static str| gauge!(name, "flow" => flow.to_owned());
        let measures = Self {
            restarts: counter!("weir_edge_producer_restarts_total"),
            closed: counter!("weir_edge_streams_closed_total"),
            in_flight: of_flow("weir_edge_in_flight_records"),
            held_bytes: of_flow("weir_edge_held_bytes"),
            held_seconds: of_flow("weir_edge_held_seconds"),
            connected: of_flow("weir_edge_kafka_connected"),
            latency: histogram!("weir_event_latency_seconds", "hop" => "kafka", "from" => "received"),
            sample: None,
            forwarded: Sent::ALL.map(|k| counter!("weir_edge_records_forwarded_total", "topic" => k.topic())),
            backlog: Sent::ALL.map(|k| counter!("weir_edge_backlog_forwarded_total", "topic" => k.topic())),
        };
        for zero in
            measures.forwarded.iter().chain(&measures.backlog).chain([&measures.restarts, &measures.closed])
        {
            zero.increment(0);
        }
        measures.connected.set(0.0);
        measures.held_seconds.set(0.0);
        measures
    }

    /// Whether Kafka takes records, as far as is known.
    pub(super) fn connected(&self, connected: bool) {
        self.connected.set(if connected { 1.0 } else { 0.0 });
    }

    /// Another producer begins: what the one before sent is not acknowledged any more.
    pub(super) fn new_producer(&mut self) {
        self.sample = None;
    }

    /// A record was handed over that was received then, ms since 1970, as far as that is known.
    pub(super) fn handed_over(&mut self, ticket: usize, received: impl FnOnce() -> Option<i64>) {
        if self.sample.is_none() {
            self.sample = received().map(|received| (ticket, received));
        }
    }

    /// Kafka acknowledged a record.
    pub(super) fn acknowledged(&mut self, ticket: usize) {
        if let Some((_, received)) = self.sample.take_if(|(sample, _)| *sample == ticket) {
            self.latency.record(clock::wall_ms().saturating_sub(received).max(0) as f64 / 1000.0);
        }
    }

    /// Kafka acknowledged a record of this process, or of one before it.
    pub(super) fn forwarded(&self, kind: Sent, own: bool) {
        let counters = if own { &self.forwarded } else { &self.backlog };
        counters[kind.index()].increment(1);
    }
}
