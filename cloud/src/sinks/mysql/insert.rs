//! Rows into the open transaction, in few round trips.
//!
//! Comes in: a batch. Goes out: many rows of a table as one LOAD DATA ([`super::load`]), else multi-row prepared INSERTs of a
//! few fixed sizes (each prepared once per connection), and the records that no row can be made of.
//! Guarantees: every record of the batch is a row of the open transaction, or a letter in the answer, or goes only to
//! other stores. A window result replaces one of a lower revision and is passed over when there is a higher one.
//! On failure: a statement refused for what is in its rows is undone by the server alone; its rows are then tried in
//! smaller statements, and those at fault become letters. Any other failure gives up the batch.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, ServerError, Value};

use super::super::batch::{Batch, Record, Topic};
use super::super::calendar::civil;
use super::super::dead_letters::{Letter, Letters};
use super::super::measures::{Count, Receipts, Times};
use super::super::own::{self, Decoder, OwnTables, Target};
use super::super::row::{self, Reading, RowError};
use super::super::table::{Cell, Row, table};
use super::super::{Failure, SinkName};
use super::ANSWER;
use super::load::{self, Lines, Loaded, load};
use statement::Insert;
pub(super) use statement::{ID, columns};

mod statement;

/// Rows that are made while the server works on those before.
const PORTION: usize = 512;

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    pub(super) letters: Letters,
    pub(super) receipts: Receipts,
    pub(super) skipped: Count,
}

/// Makes the rows of one table.
pub(super) enum Maker {
    Fixed(Topic),
    Own(Decoder),
}

impl Maker {
    pub(super) fn new(target: Target) -> Self {
        match target {
            Target::Fixed(topic) => Self::Fixed(topic),
            Target::Own(own) => Self::Own(Decoder::new(own)),
        }
    }

    /// Appends the columns of one record and gives back its times, or `None` for one that is no row here;
    /// appends nothing when it does not decode.
    pub(super) fn row(
        &mut self,
        record: &Record,
        json: &[u8],
        values: &mut Vec<Value>,
    ) -> Result<Option<Times>, RowError> {
        match self {
            Self::Fixed(topic) => row_values(*topic, json, values),
            Self::Own(decoder) => {
                let Some(row) = decoder.decode(json, SinkName::Mysql)? else { return Ok(None) };
                values.extend(row.cells.into_iter().map(value));
                values.push(Value::from(record.part.topic.name()));
                values.extend([Value::from(record.part.partition), Value::from(record.offset)]);
                Ok(Some(Times::at(record.timestamp)))
            }
        }
    }
}

/// Rows on their way into one table.
struct Pending {
    target: Target,
    insert: Insert,
    maker: Maker,
    values: Vec<Value>,
    records: Vec<Record>,
    /// A dead letter of this table says that other rows of its record may stand.
    partly: bool,
}

/// Inserts all records of the batch. `loads`: whether the server takes LOCAL data, as far as known.
pub(super) async fn insert(
    connection: &mut Conn,
    batch: &Batch,
    tables: OwnTables,
    loads: &mut bool,
) -> Result<Inserted, Failure> {
    let mut inserted = Inserted::default();
    for topic in tables.topics(SinkName::Mysql) {
        let records: Vec<&Record> = batch.records().iter().filter(|r| r.part.topic == topic).collect();
        if records.is_empty() {
            continue;
        }
        let mut is_row = vec![false; records.len()];
        for target in tables.targets(topic, SinkName::Mysql) {
            let mut pending = Pending::new(target, records.len(), tables);
            if *loads && pending.may_load(records.len()) {
                match pending.load(connection, batch, &records, &mut is_row, &mut inserted).await? {
                    Loaded::All => continue,
                    Loaded::Refused => {}
                    Loaded::NotAllowed => *loads = false,
                }
                pending.make_again(batch);
            } else {
                pending.make(batch, &records, &mut is_row, &mut inserted);
            }
            pending.insert(connection, batch, &mut inserted.letters).await?;
        }
        for (record, _) in records.iter().zip(is_row).filter(|(_, is_row)| !is_row) {
            if !inserted.letters.has(record) {
                inserted.skipped.add(topic);
            }
        }
    }
    Ok(inserted)
}

impl Pending {
    fn new(target: Target, records: usize, tables: OwnTables) -> Self {
        let insert = Insert::new(target);
        let partly = match target {
            Target::Fixed(topic) => tables.has(topic, SinkName::Mysql),
            Target::Own(_) => true,
        };
        Self {
            target,
            values: Vec::new(),
            records: Vec::with_capacity(records),
            maker: Maker::new(target),
            insert,
            partly,
        }
    }

    fn refuse(&self, record: &Record, error: &RowError, letters: &mut Letters) {
        match self.target {
            Target::Own(own) => own::refuse_row(letters, own, record, error),
            Target::Fixed(_) => letters.add(Letter {
                record: *record,
                reason: error.reason.to_owned(),
                detail: error.detail.clone(),
                tables: vec![self.target.name()],
                partly: self.partly,
            }),
        }
    }

    /// Many rows, of which none can replace another.
    fn may_load(&self, records: usize) -> bool {
        records >= load::ROWS_MIN && self.insert.tail.is_empty()
    }

    /// Makes the rows of these records: which of them are one, and letters of those that none can be made of.
    fn make(&mut self, batch: &Batch, records: &[&Record], is_row: &mut [bool], inserted: &mut Inserted) {
        for (record, is_row) in records.iter().zip(is_row) {
            match self.maker.row(record, batch.value(record), &mut self.values) {
                Ok(Some(times)) => {
                    *is_row = true;
                    self.records.push(**record);
                    if matches!(self.target, Target::Fixed(Topic::Enriched)) {
                        inserted.receipts.add(times);
                    }
                }
                Ok(None) => {}
                Err(error) => self.refuse(record, &error, &mut inserted.letters),
            }
        }
    }

    /// The rows once more that were made and sent, and are not in.
    fn make_again(&mut self, batch: &Batch) {
        for record in &self.records {
            let decoded = self.maker.row(record, batch.value(record), &mut self.values);
            decoded.expect("it decoded when it was sent, and decoding is pure");
        }
    }

    /// Makes the rows of these records and sends them as they are made.
    async fn load(
        &mut self,
        connection: &mut Conn,
        batch: &Batch,
        records: &[&Record],
        is_row: &mut [bool],
        inserted: &mut Inserted,
    ) -> Result<Loaded, Failure> {
        let Insert { table, columns, binary, .. } = &self.insert;
        let (table, columns, binary) = (*table, columns.clone(), binary.clone());
        let made = async |lines: &mut Lines| {
            for (records, is_row) in records.chunks(PORTION).zip(is_row.chunks_mut(PORTION)) {
                self.make(batch, records, is_row, inserted);
                lines.send(&self.values).await;
                self.values.clear();
            }
        };
        load(connection, table, &columns, &binary, made).await
    }

    async fn insert(
        mut self,
        connection: &mut Conn,
        batch: &Batch,
        letters: &mut Letters,
    ) -> Result<(), Failure> {
        let columns = self.insert.columns.len();
        let mut values = std::mem::take(&mut self.values).into_iter();
        let all = std::mem::take(&mut self.records);
        let mut records = &all[..];
        while !records.is_empty() {
            let rows = self.insert.shape(records.len());
            let (chunk, rest) = records.split_at(rows);
            let row_values = values.by_ref().take(rows * columns).collect();
            if let Some(refused) = exec(connection, &self.insert, rows, row_values).await? {
                tracing::warn!(error = %refused, rows, "rows refused; looking for those at fault");
                self.narrow_down(connection, batch, chunk, refused, letters).await?;
            }
            records = rest;
        }
        Ok(())
    }

    /// Finds the rows that are at fault in a refused chunk, in ever smaller statements; the others go in.
    async fn narrow_down(
        &mut self,
        connection: &mut Conn,
        batch: &Batch,
        chunk: &[Record],
        error: ServerError,
        letters: &mut Letters,
    ) -> Result<(), Failure> {
        let mut refused = vec![(chunk, error)];
        while let Some((records, error)) = refused.pop() {
            if let [record] = records {
                self.refused(record, &error, letters)?;
                continue;
            }
            for part in records.chunks(self.insert.shape(records.len() - 1)) {
                let mut values = Vec::with_capacity(part.len() * self.insert.columns.len());
                for record in part {
                    let decoded = self.maker.row(record, batch.value(record), &mut values);
                    decoded.expect("it decoded when the chunk was made, and decoding is pure");
                }
                if let Some(error) = exec(connection, &self.insert, part.len(), values).await? {
                    refused.push((part, error));
                }
            }
        }
        Ok(())
    }

    fn refused(&self, record: &Record, error: &ServerError, letters: &mut Letters) -> Result<(), Failure> {
        let (reason, detail) = ("row_refused".to_owned(), error.to_string());
        match self.target {
            Target::Own(own) => own::refuse(letters, own, record, &reason, &detail),
            // A dead letter of a dead letter would go round for ever.
            Target::Fixed(Topic::Rejected) => {
                let (part, offset) = (record.part, record.offset);
                return Err(Failure::Store(format!(
                    "{part} at {offset} is refused by weir_rejected: {error}"
                )));
            }
            Target::Fixed(_) => {
                let tables = vec![self.target.name()];
                letters.add(Letter { record: *record, reason, detail, tables, partly: self.partly });
            }
        }
        Ok(())
    }
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
        Ok(Err(error)) => Err(Failure::Store(format!("table {}: {error}", insert.table))),
        Err(_) => Err(Failure::Late(format!("no answer to an INSERT within {ANSWER:?}"))),
    }
}

/// Whether the server refused what is in a row (and not the whole store, its state or our rights).
pub(super) fn is_about_rows(error: &ServerError) -> bool {
    // 22…: data exception (too long, out of range, wrong characters). 3140, 3141: invalid JSON. 4025, 3819: a check
    // constraint, which is how MariaDB checks JSON. 1366: wrong characters, whatever its state. 1452: a foreign key that
    // the user added. 45000: what a trigger says that refuses a row.
    let states = ["22", "45000"];
    states.iter().any(|state| error.state.starts_with(state))
        || matches!(error.code, 3140 | 3141 | 4025 | 3819 | 1366 | 1452)
}

/// Appends the columns of one record and gives back its times, or `None` for one that goes only to other
/// stores; appends nothing when it does not decode.
fn row_values(topic: Topic, json: &[u8], values: &mut Vec<Value>) -> Result<Option<Times>, RowError> {
    let Some(table) = table(topic) else {
        let Some(r) = row::reading(json, SinkName::Mysql)? else { return Ok(None) };
        reading(&r, values);
        return Ok(Some(Times { taken: r.time, received: r.received }));
    };
    let Some(row) = Row::decode(table, json, SinkName::Mysql)? else { return Ok(None) };
    if table.revision.is_some() {
        values.push(Value::from(row.logical_id().map(|id| id.to_vec())));
    }
    let time = row.time();
    values.extend(row.cells.into_iter().map(value));
    Ok(Some(Times::at(time)))
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
mod tests;
