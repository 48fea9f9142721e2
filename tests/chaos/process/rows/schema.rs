//! Row 29: readings get new members, values of another type, values that no reading may have.
//!
//! Must hold: what adds passes, what breaks becomes a dead letter, none is lost.

use std::time::Duration;

use weir_harness::faults::fleet::Shape;

use super::super::lab::Lab;
use crate::lab::pass;
use crate::report::Report;

const EACH: Duration = Duration::from_secs(3);

/// Row 29.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let cloud = lab.start("a", "")?;
    for shape in [Shape::NewMembers, Shape::OtherType, Shape::Broken, Shape::Plain] {
        lab.fleet()?.shape(shape);
        pass(EACH);
    }
    report.heal("as before", lab.canary()?);
    lab.judge(report, "schema changes")?;
    lab.books(report, &cloud);
    report.did("readings with new members, other types, broken values");
    Ok(())
}
