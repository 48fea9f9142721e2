//! Joining many panes again and again without starting anew.
//!
//! Comes in: panes with absolute numbers, and which of them changed. Goes out: the tally of any range.
//! Guarantees: a binary tree over the absolute numbers says which panes are joined with which first, so the result is the
//! same to the last bit whether nodes were kept or are made again; a range costs a join per level. On failure: none.

use std::collections::BTreeMap;
use std::ops::Range;

use super::tally::{Plan, Tally};

/// Nodes of 2¹⁴ panes are more than any window has.
const LEVELS: u32 = 14;

/// A piece of time, or of a count of readings.
#[derive(Clone, Debug)]
pub(super) struct Pane {
    pub(super) index: i64,
    pub(super) tally: Tally,
    /// Whether a node may hold it.
    joined: bool,
}

impl Pane {
    pub(super) const fn new(index: i64, tally: Tally) -> Self {
        Self { index, tally, joined: false }
    }
}

/// Nodes that were joined before: (level, number) covers the panes from number · 2^level on.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree(BTreeMap<(u32, i64), Tally>);

fn slice(panes: &[Pane], level: u32, number: i64) -> Range<usize> {
    let from = panes.partition_point(|p| p.index < number << level);
    from..from + panes[from..].partition_point(|p| p.index < (number + 1) << level)
}

impl Tree {
    /// A pane is to change.
    pub(super) fn change(&mut self, pane: &mut Pane) {
        if pane.joined {
            pane.joined = false;
            self.forget(pane.index);
        }
    }

    /// A pane came or went.
    pub(super) fn forget(&mut self, index: i64) {
        if !self.0.is_empty() {
            (1..=LEVELS).for_each(|level| drop(self.0.remove(&(level, index >> level))));
        }
    }

    /// The tally of the panes in `range`, if there are any.
    pub(super) fn tally(&mut self, plan: &Plan, panes: &mut [Pane], range: Range<i64>) -> Option<Tally> {
        let mut sum: Option<Tally> = None;
        let mut at = range.start;
        while at < range.end {
            let mut level = at.trailing_zeros().min(LEVELS);
            while at + (1 << level) > range.end {
                level -= 1;
            }
            self.join(plan, panes, level, at >> level);
            match (&mut sum, self.node(panes, level, at >> level)) {
                (Some(sum), Some(node)) => sum.merge(plan, node),
                (none, node) => *none = none.take().or_else(|| node.cloned()),
            }
            at += 1 << level;
        }
        sum
    }

    fn node<'a>(&'a self, panes: &'a [Pane], level: u32, number: i64) -> Option<&'a Tally> {
        let within = slice(panes, level, number);
        match within.len() {
            0 => None,
            1 => Some(&panes[within.start].tally),
            _ => self.0.get(&(level, number)),
        }
    }

    /// Makes a node, where it holds more than one pane.
    fn join(&mut self, plan: &Plan, panes: &mut [Pane], level: u32, number: i64) {
        let within = slice(panes, level, number);
        if within.len() < 2 || self.0.contains_key(&(level, number)) {
            return;
        }
        self.join(plan, panes, level - 1, 2 * number);
        self.join(plan, panes, level - 1, 2 * number + 1);
        let left = self.node(panes, level - 1, 2 * number);
        let right = self.node(panes, level - 1, 2 * number + 1);
        let node = match (left, right) {
            (Some(left), Some(right)) => {
                let mut node = left.clone();
                node.merge(plan, right);
                Some(node)
            }
            (one, other) => one.or(other).cloned(),
        };
        panes[within].iter_mut().for_each(|pane| pane.joined = true);
        if let Some(node) = node {
            self.0.insert((level, number), node);
        }
    }
}
