//! Rows into the open transaction, in few round trips.
//!
//! Comes in: a batch. Goes out: many rows of a table as one LOAD DATA ([`super::load`]), else multi-row prepared INSERTs of a
//! few fixed sizes (each prepared once per connection), and the records that no row can be made of.
//! Guarantees: every record of the batch is a row of the open transaction, or a letter in the answer, or goes only to
//! other stores. A window result replaces one of a lower revision and is passed over when there is a higher one.
//! On failure: a statement refused for what is in its rows is undone by the server alone; its rows are then tried in
//! smaller statements, and those at fault become letters. Any other failure gives up the batch.

use std::fmt::Write as _;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, ServerError, Value};

use super::super::batch::{Batch, Record, Topic};
use super::super::calendar::civil;
use super::super::dead_letters::Letter;
use super::super::measures::{Count, Receipts};
use super::super::row::{self, Reading, RowError};
use super::super::table::{Cell, Column, Kind, Row, table};
use super::super::{Failure, SinkName};
use super::ANSWER;
use super::load::{self, Loaded, load};

/// Rows per statement, largest first: few prepared statements, and any number in few round trips.
const SHAPES: [usize; 6] = [2048, 512, 128, 32, 8, 1];

/// The columns of `weir_readings`, in the order in which [`reading`] writes them.
const READINGS: [&str; 14] = [
    "stream",
    "stream_partition",
    "number",
    "edge",
    "device",
    "time",
    "received",
    "clock",
    "values",
    "tags",
    "dims",
    "versions",
    "joined",
    "rules",
];
/// Key of a table whose rows replace one another: what the row is.
pub(super) const ID: &str = "id";

/// Table and columns of a topic.
pub(super) fn columns(topic: Topic) -> (&'static str, Vec<&'static str>) {
    let Some(table) = table(topic) else { return ("weir_readings", READINGS.to_vec()) };
    let id = table.revision.map(|_| ID);
    (table.name, id.into_iter().chain(table.columns.iter().map(|c| c.name)).collect())
}

/// The parts of an INSERT that do not depend on the number of rows.
struct Insert {
    table: &'static str,
    names: Vec<&'static str>,
    /// Those of the columns that hold bytes and not text.
    binary: Vec<&'static str>,
    head: String,
    columns: usize,
    tail: String,
}

impl Insert {
    fn new(topic: Topic) -> Self {
        let (name, columns) = columns(topic);
        let head = format!("INSERT INTO {name} (`{}`) VALUES ", columns.join("`, `"));
        let mut tail = String::new();
        if let Some(revision) = table(topic).and_then(|table| table.revision) {
            // Assignments take effect one after the other: the revision, on which the others look, is the last.
            let others = columns.iter().filter(|name| ![ID, revision].contains(name));
            let raised = |name: &&str| {
                format!("`{name}` = IF(VALUES(`{revision}`) > `{revision}`, VALUES(`{name}`), `{name}`)")
            };
            let all: Vec<String> = others.chain([&revision]).map(raised).collect();
            tail = format!(" ON DUPLICATE KEY UPDATE {}", all.join(", "));
        }
        let binary = match table(topic) {
            None => vec!["stream"],
            Some(table) => {
                let bytes = |column: &&Column| matches!(column.kind, Kind::Stream | Kind::Base64);
                table.columns.iter().filter(bytes).map(|column| column.name).chain([ID]).collect()
            }
        };
        Self { table: name, head, columns: columns.len(), names: columns, binary, tail }
    }

    /// With marks for so many rows.
    fn statement(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns].join(","));
        let mut sql = String::with_capacity(self.head.len() + self.tail.len() + rows * (row.len() + 1));
        write!(sql, "{}{row}", self.head).expect("a string takes all");
        for _ in 1..rows {
            sql.push(',');
            sql.push_str(&row);
        }
        sql.push_str(&self.tail);
        sql
    }
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    pub(super) letters: Vec<Letter>,
    pub(super) receipts: Receipts,
    pub(super) skipped: Count,
}

/// Rows on their way into one table.
struct Pending {
    insert: Insert,
    values: Vec<Value>,
    records: Vec<Record>,
}

/// Inserts all records of the batch. `loads`: whether the server takes LOCAL data, as far as known.
pub(super) async fn insert(
    connection: &mut Conn,
    batch: &Batch,
    loads: &mut bool,
) -> Result<Inserted, Failure> {
    let mut inserted = Inserted::default();
    for topic in Topic::ALL {
        let records: Vec<&Record> = batch.records().iter().filter(|r| r.part.topic == topic).collect();
        if records.is_empty() {
            continue;
        }
        let insert = Insert::new(topic);
        let mut pending = Pending {
            values: Vec::with_capacity(records.len() * insert.columns),
            records: Vec::with_capacity(records.len()),
            insert,
        };
        for record in records {
            match row_values(topic, batch.value(record), &mut pending.values) {
                Ok(Some(received)) => {
                    pending.records.push(*record);
                    if topic == Topic::Enriched {
                        inserted.receipts.add(received);
                    }
                }
                Ok(None) => inserted.skipped.add(topic),
                Err(error) => inserted.letters.push(letter(record, error)),
            }
        }
        if *loads && pending.may_load() {
            match pending.load(connection).await? {
                Loaded::All => continue,
                Loaded::Refused => {}
                Loaded::NotAllowed => *loads = false,
            }
        }
        pending.insert(connection, batch, &mut inserted.letters).await?;
    }
    Ok(inserted)
}

impl Pending {
    /// Many rows, of which none can replace another.
    fn may_load(&self) -> bool {
        self.records.len() >= load::ROWS_MIN && self.insert.tail.is_empty()
    }

    async fn load(&self, connection: &mut Conn) -> Result<Loaded, Failure> {
        let Insert { table, names, binary, .. } = &self.insert;
        load(connection, table, names, binary, &self.values).await
    }

    async fn insert(
        self,
        connection: &mut Conn,
        batch: &Batch,
        letters: &mut Vec<Letter>,
    ) -> Result<(), Failure> {
        let columns = self.insert.columns;
        let mut values = self.values.into_iter();
        let mut records = &self.records[..];
        while !records.is_empty() {
            let rows = shape(records.len());
            let (chunk, rest) = records.split_at(rows);
            let row_values = values.by_ref().take(rows * columns).collect();
            if let Some(refused) = exec(connection, &self.insert, rows, row_values).await? {
                tracing::warn!(error = %refused, rows, "rows refused; looking for those at fault");
                narrow_down(connection, &self.insert, batch, chunk, refused, letters).await?;
            }
            records = rest;
        }
        Ok(())
    }
}

/// Finds the rows that are at fault in a refused chunk, in ever smaller statements; the others go in.
async fn narrow_down(
    connection: &mut Conn,
    insert: &Insert,
    batch: &Batch,
    chunk: &[Record],
    error: ServerError,
    letters: &mut Vec<Letter>,
) -> Result<(), Failure> {
    let mut refused = vec![(chunk, error)];
    while let Some((records, error)) = refused.pop() {
        if let [record] = records {
            letters.push(refusal(record, &error)?);
            continue;
        }
        for part in records.chunks(shape(records.len() - 1)) {
            let mut values = Vec::with_capacity(part.len() * insert.columns);
            for record in part {
                let decoded = row_values(record.part.topic, batch.value(record), &mut values);
                decoded.expect("it decoded when the chunk was made, and decoding is pure");
            }
            if let Some(error) = exec(connection, insert, part.len(), values).await? {
                refused.push((part, error));
            }
        }
    }
    Ok(())
}

fn refusal(record: &Record, error: &ServerError) -> Result<Letter, Failure> {
    if record.part.topic == Topic::Rejected {
        // A dead letter of a dead letter would go round for ever.
        let (part, offset) = (record.part, record.offset);
        return Err(Failure::Store(format!("{part} at {offset} is refused by weir_rejected: {error}")));
    }
    Ok(Letter { record: *record, reason: "row_refused".to_owned(), detail: error.to_string() })
}

/// Runs one INSERT. `Some` when the server refused what is in the rows; then none of them is in.
async fn exec(
    connection: &mut Conn,
    insert: &Insert,
    rows: usize,
    values: Vec<Value>,
) -> Result<Option<ServerError>, Failure> {
    let done = connection.exec_drop(insert.statement(rows), Params::Positional(values));
    match tokio::time::timeout(ANSWER, done).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(mysql_async::Error::Server(error))) if is_about_rows(&error) => Ok(Some(error)),
        Ok(Err(error)) => Err(Failure::Store(error.to_string())),
        Err(_) => Err(Failure::Late(format!("no answer to an INSERT within {ANSWER:?}"))),
    }
}

/// Whether the server refused what is in a row (and not the whole store, its state or our rights).
pub(super) fn is_about_rows(error: &ServerError) -> bool {
    // 22…: data exception (too long, out of range, wrong characters). 3140, 3141: invalid JSON. 4025, 3819: a check
    // constraint, which is how MariaDB checks JSON. 1366: wrong characters, whatever its state.
    error.state.starts_with("22") || matches!(error.code, 3140 | 3141 | 4025 | 3819 | 1366)
}

fn shape(rows: usize) -> usize {
    SHAPES.into_iter().find(|s| *s <= rows).unwrap_or(1)
}

fn letter(record: &Record, error: RowError) -> Letter {
    Letter { record: *record, reason: error.reason.to_owned(), detail: error.detail }
}

/// Appends the columns of one record and gives back its time of receipt, or `None` for one that goes only to other
/// stores; appends nothing when it does not decode.
pub(super) fn row_values(
    topic: Topic,
    json: &[u8],
    values: &mut Vec<Value>,
) -> Result<Option<i64>, RowError> {
    let Some(table) = table(topic) else {
        let Some(r) = row::reading(json, SinkName::Mysql)? else { return Ok(None) };
        reading(&r, values);
        return Ok(Some(r.received));
    };
    let Some(row) = Row::decode(table, json, SinkName::Mysql)? else { return Ok(None) };
    if table.revision.is_some() {
        values.push(Value::from(row.logical_id().map(|id| id.to_vec())));
    }
    let time = row.time();
    values.extend(row.cells.into_iter().map(value));
    Ok(Some(time))
}

fn value(cell: Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::NULL,
        Cell::Stream(stream) => Value::from(&stream.0[..]),
        Cell::Int(n) => Value::from(n),
        Cell::UInt(n) => Value::from(n),
        Cell::Float(n) => Value::from(n),
        Cell::Time(ms) => datetime(ms),
        Cell::Flag(flag) => Value::from(flag),
        Cell::Text(text) => Value::from(&*text),
        Cell::Bytes(bytes) => Value::from(bytes),
    }
}

fn reading(r: &Reading<'_>, values: &mut Vec<Value>) {
    values.extend([
        Value::from(&r.identity.stream.0[..]),
        Value::from(r.identity.partition),
        Value::from(r.identity.number),
        Value::from(&*r.edge),
        Value::from(&*r.device),
        datetime(r.time),
        datetime(r.received),
        Value::from(&*r.clock),
        Value::from(r.values),
        Value::from(r.tags),
        Value::from(r.dims),
        Value::from(r.versions),
        Value::from(r.joined),
        Value::from(r.rules),
    ]);
}

fn datetime(ms: i64) -> Value {
    let c = civil(ms);
    Value::Date(c.year, c.month, c.day, c.hour, c.minute, c.second, u32::from(c.millis) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_is_few_statements() {
        let mut sizes = Vec::new();
        let mut left = 5_000;
        while left > 0 {
            sizes.push(shape(left));
            left -= shape(left);
        }
        assert_eq!(sizes.iter().sum::<usize>(), 5_000);
        assert_eq!(&sizes[..5], &[2048, 2048, 512, 128, 128]);
        assert!(sizes.len() < 20);
        assert!(Topic::ALL.into_iter().all(|topic| SHAPES[0] * columns(topic).1.len() < 65_535));
        // A refused chunk is split evenly, down to single rows.
        for rows in SHAPES.into_iter().filter(|s| *s > 1) {
            assert!(rows % shape(rows - 1) == 0 && rows / shape(rows - 1) <= 8, "{rows}");
        }
    }

    #[test]
    fn statements_have_as_many_marks_as_columns() {
        for topic in Topic::ALL {
            let (insert, columns) = (Insert::new(topic), columns(topic).1);
            assert_eq!(insert.statement(8).matches('?').count(), 8 * columns.len());
            assert_eq!(insert.statement(3).matches("),(").count(), 2);
        }
    }

    #[test]
    fn columns_are_those_of_the_shipped_tables() {
        let sql = include_str!("../../../../deploy/sql/mysql.sql");
        for topic in Topic::ALL {
            let (name, columns) = columns(topic);
            let (_, text) = sql.split_once(&format!("EXISTS {name} (")).unwrap();
            let (text, _) = text.split_once("PRIMARY KEY").unwrap();
            let shipped: Vec<&str> = text
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(|name| name.trim_matches('`'))
                .collect();
            // Tables of which no row replaces another have a number of their own.
            let own = usize::from(!columns.contains(&ID));
            assert_eq!(shipped[own..], columns, "{name}");
        }
    }

    #[test]
    fn a_window_result_is_replaced_by_a_higher_revision_only() {
        let tail = Insert::new(Topic::Aggregates).tail;
        assert!(tail.starts_with(" ON DUPLICATE KEY UPDATE `stream` = IF(VALUES(`revision`) > `revision`, VALUES(`stream`), `stream`)"));
        assert!(
            tail.ends_with(
                ", `revision` = IF(VALUES(`revision`) > `revision`, VALUES(`revision`), `revision`)"
            )
        );
        assert!(!tail.contains("`id`"));
        for topic in [Topic::Enriched, Topic::Rejected, Topic::Losses, Topic::Alerts] {
            assert_eq!(Insert::new(topic).tail, "");
        }
    }

    #[test]
    fn a_record_for_other_stores_is_no_row() {
        let json = |stores: &str| {
            format!(
                r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17{stores}}},"device":"d",
                "time":5,"values":{{}}}}"#
            )
        };
        let mut values = Vec::new();
        let mut taken = |stores: &str| row_values(Topic::Enriched, json(stores).as_bytes(), &mut values);
        assert_eq!(taken(r#","stores":["clickhouse","elasticsearch"]"#), Ok(None));
        assert_eq!(taken(r#","stores":[]"#), Ok(None));
        assert_eq!(taken(r#","stores":["mysql"],"rules":4"#), Ok(Some(5)));
        assert_eq!(taken(r#","stores":"mysql""#).unwrap_err().reason, "row_malformed");
        assert_eq!((values.len(), &values[13]), (READINGS.len(), &Value::UInt(4)));
    }

    #[test]
    fn only_what_is_in_the_rows_makes_dead_letters() {
        let error = |code, state: &str| ServerError { code, message: String::new(), state: state.to_owned() };
        assert!(is_about_rows(&error(1406, "22001")));
        assert!(is_about_rows(&error(4025, "23000")));
        for (code, state) in
            [(1213, "40001"), (1205, "HY000"), (1142, "42000"), (1114, "HY000"), (1146, "42S02")]
        {
            assert!(!is_about_rows(&error(code, state)), "{code}");
        }
    }
}
