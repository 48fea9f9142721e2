//! The fault suite of `weir-cloud process`, on three brokers of Kafka and MariaDB.
//!
//! The flow: [`lab`] brings the servers up and lets a fleet of edges send without end; each of the [`rows`] runs processors,
//! hurts them or their servers, heals, sends canaries, and lets the judge compare what came since the row before; the
//! [`database`] holds the dimension table.
//! Guarantees: one stack and one stream; only where records were lost on purpose, topics are made anew.

pub(crate) mod database;
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
