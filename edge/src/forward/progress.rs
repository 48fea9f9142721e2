//! What is in flight and what is acknowledged.
//!
//! Comes in: batches as they are read, records as they are sent, acknowledgements in any order over partitions and in
//! order within one. Goes out: the cursor. Guarantees: the cursor's position never passes a record that is not
//! acknowledged, and a record that a cursor counted as acknowledged is not sent again. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use weir_shared::record::StreamId;

use crate::journal::format::{Acknowledged, Cursor, Place, Sent};

type Prefix = (StreamId, Sent, u32);

/// Tracks one producer's records.
#[derive(Debug)]
pub(super) struct Progress {
    position: u64,
    batches: VecDeque<Batch>,
    /// How many batches were dropped from the front.
    batches_done: u64,
    tickets: VecDeque<Option<Ticket>>,
    /// How many tickets were dropped from the front.
    tickets_done: usize,
    in_flight: usize,
    prefixes: HashMap<Prefix, u64>,
    news: bool,
}

#[derive(Debug)]
struct Batch {
    end: u64,
    stream: StreamId,
    in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    batch: u64,
    place: Place,
}

impl Progress {
    /// Goes on from a cursor.
    pub(super) fn new(cursor: &Cursor) -> Self {
        let prefix = |a: &Acknowledged| ((a.stream, a.next.kind, a.next.partition), a.next.number);
        Self {
            position: cursor.position,
            batches: VecDeque::new(),
            batches_done: 0,
            tickets: VecDeque::new(),
            tickets_done: 0,
            in_flight: 0,
            prefixes: cursor.prefixes.iter().map(prefix).collect(),
            news: false,
        }
    }

    /// Records sent and not acknowledged.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The records that follow are of this batch.
    pub(super) fn batch(&mut self, end: u64, stream: StreamId) {
        self.batches.push_back(Batch { end, stream, in_flight: 0 });
    }

    /// A ticket for a record of the last batch that is about to be sent; `None` when it is acknowledged already.
    pub(super) fn sending(&mut self, place: Place) -> Option<usize> {
        let batch = self.batches.back_mut()?;
        let prefix = (batch.stream, place.kind, place.partition);
        if self.prefixes.get(&prefix).is_some_and(|next| place.number < *next) {
            return None;
        }
        batch.in_flight += 1;
        self.in_flight += 1;
        let batch = self.batches_done + self.batches.len() as u64 - 1;
        self.tickets.push_back(Some(Ticket { batch, place }));
        Some(self.tickets_done + self.tickets.len() - 1)
    }

    /// What a ticket that is not acknowledged stands for.
    pub(super) fn place(&self, ticket: usize) -> Option<(StreamId, Place)> {
        let ticket = (*self.tickets.get(ticket.checked_sub(self.tickets_done)?)?)?;
        let batch = self.batches.get(usize::try_from(ticket.batch.checked_sub(self.batches_done)?).ok()?)?;
        Some((batch.stream, ticket.place))
    }

    /// A record is acknowledged: what it was, unless that was known.
    pub(super) fn acknowledged(&mut self, ticket: usize) -> Option<(StreamId, Place)> {
        let (stream, place) = self.place(ticket)?;
        let taken = self.tickets.get_mut(ticket - self.tickets_done)?.take()?;
        while self.tickets.front().is_some_and(Option::is_none) {
            self.tickets.pop_front();
            self.tickets_done += 1;
        }
        self.in_flight -= 1;
        self.news = true;
        let next = self.prefixes.entry((stream, place.kind, place.partition)).or_default();
        *next = (*next).max(place.number + 1);
        let at = usize::try_from(taken.batch - self.batches_done).ok()?;
        self.batches[at].in_flight -= 1;
        Some((stream, place))
    }

    /// Whether anything was acknowledged since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// How far all is acknowledged. Streams that have nothing at or above the position are forgotten, but for the
    /// last one seen, which may go on.
    pub(super) fn cursor(&mut self) -> Cursor {
        let mut last = None;
        while let Some(batch) = self.batches.front()
            && batch.in_flight == 0
        {
            self.position = batch.end;
            last = Some(batch.stream);
            self.batches.pop_front();
            self.batches_done += 1;
        }
        if last.is_some() {
            let open: HashSet<_> = self.batches.iter().map(|batch| batch.stream).chain(last).collect();
            self.prefixes.retain(|(stream, _, _), _| open.contains(stream));
        }
        let mut prefixes: Vec<_> = self
            .prefixes
            .iter()
            .map(|(&(stream, kind, partition), &number)| Acknowledged {
                stream,
                next: Place { kind, partition, number },
            })
            .collect();
        prefixes.sort_by_key(|a| (a.stream, a.next));
        Cursor { position: self.position, prefixes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn place(partition: u32, number: u64) -> Place {
        Place { kind: Sent::Reading, partition, number }
    }

    #[test]
    fn the_position_waits_for_the_oldest_and_prefixes_do_not() {
        let (a, b) = (StreamId([1; 16]), StreamId([2; 16]));
        let mut p = Progress::new(&Cursor::default());
        p.batch(10, a);
        let first = p.sending(place(0, 0)).unwrap();
        let second = p.sending(place(1, 0)).unwrap();
        p.batch(20, b);
        let third = p.sending(place(0, 0)).unwrap();
        assert_eq!(p.acknowledged(second), Some((a, place(1, 0))));
        assert_eq!(p.acknowledged(third), Some((b, place(0, 0))));
        assert_eq!(p.acknowledged(third), None);
        let cursor = p.cursor();
        assert_eq!((cursor.position, cursor.prefixes.len(), p.in_flight()), (0, 2, 1));

        let mut again = Progress::new(&cursor);
        again.batch(10, a);
        assert!(again.sending(place(0, 0)).is_some());
        assert!(again.sending(place(1, 0)).is_none(), "acknowledged before the restart");

        p.acknowledged(first);
        let cursor = p.cursor();
        assert_eq!(cursor.position, 20);
        assert_eq!(cursor.prefixes, vec![Acknowledged { stream: b, next: place(0, 1) }]);

        let mut after_a_restart = Progress::new(&cursor);
        after_a_restart.batch(30, StreamId([3; 16]));
        assert_eq!(
            after_a_restart.cursor(),
            Cursor { position: 30, prefixes: vec![] },
            "old streams do not pile up"
        );
    }

    proptest! {
        /// Any order over partitions, any crash: nothing is skipped that was not acknowledged.
        #[test]
        fn a_restart_sends_exactly_what_was_not_acknowledged(
            batches in prop::collection::vec(prop::collection::vec(0u32..3, 0..4), 1..12),
            stops in prop::collection::vec(0usize..12, 3),
        ) {
            let stream = StreamId([1; 16]);
            let mut p = Progress::new(&Cursor::default());
            let mut next = [0u64; 3];
            let mut sent: [Vec<(usize, u64, Place)>; 3] = Default::default();
            for (i, partitions) in batches.iter().enumerate() {
                p.batch(i as u64 + 1, stream);
                for &partition in partitions {
                    let place = place(partition, next[partition as usize]);
                    next[partition as usize] += 1;
                    sent[partition as usize].push((p.sending(place).unwrap(), i as u64, place));
                }
            }
            let mut open = Vec::new();
            for (list, stop) in sent.iter().zip(&stops) {
                for (i, (ticket, batch, place)) in list.iter().enumerate() {
                    if i < *stop { p.acknowledged(*ticket); } else { open.push((*batch, *place)); }
                }
            }
            let cursor = p.cursor();
            let oldest = open.iter().map(|(batch, _)| *batch).min().unwrap_or(batches.len() as u64);
            prop_assert_eq!(cursor.position, oldest);
            let mut again = Progress::new(&cursor);
            let mut resent = Vec::new();
            let mut next = [0u64; 3];
            for (i, partitions) in batches.iter().enumerate() {
                let read = i as u64 >= cursor.position;
                if read { again.batch(i as u64 + 1, stream); }
                for &partition in partitions {
                    let place = place(partition, next[partition as usize]);
                    next[partition as usize] += 1;
                    if read && again.sending(place).is_some() { resent.push((i as u64, place)); }
                }
            }
            resent.sort();
            open.sort();
            prop_assert_eq!(resent, open);
        }
    }
}
