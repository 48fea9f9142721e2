//! The tables: making them, and checking that they can keep the promise.
//!
//! Guarantees: a column whose values have other bytes than those that are written is found here, before the first insert.
//! On failure: `init` may be called again; a table that is missing, lacks a column, collapses rows, deduplicates
//! nothing though the server could, or has columns of other types, is named with what mends it, and the sink waits.

use std::borrow::Cow;

use weir_shared::supervise::Error;

use super::super::batch::Topic;
use super::super::config::ClickhouseConfig;
use super::super::own::{OwnTables, Target};
use super::super::{Failure, Probe, Refused, SinkName};
use super::blocks::Format;
use super::older::{NEWEST_TYPE, older_statements};
use super::schema::{self, Columns};
use super::server::{Server, answer, quoted};
use crate::proposed;

const STATEMENTS: &str = include_str!("../../../../deploy/sql/clickhouse.sql");

/// The setting that a plain MergeTree needs to recognise an insert that it has, where the server has one.
const WINDOW: &str = "non_replicated_deduplication_window";

/// What the sink must know of the tables.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Those that have several copies: what one of them does not show yet, another may have.
    pub(super) replicated: Vec<&'static str>,
    /// Those with columns of older types: they take rows without names and types.
    older: Vec<&'static str>,
}

impl Tables {
    /// Whether a table has columns of older types.
    pub(super) fn is_older(&self, target: Target) -> bool {
        self.older.contains(&target.name())
    }

    /// What an insert into a table begins with.
    pub(super) fn format(&self, target: Target) -> Format {
        if self.is_older(target) { Format::Rows } else { Format::NamesAndTypes }
    }
}

/// Makes what is missing, in the words of the server's age; with `dry_run` prints the statements, and those that would mend
/// tables that stand.
pub(in crate::sinks) async fn init(
    config: &ClickhouseConfig,
    own: OwnTables,
    dry_run: bool,
) -> Result<(), Error> {
    let database = format!("CREATE DATABASE IF NOT EXISTS `{}`", config.database.replace('`', "\\`"));
    let server = Server::new(config)?;
    let newest = answer(server.without_database().query(NEWEST_TYPE).fetch_all::<String>()).await?;
    let own_tables = own.in_store(SinkName::Clickhouse).map(schema::create);
    let statements: String =
        [STATEMENTS.to_owned()].into_iter().chain(own_tables).collect::<Vec<_>>().join("\n");
    let statements =
        if newest.is_empty() { Cow::from(older_statements(&statements)) } else { Cow::from(statements) };
    if dry_run {
        proposed::show(format_args!("-- would run in ClickHouse:\n{database};\n{statements}"));
        match look(&server, own).await {
            Ok(tables) => {
                for why in tables.into_iter().filter(|table| table.engine.is_some()).filter_map(|t| t.wrong())
                {
                    tracing::warn!("ClickHouse: {why}");
                }
            }
            Err(away) => tracing::warn!("ClickHouse: the tables that stand are not compared: {away}"),
        }
        return Ok(());
    }
    answer(server.without_database().query(&database).execute()).await?;
    for statement in statements.split_inclusive(";\n").map(str::trim).filter(|s| s.ends_with(';')) {
        // The crate takes ? for a parameter; there is none in our statements.
        answer(server.questions().query(statement.trim_end_matches(';')).execute()).await?;
    }
    judge(&look(&server, own).await?).map(drop).map_err(|why| Refused(why).into())
}

/// Asks without changing anything.
pub(in crate::sinks) async fn probe(config: &ClickhouseConfig, own: OwnTables) -> Result<Probe, Failure> {
    let server = Server::new(config).map_err(|e| Failure::Store(e.to_string()))?;
    let version = answer(server.without_database().query("SELECT version()").fetch_one::<String>()).await?;
    let tables = check(&server, own).await.map(drop).map_err(|e| e.to_string());
    Ok(Probe { at: config.url.clone(), version, tables, grants: None })
}

/// A table as it is.
struct Looked {
    target: Target,
    /// Name and full text; none: it is not there.
    engine: Option<(String, String)>,
    /// Whether the server has deduplication windows.
    has_windows: bool,
    columns: Columns,
}

/// Whether all tables are there, with columns that take our bytes, and keep each row that is sent once.
pub(super) async fn check(server: &Server, own: OwnTables) -> Result<Tables, Failure> {
    judge(&look(server, own).await?).map_err(Failure::Store)
}

impl Looked {
    /// Why it does not do, with what mends it.
    fn wrong(&self) -> Option<String> {
        let (table, columns) = (self.target.name(), &self.columns);
        let Some((engine, full)) = &self.engine else {
            return Some(format!("table {table} is missing: run `weir-cloud init`"));
        };
        let why = match self.target.own().filter(|own| own.is_latest()) {
            Some(own) => schema::unfit_latest(own, engine, full),
            None => unfit(table, engine, full, self.has_windows),
        };
        why.or_else(|| columns.unfit.clone()).or_else(|| {
            let all = columns.alters.join("; ");
            let why = || format!("table {table} is not as it must be; this mends it: {all};");
            (!columns.alters.is_empty()).then(why)
        })
    }
}

/// What the sink must know of them; or all that do not do, with what mends them.
fn judge(all: &[Looked]) -> Result<Tables, String> {
    let wrong: Vec<String> = all.iter().filter_map(Looked::wrong).collect();
    if !wrong.is_empty() {
        return Err(wrong.join(" "));
    }
    let mut tables = Tables::default();
    for Looked { target, engine, columns, .. } in all {
        let is_plain = engine.as_ref().is_none_or(|(engine, _)| engine == "MergeTree");
        if !is_plain && !target.is_latest() {
            tables.replicated.push(target.name());
        }
        if columns.is_older {
            tables.older.push(target.name());
        }
    }
    Ok(tables)
}

/// Asks for all tables and compares them with what they should be.
async fn look(server: &Server, own: OwnTables) -> Result<Vec<Looked>, Failure> {
    let fixed = Topic::ALL.into_iter().map(Target::Fixed);
    let targets: Vec<Target> = fixed.chain(own.in_store(SinkName::Clickhouse).map(Target::Own)).collect();
    let names = targets.iter().map(|target| quoted(target.name())).collect::<Vec<_>>().join(",");
    let ask = format!(
        "SELECT name, engine, engine_full FROM system.tables WHERE database = {} AND name IN ({names})",
        quoted(server.database())
    );
    let found = answer(server.questions().query(&ask).fetch_all::<(String, String, String)>()).await?;
    let ask = format!(
        "SELECT table, name, type FROM system.columns WHERE database = {} AND table IN ({names})",
        quoted(server.database())
    );
    let there = answer(server.questions().query(&ask).fetch_all::<(String, String, String)>()).await?;
    let ask = format!("SELECT name FROM system.merge_tree_settings WHERE name = '{WINDOW}'");
    let has_windows = !answer(server.questions().query(&ask).fetch_all::<String>()).await?.is_empty();
    let compare = |target: Target| {
        let table = target.name();
        let engine = found.iter().find(|(name, _, _)| name == table);
        let engine = engine.map(|(_, engine, full)| (engine.clone(), full.clone()));
        let of_table = there.iter().filter(|(of, _, _)| of == table);
        let columns: Vec<(&str, &str)> = of_table.map(|(_, name, kind)| (&**name, &**kind)).collect();
        let columns = if engine.is_some() { schema::compare(target, &columns) } else { Columns::default() };
        Looked { target, engine, has_windows, columns }
    };
    Ok(targets.into_iter().map(compare).collect())
}

/// Why an engine cannot keep every row that is sent, once; with the way out. `has_windows`: whether the server has
/// deduplication windows; on one that has none, asking what arrived must do alone.
fn unfit(table: &str, engine: &str, full: &str, has_windows: bool) -> Option<String> {
    match engine {
        "MergeTree" if !has_windows => None,
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
    fn a_table_that_differs_is_refused_with_what_mends_it() {
        let looked = |columns: Columns| {
            let full = format!("MergeTree ORDER BY x SETTINGS {WINDOW} = 1");
            let engine = Some(("MergeTree".to_owned(), full));
            vec![Looked { target: Target::Fixed(Topic::Alerts), engine, has_windows: true, columns }]
        };
        let older = judge(&looked(Columns { is_older: true, ..Columns::default() })).unwrap();
        assert_eq!(older.format(Target::Fixed(Topic::Alerts)), Format::Rows);
        assert_eq!(older.format(Target::Fixed(Topic::Losses)), Format::NamesAndTypes);
        let alters = judge(&looked(Columns { alters: vec!["ALTER x".to_owned()], ..Columns::default() }));
        assert_eq!(alters.unwrap_err(), "table weir_alerts is not as it must be; this mends it: ALTER x;");
        let mut missing = looked(Columns::default());
        missing[0].engine = None;
        assert!(judge(&missing).unwrap_err().contains("is missing"));
    }
}
