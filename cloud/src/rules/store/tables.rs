//! The connection and the tables: making them, and checking that they are there.
//!
//! Comes in: `[rules]`. Goes out: a connection that speaks UTC and cannot wait for ever; the tables.
//! On failure: what is missing is named with the way out; `init` may be called again.

use std::future::Future;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::database::Server;
use crate::proposed;

/// Each exchange with the server.
const ANSWER: Duration = Duration::from_secs(5);
/// A new connection.
const CONNECT: Duration = Duration::from_secs(5);
/// MySQL's first version with the type JSON.
const JSON_SINCE: (u16, u16, u16) = (5, 7, 8);

const STATEMENTS: &str = include_str!("../../../../deploy/sql/rules.sql");
const TABLES: [&str; 6] = [
    "weir_rules",
    "weir_rules_active",
    "weir_rules_changes",
    "weir_rules_sets",
    "weir_rules_status",
    "weir_rules_processes",
];

/// Why the database gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It said so, or the connection broke.
    #[error("{0}")]
    Server(#[from] mysql_async::Error),
    /// A certificate.
    #[error("{0}")]
    Tls(#[from] weir_shared::tls::Error),
    /// It said nothing.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// What is there cannot be used.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// Whether somebody else has just added the row.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.code() == Some(1062)
    }

    /// Whether the same transaction may go through the next time: added by somebody else, deadlock, lock time-out.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.code(), Some(1062 | 1205 | 1213))
    }

    fn code(&self) -> Option<u16> {
        match self {
            Self::Server(mysql_async::Error::Server(error)) => Some(error.code),
            _ => None,
        }
    }
}

/// One exchange with the server, within [`ANSWER`].
pub(crate) async fn answer<T>(
    work: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(done) => done.map_err(Failure::from),
        Err(_) => Err(Failure::Late(ANSWER)),
    }
}

/// A new connection.
pub(crate) async fn connect(server: &Server) -> Result<Conn, Failure> {
    let set = "SET SESSION innodb_lock_wait_timeout = 4, autocommit = 1, time_zone = '+00:00', \
               sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'";
    let options = server
        .connection()?
        .init(vec![set, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET NAMES utf8mb4"])
        .tcp_nodelay(true);
    match tokio::time::timeout(CONNECT, Conn::new(options)).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(Failure::Late(CONNECT)),
    }
}

/// Says good-bye; what was wanted is done, so that nothing depends on the answer.
pub(crate) async fn disconnect(connection: Conn) {
    if let Err(error) = answer(connection.disconnect()).await {
        tracing::debug!("rules: closing the connection: {error}");
    }
}

/// Makes what is missing; with `dry_run` prints the statements.
pub(crate) async fn init(server: &Server, dry_run: bool) -> Result<(), Failure> {
    if dry_run {
        proposed::show(format_args!("-- would run in the database of the rules:\n{STATEMENTS}"));
        return Ok(());
    }
    let mut connection = connect(server).await?;
    for statement in statements(connection.server_version()) {
        answer(connection.query_drop(statement)).await?;
    }
    check(&mut connection).await?;
    disconnect(connection).await;
    Ok(())
}

/// The statements for a server of this version.
fn statements(version: (u16, u16, u16)) -> impl Iterator<Item = String> {
    STATEMENTS
        .split_inclusive(";\n")
        .map(str::trim)
        .filter(|statement| statement.ends_with(';'))
        .map(move |statement| statement.trim_end_matches(';').to_owned())
        .map(move |statement| match version < JSON_SINCE {
            true => statement.replace(" JSON NOT NULL", " LONGTEXT NOT NULL"),
            false => statement,
        })
}

/// Whether all tables are there, in an engine with transactions.
pub(crate) async fn check(connection: &mut Conn) -> Result<(), Failure> {
    let ask = "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
    let found: Vec<(String, Option<String>)> = answer(connection.query(ask)).await?;
    for table in TABLES {
        match found.iter().find(|(name, _)| name == table) {
            None => {
                return Err(Failure::Wrong(format!("table {table} is missing: run `weir-cloud init`")));
            }
            Some((_, Some(engine))) if engine.eq_ignore_ascii_case("InnoDB") => {}
            Some(_) => {
                return Err(Failure::Wrong(format!(
                    "table {table} has no transactions: ALTER TABLE `{table}` ENGINE=InnoDB"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_statement_for_each_table_and_none_needs_a_type_that_is_not_there() {
        let new: Vec<_> = statements((10, 11, 6)).collect();
        for table in TABLES {
            let make = format!("CREATE TABLE IF NOT EXISTS {table} (");
            assert_eq!(new.iter().filter(|s| s.contains(&make)).count(), 1, "{table}");
        }
        assert_eq!(new.len(), TABLES.len());
        assert!(new[0].contains("spec JSON NOT NULL"));
        assert!(
            statements((5, 6, 21)).all(|s| !s.lines().any(|l| !l.starts_with("--") && l.contains(" JSON")))
        );
    }
}
