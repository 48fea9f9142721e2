//! The metrics of the windows stage.

use metrics::{Counter, Gauge, counter, gauge};

use super::driver::{Driver, Made};
use crate::journal::format::Sent;

pub(super) struct Measures {
    pub(super) failed: Counter,
    results: Counter,
    late: Counter,
    unreadable: Counter,
    keys: Gauge,
    state_bytes: Gauge,
    position: Gauge,
}

impl Measures {
    pub(super) fn new(flow: &str) -> Self {
        let of_flow = |name: &'static str| gauge!(name, "flow" => flow.to_owned());
        let measures = Self {
            failed: counter!("weir_edge_state_save_failed_total"),
            results: counter!("weir_edge_window_results_total"),
            late: counter!("weir_edge_late_readings_total"),
            unreadable: counter!("weir_edge_windows_unreadable_total", "flow" => flow.to_owned()),
            keys: of_flow("weir_edge_window_keys"),
            state_bytes: of_flow("weir_edge_state_bytes"),
            position: of_flow("weir_edge_windows_position_bytes"),
        };
        for zero in [&measures.failed, &measures.results, &measures.late, &measures.unreadable] {
            zero.increment(0);
        }
        measures
    }

    /// Results that did not stand yet.
    pub(super) fn made(&self, made: &[Made]) {
        let late = made.iter().filter(|(kind, ..)| *kind == Sent::Late).count() as u64;
        self.late.increment(late);
        self.results.increment(made.len() as u64 - late);
    }

    /// A batch was taken in.
    pub(super) fn taken(&self, driver: &Driver) {
        self.unreadable.absolute(driver.unreadable);
        self.keys.set(driver.keys() as f64);
    }

    /// How much state there is, and how far it is.
    pub(super) fn state(&self, bytes: u64, position: u64) {
        self.state_bytes.set(bytes as f64);
        self.position.set(position as f64);
    }
}
