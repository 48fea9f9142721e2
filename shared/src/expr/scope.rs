//! What an expression sees besides the reading itself, and what becomes of its result.
//!
//! Comes in: the dimensions and their columns, once; then records. Goes out: refusals of names that are not known, with
//! the nearest right one. Pure. On failure: see [`Failure`].

use std::sync::Arc;

use crate::reading::{Reading, Value};

/// What expressions may name besides the reading.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Dimensions, each with its columns.
    pub dims: Vec<(String, Vec<String>)>,
    /// It is not known here which dimensions and columns there are: any may be named.
    pub any: bool,
}

/// What the result of an expression is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// A number, a bool or a text.
    Scalar,
}

/// The business data that a record was joined with.
pub trait Columns: Sync {
    /// A column of the row of a dimension; `None` if there is no row, or no such column.
    fn column(&self, dimension: &str, column: &str) -> Option<Value<'_>>;
}

/// No business data.
#[derive(Clone, Copy, Debug)]
pub struct NoColumns;

impl Columns for NoColumns {
    fn column(&self, _: &str, _: &str) -> Option<Value<'_>> {
        None
    }
}

/// A value that was computed.
pub type Derived = (Arc<str>, Value<'static>);

/// A reading with what was computed of it and what it was joined with.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The reading.
    pub reading: &'a Reading<'a>,
    /// Computed values; they hide those of the reading. Each name is there once.
    pub derived: &'a [Derived],
    /// Business data.
    pub dims: &'a dyn Columns,
}

impl<'a> Record<'a> {
    /// A reading alone.
    #[must_use]
    pub fn of(reading: &'a Reading<'a>) -> Self {
        Self { reading, derived: &[], dims: &NoColumns }
    }

    /// The value with this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a Value<'a>> {
        let derived = self.derived.iter().find(|(n, _)| **n == *name);
        derived.map(|(_, v)| v).or_else(|| self.reading.value(name))
    }

    /// Number of values.
    #[must_use]
    pub fn values(&self) -> usize {
        let new = self.derived.iter().filter(|(name, _)| self.reading.value(name).is_none());
        self.reading.values.len() + new.count()
    }
}

/// Why an expression has no result for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The record lacks something that it looks at.
    Missing,
    /// Something has the wrong type, a division by zero, an overflow: in words that quote nothing of the record.
    Wrong(String),
}

impl Scope {
    /// Why this is no column, if it is none.
    pub(super) fn refuse(&self, path: &[&str]) -> Option<String> {
        let dims = || self.dims.iter().map(|(name, _)| name.as_str());
        let [dimension, column] = path else {
            return Some("write dims.<dimension>.<column>".to_owned());
        };
        if self.any {
            return None;
        }
        let Some((_, columns)) = self.dims.iter().find(|(name, _)| name == dimension) else {
            return Some(format!("there is no dimension {dimension:?}; {}", nearest(dimension, dims())));
        };
        if columns.iter().any(|name| name == column) {
            return None;
        }
        let hint = nearest(column, columns.iter().map(String::as_str));
        Some(format!("dimension {dimension:?} has no column {column:?}; {hint}"))
    }
}

/// Which of the known words may be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = known
        .clone()
        .map(|k| (strsim::damerau_levenshtein(k, word), k))
        .min()
        .filter(|(distance, _)| *distance <= 1 + word.len() / 3);
    match near {
        Some((_, k)) => format!("did you mean {k:?}?"),
        None => {
            let known = known.collect::<Vec<_>>().join(", ");
            format!("known here: {}", if known.is_empty() { "none" } else { &known })
        }
    }
}
