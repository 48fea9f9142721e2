//! The rows of the fault matrix that concern the sinks.

mod away;
mod clickhouse;
mod controls;
mod elasticsearch;
mod kills;
mod limits;
mod mysql;
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
    /// Whether everything must be made anew after it.
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
const ROWS: [Row; 16] = [
    row("2", "kill -9 at every step", kills::steps),
    row("3", "kill -9 at random", kills::random),
    row("14", "zombies", zombie::row),
    row("17", "MySQL: locks and deadlocks", mysql::locks),
    row("19", "MySQL: the reply to COMMIT is lost", mysql::lost_commits),
    row("20", "Elasticsearch refuses some documents, for now or for ever", elasticsearch::refusals),
    row("21", "Elasticsearch away, then read-only", elasticsearch::away),
    row("22", "ClickHouse has too many parts", clickhouse::too_many_parts),
    row("23", "ClickHouse: the reply to an insert is lost", clickhouse::lost_replies),
    row("24", "ClickHouse has forgotten its tokens", clickhouse::forgotten),
    row("26", "a slow store", limits::slow),
    row("32", "no file descriptors, no memory", limits::exhausted),
    row("away", "each store away for a minute, the others go on", away::row),
    row("18", "MySQL: read-only, then its replica takes over", mysql::failover),
    row("all", "everything, compared as a whole", |lab, report| {
        let _sinks = lab.start("a", "")?;
        report.did("all of the stream and the number of rows");
        lab.judge_all(report)
    }),
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
