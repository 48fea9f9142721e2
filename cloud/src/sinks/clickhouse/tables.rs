//! The tables: making them, and checking that they can keep the promise.
//!
//! Guarantees: a column whose values have other bytes than those that are written is found here, before the first insert.
//! On failure: `init` may be called again; a table that is missing, lacks a column, collapses rows, or deduplicates
//! nothing though the server could is named with what mends it, and the sink waits.

use std::borrow::Cow;

use super::super::batch::Topic;
use super::super::config::ClickhouseConfig;
use super::super::{Failure, Probe};
use super::blocks::Format;
use super::columns::{columns, table_name};
use super::older::{NEWEST_TYPE, older_statements, older_type};
use super::server::{Server, answer, quoted};

const STATEMENTS: &str = include_str!("../../../../deploy/sql/clickhouse.sql");
/// The setting that a plain MergeTree needs to recognise an insert that it has, where the server has one.
const WINDOW: &str = "non_replicated_deduplication_window";

/// What the sink must know of the tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Those that have several copies: what one of them does not show yet, another may have.
    pub(super) replicated: Vec<Topic>,
    /// Those with columns of older types: they take rows without names and types.
    older: Vec<Topic>,
}

impl Tables {
    /// What an insert into the table of a topic begins with.
    pub(super) fn format(&self, topic: Topic) -> Format {
        if self.older.contains(&topic) { Format::Rows } else { Format::NamesAndTypes }
    }
}

/// Makes what is missing, in the words of the server's age; with `dry_run` prints the statements.
pub(in crate::sinks) async fn init(config: &ClickhouseConfig, dry_run: bool) -> Result<(), Failure> {
    let database = format!("CREATE DATABASE IF NOT EXISTS `{}`", config.database.replace('`', "\\`"));
    let server = Server::new(config).map_err(|e| Failure::Store(e.to_string()))?;
    let newest = answer(server.without_database().query(NEWEST_TYPE).fetch_all::<String>()).await?;
    let statements =
        if newest.is_empty() { Cow::from(older_statements(STATEMENTS)) } else { Cow::from(STATEMENTS) };
    if dry_run {
        tracing::info!("would run in ClickHouse:\n{database};\n{statements}");
        return Ok(());
    }
    answer(server.without_database().query(&database).execute()).await?;
    for statement in statements.split_inclusive(";\n").map(str::trim).filter(|s| s.ends_with(';')) {
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

/// Whether all tables are there, with columns that take our bytes, and keep each row that is sent once.
pub(super) async fn check(server: &Server) -> Result<Tables, Failure> {
    let names = Topic::ALL.map(|topic| quoted(table_name(topic))).join(",");
    let ask = format!(
        "SELECT name, engine, engine_full FROM system.tables WHERE database = {} AND name IN ({names})",
        quoted(&server.database)
    );
    let found = answer(server.questions().query(&ask).fetch_all::<(String, String, String)>()).await?;
    let ask = format!(
        "SELECT table, name, type FROM system.columns WHERE database = {} AND table IN ({names})",
        quoted(&server.database)
    );
    let there = answer(server.questions().query(&ask).fetch_all::<(String, String, String)>()).await?;
    let ask = format!("SELECT name FROM system.merge_tree_settings WHERE name = '{WINDOW}'");
    let windows = !answer(server.questions().query(&ask).fetch_all::<String>()).await?.is_empty();
    let mut tables = Tables::default();
    for topic in Topic::ALL {
        let table = table_name(topic);
        match found.iter().find(|(name, _, _)| name == table) {
            None => return Err(Failure::Store(format!("table {table} is missing: run `weir-cloud init`"))),
            Some((_, engine, full)) => {
                if let Some(why) = unfit(table, engine, full, windows) {
                    return Err(Failure::Store(why));
                }
                if engine != "MergeTree" {
                    tables.replicated.push(topic);
                }
            }
        }
        let type_of = |column: &str| {
            let found = there.iter().find(|(t, name, _)| t == table && name == column);
            found.map(|(_, _, kind)| kind.as_str())
        };
        if is_older(topic, type_of).map_err(Failure::Store)? {
            tables.older.push(topic);
        }
    }
    Ok(tables)
}

/// Whether columns of a topic's table have older types; or which is missing, or takes other bytes.
fn is_older<'a>(topic: Topic, type_of: impl Fn(&str) -> Option<&'a str>) -> Result<bool, String> {
    let table = table_name(topic);
    let mut any = false;
    for (column, kind) in columns(topic) {
        let (older, found) = (older_type(kind), type_of(column));
        let Some(found) = found else {
            return Err(format!("table {table} has no column {column}: run `weir-cloud init`"));
        };
        if found != kind && found != older {
            return Err(format!(
                "table {table}: {column} is a {found} and must be {kind} or {older}: make the column or the table anew \
                 (`weir-cloud init --dry-run` prints the statements)"
            ));
        }
        any |= found != kind;
    }
    Ok(any)
}

/// Why an engine cannot keep every row that is sent, once; with the way out. `windows`: whether the server has
/// deduplication windows; on one that has none, asking what arrived must do alone.
fn unfit(table: &str, engine: &str, full: &str, windows: bool) -> Option<String> {
    match engine {
        "MergeTree" if !windows => None,
        // These have a deduplication window by default.
        "ReplicatedMergeTree" | "SharedMergeTree" => None,
        "MergeTree" => {
            let window = full
                .split_once(&format!("{WINDOW} = "))
                .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
                .and_then(|digits| digits.parse::<u64>().ok());
            (window.unwrap_or(0) == 0).then(|| {
                format!(
                    "table {table} deduplicates nothing: ALTER TABLE {table} MODIFY SETTING {WINDOW} = 10000"
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
        let unfit = |engine, full| unfit("t", engine, full, true);
        assert_eq!(unfit("MergeTree", with), None);
        assert_eq!(unfit("ReplicatedMergeTree", ""), None);
        assert!(unfit("MergeTree", "MergeTree ORDER BY x").unwrap().contains("MODIFY SETTING"));
        assert!(unfit("MergeTree", "MergeTree SETTINGS non_replicated_deduplication_window = 0").is_some());
        assert!(unfit("ReplacingMergeTree", with).unwrap().contains("ReplacingMergeTree"));
    }

    #[test]
    fn where_there_are_no_windows_asking_must_do() {
        assert_eq!(unfit("t", "MergeTree", "MergeTree ORDER BY x", false), None);
        assert!(unfit("t", "SummingMergeTree", "", false).is_some());
    }

    #[test]
    fn columns_are_of_either_age_and_of_no_other_width() {
        let types = columns(Topic::Enriched);
        let newer = |column: &str| types.iter().find(|(name, _)| *name == column).map(|(_, kind)| *kind);
        assert_eq!(is_older(Topic::Enriched, newer), Ok(false));
        let mixed = |column: &str| if column == "time" { Some("Int64") } else { newer(column) };
        assert_eq!(is_older(Topic::Enriched, mixed), Ok(true));
        let seconds = |column: &str| if column == "time" { Some("DateTime") } else { newer(column) };
        let refused = is_older(Topic::Enriched, seconds).unwrap_err();
        assert!(
            refused.contains("weir_readings: time is a DateTime and must be DateTime64(3, 'UTC') or Int64")
        );
        let less = |column: &str| if column == "rules" { None } else { newer(column) };
        assert!(is_older(Topic::Enriched, less).unwrap_err().contains("has no column rules"));
    }
}
