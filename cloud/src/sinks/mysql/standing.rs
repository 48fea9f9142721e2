//! What the server says of the tables that stand.
//!
//! Comes in: names of tables. Goes out: their engines, columns and unique indexes, and what collations the server knows.
//! Guarantees: asks only. On failure: the server's error.

use std::collections::{BTreeMap, HashMap};

use mysql_async::Conn;
use mysql_async::prelude::{FromRow, Queryable};

use super::super::Failure;
use super::answer;

/// A table.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) engine: String,
    pub(super) columns: Vec<Column>,
    /// Those that take no two rows with the same values.
    pub(super) indexes: Vec<Index>,
}

/// A column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// As `information_schema` has it, for example `bigint(20) unsigned`.
    pub(super) kind: String,
    pub(super) is_nullable: bool,
    pub(super) collation: Option<String>,
    pub(super) unsaid: Unsaid,
}

/// What comes into a column of which an INSERT says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsaid {
    /// NULL, or an error where that is not allowed.
    Nothing,
    /// The next number, or another value that no other row has.
    Counter,
    /// Its default.
    Default,
    /// What it is computed of; an INSERT must say nothing.
    Formula,
}

/// A unique index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: String,
    /// None: the beginning of a column, or an expression.
    pub(super) columns: Vec<Option<String>>,
}

/// Asks for all tables of these names.
pub(super) async fn ask(
    connection: &mut Conn,
    names: impl Iterator<Item = &str>,
) -> Result<HashMap<String, Standing>, Failure> {
    let list = names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
    let of_them = format!("WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({list})");
    let engines: Vec<(String, String)> =
        rows(connection, "TABLE_NAME, COALESCE(ENGINE, '')", "TABLES", &of_them).await?;
    let standing = |engine| Standing { engine, ..Standing::default() };
    let mut tables: HashMap<String, Standing> =
        engines.into_iter().map(|(name, engine)| (name, standing(engine))).collect();
    let asked = "TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME, COLUMN_DEFAULT, EXTRA";
    for (table, name, kind, null, collation, default, extra) in
        rows::<(String, String, String, String, Option<String>, Option<String>, String)>(
            connection, asked, "COLUMNS", &of_them,
        )
        .await?
    {
        let Some(table) = tables.get_mut(&table) else { continue };
        let unsaid = unsaid(default.as_deref(), &extra);
        table.columns.push(Column { name, kind, is_nullable: null == "YES", collation, unsaid });
    }
    let asked = "TABLE_NAME, INDEX_NAME, IF(SUB_PART IS NULL, COLUMN_NAME, NULL)";
    let in_order = format!("{of_them} AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX");
    let parts: Vec<(String, String, Option<String>)> =
        rows(connection, asked, "STATISTICS", &in_order).await?;
    let mut indexes: BTreeMap<(String, String), Vec<Option<String>>> = BTreeMap::new();
    for (table, index, column) in parts {
        indexes.entry((table, index)).or_default().push(column);
    }
    for ((table, name), columns) in indexes {
        if let Some(table) = tables.get_mut(&table) {
            table.indexes.push(Index { name, columns });
        }
    }
    Ok(tables)
}

/// Which of these collations the server knows.
pub(super) async fn collations(connection: &mut Conn, names: &[&str]) -> Result<Vec<String>, Failure> {
    let which = format!("WHERE COLLATION_NAME IN ('{}')", names.join("','"));
    rows(connection, "COLLATION_NAME", "COLLATIONS", &which).await
}

async fn rows<T: FromRow + Send + 'static>(
    connection: &mut Conn,
    columns: &str,
    of: &str,
    which: &str,
) -> Result<Vec<T>, Failure> {
    answer(connection.query(format!("SELECT {columns} FROM information_schema.{of} {which}"))).await
}

fn unsaid(default: Option<&str>, extra: &str) -> Unsaid {
    let extra = extra.to_ascii_uppercase();
    let is =
        |word: &str| extra.split(|c: char| !c.is_ascii_alphabetic() && c != '_').any(|found| found == word);
    // Also another value for each row.
    let counts = |default: &str| {
        ["uuid(", "uuid_to_bin(", "nextval("].iter().any(|made| default.to_ascii_lowercase().contains(made))
    };
    // MySQL calls a default that is an expression DEFAULT_GENERATED.
    if is("GENERATED") || is("VIRTUAL") || is("PERSISTENT") {
        Unsaid::Formula
    } else if is("AUTO_INCREMENT") || default.is_some_and(counts) {
        Unsaid::Counter
    } else if default.is_some_and(|default| !default.eq_ignore_ascii_case("NULL")) {
        Unsaid::Default
    } else {
        Unsaid::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_into_a_column_of_which_nothing_is_said() {
        for (default, extra, wanted) in [
            (None, "", Unsaid::Nothing),
            (Some("NULL"), "", Unsaid::Nothing),
            (None, "on update current_timestamp()", Unsaid::Nothing),
            (Some("0"), "", Unsaid::Default),
            (Some("now()"), "DEFAULT_GENERATED", Unsaid::Default),
            (Some("uuid()"), "DEFAULT_GENERATED", Unsaid::Counter),
            (None, "auto_increment, INVISIBLE", Unsaid::Counter),
            (None, "STORED GENERATED, INVISIBLE", Unsaid::Formula),
            (None, "auto_increment", Unsaid::Counter),
            (None, "STORED GENERATED", Unsaid::Formula),
            (None, "VIRTUAL", Unsaid::Formula),
        ] {
            assert_eq!(unsaid(default, extra), wanted, "{default:?} {extra:?}");
        }
    }
}
