//! What ClickHouse has of the records of the log.
//!
//! Guarantees: asks only. Rows are found by the position that they carry. Their content is compared as bytes, in the same
//! encoding in which they were sent; where a span differs, halves of it are, down to single rows. On failure: the server's
//! error.

use std::collections::HashMap;

use weir_shared::supervise::Error;

use super::super::batch::{Batch, Part, Range};
use super::super::config::ClickhouseConfig;
use super::super::own::{OwnTables, Target};
use super::super::verify::{self, Found, Logs};
use super::super::{Failure, SinkName};
use super::columns::RowWriter;
use super::server::Server;
use super::tables::{self, Tables};

mod latest;

/// A server.
pub(in crate::sinks) struct Witness {
    server: Server,
    own: OwnTables,
    tables: Tables,
}

/// A row as it should be.
struct Expected {
    offset: i64,
    row: Vec<u8>,
}

impl Witness {
    /// Asks nothing yet.
    pub(in crate::sinks) fn open(config: &ClickhouseConfig, own: OwnTables) -> Result<Self, Error> {
        Ok(Self { server: Server::new(config)?, own, tables: Tables::default() })
    }

    /// The offsets whose rows differ.
    async fn altered(&self, target: Target, part: Part, rows: &[Expected]) -> Result<Vec<i64>, Failure> {
        let mut altered = Vec::new();
        let mut spans = vec![rows];
        while let Some(span) = spans.pop() {
            let (Some(first), Some(last)) = (span.first(), span.last()) else { continue };
            let range = Range { part, start: first.offset, end: last.offset + 1 };
            let stored = self.server.rows(target, &range).await?;
            let mut left = &stored[..];
            let is_next = |expected: &Expected| match left.strip_prefix(&expected.row[..]) {
                Some(rest) => {
                    left = rest;
                    true
                }
                None => false,
            };
            if span.iter().all(is_next) && left.is_empty() {
                continue;
            }
            match span {
                [one] => altered.push(one.offset),
                _ => {
                    let (front, back) = span.split_at(span.len() / 2);
                    spans.extend([front, back]);
                }
            }
        }
        Ok(altered)
    }
}

impl verify::Witness for Witness {
    async fn ends(&mut self, logs: &Logs) -> Result<Vec<(Part, i64)>, Failure> {
        self.tables = tables::check(&self.server, self.own).await?;
        // The start of an open plan: what it holds may be on its way.
        logs.committed(SinkName::Clickhouse).map_err(|e| Failure::Kafka(e.to_string()))
    }

    async fn look(
        &mut self,
        target: Target,
        batch: &Batch,
        end: i64,
        deep: bool,
    ) -> Result<Vec<(i64, Found)>, Failure> {
        if let Some(own) = target.own().filter(|own| own.is_latest()) {
            return latest::look(&self.server, own, self.tables.is_older(target), batch, end).await;
        }
        let Some((first, last)) = batch.records().first().zip(batch.records().last()) else {
            return Ok(Vec::new());
        };
        let part = first.part;
        let range = Range { part, start: first.offset, end: end.min(last.offset + 1) };
        let mut rows: HashMap<i64, u64> = HashMap::new();
        for offset in self.server.offsets(target, &range).await? {
            *rows.entry(offset).or_default() += 1;
        }
        let key =
            |offset: i64| u128::from(part.partition.unsigned_abs()) << 64 | u128::from(offset.unsigned_abs());
        let (mut found, mut once) = (Vec::new(), Vec::new());
        let mut writer = RowWriter::new(target);
        for record in batch.records().iter().filter(|record| record.offset < end) {
            let (offset, mut row) = (record.offset, Vec::new());
            let key = key(offset);
            match (writer.write(record, batch.value(record), &mut row), rows.get(&offset).copied()) {
                (Ok(None), None) => found.push((offset, Found::Elsewhere)),
                (Err(_), None) => found.push((offset, Found::Refused)),
                (Ok(Some(_)), None) => found.push((offset, Found::Missing)),
                (Ok(Some(_)), Some(1)) => once.push(Expected { offset, row }),
                // A row of what goes elsewhere, or of what no row can be made of, is one too many.
                (Ok(None) | Err(_), Some(rows)) => found.push((offset, Found::Times { key, rows: rows + 1 })),
                (Ok(Some(_)), Some(rows)) => found.push((offset, Found::Times { key, rows })),
            }
        }
        let altered = if deep { self.altered(target, part, &once).await? } else { Vec::new() };
        let of = |row: &Expected| {
            if altered.contains(&row.offset) {
                Found::Altered { key: key(row.offset) }
            } else {
                Found::Stored
            }
        };
        found.extend(once.iter().map(|row| (row.offset, of(row))));
        Ok(found)
    }
}
