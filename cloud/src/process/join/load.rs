//! Loading dimension tables from MySQL or MariaDB.
//!
//! Comes in: the `[[dimension]]` of one server. Goes out: all their rows, of one moment, and where the binlog stood.
//! Guarantees: the tables are read in one transaction with a consistent snapshot, without any lock. Every wait has a
//! limit. On failure: the error says why; the caller tries again.
//!
//! **The position.** MariaDB tells the binlog position of a consistent snapshot itself, exactly. MySQL tells only where
//! the binlog stands now, so a position is noted, then it is waited for [`SETTLE`], then the snapshot is opened, then
//! the position is noted again. Every transaction on these tables that the snapshot lacks ends behind the first
//! position, unless its commit hung for longer than that between the binlog and InnoDB; reading starts there. Until
//! the second position is reached the rows are a mixture and are shown to nobody; from there on they are right,
//! because a row event says the whole row of its key (`binlog_row_image=FULL`): for each key that was touched the last
//! event decides, whatever the snapshot held, and a key that was not touched is as the snapshot has it.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use weir_shared::{clock, tls};

use super::config::{DimensionConfig, Mode, quote};
use super::rows::{self, Kind, Layout};
use super::schema::Schema;
use super::snapshot::Content;
use super::table::Table;
use super::tail::{Followed, Position};
use crate::database::Server;

/// Longest wait for a connection, an answer, or the next row.
pub(super) const WAIT: Duration = Duration::from_secs(15);
/// Longest time a commit of MySQL may take between its binlog and InnoDB.
const SETTLE: Duration = Duration::from_secs(2);
/// Number of MySQL's character set `binary`.
const BINARY: u16 = 63;

/// Why a table was not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The server.
    #[error("{0}")]
    Server(#[from] mysql_async::Error),
    /// A certificate.
    #[error("{0}")]
    Tls(#[from] tls::Error),
    /// It did not answer.
    #[error("no answer from the database within {} s", WAIT.as_secs())]
    Late,
    /// The table must not be used as it is.
    #[error("{0}")]
    Refused(String),
}

/// An answer of the server within [`WAIT`].
pub(super) async fn answered<T>(
    asked: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, Error> {
    Ok(tokio::time::timeout(WAIT, asked).await.map_err(|_| Error::Late)??)
}

/// A connection whose texts are the same on every server.
pub(super) async fn connect(server: &Server) -> Result<Conn, Error> {
    let options = server.connection()?.setup(vec![
        "SET time_zone = '+00:00'",
        "SET NAMES utf8mb4",
        "SET sql_mode = ''",
    ]);
    answered(Conn::new(options)).await
}

/// Ends a connection; what was wanted of it is there or lost already.
pub(super) async fn disconnect(conn: Conn) {
    if let Ok(Err(error)) = tokio::time::timeout(WAIT, conn.disconnect()).await {
        tracing::debug!("dimensions: {error}");
    }
}

/// The tables of one server.
#[derive(Debug)]
pub(super) struct Loaded {
    /// In the order of the configuration.
    pub(super) contents: Vec<Content>,
    /// In binlog mode: what to read in which events.
    pub(super) followed: Vec<Followed>,
    /// In binlog mode: from where to read.
    pub(super) from: Position,
    /// The file that has it.
    pub(super) file: String,
    /// In binlog mode: from here on the rows are those of one moment.
    pub(super) whole_at: Position,
}

/// Loads the tables as they stand now; all are of the same mode.
pub(super) async fn load(conn: &mut Conn, configs: &[DimensionConfig]) -> Result<Loaded, Error> {
    let follows = matches!(configs.first().map(|c| c.mode), Some(Mode::Binlog));
    let mut schemas = Vec::with_capacity(configs.len());
    let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
    let (file, from, whole_at) = if follows {
        super::server::check(conn).await?;
        position(conn, begin).await?
    } else {
        answered(conn.query_drop(begin)).await?;
        (String::new(), Position::default(), Position::default())
    };
    let version = if follows { whole_at.version() } else { clock::wall_ms().unsigned_abs() };
    let (mut contents, mut layouts) = (Vec::new(), Vec::new());
    for config in configs {
        let mut schema = Schema::read(conn, config).await?;
        let (table, columns, layout) = rows_of(conn, config, &mut schema).await?;
        contents.push(Content { table, columns, version });
        layouts.push(layout);
        schemas.push(schema);
    }
    answered(conn.query_drop("COMMIT")).await?;
    Ok(Loaded {
        contents,
        followed: if follows { merge(schemas, layouts) } else { Vec::new() },
        from,
        file,
        whole_at,
    })
}

/// A position by the name of its file.
pub(super) fn place(file: &str, offset: u64) -> Result<Position, Error> {
    let refused =
        || Error::Refused(format!("the binlog {file:?} has no number at its end; set mode = \"poll\""));
    Position::new(file, offset).ok_or_else(refused)
}

/// Opens the snapshot; file and place from where to read, and from where on what was read is whole.
async fn position(conn: &mut Conn, begin: &str) -> Result<(String, Position, Position), Error> {
    let (file, offset) = super::server::end(conn).await?;
    let first = place(&file, offset)?;
    if let Some((file, offset)) = {
        answered(conn.query_drop(begin)).await?;
        super::server::snapshot_position(conn).await?
    } {
        let exact = place(&file, offset)?;
        return Ok((file, exact, exact));
    }
    answered(conn.query_drop("COMMIT")).await?;
    tokio::time::sleep(SETTLE).await;
    answered(conn.query_drop(begin)).await?;
    let (last, offset) = super::server::end(conn).await?;
    Ok((file, first, place(&last, offset)?))
}

type Rows = (Table, std::sync::Arc<[Box<str>]>, Layout);

/// Which columns of a table are read, by their places.
pub(super) struct Chosen {
    key: Vec<usize>,
    pub(super) shown: Vec<usize>,
    /// All of them, in the table's order.
    used: Vec<usize>,
}

impl Chosen {
    /// The statement that reads them.
    pub(super) fn select(&self, config: &DimensionConfig, schema: &Schema) -> String {
        let columns: Vec<String> = self.used.iter().map(|i| quote(&schema.columns[*i].name)).collect();
        format!("SELECT {} FROM {}", columns.join(", "), config.quoted())
    }
}

/// Chooses them; in binlog mode the schema learns what they mean.
pub(super) fn choose(config: &DimensionConfig, schema: &mut Schema) -> Result<Chosen, Error> {
    let (key, shown) = schema.places(config)?;
    let mut used: Vec<usize> = key.iter().chain(&shown).copied().collect();
    used.sort_unstable();
    used.dedup();
    if config.mode == Mode::Binlog {
        schema.learn(config, &used)?;
    }
    Ok(Chosen { key, shown, used })
}

async fn rows_of(conn: &mut Conn, config: &DimensionConfig, schema: &mut Schema) -> Result<Rows, Error> {
    let chosen = choose(config, schema)?;
    let mut result = answered(conn.query_iter(chosen.select(config, schema))).await?;
    let Chosen { key, shown, used } = chosen;
    let names: Vec<String> = schema.columns.iter().map(|c| c.name.clone()).collect();
    let mut kinds = vec![Kind::Text; names.len()];
    for (i, column) in used.iter().zip(result.columns_ref()) {
        kinds[*i] = rows::kind(column.column_type(), column.character_set() == BINARY);
    }
    let layout = Layout::new(&key, &shown, &names, &kinds);
    let mut table = Table::default();
    let (mut key_room, mut room) = (Vec::new(), Vec::new());
    while let Some(row) = answered(result.next()).await? {
        let mut values = vec![None; names.len()];
        for (i, column) in used.iter().enumerate() {
            values[*column] = text(&row, i);
        }
        if layout.key(&values, &mut key_room) {
            table.put(layout.row(&key_room, &values, &mut room));
        }
        check_size(config, &table)?;
    }
    answered(result.drop_result()).await?;
    let columns = shown.iter().map(|i| names[*i].as_str().into()).collect();
    Ok((table, columns, layout))
}

/// Refuses a table that is too large.
pub(super) fn check_size(config: &DimensionConfig, table: &Table) -> Result<(), Error> {
    if table.rows() <= config.rows_max && table.bytes() <= config.bytes_max {
        return Ok(());
    }
    Err(too_large(config))
}

/// Why a table that is too large is refused.
pub(super) fn too_large(config: &DimensionConfig) -> Error {
    Error::Refused(format!(
        "{} has more than {} rows or {} bytes; `SELECT COUNT(*) FROM {0}` shows it; raise rows_max or bytes_max, or \
         leave columns out",
        config.quoted(),
        config.rows_max,
        config.bytes_max
    ))
}

fn text(row: &Row, i: usize) -> Option<&[u8]> {
    // The text protocol gives nothing but bytes and NULL.
    if let Some(Value::Bytes(bytes)) = row.as_ref(i) { Some(bytes) } else { None }
}

/// One entry for each table, with all dimensions that are made of it.
fn merge(schemas: Vec<Schema>, layouts: Vec<Layout>) -> Vec<Followed> {
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut followed: Vec<Followed> = Vec::new();
    for (dimension, (schema, layout)) in schemas.into_iter().zip(layouts).enumerate() {
        let name = (schema.database.clone(), schema.table.clone());
        let place = *places.entry(name).or_insert(followed.len());
        match followed.get_mut(place) {
            Some(table) => table.also(&schema, (dimension, layout)),
            None => followed.push(Followed::new(schema, vec![(dimension, layout)])),
        }
    }
    followed
}
