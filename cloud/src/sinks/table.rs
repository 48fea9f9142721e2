//! The tables whose columns are described and not programmed: all but that of the readings.
//!
//! Comes in: the JSON of one record (formats: `weir_shared::wire`). Goes out: one cell for each column of its table,
//! borrowed from the JSON where it has no escapes. One list of columns ([`columns`]) serves all stores: each turns the
//! kinds of [`Kind`] into its own types and bytes.
//! Guarantees: what decodes fits every store's columns; what a record is ([`Row::logical_id`]) depends on its content
//! alone. Pure.
//! On failure: a [`RowError`] with a reason for the dead letter.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use weir_shared::record::{Identity, NAME_BYTES_MAX, StreamId};
use xxhash_rust::xxh3::Xxh3;

use super::SinkName;
use super::batch::Topic;
use super::row::{RowError, goes_to, parse, short, time, wrong};

mod columns;

/// Longest text that is no name, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 65_535;
/// Highest revision: the version of its document is one more, and has 63 bits.
const REVISION_MAX: u64 = i64::MAX.unsigned_abs() - 1;
/// The only stores that a record goes to. Every table has columns from the same object, so that it is walked over.
const STORES: &str = "weir.stores";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A stream id: 16 bytes from 32 hex digits. One that is malformed counts as absent.
    Stream,
    Int32,
    Int64,
    UInt64,
    Float64,
    /// Ms since 1970.
    Time,
    Flag,
    /// A text of few different values, at most [`NAME_BYTES_MAX`] bytes.
    Name,
    /// A text of at most [`TEXT_BYTES_MAX`] bytes.
    Text,
    /// A JSON object as its text, unchanged.
    Object,
    /// Bytes from base64.
    Base64,
}

/// What a record comes to that has no such member, or null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// No row: a dead letter.
    Refused,
    /// NULL.
    Null,
    /// 0, no text, `{}`.
    Empty,
}

/// A column and where it comes from.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Member of the JSON; `weir.stream` is the member `stream` of the object `weir`.
    pub(super) member: &'static str,
    pub(super) kind: Kind,
    pub(super) absent: Absent,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    /// The column whose month or day decides where a row goes; never NULL.
    pub(super) time: &'static str,
    /// The columns that say what a record is; none where it is the record that it came from.
    pub(super) identity: &'static [&'static str],
    /// The column that tells which of two rows that are the same replaces the other: the higher one.
    pub(super) revision: Option<&'static str>,
}

/// The table of a topic; none for readings, which have a typed path of their own ([`super::row`]).
pub(super) const fn table(topic: Topic) -> Option<&'static Table> {
    match topic {
        Topic::Enriched | Topic::Routed(_) => None,
        Topic::Rejected => Some(&columns::REJECTED),
        Topic::Aggregates => Some(&columns::AGGREGATES),
        Topic::Losses => Some(&columns::LOSSES),
        Topic::Alerts => Some(&columns::ALERTS),
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Stream(StreamId),
    Int(i64),
    UInt(u64),
    Float(f64),
    Time(i64),
    Flag(bool),
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
}

/// A record, taken apart.
#[derive(Debug)]
pub(super) struct Row<'a> {
    table: &'static Table,
    pub(super) cells: Vec<Cell<'a>>,
}

impl<'a> Row<'a> {
    /// Takes a record apart; `None` for one that goes only to other stores.
    pub(super) fn decode(
        table: &'static Table,
        json: &'a [u8],
        which: SinkName,
    ) -> Result<Option<Self>, RowError> {
        let members = members(table, json)?;
        let stores = members.iter().find(|(object, name, _)| is(STORES, object, name));
        if let Some((_, _, raw)) = stores {
            let stores: Option<Vec<Cow<'_, str>>> = named(STORES, parse(raw.as_bytes()))?;
            if !goes_to(stores.as_deref(), which) {
                return Ok(None);
            }
        }
        let value = |column: &Column| {
            let found = members.iter().find(|(object, name, _)| is(column.member, object, name));
            column.cell(found.map(|(_, _, raw)| *raw).filter(|raw| *raw != "null"))
        };
        let cells = table.columns.iter().map(value).collect::<Result<_, _>>()?;
        let row = Self { table, cells };
        match table.revision.map(|revision| row.get(revision)) {
            Some(Cell::UInt(n)) if *n > REVISION_MAX => {
                Err(wrong("row_malformed", &format!("revision is {n}")))
            }
            _ => Ok(Some(row)),
        }
    }

    /// The cell of a column.
    pub(super) fn get(&self, name: &str) -> &Cell<'a> {
        let place = self.table.columns.iter().position(|column| column.name == name);
        &self.cells[place.expect("only columns of the table are asked for")]
    }

    /// A text; of any other cell, and of NULL, none.
    pub(super) fn text(&self, name: &str) -> &str {
        if let Cell::Text(text) = self.get(name) { text } else { "" }
    }

    /// A number without a fraction.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        match *self.get(name) {
            Cell::Int(n) | Cell::Time(n) => Some(n),
            Cell::UInt(n) => i64::try_from(n).ok(),
            _ => None,
        }
    }

    /// The time that decides where it goes, ms since 1970.
    pub(super) fn time(&self) -> i64 {
        self.integer(self.table.time).expect("that column is never NULL")
    }

    /// The identity of the record that it came from.
    pub(super) fn identity(&self) -> Option<Identity> {
        let Cell::Stream(stream) = *self.get("stream") else { return None };
        let Cell::UInt(number) = *self.get("number") else { return None };
        let partition = i32::try_from(self.integer("stream_partition")?).ok().filter(|p| *p >= 0)?;
        Some(Identity { stream, partition, number })
    }

    /// What it is, where that is not the record it came from: a hash over the columns that say so (XXH3, 128 bits, over
    /// each cell's kind, length and bytes). It stands in stores: it never changes.
    pub(super) fn logical_id(&self) -> Option<[u8; 16]> {
        if self.table.identity.is_empty() {
            return None;
        }
        let mut hash = Xxh3::new();
        for name in self.table.identity {
            feed(&mut hash, self.get(name));
        }
        Some(hash.digest128().to_be_bytes())
    }
}

/// Adds a cell to what something is.
pub(super) fn feed(hash: &mut Xxh3, cell: &Cell<'_>) {
    let mut feed = |kind: u8, bytes: &[u8]| {
        hash.update(&[kind]);
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match cell {
        Cell::Null => feed(0, &[]),
        Cell::Stream(stream) => feed(1, &stream.0),
        Cell::Int(n) | Cell::Time(n) => feed(2, &n.to_le_bytes()),
        Cell::UInt(n) => feed(3, &n.to_le_bytes()),
        Cell::Float(n) => feed(4, &n.to_le_bytes()),
        Cell::Flag(flag) => feed(5, &[u8::from(*flag)]),
        Cell::Text(text) => feed(6, text.as_bytes()),
        Cell::Bytes(bytes) => feed(7, bytes),
    }
}

impl Column {
    fn cell<'a>(&self, raw: Option<&'a str>) -> Result<Cell<'a>, RowError> {
        let Some(raw) = raw else { return self.empty() };
        let member = self.member;
        let cell = match self.kind {
            Kind::Stream => match StreamId::from_hex(text(member, raw)?.as_bytes()) {
                Some(stream) => Cell::Stream(stream),
                None => return self.empty(),
            },
            Kind::Int32 => Cell::Int(named(member, parse::<i32>(raw.as_bytes()))?.into()),
            Kind::Int64 => Cell::Int(named(member, parse(raw.as_bytes()))?),
            Kind::UInt64 => Cell::UInt(named(member, parse(raw.as_bytes()))?),
            Kind::Float64 => Cell::Float(named(member, parse(raw.as_bytes()))?),
            Kind::Time => Cell::Time(time(member, named(member, parse(raw.as_bytes()))?)?),
            Kind::Flag => Cell::Flag(named(member, parse(raw.as_bytes()))?),
            Kind::Name => Cell::Text(short(member, text(member, raw)?, NAME_BYTES_MAX)?),
            Kind::Text => Cell::Text(short(member, text(member, raw)?, TEXT_BYTES_MAX)?),
            Kind::Object if raw.starts_with('{') => Cell::Text(Cow::Borrowed(raw)),
            Kind::Object => return Err(wrong("row_malformed", &format!("{member} is not an object"))),
            Kind::Base64 => {
                let bytes = BASE64.decode(text(member, raw)?.as_bytes());
                Cell::Bytes(bytes.map_err(|e| wrong("raw_not_base64", &e.to_string()))?)
            }
        };
        Ok(cell)
    }

    fn empty<'a>(&self) -> Result<Cell<'a>, RowError> {
        match self.absent {
            Absent::Null => return Ok(Cell::Null),
            Absent::Refused if self.kind == Kind::Stream => {
                return Err(wrong("identity_missing", &format!("{} is missing or malformed", self.member)));
            }
            Absent::Refused => return Err(wrong("row_malformed", &format!("{} is missing", self.member))),
            Absent::Empty => {}
        }
        Ok(match self.kind {
            Kind::Stream => Cell::Stream(StreamId([0; 16])),
            Kind::Int32 | Kind::Int64 => Cell::Int(0),
            Kind::UInt64 => Cell::UInt(0),
            Kind::Float64 => Cell::Float(0.0),
            Kind::Time => Cell::Time(0),
            Kind::Flag => Cell::Flag(false),
            Kind::Name | Kind::Text => Cell::Text(Cow::Borrowed("")),
            Kind::Object => Cell::Text(Cow::Borrowed("{}")),
            Kind::Base64 => Cell::Bytes(Vec::new()),
        })
    }
}

/// The object that it stands in (none: the record itself), its name, its JSON.
type Member<'a> = (&'static str, Cow<'a, str>, &'a str);

/// The members of the record, and of those of its objects that columns come from.
fn members<'a>(table: &Table, json: &'a [u8]) -> Result<Vec<Member<'a>>, RowError> {
    // The walk below does not look behind the last brace; this does.
    parse::<sonic_rs::LazyValue<'_>>(json)?;
    let json = std::str::from_utf8(json).map_err(|e| wrong("row_malformed", &e.to_string()))?;
    let mut members = Vec::with_capacity(2 * table.columns.len());
    walk(json, "", &mut members)?;
    for place in 0..members.len() {
        let (_, name, raw) = &members[place];
        let object = |column: &Column| Some(column.member.split_once('.')?.0).filter(|object| object == name);
        let (raw, object) = (*raw, table.columns.iter().find_map(object));
        if let Some(object) = object.filter(|_| raw.starts_with('{')) {
            walk(raw, object, &mut members)?;
        }
    }
    Ok(members)
}

fn walk<'a>(json: &'a str, object: &'static str, members: &mut Vec<Member<'a>>) -> Result<(), RowError> {
    for member in sonic_rs::to_object_iter(json) {
        let (name, lazy) = member.map_err(|e| wrong("row_malformed", &e.to_string()))?;
        // A lazy value that was read from a text borrows from it.
        let Cow::Borrowed(raw) = lazy.as_raw_cow() else { return Err(wrong("row_malformed", &name)) };
        members.push((object, name, raw));
    }
    Ok(())
}

fn is(member: &str, object: &str, name: &str) -> bool {
    match member.split_once('.') {
        Some((wanted, inner)) => wanted == object && inner == name,
        None => object.is_empty() && member == name,
    }
}

pub(super) fn text<'a>(member: &str, raw: &'a str) -> Result<Cow<'a, str>, RowError> {
    /// Only a struct's member can be told to borrow.
    #[derive(serde::Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    named(member, parse::<Text<'_>>(raw.as_bytes())).map(|text| text.0)
}

/// Says which member it was.
fn named<T>(member: &str, parsed: Result<T, RowError>) -> Result<T, RowError> {
    parsed.map_err(|e| wrong(e.reason, &format!("{member}: {}", e.detail)))
}

#[cfg(test)]
mod tests;
