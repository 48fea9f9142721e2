//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm, on servers of its own.

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
    ("bad.ch_no_plan", "2", |lab, report| killed_at(lab, report, "sink.c3")),
    ("bad.ch_no_asking", "24", clickhouse::forgotten_in),
    ("bad.ch_no_token", "14", |lab, report| held_at(lab, report, "sink.c1")),
];

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
