//! Rows into the open transaction, in few round trips.
//!
//! Comes in: a batch. Goes out: multi-row prepared INSERTs of a few fixed sizes (each prepared once per connection),
//! and the records that no row can be made of.
//! Guarantees: every record of the batch is either a row of the open transaction or a letter in the answer.
//! On failure: a statement refused for what is in its rows is undone by the server alone; its rows are then tried in
//! smaller statements, and those at fault become letters. Any other failure gives up the batch.

use std::fmt::Write as _;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, ServerError, Value};

use super::super::Failure;
use super::super::batch::{Batch, Record, Topic};
use super::super::calendar::civil;
use super::super::dead_letters::Letter;
use super::super::measures::Receipts;
use super::super::row::{self, Reading, Rejection, RowError};
use super::ANSWER;

/// Rows per statement, largest first: few prepared statements, and any number in few round trips.
const SHAPES: [usize; 6] = [2048, 512, 128, 32, 8, 1];

const READINGS: (&str, usize) = (
    "weir_readings (stream, stream_partition, number, edge, device, time, received, clock, \
     `values`, tags, dims, versions, joined)",
    13,
);
const REJECTED: (&str, usize) = (
    "weir_rejected (stream, stream_partition, number, edge, origin, origin_offset, stage, reason, detail, source, \
     source_topic, received, bytes, raw)",
    14,
);

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    pub(super) letters: Vec<Letter>,
    pub(super) receipts: Receipts,
}

/// Rows on their way into one table.
struct Pending {
    table: (&'static str, usize),
    values: Vec<Value>,
    records: Vec<Record>,
}

/// Inserts all records of the batch.
pub(super) async fn insert(connection: &mut Conn, batch: &Batch) -> Result<Inserted, Failure> {
    let mut inserted = Inserted::default();
    for (topic, table) in [(Topic::Enriched, READINGS), (Topic::Rejected, REJECTED)] {
        let records: Vec<&Record> = batch.records().iter().filter(|r| r.part.topic == topic).collect();
        let mut pending = Pending {
            table,
            values: Vec::with_capacity(records.len() * table.1),
            records: Vec::with_capacity(records.len()),
        };
        for record in records {
            match columns(topic, batch.value(record), &mut pending.values) {
                Ok(received) => {
                    pending.records.push(*record);
                    if topic == Topic::Enriched {
                        inserted.receipts.add(received);
                    }
                }
                Err(error) => inserted.letters.push(letter(record, error)),
            }
        }
        pending.insert(connection, batch, &mut inserted.letters).await?;
    }
    Ok(inserted)
}

impl Pending {
    async fn insert(
        self,
        connection: &mut Conn,
        batch: &Batch,
        letters: &mut Vec<Letter>,
    ) -> Result<(), Failure> {
        let columns = self.table.1;
        let mut values = self.values.into_iter();
        let mut records = &self.records[..];
        while !records.is_empty() {
            let rows = shape(records.len());
            let (chunk, rest) = records.split_at(rows);
            let row_values = values.by_ref().take(rows * columns).collect();
            if let Some(refused) = exec(connection, self.table, rows, row_values).await? {
                tracing::warn!(error = %refused, rows, "rows refused; looking for those at fault");
                narrow_down(connection, self.table, batch, chunk, refused, letters).await?;
            }
            records = rest;
        }
        Ok(())
    }
}

/// Finds the rows that are at fault in a refused chunk, in ever smaller statements; the others go in.
async fn narrow_down(
    connection: &mut Conn,
    table: (&'static str, usize),
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
            let mut values = Vec::with_capacity(part.len() * table.1);
            for record in part {
                let decoded = columns(record.part.topic, batch.value(record), &mut values);
                decoded.expect("it decoded when the chunk was made, and decoding is pure");
            }
            if let Some(error) = exec(connection, table, part.len(), values).await? {
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
    table: (&'static str, usize),
    rows: usize,
    values: Vec<Value>,
) -> Result<Option<ServerError>, Failure> {
    let done = connection.exec_drop(statement(table, rows), Params::Positional(values));
    match tokio::time::timeout(ANSWER, done).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(mysql_async::Error::Server(error))) if is_about_rows(&error) => Ok(Some(error)),
        Ok(Err(error)) => Err(Failure::Store(error.to_string())),
        Err(_) => Err(Failure::Store(format!("no answer to an INSERT within {ANSWER:?}"))),
    }
}

/// Whether the server refused what is in a row (and not the whole store, its state or our rights).
fn is_about_rows(error: &ServerError) -> bool {
    // 22…: data exception (too long, out of range, wrong characters). 3140, 3141: invalid JSON. 4025, 3819: a check
    // constraint, which is how MariaDB checks JSON. 1366: wrong characters, whatever its state.
    error.state.starts_with("22") || matches!(error.code, 3140 | 3141 | 4025 | 3819 | 1366)
}

fn shape(rows: usize) -> usize {
    SHAPES.into_iter().find(|s| *s <= rows).unwrap_or(1)
}

fn statement(table: (&str, usize), rows: usize) -> String {
    let (table, columns) = table;
    let marks = vec!["?"; columns].join(",");
    let mut sql = String::with_capacity(64 + table.len() + rows * (2 * columns + 3));
    write!(sql, "INSERT INTO {table} VALUES ({marks})").expect("a string takes all");
    for _ in 1..rows {
        sql.push_str(",(");
        sql.push_str(&marks);
        sql.push(')');
    }
    sql
}

fn letter(record: &Record, error: RowError) -> Letter {
    Letter { record: *record, reason: error.reason.to_owned(), detail: error.detail }
}

/// Appends the columns of one record and gives back its receipt; appends nothing when it does not decode.
fn columns(topic: Topic, json: &[u8], values: &mut Vec<Value>) -> Result<i64, RowError> {
    match topic {
        Topic::Enriched => {
            let r = row::reading(json)?;
            reading(&r, values);
            Ok(r.received)
        }
        Topic::Rejected => {
            let r = row::rejection(json)?;
            let received = r.received;
            rejection(r, values);
            Ok(received)
        }
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
    ]);
}

fn rejection(r: Rejection<'_>, values: &mut Vec<Value>) {
    values.extend([
        Value::from(r.identity.map(|i| i.stream.0.to_vec())),
        Value::from(r.origin_partition),
        Value::from(r.identity.map(|i| i.number)),
        Value::from(&*r.edge),
        Value::from(&*r.origin),
        Value::from(r.origin_offset),
        Value::from(&*r.stage),
        Value::from(&*r.reason),
        Value::from(&*r.detail),
        Value::from(&*r.source),
        Value::from(&*r.source_topic),
        datetime(r.received),
        Value::from(r.bytes),
        Value::from(r.raw),
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
        assert!(SHAPES[0] * REJECTED.1 < 65_535);
        // A refused chunk is split evenly, down to single rows.
        for rows in SHAPES.into_iter().filter(|s| *s > 1) {
            assert!(rows % shape(rows - 1) == 0 && rows / shape(rows - 1) <= 8, "{rows}");
        }
    }

    #[test]
    fn statements_have_as_many_marks_as_columns() {
        for table in [READINGS, REJECTED] {
            assert_eq!(table.0.matches(',').count() + 1, table.1, "{}", table.0);
            assert_eq!(statement(table, 8).matches('?').count(), 8 * table.1);
            assert_eq!(statement(table, 3).matches("),(").count(), 2);
        }
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
