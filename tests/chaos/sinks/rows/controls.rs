//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm, on servers of its own.

use super::super::lab::Lab;
use super::{clickhouse, elasticsearch, kills, zombie};
use crate::report::Report;
use crate::suite::{Control, control};

const CONTROLS: [Control<Lab>; 8] = [
    ("bad.mysql_progress_apart", "2", |lab, report| killed_at(lab, report, "sink.m1")),
    ("bad.mysql_ignore_fence", "14", |lab, report| zombie::held(lab, report, "sink.m0").map(drop)),
    ("bad.es_progress_first", "2", |lab, report| killed_at(lab, report, "sink.l0")),
    ("bad.es_new_ids", "2", |lab, report| killed_at(lab, report, "sink.l2")),
    ("bad.es_ignore_items", "20", elasticsearch::refusals),
    ("bad.ch_no_plan", "2", |lab, report| killed_at(lab, report, "sink.c3")),
    ("bad.ch_no_asking", "24", clickhouse::forgotten_in),
    ("bad.ch_no_token", "14", |lab, report| zombie::held(lab, report, "sink.c1").map(drop)),
];

/// Killed three times at a step.
fn killed_at(lab: &mut Lab, report: &mut Report, step: &str) -> anyhow::Result<()> {
    kills::killed_at(lab, report, step, [3, 5, 7])
}

/// All controls, or those of one switch.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    control(lab, report, &CONTROLS)
}
