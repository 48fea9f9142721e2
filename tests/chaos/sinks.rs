//! The fault suite of the sinks, on Kafka, MariaDB with a replica, Elasticsearch and ClickHouse.
//!
//! The flow: [`lab`] brings the servers up and lets a fleet of edges send through a processor without end; each of the
//! [`rows`] runs the sinks, hurts them or their stores, heals, sends canaries, and lets `weir-cloud verify --deep`
//! compare the stores with the log.
//! Guarantees: one stack and one stream; at the end every store is compared as a whole, and has not one row more.

mod lab;
mod rows;

use crate::lab::Wanted;
use crate::report::Report;
use crate::suite;
use lab::Lab;

/// Carries out these rows; all when there are none.
///
/// # Errors
/// When the servers cannot be brought up, or a row is not known.
pub(crate) fn suite(
    names: &[String],
    sizes: Wanted,
    bad: Option<String>,
) -> anyhow::Result<(Vec<Report>, f64)> {
    let rows = suite::chosen(&rows::ROWS, names)?;
    suite::carry_out(Lab::up(sizes, bad)?, &rows)
}
