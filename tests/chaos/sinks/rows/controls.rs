//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm, on servers of its own.

use super::super::lab::{Lab, NO_CANARY};
use super::{clickhouse, elasticsearch, kills, zombie};
use crate::report::Report;

/// What is broken, which row must see it, and the part of the row that does.
type Control = (&'static str, &'static str, fn(&mut Lab, &mut Report) -> anyhow::Result<()>);

const CONTROLS: [Control; 8] = [
    ("bad.mysql_progress_apart", "2", |lab, report| killed_at(lab, report, "sink.m1")),
    ("bad.mysql_ignore_fence", "14", |lab, report| zombie::held(lab, report, "sink.m0")),
    ("bad.es_progress_first", "2", |lab, report| killed_at(lab, report, "sink.l1")),
    ("bad.es_new_ids", "2", |lab, report| killed_at(lab, report, "sink.l2")),
    ("bad.es_ignore_items", "20", elasticsearch::refusals),
    ("bad.ch_no_plan", "2", |lab, report| killed_at(lab, report, "sink.c3")),
    ("bad.ch_no_asking", "24", clickhouse::forgotten_in),
    ("bad.ch_no_token", "14", |lab, report| zombie::held(lab, report, "sink.c1")),
];

/// Killed three times at a step.
fn killed_at(lab: &mut Lab, report: &mut Report, step: &str) -> anyhow::Result<()> {
    kills::killed_at(lab, report, step, [3, 5, 7])
}

/// All controls, or those of one switch; each must turn its row red.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (mut red, mut count) = (0, 0);
    let of_this_run = lab.bad.clone();
    let wanted = |bad: &str| of_this_run.as_ref().is_none_or(|only| only == bad);
    for (bad, row, part) in CONTROLS.iter().filter(|(bad, ..)| wanted(bad)) {
        count += 1;
        let mut found = Report::new(row);
        if count > 1 {
            lab.anew()?;
        }
        lab.bad = Some((*bad).to_owned());
        let done = part(lab, &mut found);
        lab.bad.clone_from(&of_this_run);
        match (done, found.problems().first()) {
            (_, Some(problem)) => {
                red += 1;
                lab.tell(&format!("control {bad}: row {row} turns red: {problem}"));
            }
            // A reading that never comes is what a row is to find, not a row that cannot be carried out.
            (Err(error), None) if error.to_string().starts_with(NO_CANARY) => {
                red += 1;
                lab.tell(&format!("control {bad}: row {row} turns red: {NO_CANARY}"));
            }
            (Ok(()), None) => report.problem(format!("{bad}: row {row} stayed green")),
            (Err(error), None) => report.problem(format!("{bad}: row {row} proves nothing: {error:#}")),
        }
    }
    report.did(&format!("{red} of {count} known-bad switches turned their row red"));
    report.check(count > 0, || format!("no control is called {of_this_run:?}"));
    report.figure("red", red);
    Ok(())
}
