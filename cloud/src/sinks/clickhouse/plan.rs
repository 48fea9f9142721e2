//! The plan: an offset range of one partition, written down before anything of it is sent.
//!
//! Comes in: a range. Goes out: its text, which is committed to Kafka as metadata of the range's start; the names
//! (deduplication token, query id) that every try of the same insert has in common; and what is missing, given
//! what arrived.
//! Format of the text: `weir1 <end> <hash of the column mapping, 16 hex digits>`. Pure.
//! On failure: metadata that is not a plan of this version is refused ([`Plan::parse`]); nothing is guessed.

use std::collections::BTreeSet;

use super::super::batch::Range;
use super::super::own::{OwnTables, Target};
use super::columns::mapping_hash;

const VERSION: &str = "weir1";

/// A range that may be partly sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) range: Range,
    /// Hash of the columns that its rows were written with.
    pub(super) mapping: u64,
}

impl Plan {
    /// The plan to send this range now.
    pub(super) fn new(range: Range, tables: OwnTables) -> Self {
        Self { range, mapping: mapping_hash(range.part.topic, tables) }
    }

    /// As it stands in Kafka.
    pub(super) fn text(&self) -> String {
        format!("{VERSION} {} {:016x}", self.range.end, self.mapping)
    }

    /// Reads the metadata committed at `start`. No metadata: no open plan. `Err`: not ours.
    pub(super) fn parse(part: super::super::batch::Part, start: i64, text: &str) -> Result<Option<Self>, ()> {
        if text.is_empty() {
            return Ok(None);
        }
        let fields: Vec<&str> = text.split(' ').collect();
        let [VERSION, end, mapping] = fields[..] else { return Err(()) };
        let end = end.parse().map_err(|_| ())?;
        let mapping = u64::from_str_radix(mapping, 16).map_err(|_| ())?;
        if end <= start {
            return Err(());
        }
        Ok(Some(Self { range: Range { part, start, end }, mapping }))
    }

    /// What the ids of all queries of this plan begin with, and of no other.
    pub(super) fn query_prefix(&self, database: &str) -> String {
        let Range { part, start, end } = self.range;
        format!("weir|{database}|{}|{}|{start}|{end}|", part.topic.name(), part.partition)
    }

    /// The id of the query that inserts one month into a table.
    pub(super) fn query_id(&self, database: &str, target: Target, month: u32) -> String {
        let table = target.own().map(|own| format!("{}|", own.name)).unwrap_or_default();
        format!("{}{table}{month}", self.query_prefix(database))
    }

    /// The deduplication token of the insert of one month into a table.
    pub(super) fn token(&self, sink: &str, target: Target, month: u32) -> String {
        let Range { part, start, end } = self.range;
        let (topic, table) = (part.topic.name(), target.name());
        format!("{sink}|{topic}|{}|{start}|{end}|{table}|{month}", part.partition)
    }
}

/// What of a block is still to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// All of it arrived.
    Nothing,
    /// None of it arrived: the same insert under the same token.
    All,
    /// These offsets: an insert of their own under a token of its own.
    Some(BTreeSet<i64>),
}

/// Compares the offsets of a block with those that arrived.
pub(super) fn missing(block: &[i64], arrived: &BTreeSet<i64>) -> Missing {
    let missing: BTreeSet<i64> = block.iter().copied().filter(|offset| !arrived.contains(offset)).collect();
    if missing.is_empty() {
        Missing::Nothing
    } else if missing.len() == block.len() {
        Missing::All
    } else {
        Missing::Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::{Part, Topic};
    use super::*;
    use proptest::prelude::*;

    const PART: Part = Part { topic: Topic::Enriched, partition: 3 };
    const READINGS: Target = Target::Fixed(Topic::Enriched);

    fn plan(range: Range) -> Plan {
        Plan::new(range, OwnTables::default())
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan(Range { part: PART, start: 10, end: 25 });
        assert_eq!(Plan::parse(PART, 10, &plan.text()), Ok(Some(plan)));
        assert_eq!(Plan::parse(PART, 10, ""), Ok(None));
        for text in ["weir2 25 00", "weir1 25", "weir1 x 00", "weir1 10 00", "weir1 25 zz", "else"] {
            assert_eq!(Plan::parse(PART, 10, text), Err(()), "{text}");
        }
    }

    #[test]
    fn names_tell_plans_apart_and_are_the_same_on_every_try() {
        let plan = plan(Range { part: PART, start: 1, end: 25 });
        let longer = Plan { range: Range { part: PART, start: 1, end: 250 }, ..plan };
        assert_eq!(plan.token("s", READINGS, 202_609), "s|weir.enriched|3|1|25|weir_readings|202609");
        assert_ne!(plan.token("s", READINGS, 202_609), plan.token("s", READINGS, 202_610));
        assert!(!longer.query_prefix("d").starts_with(&plan.query_prefix("d")));
    }

    proptest! {
        #[test]
        fn arrived_and_missing_are_the_whole(block in proptest::collection::btree_set(0_i64..50, 1..40),
                                             arrived in proptest::collection::btree_set(0_i64..60, 0..60)) {
            let offsets: Vec<i64> = block.iter().copied().collect();
            let left: BTreeSet<i64> = block.difference(&arrived).copied().collect();
            match missing(&offsets, &arrived) {
                Missing::Nothing => prop_assert!(left.is_empty()),
                Missing::All => prop_assert_eq!(left, block),
                Missing::Some(some) => {
                    prop_assert!(some.len() < block.len() && !some.is_empty());
                    prop_assert_eq!(some, left);
                }
            }
        }
    }
}
