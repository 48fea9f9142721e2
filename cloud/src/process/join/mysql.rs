//! Loading a dimension table from MySQL or MariaDB.
//!
//! Comes in: a `[[dimension]]`. Goes out: all its rows, from one consistent snapshot.
//! Guarantees: a table whose key is not unique is refused, since a device could then have two rows. Every wait has a
//! limit. On failure: the error says why; the caller tries again.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};
use weir_shared::clock;

use super::DimensionConfig;
use super::rows::{self, Kind, Snapshot};

/// Longest wait for a connection, an answer, or the next row.
const WAIT: Duration = Duration::from_secs(15);
/// Number of MySQL's character set `binary`.
const BINARY: u16 = 63;

/// Why a table was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The server.
    #[error("{0}")]
    Server(#[from] mysql_async::Error),
    /// It did not answer.
    #[error("no answer from the database within {} s", WAIT.as_secs())]
    Late,
    /// The table must not be used as it is.
    #[error("{0}")]
    Refused(String),
}

impl From<tokio::time::error::Elapsed> for Error {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Late
    }
}

/// Loads the table as it stands now.
pub(super) async fn load(config: &DimensionConfig) -> Result<Snapshot, Error> {
    let options = OptsBuilder::from_opts(config.url.clone())
        .setup(vec!["SET time_zone = '+00:00'", "SET NAMES utf8mb4"]);
    let mut conn = tokio::time::timeout(WAIT, Conn::new(options)).await??;
    let snapshot = read(&mut conn, config).await;
    // The snapshot is read or lost already; the connection only has to go away.
    if let Ok(Err(error)) = tokio::time::timeout(WAIT, conn.disconnect()).await {
        tracing::debug!("dimension {}: {error}", config.name);
    }
    snapshot
}

async fn read(conn: &mut Conn, config: &DimensionConfig) -> Result<Snapshot, Error> {
    let (database, table) = match config.table.split_once('.') {
        Some((database, table)) => (database.to_owned(), table),
        None => (config.url.db_name().unwrap_or_default().to_owned(), config.table.as_str()),
    };
    let quoted = format!("{}.{}", quote(&database), quote(table));
    let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
    tokio::time::timeout(WAIT, conn.query_drop(begin)).await??;
    let version = clock::wall_ms();
    check_unique(conn, &database, table, &quoted, &config.key).await?;
    let columns = if config.columns.is_empty() {
        "*".to_owned()
    } else {
        config.columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ")
    };
    // The key comes last, under its own name once more, so that the columns before it are those to be shown.
    let select = format!("SELECT {}, t.{} FROM {quoted} AS t", prefixed(&columns), quote(&config.key));
    let mut result = tokio::time::timeout(WAIT, conn.query_iter(select)).await??;
    let mut shown: Vec<(String, Kind)> = Vec::new();
    for column in result.columns_ref() {
        let binary = column.character_set() == BINARY;
        shown.push((column.name_str().into_owned(), rows::kind(column.column_type(), binary)));
    }
    shown.pop();
    let skip_key = config.columns.is_empty();
    let mut rows = HashMap::new();
    while let Some(row) = tokio::time::timeout(WAIT, result.next()).await?? {
        if let Some((key, object)) = render(&row, &shown, skip_key.then_some(config.key.as_str())) {
            rows.insert(key, object);
        }
    }
    tokio::time::timeout(WAIT, result.drop_result()).await??;
    tokio::time::timeout(WAIT, conn.query_drop("COMMIT")).await??;
    Ok(Snapshot { rows, version })
}

/// Key and JSON of a row; `None` when its key is NULL, which no device equals.
fn render(row: &Row, shown: &[(String, Kind)], hidden: Option<&str>) -> Option<(Box<str>, Box<[u8]>)> {
    let key = rows::key(row.as_ref(shown.len())?)?;
    let columns = shown.iter().enumerate().filter_map(|(i, (name, kind))| {
        let is_hidden = hidden.is_some_and(|hidden| hidden.eq_ignore_ascii_case(name));
        if is_hidden { None } else { Some((name.as_str(), *kind, row.as_ref(i)?)) }
    });
    Some((key, rows::object(columns)))
}

/// Refuses a key without a unique index of its own over its whole length.
async fn check_unique(
    conn: &mut Conn,
    database: &str,
    table: &str,
    quoted: &str,
    key: &str,
) -> Result<(), Error> {
    let statement = "SELECT COUNT(*) FROM (SELECT INDEX_NAME FROM information_schema.STATISTICS \
        WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? GROUP BY INDEX_NAME \
        HAVING MAX(NON_UNIQUE) = 0 AND COUNT(*) = 1 AND MAX(COLUMN_NAME) = ? AND MAX(SUB_PART) IS NULL) AS u";
    let asked = conn.exec_first(statement, (database, table, key));
    let unique: Option<u64> = tokio::time::timeout(WAIT, asked).await??;
    if unique.unwrap_or(0) > 0 {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the key {key} of {database}.{table} has no unique index, so a device could have two rows; \
         `SHOW INDEX FROM {quoted}` shows it, `ALTER TABLE {quoted} ADD UNIQUE ({})` mends it",
        quote(key)
    )))
}

fn prefixed(columns: &str) -> String {
    if columns == "*" { "t.*".to_owned() } else { columns.to_owned() }
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
