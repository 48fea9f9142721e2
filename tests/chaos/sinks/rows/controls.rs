//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm, on servers of its own.

use std::time::Duration;

use weir_harness::patience::holds_within;

use super::super::lab::Lab;
use super::{clickhouse, elasticsearch, kills, zombie};
use crate::report::Report;
use crate::suite::{Control, control};

const CONTROLS: [Control<Lab>; 8] = [
    ("bad.mysql_progress_apart", "2", |lab, report| killed_at(lab, report, "sink.m1")),
    ("bad.mysql_ignore_fence", "14", |lab, report| held_at(lab, report, "sink.m0")),
    ("bad.es_progress_first", "2", |lab, report| killed_at(lab, report, "sink.l0")),
    ("bad.es_new_ids", "2", |lab, report| killed_at(lab, report, "sink.l2")),
    ("bad.es_ignore_items", "20", elasticsearch::refusals),
    ("bad.ch_no_plan", "2", without_plan),
    ("bad.ch_no_asking", "24", clickhouse::forgotten_in),
    ("bad.ch_no_token", "14", |lab, report| held_at(lab, report, "sink.c1")),
];

/// What ClickHouse's sink says when its table is ahead of its group.
const STANDS_STILL: &str = "but rows up to";
const SAYS: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Killed behind an insert of which no plan tells. What would double is seen at the start, and the sink stands still with it for
/// good: that is the harm.
fn without_plan(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    until_red(report, |report, count| {
        kills::die_at(lab, report, &format!("sink.c3={count}*off->return"))?;
        let sinks = lab.start("a", "")?;
        let stands_still = holds_within(SAYS, LOOK, || Ok(sinks.says(STANDS_STILL)))?;
        report.check(!stands_still, || {
            "ClickHouse's sink stands still: its table is ahead of its group".to_owned()
        });
        Ok(())
    })
}

/// Killed at a step.
fn killed_at(lab: &mut Lab, report: &mut Report, step: &str) -> anyhow::Result<()> {
    until_red(report, |report, count| kills::killed_at(lab, report, step, [count]))
}

/// Held at a step while a twin takes over, which a slow machine may let come too late.
fn held_at(lab: &mut Lab, report: &mut Report, step: &str) -> anyhow::Result<()> {
    until_red(report, |report, _| zombie::held(lab, report, step).map(drop))
}

/// At most three times, as the harm is a matter of moments.
fn until_red(
    report: &mut Report,
    mut part: impl FnMut(&mut Report, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for count in [3, 5, 7] {
        part(report, count)?;
        if report.proof().is_some() {
            break;
        }
    }
    Ok(())
}

/// All controls, or those of one switch.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    control(lab, report, &CONTROLS)
}
