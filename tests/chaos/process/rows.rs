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

use super::lab::Lab;
use crate::suite::{Row, row};

/// All of them, in the order in which they run.
pub(super) static ROWS: [Row<Lab>; 15] = [
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
