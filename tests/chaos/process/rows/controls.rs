//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm, on topics of its own.

use super::super::lab::Lab;
use super::{gone, kills, rules, tables, zombie};
use crate::report::Report;
use crate::suite::{Control, control};

const CONTROLS: [Control<Lab>; 9] = [
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

/// All controls, or those of one switch.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    control(lab, report, &CONTROLS)
}
