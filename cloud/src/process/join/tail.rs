//! The end of a binlog: events in, changes of whole transactions out.
//!
//! Comes in: the events of one server from a position on, and the tables that were loaded there. Goes out: changes of
//! rows, never of half a transaction, and the position up to which they are all there.
//! Guarantees: fails closed: an event that could change one of the tables and is not understood, a table map or a row
//! image that does not fit what was loaded, is a [`Reload`]. Applying a change again, or changes that the loaded rows
//! hold already, ends in the same rows, since each says the whole row of its key. Pure.

mod events;

use std::collections::HashMap;

use super::image::{self, Meaning, Wire, little, take};
use super::rows::Layout;
use super::schema::Schema;
use super::statement::{Statement, classify};
use super::table::Row;
use crate::faults;
use events::{Images, TableMap, query_text};

/// Why the tables have to be loaded afresh, as metrics show it.
pub(super) type Reload = &'static str;

/// Flag of events that the server makes up while it sends: they have no place in the file.
const ARTIFICIAL: u16 = 0x20;
/// Flag of events that may be passed over by whoever does not know them.
const IGNORABLE: u16 = 0x80;
/// Changes that are held for a transaction that has not ended; a larger one is loaded instead.
const STAGED_BYTES_MAX: usize = 1 << 30;

/// A place in the server's binlog; orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// The number that ends the file's name.
    pub(super) file: u64,
    /// Bytes.
    pub(super) offset: u64,
}

impl Position {
    /// Of `mysql-bin.000012`; `None` when it has no number.
    pub(super) fn new(file: &str, offset: u64) -> Option<Self> {
        Some(Self { file: file.rsplit('.').next()?.parse().ok()?, offset })
    }

    /// As a version: files × 10¹⁰ + offset.
    pub(super) fn version(self) -> u64 {
        self.file.saturating_mul(10_000_000_000).saturating_add(self.offset)
    }
}

/// An event as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'e> {
    pub(super) kind: u8,
    pub(super) flags: u16,
    /// Where it ends in the file, its lower 32 bits; 0 for one that is in no file.
    pub(super) end: u32,
    pub(super) data: &'e [u8],
}

/// A row that came or went.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(Row),
    Remove(Box<[u8]>),
}

/// A table, and the dimensions that are made of it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) schema: Schema,
    /// Dimension and its layout.
    pub(super) layouts: Vec<(usize, Layout)>,
    /// Types and metadata of its first table map, and how its columns lie.
    map: Option<(Vec<u8>, Vec<Wire>)>,
}

impl Followed {
    /// As loaded.
    pub(super) fn new(schema: Schema, layouts: Vec<(usize, Layout)>) -> Self {
        Self { schema, layouts, map: None }
    }

    /// One more dimension of the same table, as it was loaded for it.
    pub(super) fn also(&mut self, schema: &Schema, layout: (usize, Layout)) {
        for (mine, other) in self.schema.meanings.iter_mut().zip(&schema.meanings) {
            if *mine == Meaning::Unused {
                mine.clone_from(other);
            }
        }
        self.layouts.push(layout);
    }
}

/// Where in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Outside,
    /// A GTID came; what follows is a transaction or a single statement.
    Announced,
    Inside,
}

/// Reads events.
#[derive(Debug)]
pub(super) struct Tail {
    tables: Vec<Followed>,
    names: Vec<String>,
    databases: Vec<String>,
    /// Which of the tables a table id stands for.
    ids: HashMap<u64, Option<usize>>,
    phase: Phase,
    /// Where the last event ended.
    read: Position,
    /// Everything up to here is in `ready`, or taken.
    complete: Position,
    staged: Vec<(usize, Change)>,
    staged_bytes: usize,
    ready: Vec<(usize, Change)>,
    /// Row events for each dimension since they were last taken.
    events: Vec<(usize, u64)>,
    text: Vec<u8>,
    room: (Vec<u8>, Vec<u8>),
}

impl Tail {
    /// From a position between two transactions on.
    pub(super) fn new(tables: Vec<Followed>, from: Position) -> Self {
        let plain = |name: &str| name.replace('`', "").to_lowercase();
        Self {
            names: tables.iter().map(|t| plain(&t.schema.table)).collect(),
            databases: tables.iter().map(|t| plain(&t.schema.database)).collect(),
            tables,
            ids: HashMap::new(),
            phase: Phase::Outside,
            read: from,
            complete: from,
            staged: Vec::new(),
            staged_bytes: 0,
            ready: Vec::new(),
            events: Vec::new(),
            text: Vec::new(),
            room: (Vec::new(), Vec::new()),
        }
    }

    /// All that was committed up to here has been read.
    pub(super) fn complete(&self) -> Position {
        self.complete
    }

    /// Where the last event ended.
    pub(super) fn position(&self) -> Position {
        self.read
    }

    /// Whether there is something for [`Tail::take`].
    pub(super) fn has_changes(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Changes of dimensions, in their order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (usize, Change)> {
        self.ready.drain(..)
    }

    /// Row events of dimensions.
    pub(super) fn take_events(&mut self) -> impl Iterator<Item = (usize, u64)> {
        self.events.drain(..)
    }

    /// Reads one event.
    pub(super) fn read(&mut self, event: Event<'_>) -> Result<(), Reload> {
        let is_filed = event.flags & ARTIFICIAL == 0 && event.end != 0;
        if is_filed {
            self.read.offset = unwrap_offset(self.read.offset, event.end);
        }
        match event.kind {
            2 => self.query(event.data)?,
            4 => self.rotate(event, is_filed)?,
            // XID
            16 => self.end(true),
            19 => self.table_map(event.data)?,
            20..=25 | 30..=32 => self.rows(event)?,
            // Rows in part or compressed: of tables that are not followed they do not matter.
            39 | 166..=171 if self.followed(event.data)?.is_none() => {}
            // Heartbeat: the server has nothing after it.
            27 | 41 => {}
            // MySQL's GTIDs, 42 with a tag; MariaDB's, whose flag 1 says that a single statement follows.
            33 | 34 | 42 => self.begin(Phase::Announced),
            162 => {
                let alone = event.data.get(12).ok_or("broken_event")? & 1 == 1;
                self.begin(if alone { Phase::Announced } else { Phase::Inside });
            }
            // XA PREPARE: counts when it is the commit as well; otherwise XA COMMIT will show.
            38 => self.end(event.data.first().ok_or("broken_event")? != &0),
            // Stop, format, ignorable, rows query, previous GTIDs, group replication's; MariaDB's annotation, checkpoint,
            // list of GTIDs, start of encryption; and what precedes a statement: INTVAR, RAND, USER_VAR.
            3 | 15 | 28 | 29 | 35..=37 | 160 | 161 | 163 | 164 | 5 | 13 | 14 => {}
            _ if event.flags & IGNORABLE != 0 => {}
            _ => return Err("unknown_event"),
        }
        if self.phase == Phase::Outside {
            self.complete = self.read;
        }
        Ok(())
    }

    fn begin(&mut self, phase: Phase) {
        self.staged.clear();
        self.staged_bytes = 0;
        self.phase = phase;
    }

    fn end(&mut self, counts: bool) {
        if counts {
            self.ready.append(&mut self.staged);
        }
        self.begin(Phase::Outside);
        self.ids.clear();
    }

    fn query(&mut self, data: &[u8]) -> Result<(), Reload> {
        let statement = query_text(data).map_err(|_| "broken_event")?;
        match classify(statement, &self.names, &self.databases) {
            Statement::Begin => self.begin(Phase::Inside),
            Statement::Commit => self.end(true),
            Statement::Rollback => self.end(false),
            Statement::Harmless if self.phase == Phase::Announced => self.end(false),
            Statement::Harmless => {}
            Statement::Suspect(reason) => return Err(reason),
        }
        Ok(())
    }

    fn rotate(&mut self, event: Event<'_>, is_filed: bool) -> Result<(), Reload> {
        let mut data = event.data;
        let offset = little(take(&mut data, 8).map_err(|_| "broken_event")?);
        let name = String::from_utf8_lossy(data);
        match Position::new(&name, offset) {
            Some(next) if next.file == self.read.file => {}
            // The first one repeats what was asked for, perhaps with a checksum behind the name.
            None if !is_filed && offset == self.read.offset => {}
            Some(next) if next.file > self.read.file => self.read = next,
            _ => return Err("binlog_reset"),
        }
        Ok(())
    }

    fn followed(&self, data: &[u8]) -> Result<Option<usize>, Reload> {
        let id = little(data.get(..6).ok_or("broken_event")?);
        match self.ids.get(&id) {
            Some(table) => Ok(*table),
            // Ends a statement, and names no table.
            None if id == 0x00ff_ffff => Ok(None),
            None => Err("unknown_table"),
        }
    }

    fn table_map(&mut self, data: &[u8]) -> Result<(), Reload> {
        let map = TableMap::read(data).map_err(|_| "broken_event")?;
        let is_it = |t: &Followed| {
            t.schema.database.as_bytes() == map.database && t.schema.table.as_bytes() == map.table
        };
        let found = self.tables.iter().position(is_it);
        self.ids.insert(map.id, found);
        let Some(table) = found.map(|i| &mut self.tables[i]) else { return Ok(()) };
        if table.map.as_ref().is_some_and(|(shape, _)| shape == map.shape) {
            return Ok(());
        }
        if table.map.is_some() {
            return Err("schema");
        }
        let wires = map.wires().map_err(|_| "schema")?;
        if wires.len() != table.schema.meanings.len() {
            return Err("schema");
        }
        table.map = Some((map.shape.to_vec(), wires));
        Ok(())
    }

    fn rows(&mut self, event: Event<'_>) -> Result<(), Reload> {
        let Some(i) = self.followed(event.data)? else { return Ok(()) };
        let table = &self.tables[i];
        let wires = &table.map.as_ref().ok_or("schema")?.1;
        self.events.extend(table.layouts.iter().map(|(dimension, _)| (*dimension, 1)));
        let images = Images::read(event, wires.len())?;
        let mut data = images.rows;
        let mut image = Image { wires, table, text: &mut self.text };
        while !data.is_empty() {
            let before = self.staged.len();
            if images.before {
                image.read(&mut data, |dimension, layout, values| {
                    if layout.key(values, &mut self.room.0) {
                        self.staged_bytes += self.room.0.len();
                        self.staged.push((dimension, Change::Remove(self.room.0.as_slice().into())));
                    }
                })?;
            }
            if images.after {
                image.read(&mut data, |dimension, layout, values| {
                    if layout.key(values, &mut self.room.0) {
                        let row = layout.row(&self.room.0, values, &mut self.room.1);
                        self.staged_bytes += self.room.0.len() + self.room.1.len();
                        let put = (dimension, Change::Put(row));
                        // What takes the place of a row needs no removal.
                        let is_its = |(of, change): &&mut (usize, Change)| {
                            *of == dimension && matches!(change, Change::Remove(key) if **key == *self.room.0)
                        };
                        match self.staged[before..].iter_mut().find(is_its) {
                            Some(removal) => *removal = put,
                            None => self.staged.push(put),
                        }
                    }
                })?;
            }
            if self.staged_bytes > STAGED_BYTES_MAX {
                return Err("large_transaction");
            }
        }
        // Rows without a beginning end with the next COMMIT or XID all the same.
        self.phase = Phase::Inside;
        if faults::is_broken("bad.half_table") {
            self.ready.append(&mut self.staged);
        }
        Ok(())
    }
}

/// The offset whose lower 32 bits these are, at or after the last one.
fn unwrap_offset(last: u64, low: u32) -> u64 {
    let offset = last & !0xffff_ffff | u64::from(low);
    // A file can be longer than 4 GiB; events of one transaction may repeat a place, never go back far.
    if offset + (1 << 31) < last { offset + (1 << 32) } else { offset }
}

/// Reads row images.
struct Image<'t> {
    wires: &'t [Wire],
    table: &'t Followed,
    text: &'t mut Vec<u8>,
}

impl Image<'_> {
    fn read(
        &mut self,
        data: &mut &[u8],
        mut each: impl FnMut(usize, &Layout, &[Option<&[u8]>]),
    ) -> Result<(), Reload> {
        let columns = self.wires.len();
        let nulls = take(data, columns.div_ceil(8)).map_err(|_| "broken_event")?;
        self.text.clear();
        let mut ends = Vec::with_capacity(columns);
        for (i, (wire, meaning)) in self.wires.iter().zip(&self.table.schema.meanings).enumerate() {
            let is_null = nulls[i / 8] >> (i % 8) & 1 == 1;
            if !is_null {
                image::read(data, *wire, meaning, self.text).map_err(|_| "schema")?;
            }
            ends.push((is_null, self.text.len()));
        }
        let mut start = 0;
        let values: Vec<Option<&[u8]>> = ends
            .iter()
            .map(|(is_null, end)| {
                let value = &self.text[start..*end];
                start = *end;
                (!is_null).then_some(value)
            })
            .collect();
        for (dimension, layout) in &self.table.layouts {
            each(*dimension, layout, &values);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
