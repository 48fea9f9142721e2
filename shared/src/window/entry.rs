//! A reading on its way into a window.

use super::tally::{Plan, Tally};
use crate::reading::Reading;

/// A reading, the time that counts, and which of its values are which fields.
pub(super) struct Entry<'a> {
    pub(super) time: i64,
    pub(super) reading: &'a Reading<'a>,
    /// (Field, index in the reading's values).
    pub(super) fields: &'a [(u16, u16)],
}

impl Entry<'_> {
    #[inline]
    pub(super) fn put(&self, plan: &Plan, tally: &mut Tally) {
        tally.add_reading(self.time);
        for &(field, at) in self.fields {
            tally.add(plan, usize::from(field), &self.reading.values[usize::from(at)].1, self.time);
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Entered,
    Late,
    Refused,
}
