//! Which records are new: one mark per stream, for one partition of one topic.
//!
//! Comes in: a stream and a number, in the order of the log. Goes out: accept or repeat.
//! Guarantees: a number below the mark is never accepted again; what is decided in a cycle is staged and becomes the
//! marks only with [`Marks::commit`], so that an aborted cycle leaves no trace. A mark goes only [`CLOSED_MS`] after its
//! stream was closed, or [`SILENT_MS`] after its last record. Pure: time is that of the records.

use weir_shared::record::StreamId;

use super::state::staged::Staged;

/// A closed stream's mark is kept so long: redeliveries of its records by others than its edge are recognised until then.
pub(super) const CLOSED_MS: i64 = 30 * 86_400_000;
/// The mark of a stream that just stopped (its edge died) is kept so long.
pub(super) const SILENT_MS: i64 = 365 * 86_400_000;

/// Most marks that are let go in one cycle: each is a record of its transaction.
const EXPIRED_MAX: usize = 5_000;

/// What a record is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New.
    Accept {
        /// The number that was expected; what lies between never came (given up by the edge, or lost by others).
        expected: u64,
        /// The stream had been closed: somebody goes on under an identity that was given up, so probably a clone.
        reopened: bool,
    },
    /// It was accepted before.
    Repeat,
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The next number.
    pub(super) next: u64,
    /// Kafka's time of its last record, ms since 1970.
    pub(super) at: i64,
    /// Whether its edge said that nothing more will come.
    pub(super) closed: bool,
}

/// The marks of one partition.
#[derive(Debug, Default)]
pub(super) struct Marks(Staged<StreamId, Mark>);

impl Marks {
    /// The acceptance rule; an unknown stream is accepted whatever its number. `number` is below `u64::MAX`.
    #[inline]
    pub(super) fn accept(&mut self, stream: StreamId, number: u64, at: i64) -> Verdict {
        let (expected, reopened) = match self.0.get(&stream) {
            Some(mark) if number < mark.next => return Verdict::Repeat,
            Some(mark) => (mark.next, mark.closed),
            None => (number, false),
        };
        self.0.set(stream, Some(Mark { next: number + 1, at, closed: false }));
        Verdict::Accept { expected, reopened }
    }

    /// Its edge says that the stream ended before number `next`; gives the number that was expected, if others never came.
    pub(super) fn close(&mut self, stream: StreamId, next: u64, at: i64) -> Option<u64> {
        // A stream that is not known here sent nothing here, or was forgotten: a mark would only grow the state.
        let mark = self.0.get(&stream).copied()?;
        let last = next.max(mark.next);
        self.0.set(stream, Some(Mark { next: last, at, closed: true }));
        (last > mark.next).then_some(mark.next)
    }

    /// Lets go of the marks that are old at the time `now`; gives their number.
    pub(super) fn expire(&mut self, now: i64) -> usize {
        let old = |mark: &Mark| now.saturating_sub(mark.at) > if mark.closed { CLOSED_MS } else { SILENT_MS };
        // As they are in this cycle: one that was just heard again stays.
        let is_old = |stream: &StreamId| self.0.get(stream).is_some_and(old);
        let streams: Vec<_> =
            self.0.iter().map(|(stream, _)| *stream).filter(is_old).take(EXPIRED_MAX).collect();
        for stream in &streams {
            self.0.set(*stream, None);
        }
        streams.len()
    }

    /// The marks that this cycle moved; `None` was let go.
    pub(super) fn staged(&self) -> impl Iterator<Item = (StreamId, Option<Mark>)> {
        self.0.staged().map(|(stream, mark)| (*stream, mark.copied()))
    }

    /// The transaction that carries the staged marks has been committed.
    pub(super) fn commit(&mut self) {
        self.0.commit();
    }

    /// The transaction was aborted.
    pub(super) fn abort(&mut self) {
        self.0.abort();
    }

    /// A mark read from the changelog; `None` is a tombstone.
    pub(super) fn restore(&mut self, stream: StreamId, mark: Option<Mark>) {
        self.0.restore(stream, mark);
    }

    /// Streams with a mark.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const S: StreamId = StreamId([1; 16]);

    const fn new(expected: u64) -> Verdict {
        Verdict::Accept { expected, reopened: false }
    }

    #[test]
    fn the_rule() {
        let mut marks = Marks::default();
        assert_eq!(marks.accept(S, 5, 0), new(5), "unknown stream");
        assert_eq!(marks.accept(S, 5, 0), Verdict::Repeat);
        assert_eq!(marks.accept(S, 4, 0), Verdict::Repeat);
        assert_eq!(marks.accept(S, 6, 0), new(6));
        assert_eq!(marks.accept(S, 10, 0), new(7));
        marks.abort();
        assert_eq!(marks.accept(S, 5, 0), new(5), "nothing stays of an aborted cycle");
        marks.commit();
        assert_eq!(marks.staged().count(), 0);
        assert_eq!(marks.accept(S, 5, 0), Verdict::Repeat);
        marks.restore(S, None);
        assert_eq!(marks.accept(S, 5, 0), new(5));
    }

    #[test]
    fn a_closed_stream_still_refuses_repeats_and_is_let_go_in_time() {
        let mut marks = Marks::default();
        marks.close(S, 9, 0);
        assert_eq!(marks.staged().count(), 0, "a stream that sent nothing needs no mark");
        marks.accept(S, 7, 1_000);
        marks.close(S, 8, 2_000);
        marks.commit();
        assert_eq!(marks.accept(S, 7, 3_000), Verdict::Repeat);
        assert_eq!(marks.accept(S, 8, 3_000), Verdict::Accept { expected: 8, reopened: true });
        marks.abort();
        assert_eq!(marks.expire(2_000 + CLOSED_MS), 0);
        assert_eq!(marks.expire(2_001 + CLOSED_MS), 1);
        assert_eq!(marks.staged().collect::<Vec<_>>(), [(S, None)]);
        marks.commit();
        assert_eq!(marks.len(), 0);
        marks.accept(S, 1, 0);
        marks.commit();
        assert_eq!(marks.expire(SILENT_MS), 0);
        marks.accept(S, 2, SILENT_MS + 1);
        assert_eq!(marks.expire(SILENT_MS + 1), 0, "it was heard again in this cycle");
        marks.abort();
        assert_eq!(marks.expire(SILENT_MS + 1), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        See(u8, u64),
        Close(u8),
        Commit,
        Abort,
        /// The process dies and restores what was committed.
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0u8..3, 0u64..12).prop_map(|(s, n)| Step::See(s, n)),
            1 => (0u8..3).prop_map(Step::Close),
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
                        match marks.accept(StreamId([s; 16]), n, 0) {
                            Verdict::Accept { expected, .. } => {
                                prop_assert!(highest.is_none_or(|h| n > h));
                                prop_assert_eq!(expected, highest.map_or(n, |h| h + 1));
                                open.insert((s, n));
                            }
                            Verdict::Repeat => prop_assert!(highest.is_some_and(|h| n <= h)),
                        }
                    }
                    Step::Close(s) => assert_eq!(marks.close(StreamId([s; 16]), 0, 0), None),
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
                        log.iter().for_each(|(s, mark)| marks.restore(*s, *mark));
                        open.clear();
                    }
                }
            }
        }
    }
}
