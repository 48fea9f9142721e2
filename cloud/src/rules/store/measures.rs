//! What following the rules shows.
//!
//! Comes in: what happened. Goes out: metrics `weir_cloud_rules_…`. Guarantees: no label per rule.

use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};

/// Handles of all of them.
pub(super) struct Measures {
    age: Gauge,
    number: Gauge,
    active: Gauge,
    refused: Gauge,
    changed: Counter,
    unchanged: Counter,
    failed: Counter,
}

impl Measures {
    /// Registers them all, so that each shows its zero from the start.
    pub(super) fn new() -> Self {
        let loads = |outcome| counter!("weir_cloud_rules_loads_total", "outcome" => outcome);
        Self {
            age: gauge!("weir_cloud_rules_age_seconds"),
            number: gauge!("weir_cloud_rules_set"),
            active: gauge!("weir_cloud_rules_active"),
            refused: gauge!("weir_cloud_rules_refused"),
            changed: loads("changed"),
            unchanged: loads("unchanged"),
            failed: loads("failed"),
        }
    }

    /// Since the tables were last seen.
    pub(super) fn age(&self, age: Duration) {
        self.age.set(age.as_secs_f64());
    }

    /// A set is in force.
    pub(super) fn published(&self, number: u64, active: usize) {
        self.number.set(number as f64);
        self.active.set(active as f64);
    }

    /// The tables were read.
    pub(super) fn loaded(&self, changed: bool, refused: usize) {
        self.refused.set(refused as f64);
        if changed { self.changed.increment(1) } else { self.unchanged.increment(1) }
    }

    /// They could not be read.
    pub(super) fn failed(&self) {
        self.failed.increment(1);
    }
}
