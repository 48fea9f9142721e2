//! How a record becomes a row of a ClickHouse table.
//!
//! Comes in: a record. Goes out: its row, appended to a buffer, and the month that decides its partition.
//! Guarantees: columns, types and order equal those of the header and of `deploy/sql/clickhouse.sql`; their hash
//! goes into every plan, so that another mapping is noticed. Pure.
//! On failure: the buffer is as before; the record is dead-lettered.

use super::super::batch::{Record, Topic};
use super::super::calendar::civil;
use super::super::row::{self, Reading, Rejection, RowError, Value};
use super::fingerprint::fingerprint;
use super::rowbinary::{self, Map};

const READINGS: [(&str, &str); 19] = [
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
    ("_weir_topic", "LowCardinality(String)"),
    ("_weir_partition", "Int32"),
    ("_weir_offset", "Int64"),
];
const REJECTED: [(&str, &str); 17] = [
    ("stream", "Nullable(FixedString(16))"),
    ("stream_partition", "Nullable(Int32)"),
    ("number", "Nullable(UInt64)"),
    ("edge", "LowCardinality(String)"),
    ("origin", "LowCardinality(String)"),
    ("origin_offset", "Nullable(Int64)"),
    ("stage", "LowCardinality(String)"),
    ("reason", "LowCardinality(String)"),
    ("detail", "String"),
    ("source", "LowCardinality(String)"),
    ("source_topic", "String"),
    ("received", "DateTime64(3, 'UTC')"),
    ("bytes", "UInt64"),
    ("raw", "String"),
    ("_weir_topic", "LowCardinality(String)"),
    ("_weir_partition", "Int32"),
    ("_weir_offset", "Int64"),
];

/// The table of a topic.
pub(super) const fn table(topic: Topic) -> &'static str {
    match topic {
        Topic::Enriched => "weir_readings",
        Topic::Rejected => "weir_rejected",
    }
}

/// Names and types of the table of a topic, in the order in which rows are written.
pub(super) const fn columns(topic: Topic) -> &'static [(&'static str, &'static str)] {
    match topic {
        Topic::Enriched => &READINGS,
        Topic::Rejected => &REJECTED,
    }
}

/// Changes when the mapping does, and with nothing else.
pub(super) fn mapping_hash(topic: Topic) -> u64 {
    let parts = columns(topic).iter().flat_map(|(name, kind)| [*name, *kind]);
    fingerprint(parts.flat_map(|text| text.bytes().chain([0])))
}

/// Turns records into rows; keeps the buffers of the maps.
#[derive(Debug, Default)]
pub(super) struct RowWriter {
    numbers: Map,
    integers: Map,
    flags: Map,
    texts: Map,
    tags: Map,
}

/// What the caller needs to know of a record before its row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// As `toYYYYMM` in UTC.
    pub(super) month: u32,
    /// Receipt, ms since 1970.
    pub(super) received: i64,
}

impl RowWriter {
    /// Appends the row of a record.
    pub(super) fn write(
        &mut self,
        record: &Record,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Written, RowError> {
        let written = match record.part.topic {
            Topic::Enriched => {
                let r = row::reading(json)?;
                self.sort_values(&r)?;
                self.reading(&r, out);
                Written { month: month(r.time), received: r.received }
            }
            Topic::Rejected => {
                let r = row::rejection(json)?;
                rejection(&r, out);
                Written { month: month(r.received), received: r.received }
            }
        };
        rowbinary::bytes(record.part.topic.name().as_bytes(), out);
        rowbinary::int32(record.part.partition, out);
        rowbinary::int64(record.offset, out);
        Ok(written)
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
    }
}

fn rejection(r: &Rejection<'_>, out: &mut Vec<u8>) {
    rowbinary::nullable(r.identity, out, |i, o| o.extend_from_slice(&i.stream.0));
    rowbinary::nullable(r.origin_partition, out, rowbinary::int32);
    rowbinary::nullable(r.identity.map(|i| i.number), out, rowbinary::uint64);
    rowbinary::bytes(r.edge.as_bytes(), out);
    rowbinary::bytes(r.origin.as_bytes(), out);
    rowbinary::nullable(r.origin_offset, out, rowbinary::int64);
    for text in [&r.stage, &r.reason, &r.detail, &r.source, &r.source_topic] {
        rowbinary::bytes(text.as_bytes(), out);
    }
    rowbinary::int64(r.received, out);
    rowbinary::uint64(r.bytes, out);
    rowbinary::bytes(&r.raw, out);
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
            let name = format!("EXISTS {} (", table(topic));
            let (_, text) = sql.split_once(&name).unwrap();
            let (text, _) = text.split_once("INDEX").unwrap();
            let shipped: Vec<String> =
                text.lines().map(|c| c.trim().trim_end_matches(',').to_owned()).collect();
            let ours: Vec<String> = columns(topic).iter().map(|(n, t)| format!("`{n}` {t}")).collect();
            assert_eq!(
                shipped.iter().filter(|c| !c.is_empty()).collect::<Vec<_>>(),
                ours.iter().collect::<Vec<_>>()
            );
        }
        assert_ne!(mapping_hash(Topic::Enriched), mapping_hash(Topic::Rejected));
        // Part of every open plan: another value here means another mapping.
        assert_eq!(
            (mapping_hash(Topic::Enriched), mapping_hash(Topic::Rejected)),
            (8_223_378_807_471_052_667, 209_789_367_624_237_347)
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
        let (record, mut writer, mut out) = (batch.records()[0], RowWriter::default(), vec![9]);
        let wrong = writer.write(&record, json(r#"{"a":1,"b":[]}"#).as_bytes(), &mut out).unwrap_err();
        assert_eq!((wrong.reason, &out[..]), ("value_wrong_type", &[9][..]));
        let written = writer.write(&record, json(r#"{"a":1,"t":"x"}"#).as_bytes(), &mut out).unwrap();
        assert_eq!(written, Written { month: 202_609, received: 1_790_000_000_000 });
        let mut wanted = vec![9];
        wanted.extend(0..16);
        wanted.extend([3, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'd']);
        wanted.extend(1_790_000_000_000_i64.to_le_bytes());
        wanted.extend(1_790_000_000_000_i64.to_le_bytes());
        wanted.extend([0, 1, 1, b'a', 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 1, 1, b't', 1, b'x', 0]);
        wanted.extend(b"\x02{}\x02{}\x00\x0dweir.enriched");
        wanted.extend([3, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out, wanted);
    }
}
