//! The statement that inserts rows into one table.
//!
//! Comes in: a table. Goes out: its columns, and the statement with marks for any number of rows. Guarantees: no statement
//! has more marks than a server prepares. Pure.

use std::fmt::Write as _;

use super::super::super::own::{Keeps, POSITION, Target};
use super::super::super::table::{Column, Kind, table};

/// Rows per statement, largest first: few prepared statements, and any number in few round trips.
pub(super) const SHAPES: [usize; 6] = [2048, 512, 128, 32, 8, 1];

/// Most marks of a prepared statement.
pub(super) const MARKS_MAX: usize = 65_535;

/// The columns of `weir_readings`, in the order in which [`super::reading`] writes them.
pub(super) const READINGS: [&str; 14] = [
    "stream",
    "stream_partition",
    "number",
    "edge",
    "device",
    "time",
    "received",
    "clock",
    "values",
    "tags",
    "dims",
    "versions",
    "joined",
    "rules",
];
/// Key of a table whose rows replace one another: what the row is.
pub(in super::super) const ID: &str = "id";

/// The columns of a table.
pub(in super::super) fn columns(target: Target) -> Vec<&'static str> {
    match target {
        Target::Own(own) => own.columns.iter().map(|c| c.name.as_str()).chain(POSITION).collect(),
        Target::Fixed(topic) => {
            let Some(table) = table(topic) else { return READINGS.to_vec() };
            let id = table.revision.map(|_| ID);
            id.into_iter().chain(table.columns.iter().map(|c| c.name)).collect()
        }
    }
}

/// Those of the columns of a table that hold bytes and not text.
fn binary(target: Target) -> Vec<&'static str> {
    match target {
        // The user's have no type for them.
        Target::Own(_) => Vec::new(),
        Target::Fixed(topic) => {
            let Some(table) = table(topic) else { return vec!["stream"] };
            let bytes = |column: &&Column| matches!(column.kind, Kind::Stream | Kind::Base64);
            table.columns.iter().filter(bytes).map(|column| column.name).chain([ID]).collect()
        }
    }
}

/// What a row is, and the column that tells which of two that are the same replaces the other.
fn replaced_by(target: Target) -> Option<(Vec<&'static str>, &'static str)> {
    match target {
        Target::Fixed(topic) => Some((vec![ID], table(topic)?.revision?)),
        Target::Own(own) => {
            let Keeps::Latest { key, version } = &own.keeps else { return None };
            let name = |place: &usize| own.columns[*place].name.as_str();
            Some((key.iter().map(name).collect(), name(version)))
        }
    }
}

/// The parts of an INSERT that do not depend on the number of rows.
pub(super) struct Insert {
    pub(super) table: &'static str,
    pub(super) columns: Vec<&'static str>,
    /// See [`binary`].
    pub(super) binary: Vec<&'static str>,
    head: String,
    pub(super) tail: String,
}

impl Insert {
    pub(super) fn new(target: Target) -> Self {
        let columns = columns(target);
        let head = format!("INSERT INTO `{}` (`{}`) VALUES ", target.name(), columns.join("`, `"));
        let mut tail = String::new();
        if let Some((key, revision)) = replaced_by(target) {
            // Assignments take effect one after the other: the revision, on which the others look, is the last.
            let others = columns.iter().filter(|name| !key.contains(name) && **name != revision);
            let raised = |name: &&str| {
                format!("`{name}` = IF(VALUES(`{revision}`) > `{revision}`, VALUES(`{name}`), `{name}`)")
            };
            let all: Vec<String> = others.chain([&revision]).map(raised).collect();
            tail = format!(" ON DUPLICATE KEY UPDATE {}", all.join(", "));
        }
        Self { table: target.name(), columns, binary: binary(target), head, tail }
    }

    /// Rows of the largest statement for so many: one has at most [`MARKS_MAX`] marks.
    pub(super) fn shape(&self, rows: usize) -> usize {
        let fits = |shape: &usize| *shape <= rows && shape * self.columns.len() <= MARKS_MAX;
        SHAPES.into_iter().find(fits).unwrap_or(1)
    }

    /// With marks for so many rows.
    pub(super) fn statement(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.columns.len()].join(","));
        let mut sql = String::with_capacity(self.head.len() + self.tail.len() + rows * (row.len() + 1));
        write!(sql, "{}{row}", self.head).expect("a string takes all");
        for _ in 1..rows {
            sql.push(',');
            sql.push_str(&row);
        }
        sql.push_str(&self.tail);
        sql
    }
}
