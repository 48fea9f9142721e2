//! Which records are new: one mark per stream, for one partition of one topic.
//!
//! Comes in: a stream and a number, in the order of the log. Goes out: accept or repeat.
//! Guarantees: a number below the mark is never accepted again; what is decided in a cycle is staged and becomes the
//! marks only with [`Marks::commit`], so that an aborted cycle leaves no trace. Pure.

use std::collections::HashMap;

use weir_shared::record::StreamId;

/// What a record is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New; this many numbers before it never came (given up by the edge, or lost by others).
    Accept {
        /// Numbers between the mark and this one.
        missing: u64,
    },
    /// It was accepted before.
    Repeat,
}

/// The marks of one partition: stream → next number.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    committed: HashMap<StreamId, u64>,
    staged: HashMap<StreamId, u64>,
}

impl Marks {
    /// The acceptance rule; an unknown stream is accepted whatever its number. `number` is below `u64::MAX`.
    pub(super) fn accept(&mut self, stream: StreamId, number: u64) -> Verdict {
        let next = self.staged.get(&stream).or_else(|| self.committed.get(&stream)).copied();
        let missing = match next {
            Some(next) if number < next => return Verdict::Repeat,
            Some(next) => number - next,
            None => 0,
        };
        self.staged.insert(stream, number + 1);
        Verdict::Accept { missing }
    }

    /// The marks that this cycle moved.
    pub(super) fn staged(&self) -> impl Iterator<Item = (StreamId, u64)> {
        self.staged.iter().map(|(stream, next)| (*stream, *next))
    }

    /// The transaction that carries the staged marks has been committed.
    pub(super) fn commit(&mut self) {
        self.committed.extend(self.staged.drain());
    }

    /// The transaction was aborted.
    pub(super) fn abort(&mut self) {
        self.staged.clear();
    }

    /// A mark read from the changelog; `None` is a tombstone.
    pub(super) fn restore(&mut self, stream: StreamId, next: Option<u64>) {
        match next {
            Some(next) => self.committed.insert(stream, next),
            None => self.committed.remove(&stream),
        };
    }

    /// Streams with a mark.
    pub(super) fn len(&self) -> usize {
        self.committed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const S: StreamId = StreamId([1; 16]);

    #[test]
    fn the_rule() {
        let mut marks = Marks::default();
        assert_eq!(marks.accept(S, 5), Verdict::Accept { missing: 0 }, "unknown stream");
        assert_eq!(marks.accept(S, 5), Verdict::Repeat);
        assert_eq!(marks.accept(S, 4), Verdict::Repeat);
        assert_eq!(marks.accept(S, 6), Verdict::Accept { missing: 0 });
        assert_eq!(marks.accept(S, 10), Verdict::Accept { missing: 3 });
        marks.abort();
        assert_eq!(marks.accept(S, 5), Verdict::Accept { missing: 0 }, "nothing stays of an aborted cycle");
        marks.commit();
        assert_eq!(marks.staged().count(), 0);
        assert_eq!(marks.accept(S, 5), Verdict::Repeat);
        marks.restore(S, None);
        assert_eq!(marks.accept(S, 5), Verdict::Accept { missing: 0 });
    }

    #[derive(Clone, Debug)]
    enum Step {
        See(u8, u64),
        Commit,
        Abort,
        /// The process dies and restores what was committed.
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0u8..3, 0u64..12).prop_map(|(s, n)| Step::See(s, n)),
            2 => Just(Step::Commit),
            1 => Just(Step::Abort),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// The model keeps every number that was accepted and committed: none may be accepted twice, and one that
        /// is higher than all of its stream is always accepted.
        #[test]
        fn never_twice_and_never_refused_when_new(steps in prop::collection::vec(step(), 0..200)) {
            let (mut marks, mut log) = (Marks::default(), BTreeMap::new());
            let mut kept: BTreeSet<(u8, u64)> = BTreeSet::new();
            let mut open: BTreeSet<(u8, u64)> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::See(s, n) => {
                        let highest = kept.iter().chain(&open).filter(|k| k.0 == s).map(|k| k.1).max();
                        match marks.accept(StreamId([s; 16]), n) {
                            Verdict::Accept { missing } => {
                                prop_assert!(highest.is_none_or(|h| n > h));
                                prop_assert_eq!(missing, highest.map_or(0, |h| n - h - 1));
                                open.insert((s, n));
                            }
                            Verdict::Repeat => prop_assert!(highest.is_some_and(|h| n <= h)),
                        }
                    }
                    Step::Commit => {
                        log.extend(marks.staged());
                        marks.commit();
                        kept.append(&mut open);
                    }
                    Step::Abort => {
                        marks.abort();
                        open.clear();
                    }
                    Step::Restart => {
                        marks = Marks::default();
                        log.iter().for_each(|(s, n)| marks.restore(*s, Some(*n)));
                        open.clear();
                    }
                }
            }
        }
    }
}
