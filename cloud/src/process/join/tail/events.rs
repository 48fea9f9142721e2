//! The events of a binlog that are read in full: statements, table maps, rows.
//!
//! Comes in: the data of an event, without header and checksum. Goes out: its parts, borrowed. Pure.
//! On failure: it is cut or damaged, or a form that no server from MySQL 5.1.15 on writes.

use super::super::image::{Unreadable, Wire, little, take};
use super::{Event, Reload};

/// The statement of a QUERY event.
pub(super) fn query_text(mut data: &[u8]) -> Result<&[u8], Unreadable> {
    take(&mut data, 8)?;
    let schema = take(&mut data, 1)?[0];
    take(&mut data, 2)?;
    let variables = little(take(&mut data, 2)?);
    take(&mut data, usize::try_from(variables).map_err(|_| Unreadable)? + usize::from(schema) + 1)?;
    Ok(data)
}

/// A TABLE_MAP event.
pub(super) struct TableMap<'e> {
    pub(super) id: u64,
    pub(super) database: &'e [u8],
    pub(super) table: &'e [u8],
    columns: usize,
    /// Types and their metadata.
    pub(super) shape: &'e [u8],
    metadata: &'e [u8],
}

impl<'e> TableMap<'e> {
    /// Reads one.
    pub(super) fn read(mut data: &'e [u8]) -> Result<Self, Unreadable> {
        let id = little(take(&mut data, 6)?);
        take(&mut data, 2)?;
        let mut name = || {
            let bytes = usize::from(take(&mut data, 1)?[0]);
            let name = take(&mut data, bytes)?;
            take(&mut data, 1)?;
            Ok(name)
        };
        let (database, table) = (name()?, name()?);
        let columns = packed(&mut data)?;
        let whole = data;
        take(&mut data, columns)?;
        let metadata = packed(&mut data)?;
        let metadata = take(&mut data, metadata)?;
        let shape = &whole[..whole.len() - data.len()];
        Ok(Self { id, database, table, columns, shape, metadata })
    }

    /// How its columns lie in a row.
    pub(super) fn wires(&self) -> Result<Vec<Wire>, Unreadable> {
        let mut metadata = self.metadata;
        let wire = |kind: &u8| {
            let bytes = match kind {
                4 | 5 | 17..=19 | 245 | 249..=252 | 255 => 1,
                15 | 16 | 246..=248 | 253 | 254 => 2,
                1..=3 | 7..=14 => 0,
                _ => return Err(Unreadable),
            };
            let meta = take(&mut metadata, bytes)?;
            Wire::of(*kind, [meta.first().copied().unwrap_or(0), meta.get(1).copied().unwrap_or(0)])
        };
        self.shape[..self.columns].iter().map(wire).collect()
    }
}

/// MySQL's integer of 1, 3, 4 or 9 bytes.
fn packed(data: &mut &[u8]) -> Result<usize, Unreadable> {
    let n = match take(data, 1)?[0] {
        n @ 0..=250 => u64::from(n),
        252 => little(take(data, 2)?),
        253 => little(take(data, 3)?),
        _ => return Err(Unreadable),
    };
    usize::try_from(n).map_err(|_| Unreadable)
}

/// The row images of an event.
pub(super) struct Images<'e> {
    pub(super) before: bool,
    pub(super) after: bool,
    pub(super) rows: &'e [u8],
}

impl<'e> Images<'e> {
    /// Reads one of a table with this many columns.
    pub(super) fn read(event: Event<'e>, wanted: usize) -> Result<Self, Reload> {
        let (before, after, extra) = match event.kind {
            23 => (false, true, false),
            24 => (true, true, false),
            25 => (true, false, false),
            30 => (false, true, true),
            31 => (true, true, true),
            32 => (true, false, true),
            // Of servers before MySQL 5.1.15.
            _ => return Err("unknown_event"),
        };
        let broken = |_| "broken_event";
        let mut data = event.data;
        take(&mut data, 8).map_err(broken)?;
        if extra {
            let bytes = usize::try_from(little(take(&mut data, 2).map_err(broken)?)).unwrap_or(0);
            take(&mut data, bytes.saturating_sub(2)).map_err(broken)?;
        }
        let columns = packed(&mut data).map_err(broken)?;
        if columns != wanted {
            return Err("schema");
        }
        for _ in 0..usize::from(before) + usize::from(after) {
            let present = take(&mut data, columns.div_ceil(8)).map_err(broken)?;
            if !(0..columns).all(|i| present[i / 8] >> (i % 8) & 1 == 1) {
                return Err("row_image");
            }
        }
        Ok(Self { before, after, rows: data })
    }
}
