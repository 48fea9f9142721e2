//! How a record becomes a row of a ClickHouse table.
//!
//! Comes in: a record. Goes out: its row, appended to a buffer, and the month that decides its partition.
//! Guarantees: columns, types and order equal those of the header and of `deploy/sql/clickhouse.sql`; their hash
//! goes into every plan, so that another mapping is noticed. Pure.
//! On failure: the buffer is as before; the record is dead-lettered.

use super::super::SinkName;
use super::super::batch::{Record, Topic};
use super::super::calendar::civil;
use super::super::measures::Times;
use super::super::own::{Decoder, OwnColumn, OwnKind, OwnTables, Target};
use super::super::row::{self, Reading, RowError, Value};
use super::super::table::{Absent, Cell, Column, Kind, Row, table};
use super::fingerprint::fingerprint;
use super::rowbinary::{self, Map};

const READINGS: [(&str, &str); 17] = [
    ("stream", "FixedString(16)"),
    ("stream_partition", "Int32"),
    ("number", "UInt64"),
    ("edge", "LowCardinality(String)"),
    ("device", "LowCardinality(String)"),
    ("time", "DateTime64(3, 'UTC')"),
    ("received", "DateTime64(3, 'UTC')"),
    ("clock", "LowCardinality(String)"),
    ("numbers", "Map(LowCardinality(String), Float64)"),
    ("integers", "Map(LowCardinality(String), Int64)"),
    ("flags", "Map(LowCardinality(String), Bool)"),
    ("texts", "Map(LowCardinality(String), String)"),
    ("tags", "Map(LowCardinality(String), String)"),
    ("dims", "String"),
    ("versions", "String"),
    ("joined", "Bool"),
    ("rules", "UInt64"),
];
/// Where the row stood in Kafka: the last columns of every table.
const POSITION: [(&str, &str); 3] =
    [("_weir_topic", "LowCardinality(String)"), ("_weir_partition", "Int32"), ("_weir_offset", "Int64")];

/// Names and types of a table, in the order in which rows are written.
pub(super) fn columns(target: Target) -> Vec<(&'static str, &'static str)> {
    let mut columns = match target {
        Target::Fixed(topic) => match table(topic) {
            None => READINGS.to_vec(),
            Some(table) => table.columns.iter().map(|c| (c.name, type_name(c))).collect(),
        },
        Target::Own(own) => own.columns.iter().map(|c| (c.name.as_str(), own_type(c))).collect(),
    };
    columns.extend(POSITION);
    columns
}

fn own_type(column: &OwnColumn) -> &'static str {
    match (column.kind, column.is_nullable()) {
        (OwnKind::String | OwnKind::Text | OwnKind::Json, false) => "String",
        (OwnKind::String | OwnKind::Text | OwnKind::Json, true) => "Nullable(String)",
        (OwnKind::Int64, false) => "Int64",
        (OwnKind::Int64, true) => "Nullable(Int64)",
        (OwnKind::UInt64, false) => "UInt64",
        (OwnKind::UInt64, true) => "Nullable(UInt64)",
        (OwnKind::Float64, false) => "Float64",
        (OwnKind::Float64, true) => "Nullable(Float64)",
        (OwnKind::Bool, false) => "Bool",
        (OwnKind::Bool, true) => "Nullable(Bool)",
        (OwnKind::Time, false) => "DateTime64(3, 'UTC')",
        (OwnKind::Time, true) => "Nullable(DateTime64(3, 'UTC'))",
    }
}

fn type_name(column: &Column) -> &'static str {
    match (column.kind, column.absent == Absent::Null) {
        (Kind::Stream, false) => "FixedString(16)",
        (Kind::Stream, true) => "Nullable(FixedString(16))",
        (Kind::Int32, false) => "Int32",
        (Kind::Int32, true) => "Nullable(Int32)",
        (Kind::Int64, false) => "Int64",
        (Kind::Int64, true) => "Nullable(Int64)",
        (Kind::UInt64, false) => "UInt64",
        (Kind::UInt64, true) => "Nullable(UInt64)",
        (Kind::Float64, false) => "Float64",
        (Kind::Float64, true) => "Nullable(Float64)",
        (Kind::Time, false) => "DateTime64(3, 'UTC')",
        (Kind::Time, true) => "Nullable(DateTime64(3, 'UTC'))",
        (Kind::Flag, false) => "Bool",
        (Kind::Flag, true) => "Nullable(Bool)",
        (Kind::Name, false) => "LowCardinality(String)",
        (Kind::Name, true) => "LowCardinality(Nullable(String))",
        (Kind::Text | Kind::Object | Kind::Base64, false) => "String",
        (Kind::Text | Kind::Object | Kind::Base64, true) => "Nullable(String)",
    }
}

/// Changes when the mapping of a topic does, and with nothing else: its own table, and those of the user's.
pub(super) fn mapping_hash(topic: Topic, tables: OwnTables) -> u64 {
    let mut parts: Vec<&str> = Vec::new();
    for target in tables.targets(topic, SinkName::Clickhouse) {
        if let Target::Own(own) = target {
            parts.extend([own.name.as_str(), own.condition()]);
            parts.extend(own.columns.iter().map(|column| column.made_of.as_str()));
        }
        parts.extend(columns(target).into_iter().flat_map(|(name, kind)| [name, kind]));
    }
    fingerprint(parts.into_iter().flat_map(|text| text.bytes().chain([0])))
}

/// Turns records into rows of one table; keeps the buffers of the maps.
#[derive(Debug, Default)]
pub(super) struct RowWriter {
    /// Of a table of the user's own.
    own: Option<Decoder>,
    numbers: Map,
    integers: Map,
    flags: Map,
    texts: Map,
    tags: Map,
}

/// What the caller needs to know of a record before its row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// As `toYYYYMM` in UTC; 0 in a table that has no months.
    pub(super) month: u32,
    /// Those of a reading; of anything else, one that does for both.
    pub(super) times: Times,
}

impl RowWriter {
    pub(super) fn new(target: Target) -> Self {
        Self { own: target.own().map(Decoder::new), ..Self::default() }
    }

    /// Appends the row of a record, or nothing (`None`) for one that is none here.
    pub(super) fn write(
        &mut self,
        record: &Record,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Written>, RowError> {
        let written = match (&mut self.own, table(record.part.topic)) {
            (Some(decoder), _) => {
                let Some(row) = decoder.decode(json, SinkName::Clickhouse)? else { return Ok(None) };
                for (column, value) in decoder.table.columns.iter().zip(&row.cells) {
                    bytes_of(value, column.is_nullable(), out);
                }
                let month = row.time(decoder.table).map_or(0, month);
                Written { month, times: Times::at(record.timestamp) }
            }
            (None, None) => {
                let Some(r) = row::reading(json, SinkName::Clickhouse)? else { return Ok(None) };
                self.sort_values(&r)?;
                self.reading(&r, out);
                Written { month: month(r.time), times: Times { taken: r.time, received: r.received } }
            }
            (None, Some(table)) => {
                let Some(row) = Row::decode(table, json, SinkName::Clickhouse)? else { return Ok(None) };
                for (column, value) in table.columns.iter().zip(&row.cells) {
                    cell(column, value, out);
                }
                let time = row.time();
                Written { month: month(time), times: Times::at(time) }
            }
        };
        rowbinary::bytes(record.part.topic.name().as_bytes(), out);
        rowbinary::int32(record.part.partition, out);
        rowbinary::int64(record.offset, out);
        Ok(Some(written))
    }

    /// Everything that can fail happens here, before the first byte of the row.
    fn sort_values(&mut self, r: &Reading<'_>) -> Result<(), RowError> {
        for map in [&mut self.numbers, &mut self.integers, &mut self.flags, &mut self.texts, &mut self.tags] {
            map.clear();
        }
        row::values(r.values, |name, value| {
            match value {
                Value::Number(n) => self.numbers.pair(name, |o| rowbinary::float64(n, o)),
                Value::Integer(n) => self.integers.pair(name, |o| rowbinary::int64(n, o)),
                Value::Flag(flag) => self.flags.pair(name, |o| rowbinary::boolean(flag, o)),
                Value::Text(text) => self.texts.pair(name, |o| rowbinary::bytes(text.as_bytes(), o)),
            }
            Ok(())
        })?;
        row::texts(r.tags, |name, text| {
            self.tags.pair(name, |o| rowbinary::bytes(text.as_bytes(), o));
            Ok(())
        })
    }

    fn reading(&mut self, r: &Reading<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&r.identity.stream.0);
        rowbinary::int32(r.identity.partition, out);
        rowbinary::uint64(r.identity.number, out);
        rowbinary::bytes(r.edge.as_bytes(), out);
        rowbinary::bytes(r.device.as_bytes(), out);
        rowbinary::int64(r.time, out);
        rowbinary::int64(r.received, out);
        rowbinary::bytes(r.clock.as_bytes(), out);
        for map in [&mut self.numbers, &mut self.integers, &mut self.flags, &mut self.texts, &mut self.tags] {
            map.finish(out);
        }
        rowbinary::bytes(r.dims.as_bytes(), out);
        rowbinary::bytes(r.versions.as_bytes(), out);
        rowbinary::boolean(r.joined, out);
        rowbinary::uint64(r.rules.unwrap_or(0), out);
    }
}

fn cell(column: &Column, cell: &Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Int(n) if column.kind == Kind::Int32 => {
            if column.absent == Absent::Null {
                out.push(0);
            }
            rowbinary::int32(i32::try_from(*n).expect("it was read as one"), out);
        }
        cell => bytes_of(cell, column.absent == Absent::Null, out),
    }
}

/// A cell as its column holds it; integers have 64 bits.
pub(super) fn bytes_of(cell: &Cell<'_>, is_nullable: bool, out: &mut Vec<u8>) {
    if is_nullable {
        out.push(u8::from(*cell == Cell::Null));
    }
    match cell {
        Cell::Null => {}
        Cell::Stream(stream) => out.extend_from_slice(&stream.0),
        Cell::Int(n) | Cell::Time(n) => rowbinary::int64(*n, out),
        Cell::UInt(n) => rowbinary::uint64(*n, out),
        Cell::Float(n) => rowbinary::float64(*n, out),
        Cell::Flag(flag) => rowbinary::boolean(*flag, out),
        Cell::Text(text) => rowbinary::bytes(text.as_bytes(), out),
        Cell::Bytes(bytes) => rowbinary::bytes(bytes, out),
    }
}

/// As ClickHouse's `toYYYYMM(…)` of a time in UTC.
fn month(ms: i64) -> u32 {
    let c = civil(ms);
    u32::from(c.year) * 100 + u32::from(c.month)
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::{Batch, Part};
    use super::*;

    #[test]
    fn columns_are_those_of_the_shipped_tables() {
        let sql = include_str!("../../../../deploy/sql/clickhouse.sql");
        for topic in Topic::ALL {
            let name = format!("EXISTS {} (", Target::Fixed(topic).name());
            let (_, text) = sql.split_once(&name).unwrap();
            let (text, _) = text.split_once("INDEX").unwrap();
            let shipped: Vec<String> =
                text.lines().map(|c| c.trim().trim_end_matches(',').to_owned()).collect();
            let ours: Vec<String> =
                columns(Target::Fixed(topic)).iter().map(|(n, t)| format!("`{n}` {t}")).collect();
            assert_eq!(
                shipped.iter().filter(|c| !c.is_empty()).collect::<Vec<_>>(),
                ours.iter().collect::<Vec<_>>()
            );
        }
        let mapping_hash = |topic| mapping_hash(topic, OwnTables::default());
        assert_ne!(mapping_hash(Topic::Enriched), mapping_hash(Topic::Rejected));
        // Part of every open plan: another value here means another mapping.
        assert_eq!(
            (mapping_hash(Topic::Enriched), mapping_hash(Topic::Rejected)),
            (5_549_743_682_692_048_640, 209_789_367_624_237_347)
        );
    }

    #[test]
    fn a_row_is_written_whole_or_not_at_all() {
        let json = |values: &str| {
            format!(
                r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17}},"device":"d",
                "time":1790000000000,"values":{values}}}"#
            )
        };
        let mut batch = Batch::default();
        batch.push(Part { topic: Topic::Enriched, partition: 3 }, 42, 0, b"");
        let target = Target::Fixed(Topic::Enriched);
        let (record, mut writer, mut out) = (batch.records()[0], RowWriter::new(target), vec![9]);
        let wrong = writer.write(&record, json(r#"{"a":1,"b":[]}"#).as_bytes(), &mut out).unwrap_err();
        assert_eq!((wrong.reason, &out[..]), ("value_wrong_type", &[9][..]));
        let written = writer.write(&record, json(r#"{"a":1,"t":"x"}"#).as_bytes(), &mut out).unwrap();
        assert_eq!(written.unwrap(), Written { month: 202_609, times: Times::at(1_790_000_000_000) });
        let mut wanted = vec![9];
        wanted.extend(0..16);
        wanted.extend([3, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'd']);
        wanted.extend(1_790_000_000_000_i64.to_le_bytes());
        wanted.extend(1_790_000_000_000_i64.to_le_bytes());
        wanted.extend([0, 1, 1, b'a', 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 1, 1, b't', 1, b'x', 0]);
        wanted.extend(b"\x02{}\x02{}\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0dweir.enriched");
        wanted.extend([3, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out, wanted);
    }

    #[test]
    fn a_described_row_has_the_bytes_of_its_columns() {
        let json = r#"{"weir":{"topic":"weir.readings","partition":3,"offset":99},"edge":"g","reason":"r",
            "stream":"000102030405060708090a0b0c0d0e0f","topic":"t","partition":2,"from":17,"to":42,"time_from":7,
            "noticed":1790000000000}"#;
        let mut batch = Batch::default();
        batch.push(Part { topic: Topic::Losses, partition: 1 }, 42, 0, b"");
        let mut out = Vec::new();
        let written = RowWriter::default().write(&batch.records()[0], json.as_bytes(), &mut out).unwrap();
        assert_eq!(written.unwrap().month, 202_609);
        let mut wanted = vec![1, 0, 3, 0, 0, 0, 1, 1, b'g', 13];
        wanted.extend(b"weir.readings\x00c\x00\x00\x00\x00\x00\x00\x00\x01r\x00");
        wanted.extend(0..16);
        wanted.extend(b"\x01t\x00\x02\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x00\x00\x00\x00\x00\x00");
        wanted.extend([1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1]);
        wanted.extend(1_790_000_000_000_i64.to_le_bytes());
        wanted.extend(b"\x0bweir.losses\x01\x00\x00\x00\x2a\x00\x00\x00\x00\x00\x00\x00");
        assert_eq!(out, wanted);
        let aggregate = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":1,"number":2,"joined":true},
            "rule":"r","part":5,"key":{},"start":1,"end":2,"revision":3,"completeness":1}"#;
        batch.clear();
        batch.push(Part { topic: Topic::Aggregates, partition: 0 }, 1, 0, b"");
        out.clear();
        RowWriter::default().write(&batch.records()[0], aggregate.as_bytes(), &mut out).unwrap();
        let number = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
        let mut wanted: Vec<u8> = (0..16).collect();
        wanted.extend([1, 0, 0, 0]);
        wanted.extend(number(2));
        wanted.extend(b"\x00\x01r\x00");
        wanted.extend(number(5));
        wanted.extend(b"\x02{}\x00");
        [1, 2, 3, 0].iter().for_each(|n| wanted.extend(number(*n)));
        wanted.extend(b"\x02{}\x00");
        wanted.extend(1.0_f64.to_le_bytes());
        wanted.extend(b"\x00\x02{}\x02{}\x01\x0fweir.aggregates");
        wanted.extend([0; 4]);
        wanted.extend(number(1));
        assert_eq!(out, wanted);
    }
}
