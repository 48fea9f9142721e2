//! The rows of a planned range, split so that each insert fills one block of one table partition.
//!
//! Comes in: a batch and a partition of it. Goes out: one complete body per table and month, and the records that no row can
//! be made of.
//! Guarantees: the same records give the same bodies, byte for byte, and leave out the same offsets (those of letters
//! and of records that go only to other stores). Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::batch::{Batch, Part, Record, Topic};
use super::super::dead_letters::{Letter, Letters};
use super::super::measures::{Count, Receipts};
use super::super::own::{self, Target};
use super::super::row::RowError;
use super::columns::{RowWriter, columns};
use super::plan::{Missing, missing};
use super::rowbinary;

/// What a body begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Names and types of the columns, which the server compares with its own.
    NamesAndTypes,
    /// The first row: for tables with columns of older types, which were compared before.
    Rows,
}

impl Format {
    /// Its name in statements.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NamesAndTypes => "RowBinaryWithNamesAndTypes",
            Self::Rows => "RowBinary",
        }
    }
}

/// The offsets of a range that stand in each table, by its name.
pub(super) type Arrived = BTreeMap<&'static str, BTreeSet<i64>>;

/// One insert.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) target: Target,
    /// As `toYYYYMM` in UTC; 0 in a table that has no months.
    pub(super) month: u32,
    /// The offsets of its rows, ascending.
    pub(super) offsets: Vec<i64>,
    /// In the format that was asked for, complete.
    pub(super) body: Vec<u8>,
}

/// What a range comes to.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) blocks: Vec<Block>,
    pub(super) letters: Letters,
    /// Those that go only to other stores: their offsets are in no block, so nobody waits for them.
    pub(super) skipped: Count,
}

/// Encodes the records of `part` whose offsets `wanted` accepts, for these tables in these formats.
pub(super) fn encode(
    batch: &Batch,
    part: Part,
    targets: &[(Target, Format)],
    wanted: impl Fn(i64) -> bool,
    receipts: &mut Receipts,
) -> Blocks {
    let mut blocks = Blocks::default();
    let records = || batch.records().iter().filter(|r| r.part == part && wanted(r.offset));
    let partly = targets.len() > 1;
    let mut rows: HashSet<i64> = HashSet::new();
    for (target, format) in targets.iter().copied() {
        let mut writer = RowWriter::new(target);
        let mut row = Vec::with_capacity(1024);
        for record in records() {
            row.clear();
            match writer.write(record, batch.value(record), &mut row) {
                // With one table whatever is no row of it is none at all.
                Ok(None) if !partly => blocks.skipped.add(part.topic),
                Ok(None) => {}
                Ok(Some(written)) => {
                    if matches!(target, Target::Fixed(Topic::Enriched)) {
                        receipts.add(written.times);
                    }
                    if partly {
                        rows.insert(record.offset);
                    }
                    let block = blocks.of_month(target, format, written.month);
                    block.offsets.push(record.offset);
                    block.body.extend_from_slice(&row);
                }
                Err(error) => blocks.refuse(target, record, error, partly),
            }
        }
    }
    if partly {
        for record in records().filter(|r| !rows.contains(&r.offset)) {
            if !blocks.letters.has(record) {
                blocks.skipped.add(part.topic);
            }
        }
    }
    blocks
}

impl Blocks {
    /// Takes out the blocks of tables whose rows replace one another: nobody can ask what of them arrived.
    pub(super) fn take_latest(&mut self) -> Vec<Block> {
        let (latest, kept) = std::mem::take(&mut self.blocks).into_iter().partition(|b| b.target.is_latest());
        self.blocks = kept;
        latest
    }

    /// Whether all rows are among those that arrived.
    pub(super) fn are_all_in(&self, arrived: &Arrived) -> bool {
        let nothing = BTreeSet::new();
        let of = |block: &Block| arrived.get(block.target.name()).unwrap_or(&nothing);
        self.blocks.iter().all(|block| missing(&block.offsets, of(block)) == Missing::Nothing)
    }

    fn refuse(&mut self, target: Target, record: &Record, error: RowError, partly: bool) {
        match target {
            Target::Own(own) => own::refuse_row(&mut self.letters, own, record, &error),
            Target::Fixed(_) => {
                let (reason, detail) = (error.reason.to_owned(), error.detail);
                let tables = vec![target.name()];
                self.letters.add(Letter { record: *record, reason, detail, tables, partly });
            }
        }
    }

    fn of_month(&mut self, target: Target, format: Format, month: u32) -> &mut Block {
        let is_it = |b: &Block| b.month == month && b.target.name() == target.name();
        let place = self.blocks.iter().position(is_it).unwrap_or_else(|| {
            let mut body = Vec::with_capacity(64 * 1024);
            if format == Format::NamesAndTypes {
                rowbinary::header(&columns(target), &mut body);
            }
            self.blocks.push(Block { target, month, offsets: Vec::new(), body });
            self.blocks.len() - 1
        });
        &mut self.blocks[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part = Part { topic: Topic::Enriched, partition: 0 };
    const READINGS: [(Target, Format); 1] = [(Target::Fixed(Topic::Enriched), Format::NamesAndTypes)];

    #[test]
    fn rows_go_to_the_block_of_their_month_and_broken_ones_to_letters() {
        let json = |time: i64| {
            format!(
                r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":0,"number":1}},"device":"d",
                "time":{time},"values":{{}}}}"#
            )
        };
        let mut batch = Batch::default();
        let (september, october) = (1_790_000_000_000, 1_791_000_000_000);
        for (offset, value) in
            [(3, json(september)), (4, json(october)), (5, "{".to_owned()), (8, json(september))]
        {
            batch.push(PART, offset, 0, value.as_bytes());
        }
        batch.push(Part { topic: Topic::Enriched, partition: 1 }, 9, 0, json(september).as_bytes());
        let all = encode(&batch, PART, &READINGS, |_| true, &mut Receipts::default());
        let seen: Vec<_> = all.blocks.iter().map(|b| (b.month, b.offsets.clone())).collect();
        assert_eq!(seen, [(202_609, vec![3, 8]), (202_610, vec![4])]);
        let letters = all.letters.into_list();
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].record.offset, &*letters[0].reason), (5, "row_malformed"));
        let elsewhere = json(september).replace("\"number\"", "\"stores\":[\"mysql\"],\"number\"");
        batch.push(PART, 9, 0, elsewhere.as_bytes());
        let again = encode(&batch, PART, &READINGS, |_| true, &mut Receipts::default());
        assert_eq!(all.blocks[0].body, again.blocks[0].body);
        assert_eq!(again.blocks[0].offsets, [3, 8], "nobody waits for what goes elsewhere");
        assert_eq!(again.skipped, Count::of([Topic::Enriched].into_iter()));
        let rest = encode(&batch, PART, &READINGS, |offset| offset == 8, &mut Receipts::default());
        assert_eq!(rest.blocks.len(), 1);
        assert_eq!(rest.blocks[0].offsets, [8]);
        let rows = [(Target::Fixed(Topic::Enriched), Format::Rows)];
        let plain = encode(&batch, PART, &rows, |offset| offset == 8, &mut Receipts::default());
        let mut header = Vec::new();
        rowbinary::header(&columns(Target::Fixed(Topic::Enriched)), &mut header);
        assert_eq!([&header[..], &plain.blocks[0].body].concat(), rest.blocks[0].body);
    }
}
