//! The cloud's rule for repeats: one mark per (stream, topic, partition).
//!
//! Comes in: stream, topic, partition and number of each record, in the order of its partition. Goes out: whether it
//! counts, and which numbers were passed over. Pure.

use std::collections::HashMap;

use weir_shared::record::StreamId;

/// Where a mark stands.
pub type Place = (StreamId, &'static str, i32);

/// Numbers that were passed over, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Where.
    pub place: Place,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It counts.
    Accepted,
    /// It counts, and these before it never came.
    AcceptedAfter(Missing),
    /// Lower than the mark: dropped.
    Repeat,
}

/// All marks.
#[derive(Clone, Debug, Default)]
pub struct Marks(HashMap<Place, u64>);

impl Marks {
    /// Decides about the next record of a partition.
    pub fn rule(&mut self, place: Place, number: u64) -> Ruling {
        let Some(next) = self.0.get_mut(&place) else {
            self.0.insert(place, number + 1);
            return Ruling::Accepted;
        };
        if number < *next {
            return Ruling::Repeat;
        }
        let from = std::mem::replace(next, number + 1);
        if number == from {
            Ruling::Accepted
        } else {
            Ruling::AcceptedAfter(Missing { place, from, to: number - 1 })
        }
    }
}
