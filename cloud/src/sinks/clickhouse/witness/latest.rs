//! What ClickHouse has of the records of a table that keeps the latest row of each key.
//!
//! Guarantees: asks only. Of each key the highest version that stands is compared with that of each record: a higher one
//! took its place, a lower one means that it is lost. Rows of the same key that no merge has joined yet are one. Content is
//! not compared. On failure: the server's error.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use super::super::super::batch::Batch;
use super::super::super::own::{Decoder, Keeps, OwnColumn, OwnKind, OwnRow, OwnTable};
use super::super::super::table::Cell;
use super::super::super::verify::Found;
use super::super::super::{Failure, SinkName};
use super::super::columns::bytes_of;
use super::super::server::{Server, quoted};

/// Keys that one question names.
const LOOKED_UP: usize = 500;
/// Bytes of a version.
const VERSION_BYTES: usize = 8;

/// `is_older`: whether the table's columns are of older types.
pub(super) async fn look(
    server: &Server,
    own: &'static OwnTable,
    is_older: bool,
    batch: &Batch,
    end: i64,
) -> Result<Vec<(i64, Found)>, Failure> {
    let mut decoder = Decoder::new(own);
    let mut found = Vec::new();
    // Encoded key, and what a statement calls it.
    let mut keys: HashMap<Vec<u8>, String> = HashMap::new();
    let mut rows: Vec<(i64, Vec<u8>, u64)> = Vec::new();
    for record in batch.records().iter().filter(|record| record.offset < end) {
        match decoder.decode(batch.value(record), SinkName::Clickhouse) {
            Ok(Some(row)) => {
                let key = encoded(own, &row);
                keys.entry(key.clone()).or_insert_with(|| literal(own, is_older, &row));
                let version = row.version(own).expect("a row has a version, or it is none");
                rows.push((record.offset, key, version));
            }
            Ok(None) => found.push((record.offset, Found::Elsewhere)),
            Err(_) => found.push((record.offset, Found::Refused)),
        }
    }
    let mut standing = HashMap::new();
    let literals: Vec<&str> = keys.values().map(String::as_str).collect();
    for chunk in literals.chunks(LOOKED_UP) {
        let answer = server.binary(question(own, chunk)).await?;
        read(own, &answer, &mut standing)?;
    }
    found.extend(rows.into_iter().map(|(offset, key, version)| {
        let of = match standing.get(&key).map(|there: &u64| there.cmp(&version)) {
            None | Some(std::cmp::Ordering::Less) => Found::Missing,
            Some(std::cmp::Ordering::Equal) => Found::Kept { key: xxh3_128(&key) },
            Some(std::cmp::Ordering::Greater) => Found::Replaced,
        };
        (offset, of)
    }));
    Ok(found)
}

fn key_of(own: &OwnTable) -> impl Iterator<Item = (usize, &OwnColumn)> {
    let key = if let Keeps::Latest { key, .. } = &own.keeps { &key[..] } else { &[] };
    key.iter().map(|place| (*place, &own.columns[*place]))
}

fn encoded(own: &OwnTable, row: &OwnRow<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    key_of(own).for_each(|(place, _)| bytes_of(&row.cells[place], false, &mut bytes));
    bytes
}

fn literal(own: &OwnTable, is_older: bool, row: &OwnRow<'_>) -> String {
    let one = |(place, _): (usize, &OwnColumn)| match &row.cells[place] {
        Cell::Text(text) => quoted(text),
        Cell::Int(n) => format!("toInt64({n})"),
        Cell::UInt(n) => format!("toUInt64({n})"),
        Cell::Flag(flag) if is_older => format!("toUInt8({})", u8::from(*flag)),
        Cell::Flag(flag) => flag.to_string(),
        Cell::Time(ms) if is_older => format!("toInt64({ms})"),
        Cell::Time(ms) => format!("fromUnixTimestamp64Milli(toInt64({ms}), 'UTC')"),
        other => unreachable!("no key has a column of this type: {other:?}"),
    };
    format!("({})", key_of(own).map(one).collect::<Vec<_>>().join(","))
}

fn question(own: &OwnTable, keys: &[&str]) -> String {
    let names: Vec<String> = key_of(own).map(|(_, column)| format!("`{}`", column.name)).collect();
    let (names, wanted) = (names.join(", "), keys.join(","));
    let Keeps::Latest { version, .. } = own.keeps else { return String::new() };
    let version = &own.columns[version].name;
    format!(
        "SELECT {names}, max(`{version}`) FROM `{}` WHERE ({names}) IN ({wanted}) GROUP BY {names} FORMAT RowBinary",
        own.name
    )
}

/// Takes the answer apart: encoded key, highest version.
fn read(own: &OwnTable, answer: &[u8], standing: &mut HashMap<Vec<u8>, u64>) -> Result<(), Failure> {
    let mut left = answer;
    while !left.is_empty() {
        let cut = || Failure::Store(format!("rows of {}: the answer ends within one", own.name));
        let mut length = 0;
        for (_, column) in key_of(own) {
            let rest = left.get(length..).ok_or_else(cut)?;
            length += match column.kind {
                OwnKind::String => text_length(rest).ok_or_else(cut)?,
                OwnKind::Bool => 1,
                _ => 8,
            };
        }
        let (key, rest) = left.split_at_checked(length).ok_or_else(cut)?;
        let (version, rest) = rest.split_at_checked(VERSION_BYTES).ok_or_else(cut)?;
        let version = u64::from_le_bytes(version.try_into().expect("so many bytes were split off"));
        standing.insert(key.to_vec(), version);
        left = rest;
    }
    Ok(())
}

/// Bytes of a text with its length before it.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0_usize;
    for (place, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(place + 1 + length);
        }
    }
    None
}
