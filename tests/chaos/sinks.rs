//! The fault suite of the sinks, on Kafka, MariaDB with a replica, Elasticsearch and ClickHouse.
//!
//! The flow: [`lab`] brings the servers up and lets a fleet of edges send through a processor without end; each of the
//! [`rows`] runs the sinks, hurts them or their stores, heals, sends canaries, and lets `weir-cloud verify --deep`
//! compare the stores with the log.
//! Guarantees: one stack and one stream; at the end every store is compared as a whole, and has not one row more.

mod lab;
mod rows;

use crate::lab::{Wanted, line};
use crate::report::Report;
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
    let rows = rows::chosen(names)?;
    let mut lab = Lab::up(sizes, bad)?;
    let mut reports = Vec::new();
    for row in rows {
        let begun = lab.seconds();
        lab.tell(&format!("row {}: {}", row.name, row.about));
        let mut report = Report::new(row.name);
        if let Err(error) = (row.run)(&mut lab, &mut report) {
            report.problem(format!("could not be carried out: {error:#}"));
        }
        report.seconds = lab.seconds() - begun;
        line(&report.to_string());
        // What a red row left behind would turn the next one red too.
        if !report.is_right() || row.leaves_a_mess {
            lab.anew()?;
        }
        reports.push(report);
    }
    lab.down()?;
    Ok((reports, lab.seconds()))
}
