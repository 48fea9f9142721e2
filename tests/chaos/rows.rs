//! The rows of the fault matrix that concern the edge.
//!
//! Each row hurts the edge in one way and names the known-bad switches that must turn it red ([`controls`]).

mod controls;
mod damage;
mod disk;
mod fsync;
mod kills;
mod network;
mod outage;
mod poison;
mod power;
mod turned_clock;

use anyhow::bail;

use crate::lab::Lab;
use crate::report::Report;

/// One row.
pub(crate) struct Row {
    /// Its number in the fault matrix.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Lab, &mut Report) -> anyhow::Result<()>,
}

/// All of them, in the order in which they run.
pub(crate) const ROWS: [Row; 13] = [
    Row { name: "1", about: "kill -9 at every step", run: kills::steps },
    Row { name: "3", about: "kill -9 at random", run: kills::random },
    Row { name: "4", about: "kill -9 during recovery", run: kills::nested },
    Row { name: "5", about: "power loss", run: power::row },
    Row { name: "6", about: "damaged journal", run: damage::row },
    Row { name: "7", about: "fsync fails", run: fsync::fails },
    Row { name: "8", about: "disk full, then freed", run: disk::full },
    Row { name: "9", about: "fsync takes 2 s", run: fsync::slow },
    Row { name: "10", about: "Kafka away for long", run: outage::row },
    Row { name: "25", about: "network flapping 1 s/1 s", run: network::row },
    Row { name: "27", about: "poison messages", run: poison::row },
    Row { name: "28", about: "clock turned", run: turned_clock::row },
    Row { name: "controls", about: "known-bad switches turn the rows red", run: controls::row },
];

/// The rows with these names; all when there is none.
pub(crate) fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!("there is no row {unknown}: there are {}", known.join(", "));
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| *name == row.name)).collect())
}
