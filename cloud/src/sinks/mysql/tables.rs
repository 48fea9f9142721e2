//! The tables: making them, and checking that they can keep the promise.
//!
//! On failure: `init` may be called again; a missing table or column, or another engine than InnoDB (which knows no
//! transactions) is named with what mends it, and the sink waits.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::super::batch::Topic;
use super::super::config::MysqlConfig;
use super::super::{Failure, Probe};
use super::insert::columns;
use super::{answer, connect, session_options};

const STATEMENTS: &str = include_str!("../../../../deploy/sql/mysql.sql");
/// Error of a statement that adds a column which is there.
const COLUMN_THERE: u16 = 1060;
/// How the statement begins that adds to a table of an older version the one column which that lacks.
const ADD_RULES: &str = "ALTER TABLE weir_readings ADD COLUMN rules ";

/// Makes what is missing; with `dry_run` prints the statements.
pub(in crate::sinks) async fn init(config: &MysqlConfig, dry_run: bool) -> Result<(), Failure> {
    if dry_run {
        tracing::info!("would run in MySQL:\n{STATEMENTS}");
        return Ok(());
    }
    let mut connection = connect(&session_options(&config.options)).await?;
    for statement in STATEMENTS.split_inclusive(";\n").map(str::trim).filter(|s| s.ends_with(';')) {
        // Asked first: only then does it need no right to alter, and no lock on a table that is written to.
        if statement.contains(ADD_RULES) && has_rules(&mut connection).await? {
            continue;
        }
        // Without a limit: a large table takes its time.
        match connection.query_drop(statement.trim_end_matches(';')).await {
            // Another `init` was faster.
            Err(mysql_async::Error::Server(error)) if error.code == COLUMN_THERE => {}
            done => done.map_err(|e| Failure::Store(e.to_string()))?,
        }
    }
    check(&mut connection).await?;
    answer(connection.disconnect()).await
}

async fn has_rules(connection: &mut Conn) -> Result<bool, Failure> {
    let ask = "SELECT COUNT(*) FROM information_schema.COLUMNS \
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'weir_readings' AND COLUMN_NAME = 'rules'";
    let found: Option<u64> = answer(connection.query_first(ask)).await?;
    Ok(found.is_some_and(|columns| columns > 0))
}

/// Asks without changing anything.
pub(in crate::sinks) async fn probe(config: &MysqlConfig) -> Result<Probe, Failure> {
    let options = session_options(&config.options);
    let mut connection = connect(&options).await?;
    let version: Option<String> = answer(connection.query_first("SELECT VERSION()")).await?;
    let lines = answer(connection.query("SHOW GRANTS")).await?;
    let tables = check(&mut connection).await.map_err(|e| e.to_string());
    answer(connection.disconnect()).await?;
    let at = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let database = options.db_name().unwrap_or_default().to_owned();
    Ok(Probe { at, version: version.unwrap_or_default(), tables, grants: Some((database, lines)) })
}

/// Whether all tables are there, with their columns, in an engine with transactions.
pub(super) async fn check(connection: &mut Conn) -> Result<(), Failure> {
    let ask = "SELECT t.TABLE_NAME, t.ENGINE, c.COLUMN_NAME FROM information_schema.TABLES t \
        JOIN information_schema.COLUMNS c USING (TABLE_SCHEMA, TABLE_NAME) \
        WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME LIKE 'weir\\_%'";
    let found: Vec<Row> = answer(connection.query(ask)).await?;
    let found: Vec<(String, Option<String>, String)> = found.into_iter().map(mysql_async::from_row).collect();
    let topics = Topic::ALL.into_iter().map(columns);
    for (table, columns) in topics.chain([("weir_progress", Vec::new())]) {
        let of_table = || found.iter().filter(|(name, _, _)| name == table);
        match of_table().next() {
            None => return Err(Failure::Store(format!("table {table} is missing: run `weir-cloud init`"))),
            Some((_, Some(engine), _)) if engine.eq_ignore_ascii_case("InnoDB") => {}
            Some(_) => {
                return Err(Failure::Store(format!(
                    "table {table} has no transactions: ALTER TABLE {table} ENGINE=InnoDB"
                )));
            }
        }
        let missing = |column: &&str| !of_table().any(|(_, _, name)| name.eq_ignore_ascii_case(column));
        if let Some(column) = columns.into_iter().find(missing) {
            return Err(Failure::Store(format!(
                "table {table} has no column {column}: run `weir-cloud init`"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_statement_that_is_known_changes_a_table() {
        let alters: Vec<_> = STATEMENTS.lines().filter(|line| line.starts_with("ALTER ")).collect();
        assert!(alters.len() == 1 && alters[0].starts_with(ADD_RULES), "{alters:?}");
    }
}
