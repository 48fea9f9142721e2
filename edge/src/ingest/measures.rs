//! The metrics of the ingest stage.
//!
//! The books: `weir_edge_messages_received_total` = messages journaled + `weir_edge_messages_redelivered_total`, and
//! for each topic `weir_edge_records_journaled_total` = `weir_edge_records_forwarded_total` + held (the forwarder's).

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::decode::Reason;
use crate::journal::format::Sent;

pub(super) struct Measures {
    pub(super) received: Counter,
    pub(super) received_bytes: Counter,
    pub(super) redelivered: Counter,
    pub(super) acknowledged: Counter,
    pub(super) commit_seconds: Histogram,
    pub(super) journal_bytes: Gauge,
    journaled: [Counter; 2],
    rejected: Vec<Counter>,
}

impl Measures {
    pub(super) fn new() -> Self {
        let measures = Self {
            received: counter!("weir_edge_messages_received_total"),
            received_bytes: counter!("weir_edge_received_bytes_total"),
            redelivered: counter!("weir_edge_messages_redelivered_total"),
            acknowledged: counter!("weir_edge_messages_acknowledged_total"),
            commit_seconds: histogram!("weir_edge_journal_commit_seconds"),
            journal_bytes: gauge!("weir_edge_journal_bytes"),
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
            .chain([&measures.received, &measures.redelivered])
        {
            zero.increment(0);
        }
        measures
    }

    pub(super) fn journaled(&self, kind: Sent) {
        match kind {
            Sent::Reading => self.journaled[0].increment(1),
            Sent::Rejection => self.journaled[1].increment(1),
        }
    }

    pub(super) fn rejected(&self, reason: Reason) {
        let at = Reason::ALL.iter().position(|r| *r == reason);
        if let Some(counter) = at.and_then(|at| self.rejected.get(at)) {
            counter.increment(1);
        }
    }
}
