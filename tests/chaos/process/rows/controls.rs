//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm, on topics of its own.

use super::super::lab::{Lab, NO_CANARY};
use super::{gone, kills, rules, tables, zombie};
use crate::report::Report;

/// What is broken, which row must see it, and the part of the row that does.
type Control = (&'static str, &'static str, fn(&mut Lab, &mut Report) -> anyhow::Result<()>);

const CONTROLS: [Control; 9] = [
    ("bad.commit_first", "2", |lab, report| kills::step_once(lab, report, "cloud.s3", 40)),
    // Marks hold back all but what has no identity, which is not in every cycle.
    ("bad.no_transaction_offsets", "2", |lab, report| {
        (20..26).try_for_each(|count| kills::step_once(lab, report, "cloud.s5", count))
    }),
    ("bad.skip_changelog", "3", |lab, report| kills::random_kills(lab, report, 8)),
    ("bad.skip_restore", "3", |lab, report| kills::random_kills(lab, report, 8)),
    ("bad.forget_abort", "2", kills::aborts),
    ("bad.ignore_fence", "14", zombie::twin),
    ("bad.skip_loss", "16", gone::told),
    ("bad.half_table", "30", tables::torn),
    ("bad.stale_rules", "rules", |lab, report| rules::changes(lab, report, 8)),
];

/// All controls, or those of one switch; each must turn its row red.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (mut red, mut count) = (0, 0);
    let of_this_run = lab.bad.clone();
    let wanted = |bad: &str| of_this_run.as_ref().is_none_or(|only| only == bad);
    for (bad, row, part) in CONTROLS.iter().filter(|(bad, ..)| wanted(bad)) {
        count += 1;
        let mut found = Report::new(row);
        lab.anew()?;
        lab.bad = Some((*bad).to_owned());
        let done = part(lab, &mut found);
        lab.bad.clone_from(&of_this_run);
        lab.refill()?;
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
