//! What `weir-cloud check --connect` asks of a dimension.
//!
//! Comes in: a `[[dimension]]`. Goes out: a [`Probe`]: what its follower would say of the table and of the binlog.
//! Guarantees: the questions are the follower's own ([`load`], [`schema`](super::schema), [`server`]); of the rows only one
//! is read, and they are counted up to `rows_max`, so that `bytes_max` is not checked. Changes nothing.
//! On failure: of the connection, an error; what is refused is part of the [`Probe`], with its way out.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::config::{DimensionConfig, Mode};
use super::load::{self, Error, answered};
use super::schema::Schema;
use super::server;

/// What a database says of a dimension.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Of the server.
    pub(crate) version: String,
    /// How many columns are shown, or why the table cannot be used.
    pub(crate) table: Result<usize, String>,
    /// File and offset where the binlog ends, or why it cannot be followed; `None` when nobody wants to.
    pub(crate) binlog: Option<Result<(String, u64), String>>,
    /// What `SHOW GRANTS` gives.
    pub(crate) grants: Vec<String>,
}

/// Asks all of it.
///
/// # Errors
/// There is no connection, or the server does not answer.
pub(crate) async fn probe(config: &DimensionConfig) -> Result<Probe, String> {
    let mut conn = load::connect(&config.server).await.map_err(|e| e.to_string())?;
    let asked = ask(&mut conn, config).await;
    load::disconnect(conn).await;
    asked.map_err(|e| e.to_string())
}

async fn ask(conn: &mut Conn, config: &DimensionConfig) -> Result<Probe, Error> {
    let version: Option<String> = answered(conn.query_first("SELECT VERSION()")).await?;
    let grants = answered(conn.query("SHOW GRANTS")).await?;
    let table = table(conn, config).await.map_err(|e| e.to_string());
    let binlog = match config.mode {
        Mode::Binlog => Some(binlog(conn).await.map_err(|e| e.to_string())),
        Mode::Poll(_) => None,
    };
    Ok(Probe { version: version.unwrap_or_default(), table, binlog, grants })
}

async fn table(conn: &mut Conn, config: &DimensionConfig) -> Result<usize, Error> {
    let mut schema = Schema::read(conn, config).await?;
    let chosen = load::choose(config, &mut schema)?;
    answered(conn.query_drop(format!("{} LIMIT 1", chosen.select(config, &schema)))).await?;
    let (table, limit) = (config.quoted(), config.rows_max.saturating_add(1));
    let count = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {table} LIMIT {limit}) AS counted");
    let rows: Option<u64> = answered(conn.query_first(count)).await?;
    if usize::try_from(rows.unwrap_or_default()).is_ok_and(|rows| rows > config.rows_max) {
        return Err(load::too_large(config));
    }
    Ok(chosen.shown.len())
}

async fn binlog(conn: &mut Conn) -> Result<(String, u64), Error> {
    server::check(conn).await?;
    let (file, offset) = server::end(conn).await?;
    load::place(&file, offset)?;
    Ok((file, offset))
}
