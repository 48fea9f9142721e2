//! The tables: making them, and checking that they can keep the promise.
//!
//! On failure: `init` may be called again; a missing table or column, or another engine than InnoDB (which knows no
//! transactions) is named with what mends it, and the sink waits.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use weir_shared::supervise::Error;

use super::super::batch::Topic;
use super::super::config::MysqlConfig;
use super::super::own::{OwnTables, Target};
use super::super::{Failure, Probe, Refused, SinkName};
use super::insert::columns as columns_of;
use super::schema::{self, Standing};
use super::{answer, connect, session_options};

const STATEMENTS: &str = include_str!("../../../../deploy/sql/mysql.sql");
/// Error of a statement that adds a column which is there.
const COLUMN_THERE: u16 = 1060;
/// How the statement begins that adds to a table of an older version the one column which that lacks.
const ADD_RULES: &str = "ALTER TABLE weir_readings ADD COLUMN rules ";

/// Makes what is missing; with `dry_run` prints the statements, and those that would mend tables that stand.
pub(in crate::sinks) async fn init(config: &MysqlConfig, own: OwnTables, dry_run: bool) -> Result<(), Error> {
    let own_tables: Vec<String> = own.in_store(SinkName::Mysql).map(schema::create).collect();
    if dry_run {
        let own_tables: String = own_tables.iter().map(|statement| format!("\n{statement};\n")).collect();
        tracing::info!("would run in MySQL:\n{STATEMENTS}{own_tables}");
        return Ok(propose(config, own).await?);
    }
    let mut connection = connect(&session_options(&config.options)).await?;
    let shipped = STATEMENTS.split_inclusive(";\n").map(str::trim).filter(|s| s.ends_with(';'));
    for statement in shipped.chain(own_tables.iter().map(String::as_str)) {
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
    let judged = judge(look(&mut connection, own).await?);
    answer(connection.disconnect()).await?;
    judged.map_err(|why| Refused(why).into())
}

/// Prints what would mend the tables that stand.
async fn propose(config: &MysqlConfig, own: OwnTables) -> Result<(), Failure> {
    let mut connection = match connect(&session_options(&config.options)).await {
        Ok(connection) => connection,
        Err(away) => {
            tracing::warn!("MySQL: the tables that stand are not compared: {away}");
            return Ok(());
        }
    };
    for alter in look(&mut connection, own).await?.into_iter().flat_map(|table| table.alters) {
        tracing::info!("a table that stands in MySQL differs; this would mend it:\n{alter};");
    }
    answer(connection.disconnect()).await
}

async fn has_rules(connection: &mut Conn) -> Result<bool, Failure> {
    let ask = "SELECT COUNT(*) FROM information_schema.COLUMNS \
        WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'weir_readings' AND COLUMN_NAME = 'rules'";
    let found: Option<u64> = answer(connection.query_first(ask)).await?;
    Ok(found.is_some_and(|columns| columns > 0))
}

/// Asks without changing anything.
pub(in crate::sinks) async fn probe(config: &MysqlConfig, own: OwnTables) -> Result<Probe, Failure> {
    let options = session_options(&config.options);
    let mut connection = connect(&options).await?;
    let version: Option<String> = answer(connection.query_first("SELECT VERSION()")).await?;
    let lines = answer(connection.query("SHOW GRANTS")).await?;
    let tables = check(&mut connection, own).await.map_err(|e| e.to_string());
    answer(connection.disconnect()).await?;
    let at = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    let database = options.db_name().unwrap_or_default().to_owned();
    Ok(Probe { at, version: version.unwrap_or_default(), tables, grants: Some((database, lines)) })
}

/// A table as it is.
struct Looked {
    name: &'static str,
    /// None: it is not there.
    engine: Option<String>,
    /// What would mend it.
    alters: Vec<String>,
}

/// Whether all tables are there, with their columns, in an engine with transactions.
pub(super) async fn check(connection: &mut Conn, own: OwnTables) -> Result<(), Failure> {
    judge(look(connection, own).await?).map_err(Failure::Store)
}

/// The first table that does not do, with what mends it.
fn judge(tables: Vec<Looked>) -> Result<(), String> {
    for Looked { name, engine, alters } in tables {
        let engine = engine.ok_or_else(|| format!("table {name} is missing: run `weir-cloud init`"))?;
        if !engine.eq_ignore_ascii_case("InnoDB") {
            return Err(format!("table {name} has no transactions: ALTER TABLE `{name}` ENGINE=InnoDB"));
        }
        if !alters.is_empty() {
            let all = alters.join("; ");
            return Err(format!("table {name} is not as it must be; this mends it: {all}"));
        }
    }
    Ok(())
}

/// Asks for all tables and compares them with what they should be.
async fn look(connection: &mut Conn, own: OwnTables) -> Result<Vec<Looked>, Failure> {
    let names = Topic::ALL.map(|topic| Target::Fixed(topic).name()).into_iter();
    let names =
        names.chain(own.in_store(SinkName::Mysql).map(|own| own.name.as_str())).chain(["weir_progress"]);
    let list = names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    let of_them = format!("WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({list})");
    let ask = format!("SELECT TABLE_NAME, COALESCE(ENGINE, '') FROM information_schema.TABLES {of_them}");
    let engines: Vec<(String, String)> = answer(connection.query(ask)).await?;
    let ask = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME FROM information_schema.COLUMNS {of_them}"
    );
    let columns: Vec<(String, String, String, String, Option<String>)> =
        answer(connection.query(ask)).await?;
    let ask = format!(
        "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS {of_them} AND NON_UNIQUE = 0 \
         AND SUB_PART IS NULL ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    let indexed: Vec<(String, String, String)> = answer(connection.query(ask)).await?;
    let engine = |name: &str| engines.iter().find(|(of, _)| of == name).map(|(_, engine)| engine.clone());
    let standing = |name: &str| -> Vec<Standing> {
        let of_table = columns.iter().filter(|(of, ..)| of == name);
        let column =
            |(_, name, kind, null, collation): &(_, String, String, String, Option<String>)| Standing {
                name: name.clone(),
                kind: kind.clone(),
                is_nullable: null == "YES",
                collation: collation.clone(),
            };
        of_table.map(column).collect()
    };
    let mut all: Vec<Looked> = Vec::new();
    for topic in Topic::ALL {
        let name = Target::Fixed(topic).name();
        let alters = added(name, &columns_of(Target::Fixed(topic)), &standing(name));
        all.push(Looked { name, engine: engine(name), alters });
    }
    for own in own.in_store(SinkName::Mysql) {
        let mut indices: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (_, index, column) in indexed.iter().filter(|(of, ..)| *of == own.name) {
            indices.entry(index).or_default().push(column.clone());
        }
        let indices: Vec<Vec<String>> = indices.into_values().collect();
        let engine = engine(&own.name);
        let alters =
            if engine.is_some() { schema::alters(own, &standing(&own.name), &indices) } else { Vec::new() };
        all.push(Looked { name: &own.name, engine, alters });
    }
    all.push(Looked { name: "weir_progress", engine: engine("weir_progress"), alters: Vec::new() });
    Ok(all)
}

/// What adds the columns that a shipped table lacks; nothing where it is not there at all.
fn added(table: &str, columns: &[&str], standing: &[Standing]) -> Vec<String> {
    let is_there = |name: &&&str| standing.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let lacks = columns.iter().filter(|name| !is_there(name) && !standing.is_empty());
    lacks
        .filter_map(|name| Some(format!("ALTER TABLE {table} ADD COLUMN {}", definition(table, name)?)))
        .collect()
}

/// How the shipped statements define a column.
fn definition(table: &str, column: &str) -> Option<&'static str> {
    let (_, text) = STATEMENTS.split_once(&format!("EXISTS {table} ("))?;
    let (text, _) = text.split_once("\n)")?;
    let is_it =
        |line: &&str| line.split_whitespace().next().is_some_and(|name| name.trim_matches('`') == column);
    text.lines().find(is_it).map(|line| line.trim().trim_end_matches(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_table_that_lacks_a_column_is_mended_by_its_own_definition() {
        let name = Target::Fixed(Topic::Alerts).name();
        let there = |lacks: &str| -> Vec<Standing> {
            let names = columns_of(Target::Fixed(Topic::Alerts)).into_iter().filter(|name| *name != lacks);
            let column = |name: &str| Standing {
                name: name.to_owned(),
                kind: String::new(),
                is_nullable: false,
                collation: None,
            };
            names.map(column).collect()
        };
        let columns = columns_of(Target::Fixed(Topic::Alerts));
        assert_eq!(added(name, &columns, &there("")), Vec::<String>::new());
        assert_eq!(
            added(name, &columns, &there("limit")),
            ["ALTER TABLE weir_alerts ADD COLUMN `limit` DOUBLE NULL"]
        );
        for topic in Topic::ALL {
            let (name, columns) = (Target::Fixed(topic).name(), columns_of(Target::Fixed(topic)));
            assert!(columns.iter().all(|column| definition(name, column).is_some()), "{name}");
        }
    }

    #[test]
    fn only_the_statement_that_is_known_changes_a_table() {
        let alters: Vec<_> = STATEMENTS.lines().filter(|line| line.starts_with("ALTER ")).collect();
        assert!(alters.len() == 1 && alters[0].starts_with(ADD_RULES), "{alters:?}");
    }
}
