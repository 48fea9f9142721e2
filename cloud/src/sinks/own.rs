//! Tables of the user's own, described in `[[sink.table]]`.
//!
//! Comes in: the configuration ([`config`]), then records of a topic. Goes out: one cell for each column of a table
//! ([`decode`]), which each store turns into its own types and bytes.
//! Guarantees: the same record gives the same cells, whatever the store, the time and the try; what decodes fits every
//! store's columns. Pure.
//! On failure: a [`RowError`] that names table and column: the record is a dead letter of that store, its other rows are
//! stored.

pub(super) mod config;
mod decode;

use weir_shared::expr::{Names, Program};
use xxhash_rust::xxh3::Xxh3;

use super::SinkName;
use super::batch::{Record, Topic};
use super::dead_letters::{Letter, Letters};
use super::row::RowError;
use super::table::{Cell, feed, table};
pub(super) use decode::{Decoder, OwnRow};
use decode::{Inputs, Paths};

/// Where a row stood in Kafka: the last columns of every table of the user's own in MySQL and ClickHouse.
pub(super) const POSITION: [&str; 3] = ["_weir_topic", "_weir_partition", "_weir_offset"];

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnKind {
    /// A text of at most [`NAME_BYTES_MAX`](weir_shared::record::NAME_BYTES_MAX) bytes.
    String,
    /// A text of at most [`TEXT_BYTES_MAX`](super::table::TEXT_BYTES_MAX) bytes.
    Text,
    Int64,
    UInt64,
    Float64,
    Bool,
    /// Ms since 1970.
    Time,
    /// Any JSON as its text, unchanged.
    Json,
}

impl OwnKind {
    /// By the words of the configuration.
    const ALL: [(&'static str, Self); 8] = [
        ("string", Self::String),
        ("text", Self::Text),
        ("int64", Self::Int64),
        ("uint64", Self::UInt64),
        ("float64", Self::Float64),
        ("bool", Self::Bool),
        ("time", Self::Time),
        ("json", Self::Json),
    ];
}

/// Where a value comes from.
#[derive(Debug)]
enum Origin {
    /// A member of the record, by its place in [`Paths`].
    Member(usize),
    /// A result.
    Computed(Box<Program>),
}

/// What a record comes to that has no such value, or null.
#[derive(Debug, PartialEq)]
pub(super) enum OwnAbsent {
    /// No row: a dead letter.
    Refused,
    /// NULL.
    Null,
    /// This.
    Default(Cell<'static>),
}

/// A column.
#[derive(Debug)]
pub(super) struct OwnColumn {
    pub(super) name: String,
    pub(super) kind: OwnKind,
    pub(super) absent: OwnAbsent,
    origin: Origin,
    /// What its value is made of, in words: part of what a mapping is.
    pub(super) made_of: String,
}

impl OwnColumn {
    pub(super) fn is_nullable(&self) -> bool {
        self.absent == OwnAbsent::Null
    }
}

/// Which rows of a table there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// One for each record; this column decides its month.
    All { time: usize },
    /// One for each key: that of the highest version.
    Latest { key: Vec<usize>, version: usize },
}

/// A table of the user's own.
#[derive(Debug)]
pub(super) struct OwnTable {
    pub(super) name: String,
    pub(super) topic: Topic,
    stores: Vec<SinkName>,
    pub(super) columns: Vec<OwnColumn>,
    pub(super) keeps: Keeps,
    /// Only such records.
    when: Option<Box<Program>>,
    paths: Paths,
    inputs: Option<Inputs>,
    names: Names,
}

impl OwnTable {
    /// Whether a row replaces another.
    pub(super) fn is_latest(&self) -> bool {
        matches!(self.keeps, Keeps::Latest { .. })
    }

    /// Whether a column is part of what a row is, where rows replace one another.
    pub(super) fn is_key(&self, place: usize) -> bool {
        matches!(&self.keeps, Keeps::Latest { key, .. } if key.contains(&place))
    }

    /// The condition, as it was written.
    pub(super) fn condition(&self) -> &str {
        self.when.as_ref().map_or("", |when| when.text())
    }

    /// What a row is, the same in every try: its key, else the reading that it was made of, else where the record stands.
    pub(super) fn row_id(&self, record: &Record, row: &OwnRow<'_>) -> [u8; 16] {
        let mut hash = Xxh3::new();
        feed(&mut hash, &Cell::Text(self.name.as_str().into()));
        match (&self.keeps, row.identity) {
            (Keeps::Latest { key, .. }, _) => {
                key.iter().for_each(|place| feed(&mut hash, &row.cells[*place]));
            }
            (Keeps::All { .. }, Some(identity)) => {
                feed(&mut hash, &Cell::Bytes(identity.to_bytes().to_vec()));
            }
            (Keeps::All { .. }, None) => {
                feed(&mut hash, &Cell::Text(record.part.topic.name().into()));
                feed(&mut hash, &Cell::Int(record.part.partition.into()));
                feed(&mut hash, &Cell::Int(record.offset));
            }
        }
        hash.digest128().to_be_bytes()
    }
}

/// All of them. They live as long as the process: the configuration is read once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnTables(&'static [OwnTable]);

impl OwnTables {
    /// Those of a topic in a store.
    pub(super) fn of(self, topic: Topic, which: SinkName) -> impl Iterator<Item = &'static OwnTable> {
        self.in_store(which).filter(move |table| table.topic == topic)
    }

    /// Whether there is one.
    pub(super) fn has(self, topic: Topic, which: SinkName) -> bool {
        self.of(topic, which).next().is_some()
    }

    /// Every table of a topic in a store.
    pub(super) fn targets(self, topic: Topic, which: SinkName) -> impl Iterator<Item = Target> {
        let fixed = Some(Target::Fixed(topic)).filter(|_| !matches!(topic, Topic::Routed(_)));
        fixed.into_iter().chain(self.of(topic, which).map(Target::Own))
    }

    /// All of a store.
    pub(super) fn in_store(self, which: SinkName) -> impl Iterator<Item = &'static OwnTable> {
        self.0.iter().filter(move |table| table.stores.contains(&which))
    }

    /// The topics that a store's sink reads, in the order in which partitions are claimed.
    pub(super) fn topics(self, which: SinkName) -> Vec<Topic> {
        let routed = self.in_store(which).map(|table| table.topic);
        let mut topics: Vec<Topic> = Topic::ALL.into_iter().chain(routed).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// The topic of a name that some sink reads.
    pub(super) fn topic(self, name: &str) -> Option<Topic> {
        let routed = self.0.iter().map(|table| table.topic);
        Topic::ALL.into_iter().chain(routed).find(|topic| topic.name() == name)
    }
}

/// A table that records of a topic go to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// The one of the topic itself.
    Fixed(Topic),
    /// One of the user's own.
    Own(&'static OwnTable),
}

impl Target {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fixed(topic) => table(topic).map_or("weir_readings", |table| table.name),
            Self::Own(own) => &own.name,
        }
    }

    /// The topic whose records are its rows.
    pub(super) const fn topic(self) -> Topic {
        match self {
            Self::Fixed(topic) => topic,
            Self::Own(own) => own.topic,
        }
    }

    /// Whether a row replaces another of the same key.
    pub(super) fn is_latest(self) -> bool {
        self.own().is_some_and(OwnTable::is_latest)
    }

    /// Where it is one of the user's own.
    pub(super) const fn own(self) -> Option<&'static OwnTable> {
        match self {
            Self::Fixed(_) => None,
            Self::Own(own) => Some(own),
        }
    }
}

/// Notes that no row of a table of the user's own can be made of a record. A dead letter is passed over: one of its own
/// would go round for ever.
pub(super) fn refuse(
    letters: &mut Letters,
    table: &'static OwnTable,
    record: &Record,
    reason: &str,
    detail: &str,
) {
    let detail = format!("table {}: {detail}", table.name);
    if record.part.topic == Topic::Rejected {
        let (part, offset) = (record.part, record.offset);
        tracing::warn!(%part, offset, reason, detail, "a dead letter that is no row of it is passed over");
        return;
    }
    let tables = vec![table.name.as_str()];
    letters.add(Letter { record: *record, reason: reason.to_owned(), detail, tables, partly: true });
}

/// The same, of what was found while decoding.
pub(super) fn refuse_row(letters: &mut Letters, table: &'static OwnTable, record: &Record, error: &RowError) {
    refuse(letters, table, record, error.reason, &error.detail);
}

#[cfg(test)]
pub(super) mod tests;
