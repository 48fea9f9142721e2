//! The rows of the fault matrix that concern the processor.

mod cluster;
mod controls;
mod gone;
mod kills;
mod replies;
mod rules;
mod schema;
mod storm;
mod tables;
mod zombie;

use anyhow::bail;

use super::lab::Lab;
use crate::report::Report;

/// One row.
pub(super) struct Row {
    /// Its number in the fault matrix.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    pub(super) run: fn(&mut Lab, &mut Report) -> anyhow::Result<()>,
    /// Whether topics must be made anew after it.
    pub(super) leaves_a_mess: bool,
}

const fn row(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Lab, &mut Report) -> anyhow::Result<()>,
) -> Row {
    Row { name, about, run, leaves_a_mess: false }
}

/// All of them, in the order in which they run.
const ROWS: [Row; 15] = [
    row("2", "kill -9 at every step", kills::steps),
    row("3", "kill -9 at random", kills::random),
    row("4", "kill -9 during recovery", kills::nested),
    row("11", "brokers restart in turn", cluster::roll),
    row("12", "too few replicas in sync", cluster::below_min),
    row("13", "Kafka's reply lost", replies::row),
    row("14", "zombies", zombie::row),
    row("15", "rebalance storm", storm::row),
    row("29", "schema changes", schema::row),
    row("30", "torn refreshes of the dimension table", tables::torn),
    row("rules", "rules change while processors are killed", rules::row),
    // A partition that saw the large versions of before the reset waits 15 s for them at its next start.
    Row {
        leaves_a_mess: true,
        ..row("mysql", "MySQL away while rows change; binlog purged and reset", tables::away)
    },
    Row {
        leaves_a_mess: true,
        ..row("columns", "columns of the table dropped and renamed", tables::columns)
    },
    Row { leaves_a_mess: true, ..row("16", "records deleted before they were processed", gone::row) },
    Row { leaves_a_mess: true, ..row("controls", "known-bad switches turn the rows red", controls::row) },
];

/// The rows with these names; all when there is none.
pub(super) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!("there is no row {unknown}: there are {}", known.join(", "));
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| *name == row.name)).collect())
}
