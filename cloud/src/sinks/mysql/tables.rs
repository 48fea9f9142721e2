//! The tables: making them, and checking that they can keep the promise.
//!
//! On failure: `init` may be called again; a missing table or another engine than InnoDB (which knows no transactions)
//! is named with the statement that mends it, and the sink waits.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::super::Failure;
use super::super::config::MysqlConfig;
use super::{answer, connect, session_options};

const STATEMENTS: &str = include_str!("../../../../deploy/sql/mysql.sql");
const TABLES: [&str; 3] = ["weir_readings", "weir_rejected", "weir_progress"];

/// Makes what is missing; with `dry_run` prints the statements.
pub(in crate::sinks) async fn init(config: &MysqlConfig, dry_run: bool) -> Result<(), Failure> {
    if dry_run {
        tracing::info!("would run in MySQL:\n{STATEMENTS}");
        return Ok(());
    }
    let mut connection = connect(&session_options(&config.options)).await?;
    for statement in STATEMENTS.split_inclusive(";\n").map(str::trim).filter(|s| s.ends_with(';')) {
        answer(connection.query_drop(statement.trim_end_matches(';'))).await?;
    }
    check(&mut connection).await?;
    answer(connection.disconnect()).await
}

/// Whether all tables are there, in an engine with transactions.
pub(super) async fn check(connection: &mut Conn) -> Result<(), Failure> {
    let ask = "SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
    let found: Vec<Row> = answer(connection.query(ask)).await?;
    let found: Vec<(String, Option<String>)> = found.into_iter().map(mysql_async::from_row).collect();
    for table in TABLES {
        match found.iter().find(|(name, _)| name == table) {
            None => {
                return Err(Failure::Store(format!("table {table} is missing: run `weir-cloud init`")));
            }
            Some((_, Some(engine))) if engine.eq_ignore_ascii_case("InnoDB") => {}
            Some(_) => {
                return Err(Failure::Store(format!(
                    "table {table} has no transactions: ALTER TABLE {table} ENGINE=InnoDB"
                )));
            }
        }
    }
    Ok(())
}
