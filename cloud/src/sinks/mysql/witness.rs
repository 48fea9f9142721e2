//! What MySQL has of the records of the log.
//!
//! Guarantees: asks only. Rows are looked up by columns that have an index, and told apart by what they are. On failure:
//! the server's error.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::super::batch::{Batch, Part, Topic};
use super::super::config::MysqlConfig;
use super::super::own::{Keeps, OwnKind, OwnTable, OwnTables, Target};
use super::super::table::{Kind, table};
use super::super::verify::{self, Found, Logs};
use super::super::{Failure, SinkName};
use super::insert::{ID, Maker, columns};
use super::{answer, connect, tables};

/// Rows that one statement looks up.
const LOOKED_UP: usize = 200;
const PROGRESS: &str = "SELECT topic, `partition`, next_offset FROM weir_progress WHERE sink = ?";

/// A connection.
pub(in crate::sinks) struct Witness {
    connection: Conn,
    tables: OwnTables,
}

/// How rows of a topic are found and told apart.
struct Shape {
    table: &'static str,
    columns: Vec<&'static str>,
    /// Columns that have an index.
    found_by: Vec<usize>,
    /// Columns that say what the row is.
    identity: Vec<usize>,
    revision: Option<usize>,
    /// Columns whose text a server may write in another way.
    json: Vec<bool>,
}

impl Shape {
    fn new(target: Target) -> Self {
        match target {
            Target::Fixed(topic) => Self::fixed(topic),
            Target::Own(own) => Self::own(own),
        }
    }

    fn own(own: &'static OwnTable) -> Self {
        let columns = columns(Target::Own(own));
        let position = || (own.columns.len()..columns.len()).collect();
        let (identity, revision): (Vec<usize>, _) = match &own.keeps {
            Keeps::All { .. } => (position(), None),
            Keeps::Latest { key, version } => (key.clone(), Some(*version)),
        };
        let mut json: Vec<bool> = own.columns.iter().map(|column| column.kind == OwnKind::Json).collect();
        json.resize(columns.len(), false);
        Self { table: &own.name, found_by: identity.clone(), identity, revision, json, columns }
    }

    fn fixed(topic: Topic) -> Self {
        let target = Target::Fixed(topic);
        let (name, columns) = (target.name(), columns(target));
        let described = table(topic);
        let (found_by, identity): (&[&str], &[&str]) = match topic {
            Topic::Enriched | Topic::Routed(_) => {
                (&["device", "time"], &["stream", "stream_partition", "number"])
            }
            Topic::Rejected => (
                &["received"],
                &[
                    "stream",
                    "stream_partition",
                    "number",
                    "origin",
                    "origin_offset",
                    "stage",
                    "reason",
                    "detail",
                ],
            ),
            Topic::Aggregates => (&["start", ID], &[ID]),
            Topic::Losses => (
                &["noticed"],
                &["stream", "stream_partition", "number", "origin", "origin_offset", "reason", "lost_from"],
            ),
            Topic::Alerts => (&["rule", "time"], described.map_or(&[], |table| table.identity)),
        };
        let place = |name: &&str| columns.iter().position(|column| column == name);
        let places = |names: &[&str]| names.iter().filter_map(place).collect();
        let is_json = |name: &&str| match described {
            None => ["values", "tags", "dims", "versions"].contains(name),
            Some(table) => table.columns.iter().any(|c| c.name == *name && c.kind == Kind::Object),
        };
        Self {
            table: name,
            found_by: places(found_by),
            identity: places(identity),
            revision: described.and_then(|table| table.revision).as_ref().and_then(place),
            json: columns.iter().map(is_json).collect(),
            columns,
        }
    }

    fn statement(&self, rows: usize) -> String {
        // Rows of values: with as many conditions joined by OR the server leaves the index and reads the whole table.
        let by: Vec<String> =
            self.found_by.iter().map(|place| format!("`{}`", self.columns[*place])).collect();
        let one = format!("({})", vec!["?"; by.len()].join(", "));
        let (columns, by, wanted) = (self.columns.join("`, `"), by.join(", "), vec![one; rows].join(", "));
        format!("SELECT `{columns}` FROM `{}` WHERE ({by}) IN ({wanted})", self.table)
    }

    fn looked_up(&self, row: &[Value]) -> Vec<Value> {
        self.found_by.iter().map(|place| row[*place].clone()).collect()
    }

    fn identity_of(&self, row: &[Value]) -> u128 {
        let mut bytes = Vec::with_capacity(64);
        for place in &self.identity {
            let text = match &row[*place] {
                Value::Bytes(text) => text.clone(),
                other => other.as_sql(true).into_bytes(),
            };
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&text);
        }
        xxh3_128(&bytes)
    }

    fn revision_of(&self, row: &[Value]) -> Option<u64> {
        match row[self.revision?] {
            // The digits of a time, one after the other.
            Value::Date(year, month, day, hour, minute, second, micros) => {
                let parts = [(month, 100), (day, 100), (hour, 100), (minute, 100), (second, 100)];
                let seconds =
                    parts.iter().fold(u64::from(year), |all, (part, room)| all * room + u64::from(*part));
                Some(seconds * 1_000_000 + u64::from(micros))
            }
            ref other => mysql_async::from_value_opt(other.clone()).ok(),
        }
    }

    /// What became of a record whose row should be `expected`, given all rows of what it is.
    fn judge(&self, expected: &[Value], rows: &[&Vec<Value>], key: u128, deep: bool) -> Found {
        match rows {
            [] => Found::Missing,
            [row] => match self.revision_of(row).cmp(&self.revision_of(expected)) {
                std::cmp::Ordering::Greater => Found::Replaced,
                std::cmp::Ordering::Less => Found::Missing,
                std::cmp::Ordering::Equal if deep && !self.is_same(expected, row) => Found::Altered { key },
                // Two results may have one revision.
                std::cmp::Ordering::Equal if self.revision.is_some() => Found::Kept { key },
                std::cmp::Ordering::Equal => Found::Stored,
            },
            // One thing, two records in the log: as many rows are right, if each has the content of one.
            rows => Found::Times { key, rows: rows.len() as u64 },
        }
    }

    fn is_same(&self, expected: &[Value], row: &[Value]) -> bool {
        expected.iter().zip(row).zip(&self.json).all(|((a, b), json)| same(a, b, *json))
    }
}

/// Whether the server gave back what was sent.
fn same(sent: &Value, got: &Value, json: bool) -> bool {
    match (sent, got) {
        (Value::Int(a), Value::UInt(b)) | (Value::UInt(b), Value::Int(a)) => u64::try_from(*a) == Ok(*b),
        (Value::Bytes(a), Value::Bytes(b)) if a != b && json => {
            let parsed = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            parsed(a).is_some_and(|a| Some(a) == parsed(b))
        }
        (a, b) => a == b,
    }
}

impl Witness {
    /// Connects.
    pub(in crate::sinks) async fn open(config: &MysqlConfig, own: OwnTables) -> Result<Self, Failure> {
        let mut connection = connect(&config.server).await?;
        tables::check(&mut connection, own).await?;
        Ok(Self { connection, tables: own })
    }
}

impl verify::Witness for Witness {
    async fn ends(&mut self, _: &Logs) -> Result<Vec<(Part, i64)>, Failure> {
        let params = Params::from((SinkName::Mysql.group(),));
        let rows: Vec<(String, i32, i64)> = answer(self.connection.exec(PROGRESS, params)).await?;
        let tables = self.tables;
        let part = |(topic, partition, next): (String, i32, i64)| {
            tables.topic(&topic).map(|topic| (Part { topic, partition }, next))
        };
        Ok(rows.into_iter().filter_map(part).collect())
    }

    async fn look(
        &mut self,
        target: Target,
        batch: &Batch,
        end: i64,
        deep: bool,
    ) -> Result<Vec<(i64, Found)>, Failure> {
        let (shape, mut maker) = (Shape::new(target), Maker::new(target));
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for record in batch.records().iter().filter(|record| record.offset < end) {
            let mut row = Vec::with_capacity(shape.columns.len());
            match maker.row(record, batch.value(record), &mut row) {
                Ok(Some(_)) => expected.push((record.offset, row)),
                Ok(None) => found.push((record.offset, Found::Elsewhere)),
                Err(_) => found.push((record.offset, Found::Refused)),
            }
        }
        for chunk in expected.chunks(LOOKED_UP) {
            let params = chunk.iter().flat_map(|(_, row)| shape.looked_up(row)).collect();
            let asked = self.connection.exec(shape.statement(chunk.len()), Params::Positional(params));
            let rows: Vec<Row> = answer(asked).await?;
            let rows: Vec<Vec<Value>> = rows.into_iter().map(Row::unwrap).collect();
            let mut by_identity: HashMap<u128, Vec<&Vec<Value>>> = HashMap::new();
            for row in &rows {
                by_identity.entry(shape.identity_of(row)).or_default().push(row);
            }
            for (offset, row) in chunk {
                let key = shape.identity_of(row);
                let rows = by_identity.get(&key).map_or(&[][..], Vec::as_slice);
                found.push((*offset, shape.judge(row, rows, key, deep)));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_columns_that_it_has() {
        for topic in Topic::ALL {
            let shape = Shape::new(Target::Fixed(topic));
            assert!(!shape.found_by.is_empty() && !shape.identity.is_empty(), "{topic:?}");
            assert_eq!(shape.statement(3).matches('?').count(), 3 * shape.found_by.len());
            assert_eq!(shape.revision.is_some(), topic == Topic::Aggregates);
        }
    }

    #[test]
    fn json_may_be_written_in_another_way_and_nothing_else() {
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        assert!(same(&text(r#"{"a":1,"b":2.50}"#), &text(r#"{"b": 2.5, "a": 1}"#), true));
        assert!(!same(&text(r#"{"a":1}"#), &text(r#"{"a": 1}"#), false));
        assert!(!same(&text(r#"{"a":1}"#), &text(r#"{"a":2}"#), true));
        assert!(
            same(&Value::Int(7), &Value::UInt(7), false)
                && !same(&Value::Int(-1), &Value::UInt(u64::MAX), false)
        );
        assert!(same(&Value::NULL, &Value::NULL, false) && !same(&Value::NULL, &Value::Int(0), false));
    }

    #[test]
    fn a_higher_revision_stands_in_the_place_of_a_lower_one() {
        let shape = Shape::new(Target::Fixed(Topic::Aggregates));
        let row = |revision: u64| {
            let mut row = vec![Value::NULL; shape.columns.len()];
            row[shape.revision.unwrap()] = Value::UInt(revision);
            row
        };
        let judge = |rows: &[&Vec<Value>]| shape.judge(&row(3), rows, 1, true);
        assert_eq!(judge(&[&row(4)]), Found::Replaced);
        assert_eq!(judge(&[&row(3)]), Found::Kept { key: 1 });
        assert_eq!(judge(&[&row(2)]), Found::Missing);
        assert_eq!(judge(&[]), Found::Missing);
        assert_eq!(judge(&[&row(3), &row(3)]), Found::Times { key: 1, rows: 2 });
    }
}
