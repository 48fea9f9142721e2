//! The tables: making them, and checking that they can keep the promise.
//!
//! On failure: `init` may be called again; a missing table or column, or another engine than InnoDB (which knows no
//! transactions) is named with what mends it, and the sink waits.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use weir_shared::supervise::Error;

use super::super::batch::Topic;
use super::super::config::MysqlConfig;
use super::super::own::{OwnTables, Target};
use super::super::{Failure, Probe, Refused, SinkName};
use super::insert::{ID, columns as columns_of};
use super::schema::{self, KeyText};
use super::standing::{self, Standing};
use super::{answer, connect};
use crate::proposed;

const PROGRESS: &str = "weir_progress";
const STATEMENTS: &str = include_str!("../../../../deploy/sql/mysql.sql");
/// Error of a statement that adds a column which is there.
const COLUMN_THERE: u16 = 1060;
/// How the statement begins that adds to a table of an older version the one column which that lacks.
const ADD_RULES: &str = "ALTER TABLE weir_readings ADD COLUMN rules ";

/// Makes what is missing; with `dry_run` prints the statements, and those that would mend tables that stand.
pub(in crate::sinks) async fn init(config: &MysqlConfig, own: OwnTables, dry_run: bool) -> Result<(), Error> {
    if dry_run {
        let connection = connect(&config.server).await;
        return Ok(propose(connection, own).await?);
    }
    let mut connection = connect(&config.server).await?;
    let own_tables = created(own, key_text(&mut connection).await?);
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
    let judged = judge(&look(&mut connection, own).await?);
    answer(connection.disconnect()).await?;
    judged.map_err(|why| Refused(why).into())
}

/// The statements that make the tables of the user's own.
fn created(own: OwnTables, key_text: KeyText) -> Vec<String> {
    own.in_store(SinkName::Mysql).map(|own| schema::create(own, key_text)).collect()
}

async fn key_text(connection: &mut Conn) -> Result<KeyText, Failure> {
    Ok(KeyText::on(&standing::collations(connection, &schema::EXACT).await?))
}

/// Prints what `init` would run, and what it would refuse of the tables that stand.
async fn propose(connection: Result<Conn, Failure>, own: OwnTables) -> Result<(), Failure> {
    let print = |key_text| {
        let own_tables = created(own, key_text).join(";\n\n");
        let end = if own_tables.is_empty() { "" } else { ";\n" };
        proposed::show(format_args!("-- would run in MySQL:\n{STATEMENTS}\n{own_tables}{end}"));
    };
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(away) => {
            print(KeyText::of_newest());
            tracing::warn!("MySQL: the tables that stand are not compared: {away}");
            return Ok(());
        }
    };
    print(key_text(&mut connection).await?);
    for table in look(&mut connection, own).await? {
        if let Err(why) = table.judge(true) {
            tracing::warn!("MySQL: {why}");
        }
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
    let mut connection = connect(&config.server).await?;
    let version: Option<String> = answer(connection.query_first("SELECT VERSION()")).await?;
    let lines = answer(connection.query("SHOW GRANTS")).await?;
    let tables = check(&mut connection, own).await.map_err(|e| e.to_string());
    answer(connection.disconnect()).await?;
    let at = config.server.target();
    let database = config.server.database().unwrap_or_default().to_owned();
    Ok(Probe { at, version: version.unwrap_or_default(), tables, grants: Some((database, lines)) })
}

/// A table as it is.
struct Looked {
    name: &'static str,
    /// None: it is not there.
    standing: Option<Standing>,
    /// What would mend it.
    alters: Vec<String>,
}

impl Looked {
    /// Says what is wrong with it and what mends that; `unless_missing`: one that is not there will be made.
    fn judge(&self, unless_missing: bool) -> Result<(), String> {
        let Self { name, standing, alters } = self;
        let Some(standing) = standing else {
            let why = format!("table {name} is missing: run `weir-cloud init`");
            return if unless_missing { Ok(()) } else { Err(why) };
        };
        if !standing.engine.eq_ignore_ascii_case("InnoDB") {
            return Err(format!("table {name} has no transactions: ALTER TABLE `{name}` ENGINE=InnoDB"));
        }
        if !alters.is_empty() {
            let all = alters.join("; ");
            return Err(format!("table {name} is not as it must be; this mends it: {all};"));
        }
        Ok(())
    }
}

/// Whether all tables are there, with their columns, in an engine with transactions.
pub(super) async fn check(connection: &mut Conn, own: OwnTables) -> Result<(), Failure> {
    judge(&look(connection, own).await?).map_err(Failure::Store)
}

/// All tables that do not do, with what mends them.
fn judge(tables: &[Looked]) -> Result<(), String> {
    let wrong: Vec<String> = tables.iter().filter_map(|table| table.judge(false).err()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(" ")) }
}

/// Asks for all tables and compares them with what they should be.
async fn look(connection: &mut Conn, own: OwnTables) -> Result<Vec<Looked>, Failure> {
    let targets = Topic::ALL.into_iter().map(Target::Fixed);
    let targets: Vec<Target> = targets.chain(own.in_store(SinkName::Mysql).map(Target::Own)).collect();
    let names = targets.iter().map(|target| target.name()).chain([PROGRESS]);
    let mut tables = standing::ask(connection, names).await?;
    let key_text = key_text(connection).await?;
    let mut all = Vec::new();
    for target in targets {
        let standing = tables.remove(target.name());
        let alters = match (target, &standing) {
            (_, None) => Vec::new(),
            (Target::Fixed(topic), Some(standing)) => mended(topic, standing),
            (Target::Own(own), Some(standing)) => schema::alters(own, standing, key_text),
        };
        all.push(Looked { name: target.name(), standing, alters });
    }
    all.push(Looked { name: PROGRESS, standing: tables.remove(PROGRESS), alters: Vec::new() });
    Ok(all)
}

/// What mends a shipped table: adds the columns that it lacks, and takes away what was added and would refuse rows.
fn mended(topic: Topic, standing: &Standing) -> Vec<String> {
    let target = Target::Fixed(topic);
    let (table, columns) = (target.name(), columns_of(target));
    let is_there =
        |name: &&&str| standing.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let added = columns.iter().filter(|name| !is_there(name));
    let added =
        added.filter_map(|name| Some(format!("ALTER TABLE {table} ADD COLUMN {}", definition(table, name)?)));
    let unique: Option<&[&str]> = (topic == Topic::Aggregates).then_some(&["start", ID]);
    added.chain(schema::obstacles(table, &columns, unique, standing)).collect()
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
    use super::super::standing::{Column, Index, Unsaid};
    use super::*;

    #[test]
    fn a_shipped_table_is_mended_by_its_own_definition() {
        let columns = columns_of(Target::Fixed(Topic::Alerts));
        let there = |lacks: &str| {
            let column = |name: &&str| Column {
                name: (*name).to_owned(),
                kind: "bigint".to_owned(),
                is_nullable: false,
                collation: None,
                unsaid: Unsaid::Nothing,
            };
            let columns = columns.iter().filter(|name| **name != lacks).map(column).collect();
            Standing { columns, ..Standing::default() }
        };
        assert_eq!(mended(Topic::Alerts, &there("")), Vec::<String>::new());
        assert_eq!(
            mended(Topic::Alerts, &there("limit")),
            ["ALTER TABLE weir_alerts ADD COLUMN `limit` DOUBLE NULL"]
        );
        let mut once = there("");
        let index = Index { name: "once".to_owned(), columns: vec![Some("device".to_owned())] };
        once.indexes.push(index);
        assert_eq!(mended(Topic::Alerts, &once), ["ALTER TABLE `weir_alerts` DROP INDEX `once`"]);
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
