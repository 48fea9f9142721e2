//! Metrics: the recorder of the process. The names are a contract; each stage owns the struct with its own.
//!
//! Goes out: the Prometheus text page. Guarantees: histograms have buckets (never summaries), and never a label
//! per device. On failure: installing twice is an error of the program and ends it at start.

pub mod page;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Bucket bounds for everything measured in seconds.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Installs the recorder; what it returns renders the page and must get `run_upkeep()` every few seconds.
///
/// # Errors
/// When a recorder stands already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()
}
