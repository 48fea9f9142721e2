//! The rows of the fault matrix that concern the sinks.

mod away;
mod clickhouse;
mod controls;
mod elasticsearch;
mod kills;
mod limits;
mod mysql;
mod zombie;

use super::lab::Lab;
use crate::suite::{Row, row};

/// All of them, in the order in which they run.
pub(super) static ROWS: [Row<Lab>; 16] = [
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
