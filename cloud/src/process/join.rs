//! Dimension tables: business data by key, added to each reading.
//!
//! The flow: [`load`] reads the tables of a server in one moment ([`schema`] refuses what cannot be used, [`rows`]
//! writes the JSON, [`table`] keeps it); [`follow`] reads the row events that come behind ([`tail`], [`statement`],
//! [`image`]) and puts the result on the [`board`], where workers take a [`snapshot`] for each cycle.
//!
//! Guarantees: every table of a snapshot is as it stood between two transactions; rows are written as JSON when they
//! come, so that a join is a lookup and a copy; a row from the binlog has the same bytes as the same row loaded.
//! On failure: see [`follow`]; nothing is processed before every table was loaded once.
//!
//! **Version**: an integer that orders the states of a dimension: number of the binlog file × 10¹⁰ + offset up to which
//! everything is there; in poll mode ms since 1970 of the load that brought the last change, by the clock of the process
//! that loaded: it is told in outputs, and no process waits for another's. A binlog that is reset begins with small
//! numbers again.

mod board;
pub(crate) mod config;
mod follow;
mod image;
mod load;
mod measures;
mod probe;
mod rows;
mod schema;
mod server;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "columns, schema and policies are for the rules and the new worker")
)]
mod snapshot;
mod statement;
mod table;
mod tail;

use std::sync::Arc;
use std::time::Duration;

use weir_shared::audit::Audit;
use weir_shared::supervise::{Error, Stop};

use board::Board;
use follow::Follower;
pub(in crate::process) use snapshot::{Found, Snapshot};

pub(crate) use config::{DimensionConfig, Missing};
pub(crate) use probe::{Probe, probe};

/// How often ages are shown.
const SHOWN: Duration = Duration::from_secs(1);

/// All dimension tables, followed by one thread; clones are for workers.
#[derive(Clone)]
pub(crate) struct Dimensions {
    configs: Arc<[DimensionConfig]>,
    board: Arc<Board>,
    audit: Option<Audit>,
}

impl Dimensions {
    /// Loads nothing yet.
    pub(crate) fn new(configs: &[DimensionConfig]) -> Self {
        let dimensions = configs.iter().map(snapshot::Dimension::new).collect();
        Self { configs: configs.into(), board: Arc::new(Board::new(dimensions)), audit: None }
    }

    /// Writes down there which databases refuse this process.
    pub(crate) fn audited(self, audit: Audit) -> Self {
        Self { audit: Some(audit), ..self }
    }

    /// What is in force; `None` until every table was loaded once.
    pub(in crate::process) fn current(&self) -> Option<Arc<Snapshot>> {
        self.board.current()
    }

    /// Follows all tables until told to stop, also while servers are away. Blocks: call it on a thread of its own.
    ///
    /// # Errors
    /// When there is no runtime, or a follower panicked.
    pub(crate) fn follow(&self, stop: &Stop) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut followers = tokio::task::JoinSet::new();
            for dimensions in servers(&self.configs) {
                followers.spawn_local(
                    Follower::new(Arc::clone(&self.board), dimensions, self.audit.clone()).run(),
                );
            }
            loop {
                tokio::select! {
                    () = stop.wait() => return Ok(()),
                    Some(Err(error)) = followers.join_next() => return Err(error.into()),
                    () = tokio::time::sleep(SHOWN) => self.board.show_ages(),
                }
            }
        })
    }
}

/// The columns that rules may name of a dimension, asked of its database. Blocks for some seconds at most.
///
/// # Errors
/// What the database says, or that it does not answer.
pub(crate) fn columns(config: &DimensionConfig) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let asked = async {
        let mut conn = load::connect(&config.server).await?;
        let schema = schema::Schema::read(&mut conn, config).await;
        load::disconnect(conn).await;
        let schema = schema?;
        let (_, shown) = schema.places(config)?;
        Ok::<_, load::Error>(shown.into_iter().map(|i| schema.columns[i].name.clone()).collect())
    };
    runtime.block_on(asked).map_err(|e| e.to_string())
}

/// Dimensions that one follower serves: of the same server, by the same user, in the same mode, with the same TLS.
fn servers(configs: &[DimensionConfig]) -> Vec<Vec<(usize, DimensionConfig)>> {
    let mut servers: Vec<Vec<(usize, DimensionConfig)>> = Vec::new();
    for (i, config) in configs.iter().enumerate() {
        let is_its = |list: &&mut Vec<(usize, DimensionConfig)>| {
            list.iter().any(|(_, c)| c.mode == config.mode && c.server.is_same(&config.server))
        };
        match servers.iter_mut().find(is_its) {
            Some(list) => list.push((i, config.clone())),
            None => servers.push(vec![(i, config.clone())]),
        }
    }
    servers
}

#[cfg(test)]
mod tests;
