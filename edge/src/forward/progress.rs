//! What is in flight and what is acknowledged, of one range of the journal.
//!
//! Comes in: batches as they are read, records as they are sent, acknowledgements in any order over partitions and in
//! order within one. Goes out: the cursor; streams that are done; numbers that are missing. Guarantees: the cursor's
//! position never passes a record that is not acknowledged; a record that a cursor counted as acknowledged is not sent
//! again; a number that is jumped over is told once, unless it was announced when it was given up. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use weir_shared::record::StreamId;

use crate::events::Missing;
use crate::journal::format::{Acknowledged, Cursor, Place, Sent};

type Line = (StreamId, Sent, u32);

/// Bits of a ticket; the others belong to the caller.
pub(super) const TICKETS: usize = usize::MAX >> 3;

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
    lines: HashMap<Line, Numbers>,
    /// Whether no other range lies before it.
    oldest: bool,
    /// The first number of a line that was not seen yet; `None` where all before was sent, or announced.
    first: Option<u64>,
    /// The same for streams before the last one.
    first_before: Option<u64>,
    /// The stream of the last batch, since the last step over what was announced.
    last: Option<StreamId>,
    /// The stream that was read last.
    reading: Option<StreamId>,
    missing: Vec<Missing>,
    /// Streams that were read.
    seen: HashSet<StreamId>,
    /// Whether all that is durable was read once: streams that were not seen by then lie below the position.
    caught_up: bool,
    news: bool,
}

/// How far one stream is in one partition of one topic.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// All below are acknowledged.
    acknowledged: u64,
    /// The next one to be sent; `None` where what is missing was told before the cursor, or announced.
    next: Option<u64>,
}

#[derive(Debug)]
struct Batch {
    end: u64,
    /// `None` for a step over what nobody knows.
    stream: Option<StreamId>,
    in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    batch: u64,
    place: Place,
    closing: bool,
}

impl Progress {
    /// Goes on from a cursor; below its position, everything was sent or told. `oldest`: no other range lies before it.
    pub(super) fn new(cursor: &Cursor, oldest: bool) -> Self {
        let line = |a: &Acknowledged| {
            let numbers = Numbers { acknowledged: a.next.number, next: None };
            ((a.stream, a.next.kind, a.next.partition), numbers)
        };
        Self {
            position: cursor.position,
            batches: VecDeque::new(),
            batches_done: 0,
            tickets: VecDeque::new(),
            tickets_done: 0,
            in_flight: 0,
            lines: cursor.prefixes.iter().map(line).collect(),
            oldest,
            first: (cursor.position == 0).then_some(0),
            first_before: None,
            last: None,
            reading: None,
            missing: Vec::new(),
            seen: HashSet::new(),
            caught_up: false,
            news: false,
        }
    }

    /// Records sent and not acknowledged.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The records that follow are of this batch, which may open its stream.
    pub(super) fn batch(&mut self, end: u64, stream: StreamId, opens: bool) {
        if opens || self.last.is_some_and(|last| last != stream) {
            self.first_before = self.first.replace(0);
        }
        self.last = Some(stream);
        if self.reading.replace(stream) != Some(stream) {
            self.seen.insert(stream);
        }
        self.batches.push_back(Batch { end, stream: Some(stream), in_flight: 0 });
    }

    /// All that is durable was read.
    pub(super) const fn caught_up(&mut self) {
        self.caught_up = true;
    }

    /// The journal has nothing up to `end`; `announced` when somebody has told which numbers it held.
    pub(super) fn skipped(&mut self, end: u64, announced: bool) {
        self.batches.push_back(Batch { end, stream: self.reading, in_flight: 0 });
        self.news = true;
        if announced {
            self.lines.values_mut().for_each(|numbers| numbers.next = None);
            (self.first, self.first_before, self.last) = (None, None, None);
            return;
        }
        for numbers in self.lines.values_mut() {
            numbers.next.get_or_insert(numbers.acknowledged);
        }
        if self.last.is_none() {
            self.first = Some(0);
        }
    }

    /// A segment says how far a stream was numbered when it began: numbers that were not read are missing, unless
    /// another range reads them.
    pub(super) fn numbered(&mut self, stream: StreamId, next: &[Place]) {
        if !self.oldest && !self.seen.contains(&stream) {
            return;
        }
        for place in next {
            self.expect(stream, *place);
        }
    }

    /// A ticket for a record of the last batch that is about to be sent; `None` when it is acknowledged already.
    /// `closing`: it is a control record.
    pub(super) fn sending(&mut self, place: Place, closing: bool) -> Option<usize> {
        let stream = self.batches.back()?.stream?;
        let numbers = self.expect(stream, place);
        numbers.next = Some(place.number + 1);
        if place.number < numbers.acknowledged {
            return None;
        }
        self.batches.back_mut()?.in_flight += 1;
        self.in_flight += 1;
        let batch = self.batches_done + self.batches.len() as u64 - 1;
        self.tickets.push_back(Some(Ticket { batch, place, closing }));
        Some(self.tickets_done.wrapping_add(self.tickets.len() - 1) & TICKETS)
    }

    /// The line of a record, whose number (or a later one) was to come next.
    fn expect(&mut self, stream: StreamId, place: Place) -> &mut Numbers {
        let Place { kind, partition, number } = place;
        let first = if self.last == Some(stream) { self.first } else { self.first_before };
        let numbers =
            self.lines.entry((stream, kind, partition)).or_insert(Numbers { acknowledged: 0, next: first });
        let next = numbers.next.unwrap_or(number).max(numbers.acknowledged);
        if next < number {
            let first = Place { number: next, ..place };
            self.missing.push(Missing { stream, first, count: number - next });
        }
        numbers.next = Some(number.max(next));
        numbers
    }

    /// Tickets wrap around: a 32-bit machine counts through them in half a day.
    const fn index(&self, ticket: usize) -> usize {
        ticket.wrapping_sub(self.tickets_done) & TICKETS
    }

    /// What a ticket that is not acknowledged stands for.
    pub(super) fn place(&self, ticket: usize) -> Option<(StreamId, Place)> {
        let ticket = (*self.tickets.get(self.index(ticket))?)?;
        let batch = self.batches.get(usize::try_from(ticket.batch.checked_sub(self.batches_done)?).ok()?)?;
        Some((batch.stream?, ticket.place))
    }

    /// Whether a ticket that is not acknowledged stands for a control record.
    pub(super) fn is_closing(&self, ticket: usize) -> bool {
        self.tickets.get(self.index(ticket)).is_some_and(|t| t.is_some_and(|t| t.closing))
    }

    /// A record is acknowledged: what it was, unless that was known.
    pub(super) fn acknowledged(&mut self, ticket: usize) -> Option<(StreamId, Place)> {
        let (stream, place) = self.place(ticket)?;
        let index = self.index(ticket);
        let taken = self.tickets.get_mut(index)?.take()?;
        while self.tickets.front().is_some_and(Option::is_none) {
            self.tickets.pop_front();
            self.tickets_done = self.tickets_done.wrapping_add(1);
        }
        self.in_flight -= 1;
        self.news = true;
        let numbers = self.lines.entry((stream, place.kind, place.partition)).or_default();
        numbers.acknowledged = numbers.acknowledged.max(place.number + 1);
        let at = usize::try_from(taken.batch - self.batches_done).ok()?;
        self.batches[at].in_flight -= 1;
        Some((stream, place))
    }

    /// The range is at its end: the lines of all its streams.
    pub(super) fn finish(self) -> Vec<Acknowledged> {
        acknowledged(&self.lines, |stream| self.seen.contains(&stream))
    }

    /// Whether anything was acknowledged since this was last asked.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Numbers found missing since this was last asked.
    pub(super) fn take_missing(&mut self) -> Vec<Missing> {
        std::mem::take(&mut self.missing)
    }

    /// How far all is acknowledged, and the lines of streams that are done: those that have nothing at or above the
    /// position, but for the last one seen, which may go on.
    pub(super) fn cursor(&mut self) -> (Cursor, Vec<Acknowledged>) {
        let mut last = None;
        while let Some(batch) = self.batches.front()
            && batch.in_flight == 0
        {
            self.position = batch.end;
            last = Some(batch.stream);
            self.batches.pop_front();
            self.batches_done += 1;
        }
        let mut done = Vec::new();
        // After a step alone it is not known which stream goes on.
        let open = self.batches.iter().map(|batch| batch.stream).chain(last);
        if last.is_some()
            && let Some(open) = open.collect::<Option<HashSet<_>>>()
        {
            let keep = |stream| open.contains(&stream) || !(self.caught_up || self.seen.contains(&stream));
            done = acknowledged(&self.lines, |stream| !keep(stream));
            self.lines.retain(|(stream, _, _), _| keep(*stream));
            self.seen.retain(|stream| open.contains(stream));
        }
        (Cursor { position: self.position, prefixes: acknowledged(&self.lines, |_| true) }, done)
    }
}

fn acknowledged(lines: &HashMap<Line, Numbers>, wanted: impl Fn(StreamId) -> bool) -> Vec<Acknowledged> {
    let of = lines.iter().filter(|((stream, _, _), _)| wanted(*stream));
    let mut list: Vec<_> = of
        .filter(|(_, numbers)| numbers.acknowledged > 0)
        .map(|(&(stream, kind, partition), numbers)| Acknowledged {
            stream,
            next: Place { kind, partition, number: numbers.acknowledged },
        })
        .collect();
    list.sort_by_key(|a| (a.stream, a.next));
    list
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
        let mut p = Progress::new(&Cursor::default(), true);
        p.batch(10, a, false);
        let first = p.sending(place(0, 0), false).unwrap();
        let second = p.sending(place(1, 0), false).unwrap();
        p.batch(20, b, false);
        let third = p.sending(place(0, 0), false).unwrap();
        assert_eq!(p.acknowledged(second), Some((a, place(1, 0))));
        assert_eq!(p.acknowledged(third), Some((b, place(0, 0))));
        assert_eq!(p.acknowledged(third), None);
        let (cursor, _) = p.cursor();
        assert_eq!((cursor.position, cursor.prefixes.len(), p.in_flight()), (0, 2, 1));

        let mut again = Progress::new(&cursor, true);
        again.batch(10, a, false);
        assert!(again.sending(place(0, 0), false).is_some());
        assert!(again.sending(place(1, 0), false).is_none(), "acknowledged before the restart");

        p.acknowledged(first);
        let (cursor, _) = p.cursor();
        assert_eq!(cursor.position, 20);
        assert_eq!(cursor.prefixes, vec![Acknowledged { stream: b, next: place(0, 1) }]);

        let mut after_a_restart = Progress::new(&cursor, true);
        after_a_restart.batch(30, StreamId([3; 16]), false);
        after_a_restart.caught_up();
        assert_eq!(
            after_a_restart.cursor(),
            (Cursor { position: 30, prefixes: vec![] }, cursor.prefixes),
            "old streams do not pile up"
        );
    }

    #[test]
    fn numbers_that_are_jumped_over_are_told_once() {
        let a = StreamId([1; 16]);
        let missing = |p: &mut Progress| -> Vec<_> {
            p.take_missing().iter().map(|m| (m.first.partition, m.first.number, m.count)).collect()
        };
        let mut p = Progress::new(&Cursor::default(), true);
        p.batch(10, a, false);
        p.sending(place(0, 0), false).unwrap();
        p.skipped(20, false);
        p.batch(30, a, false);
        p.sending(place(0, 4), false).unwrap();
        p.sending(place(1, 2), false).unwrap();
        assert_eq!(missing(&mut p), [(0, 1, 3), (1, 0, 2)]);
        p.numbered(a, &[place(0, 5), place(1, 9)]);
        assert_eq!(missing(&mut p), [(1, 3, 6)], "lost at the end of a segment");
        p.sending(place(1, 9), false).unwrap();
        p.skipped(50, true);
        p.batch(60, a, false);
        p.sending(place(0, 70), false).unwrap();
        p.sending(place(0, 72), false).unwrap();
        assert_eq!(missing(&mut p), [(0, 71, 1)], "given up by policy was announced there");
    }

    proptest! {
        /// Any order over partitions, any crash: nothing is skipped that was not acknowledged.
        #[test]
        fn a_restart_sends_exactly_what_was_not_acknowledged(
            batches in prop::collection::vec(prop::collection::vec(0u32..3, 0..4), 1..12),
            stops in prop::collection::vec(0usize..12, 3),
        ) {
            let stream = StreamId([1; 16]);
            let mut p = Progress::new(&Cursor::default(), true);
            let mut next = [0u64; 3];
            let mut sent: [Vec<(usize, u64, Place)>; 3] = Default::default();
            for (i, partitions) in batches.iter().enumerate() {
                p.batch(i as u64 + 1, stream, false);
                for &partition in partitions {
                    let place = place(partition, next[partition as usize]);
                    next[partition as usize] += 1;
                    sent[partition as usize].push((p.sending(place, false).unwrap(), i as u64, place));
                }
            }
            let mut open = Vec::new();
            for (list, stop) in sent.iter().zip(&stops) {
                for (i, (ticket, batch, place)) in list.iter().enumerate() {
                    if i < *stop { p.acknowledged(*ticket); } else { open.push((*batch, *place)); }
                }
            }
            let (cursor, _) = p.cursor();
            let oldest = open.iter().map(|(batch, _)| *batch).min().unwrap_or(batches.len() as u64);
            prop_assert_eq!(cursor.position, oldest);
            let mut again = Progress::new(&cursor, true);
            let mut resent = Vec::new();
            let mut next = [0u64; 3];
            for (i, partitions) in batches.iter().enumerate() {
                let read = i as u64 >= cursor.position;
                if read { again.batch(i as u64 + 1, stream, false); }
                for &partition in partitions {
                    let place = place(partition, next[partition as usize]);
                    next[partition as usize] += 1;
                    if read && again.sending(place, false).is_some() { resent.push((i as u64, place)); }
                }
            }
            resent.sort();
            open.sort();
            prop_assert_eq!(resent, open);
        }
    }
}
