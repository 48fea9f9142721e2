//! The rows of a planned range, split so that each insert fills one block of one table partition.
//!
//! Comes in: a batch and a partition of it. Goes out: one complete body per month, and the records that no row can
//! be made of.
//! Guarantees: the same records give the same bodies, byte for byte, and leave out the same offsets (those of letters
//! and of records that go only to other stores). Pure.

use std::collections::BTreeSet;

use super::super::batch::{Batch, Part};
use super::super::dead_letters::Letter;
use super::super::measures::{Count, Receipts};
use super::columns::{RowWriter, columns};
use super::plan::{Missing, missing};
use super::rowbinary;

/// What a body begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// Names and types of the columns, which the server compares with its own.
    #[default]
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

/// One insert.
#[derive(Debug)]
pub(super) struct Block {
    /// As `toYYYYMM` in UTC.
    pub(super) month: u32,
    /// The offsets of its rows, ascending.
    pub(super) offsets: Vec<i64>,
    /// In the format that was asked for, complete.
    pub(super) body: Vec<u8>,
}

/// What a range comes to.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub(super) format: Format,
    pub(super) blocks: Vec<Block>,
    pub(super) letters: Vec<Letter>,
    /// Those that go only to other stores: their offsets are in no block, so nobody waits for them.
    pub(super) skipped: Count,
}

/// Encodes the records of `part` whose offsets `wanted` accepts.
pub(super) fn encode(
    batch: &Batch,
    part: Part,
    format: Format,
    wanted: impl Fn(i64) -> bool,
    receipts: &mut Receipts,
) -> Blocks {
    let mut blocks = Blocks { format, ..Blocks::default() };
    let mut writer = RowWriter::default();
    let mut row = Vec::with_capacity(1024);
    for record in batch.records().iter().filter(|r| r.part == part && wanted(r.offset)) {
        row.clear();
        match writer.write(record, batch.value(record), &mut row) {
            Ok(None) => blocks.skipped.add(part.topic),
            Ok(Some(written)) => {
                if part.topic == super::super::batch::Topic::Enriched {
                    receipts.add(written.received);
                }
                let block = blocks.of_month(part, written.month);
                block.offsets.push(record.offset);
                block.body.extend_from_slice(&row);
            }
            Err(error) => {
                let (reason, detail) = (error.reason.to_owned(), error.detail);
                blocks.letters.push(Letter { record: *record, reason, detail });
            }
        }
    }
    blocks
}

impl Blocks {
    /// Whether all rows are among those that arrived.
    pub(super) fn are_all_in(&self, arrived: &BTreeSet<i64>) -> bool {
        self.blocks.iter().all(|block| missing(&block.offsets, arrived) == Missing::Nothing)
    }

    fn of_month(&mut self, part: Part, month: u32) -> &mut Block {
        let place = self.blocks.iter().position(|b| b.month == month).unwrap_or_else(|| {
            let mut body = Vec::with_capacity(64 * 1024);
            if self.format == Format::NamesAndTypes {
                rowbinary::header(&columns(part.topic), &mut body);
            }
            self.blocks.push(Block { month, offsets: Vec::new(), body });
            self.blocks.len() - 1
        });
        &mut self.blocks[place]
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::Topic;
    use super::*;

    const PART: Part = Part { topic: Topic::Enriched, partition: 0 };

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
        let all = encode(&batch, PART, Format::NamesAndTypes, |_| true, &mut Receipts::default());
        let seen: Vec<_> = all.blocks.iter().map(|b| (b.month, b.offsets.clone())).collect();
        assert_eq!(seen, [(202_609, vec![3, 8]), (202_610, vec![4])]);
        assert_eq!(all.letters.len(), 1);
        assert_eq!((all.letters[0].record.offset, &*all.letters[0].reason), (5, "row_malformed"));
        let elsewhere = json(september).replace("\"number\"", "\"stores\":[\"mysql\"],\"number\"");
        batch.push(PART, 9, 0, elsewhere.as_bytes());
        let again = encode(&batch, PART, Format::NamesAndTypes, |_| true, &mut Receipts::default());
        assert_eq!(all.blocks[0].body, again.blocks[0].body);
        assert_eq!(again.blocks[0].offsets, [3, 8], "nobody waits for what goes elsewhere");
        assert_eq!(again.skipped, Count::of([Topic::Enriched].into_iter()));
        let rest =
            encode(&batch, PART, Format::NamesAndTypes, |offset| offset == 8, &mut Receipts::default());
        assert_eq!(rest.blocks.len(), 1);
        assert_eq!(rest.blocks[0].offsets, [8]);
        let plain = encode(&batch, PART, Format::Rows, |offset| offset == 8, &mut Receipts::default());
        let mut header = Vec::new();
        rowbinary::header(&columns(Topic::Enriched), &mut header);
        assert_eq!([&header[..], &plain.blocks[0].body].concat(), rest.blocks[0].body);
    }
}
