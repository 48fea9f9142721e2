//! The tables: making them, and checking that they can keep the promise.
//!
//! On failure: `init` may be called again; a table that is missing, lacks a column, collapses rows, or deduplicates
//! nothing is named with what mends it, and the sink waits.

use super::super::batch::Topic;
use super::super::config::ClickhouseConfig;
use super::super::{Failure, Probe};
use super::columns::{columns, table_name};
use super::server::{Server, answer, quoted};

const STATEMENTS: &str = include_str!("../../../../deploy/sql/clickhouse.sql");

/// Makes what is missing; with `dry_run` prints the statements.
pub(in crate::sinks) async fn init(config: &ClickhouseConfig, dry_run: bool) -> Result<(), Failure> {
    let database = format!("CREATE DATABASE IF NOT EXISTS `{}`", config.database.replace('`', "\\`"));
    if dry_run {
        tracing::info!("would run in ClickHouse:\n{database};\n{STATEMENTS}");
        return Ok(());
    }
    let server = Server::new(config).map_err(|e| Failure::Store(e.to_string()))?;
    answer(server.without_database().query(&database).execute()).await?;
    for statement in STATEMENTS.split_inclusive(";\n").map(str::trim).filter(|s| s.ends_with(';')) {
        // The crate takes ? for a parameter; there is none in our statements.
        answer(server.questions().query(statement.trim_end_matches(';')).execute()).await?;
    }
    check(&server).await.map(drop)
}

/// Asks without changing anything.
pub(in crate::sinks) async fn probe(config: &ClickhouseConfig) -> Result<Probe, Failure> {
    let server = Server::new(config).map_err(|e| Failure::Store(e.to_string()))?;
    let version = answer(server.without_database().query("SELECT version()").fetch_one::<String>()).await?;
    let tables = check(&server).await.map(drop).map_err(|e| e.to_string());
    Ok(Probe { at: config.url.clone(), version, tables, grants: None })
}

/// Whether all tables are there, with their columns, and keep each row that is sent once. Gives the topics of those that have
/// several copies: what one of them does not show yet, another may have.
pub(super) async fn check(server: &Server) -> Result<Vec<Topic>, Failure> {
    let names = Topic::ALL.map(|topic| quoted(table_name(topic))).join(",");
    let ask = format!(
        "SELECT name, engine, engine_full FROM system.tables WHERE database = {} AND name IN ({names})",
        quoted(&server.database)
    );
    let found = answer(server.questions().query(&ask).fetch_all::<(String, String, String)>()).await?;
    let ask = format!(
        "SELECT table, name FROM system.columns WHERE database = {} AND table IN ({names})",
        quoted(&server.database)
    );
    let there = answer(server.questions().query(&ask).fetch_all::<(String, String)>()).await?;
    let mut replicated = Vec::new();
    for topic in Topic::ALL {
        let table = table_name(topic);
        match found.iter().find(|(name, _, _)| name == table) {
            None => return Err(Failure::Store(format!("table {table} is missing: run `weir-cloud init`"))),
            Some((_, engine, full)) => {
                if let Some(why) = unfit(table, engine, full) {
                    return Err(Failure::Store(why));
                }
                if engine != "MergeTree" {
                    replicated.push(topic);
                }
            }
        }
        let missing = |(name, _): &(&str, &str)| !there.iter().any(|(t, c)| t == table && c == name);
        if let Some((column, _)) = columns(topic).into_iter().find(missing) {
            return Err(Failure::Store(format!(
                "table {table} has no column {column}: run `weir-cloud init`"
            )));
        }
    }
    Ok(replicated)
}

/// Why an engine cannot keep every row that is sent, once; with the way out.
fn unfit(table: &str, engine: &str, full: &str) -> Option<String> {
    match engine {
        // These have a deduplication window by default.
        "ReplicatedMergeTree" | "SharedMergeTree" => None,
        "MergeTree" => {
            let window = full
                .split_once("non_replicated_deduplication_window = ")
                .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
                .and_then(|digits| digits.parse::<u64>().ok());
            (window.unwrap_or(0) == 0).then(|| {
                format!(
                    "table {table} deduplicates nothing: ALTER TABLE {table} MODIFY SETTING \
                     non_replicated_deduplication_window = 10000"
                )
            })
        }
        other => Some(format!(
            "table {table} has the engine {other}, which may drop or merge rows: make it anew as MergeTree \
             (deploy/sql/clickhouse.sql)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_engines_that_keep_every_row_once_are_fit() {
        let with = "MergeTree PARTITION BY x SETTINGS non_replicated_deduplication_window = 1000, a = 1";
        assert_eq!(unfit("t", "MergeTree", with), None);
        assert_eq!(unfit("t", "ReplicatedMergeTree", ""), None);
        assert!(unfit("t", "MergeTree", "MergeTree ORDER BY x").unwrap().contains("MODIFY SETTING"));
        let off = "MergeTree SETTINGS non_replicated_deduplication_window = 0";
        assert!(unfit("t", "MergeTree", off).is_some());
        assert!(unfit("t", "ReplacingMergeTree", with).unwrap().contains("ReplacingMergeTree"));
    }
}
