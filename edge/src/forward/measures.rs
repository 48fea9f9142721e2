//! The metrics of the forwarder.

use metrics::{Counter, Gauge, counter, gauge};

use crate::journal::format::Sent;

pub(super) struct Measures {
    pub(super) restarts: Counter,
    /// Control records that close a stream in one partition.
    pub(super) closed: Counter,
    pub(super) in_flight: Gauge,
    pub(super) held_bytes: Gauge,
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
            forwarded: Sent::ALL.map(|k| counter!("weir_edge_records_forwarded_total", "topic" => k.topic())),
            backlog: Sent::ALL.map(|k| counter!("weir_edge_backlog_forwarded_total", "topic" => k.topic())),
        };
        for zero in
            measures.forwarded.iter().chain(&measures.backlog).chain([&measures.restarts, &measures.closed])
        {
            zero.increment(0);
        }
        measures
    }

    /// Kafka acknowledged a record of this process, or of one before it.
    pub(super) fn forwarded(&self, kind: Sent, own: bool) {
        let counters = if own { &self.forwarded } else { &self.backlog };
        counters[kind.index()].increment(1);
    }
}
