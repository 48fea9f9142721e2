//! What is shown of a dimension: `weir_cloud_dimension_…`, label `dimension`.

use metrics::{Counter, Gauge, counter, gauge};

/// Metrics of one dimension.
#[derive(Clone, Debug)]
pub(super) struct Measures {
    name: String,
    /// Rows in memory.
    pub(super) rows: Gauge,
    /// Bytes of keys and JSON in memory.
    pub(super) bytes: Gauge,
    /// Version in force.
    pub(super) version: Gauge,
    /// Since when it is not known to be up to date, s.
    pub(super) age: Gauge,
    /// 1 while an old snapshot serves.
    pub(super) stale: Gauge,
    /// Readings that found a row.
    pub(super) hits: Counter,
    /// Readings that found none.
    pub(super) misses: Counter,
    /// Row events of its table.
    pub(super) events: Counter,
    /// Rows put in or taken away by them.
    pub(super) changes: Counter,
}

impl Measures {
    /// Of the dimension with this name.
    pub(super) fn new(name: &str) -> Self {
        let label = || name.to_owned();
        let measures = Self {
            name: label(),
            rows: gauge!("weir_cloud_dimension_rows", "dimension" => label()),
            bytes: gauge!("weir_cloud_dimension_bytes", "dimension" => label()),
            version: gauge!("weir_cloud_dimension_version", "dimension" => label()),
            age: gauge!("weir_cloud_dimension_age_seconds", "dimension" => label()),
            stale: gauge!("weir_cloud_dimension_stale", "dimension" => label()),
            hits: counter!("weir_cloud_dimension_hits_total", "dimension" => label()),
            misses: counter!("weir_cloud_dimension_misses_total", "dimension" => label()),
            events: counter!("weir_cloud_dimension_events_total", "dimension" => label()),
            changes: counter!("weir_cloud_dimension_changes_total", "dimension" => label()),
        };
        // The most frequent reason shows its zero from the start.
        measures.reloads("connection").increment(0);
        measures
    }

    /// It has to be loaded again.
    pub(super) fn reload(&self, reason: &'static str) {
        self.reloads(reason).increment(1);
    }

    fn reloads(&self, reason: &'static str) -> Counter {
        let name = self.name.clone();
        counter!("weir_cloud_dimension_reloads_total", "dimension" => name, "reason" => reason)
    }
}
