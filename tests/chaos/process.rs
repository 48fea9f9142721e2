//! The fault suite of `weir-cloud process`, on three brokers of Kafka and MariaDB.
//!
//! The flow: [`lab`] brings the servers up and lets a fleet of edges send without end; each of the [`rows`] runs processors,
//! hurts them or their servers, heals, sends canaries, and lets the judge compare what came since the row before; the
//! [`database`] holds the dimension table.
//! Guarantees: one stack and one stream; only where records were lost on purpose, topics are made anew.

pub(crate) mod database;
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
