//! What a start finds in the journal.
//!
//! Comes in: the segments. Goes out: how things stood ([`Recovered`]). Guarantees: reads only as many of the newest
//! segments as it needs (back to one that says how things stood when it began, and as many more as hold messages that
//! a source may send again); always succeeds as long as the disk can be read; sets
//! aside a newest segment without any batch, and changes nothing else on disk.
//! What was written above the last durable position that a later batch or segment vouches for is given back as `tail`,
//! for the writer to write and fsync again: after a crash it may be in the page cache only.
//! On failure: damage is skipped and told; what it said comes from older segments; a torn tail is left out.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::ControlFlow;

use weir_shared::record::StreamId;

use super::controls::{Controls, is_snapshot};
use super::format::{Batch, FrameHead, Numbers, Place, Record, Sent};
use super::reader::{Skipped, Why};
use super::redelivery::MESSAGES_MAX;
use super::scan::{self, Bytes, Found, Range};
use super::{Error, Segments};

/// How things stood.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Up to here all is surely durable.
    pub durable: u64,
    /// Whole batches from `durable` on.
    pub tail: Vec<u8>,
    /// Bytes behind the last whole batch that were not zero: a torn write, left out.
    pub torn_bytes: u64,
    /// Session, cursor, rules and all that control records say.
    pub controls: Controls,
    /// Heads of the messages of that session that may be sent again, oldest first.
    pub messages: Vec<FrameHead>,
    /// Base position and number of messages of the segments that were read, oldest first.
    pub read: Vec<(u64, usize)>,
    /// The last stream and its next numbers.
    pub numbers: Option<Numbers>,
    /// The newest trusted wall clock among the frames that were read, ms since 1970.
    pub wall_ms_max: Option<i64>,
    /// Where the journal begins.
    pub first_position: u64,
    /// Damage in the segments that were read.
    pub damage: Vec<Skipped>,
    /// The new stream begins here or above; whoever keeps state by position may raise it.
    pub begin_min: u64,
    /// From where to where the end of the journal is lost, as far as that is known: nothing tells what stood there.
    pub lost: Option<(u64, u64)>,
    /// Base of the newest segment, and where its batches end.
    pub(super) newest: Option<(u64, u64)>,
}

impl Recovered {
    /// Somebody knows the journal up to this position: the new stream begins there or above, and what cannot be read
    /// below it is lost.
    pub(crate) fn begin_at(&mut self, position: u64) {
        let end = self.end();
        self.begin_min = self.begin_min.max(position);
        if position > end {
            self.lost = Some((self.lost.map_or(end, |(from, _)| from), position));
        }
    }

    /// Where the journal ends.
    pub(crate) fn end(&self) -> u64 {
        (self.durable + self.tail.len() as u64).max(self.begin_min)
    }
}

/// Reads the newest segments, until it is known how things stood and all messages that a source may send again were
/// seen.
pub(crate) fn recover(segments: &Segments) -> Result<Recovered, Error> {
    let mut found = Recovered::default();
    let bases = segments.bases();
    let newest = bases.last().copied();
    // What a lost segment held may be known elsewhere by its position: none of them is given out again.
    found.begin_min = segments.lost().filter(|(base, _)| Some(*base) > newest).map_or(0, |(_, end)| end);
    found.lost = segments.lost().filter(|(base, _)| Some(*base) > newest);
    found.first_position = bases.first().copied().unwrap_or(found.begin_min);
    let Some(newest) = newest else {
        found.durable = found.begin_min;
        return Ok(found);
    };
    let ends = |at: usize| bases.get(at + 1).copied();
    let mut start = bases.len() - 1;
    while start > 0 && !has_snapshot(segments, bases[start], ends(start))? {
        start -= 1;
    }
    let mut fold = Fold { durable: newest, ..Fold::default() };
    for at in start..bases.len() {
        fold.messages = 0;
        let is_newest = at + 1 == bases.len();
        let on = |batch: &Batch<'_>, bytes: &[u8]| fold.batch(batch, is_newest.then_some(bytes));
        let end = scan_segment(segments, bases[at], ends(at), &mut found.damage, on)?;
        found.read.push((bases[at], fold.messages));
        if is_newest {
            found.torn_bytes = end.torn_bytes;
            found.newest = Some((newest, end.position));
            if end.position == newest {
                segments.lose(newest)?;
                return recover(segments);
            }
        }
        fold.given_up.drain(..).for_each(|(from, to)| segments.give_up(from, to));
    }
    let proven = fold.controls.proven;
    fold.heads.retain(|(position, _)| *position >= proven);
    let mut heads: VecDeque<_> = fold.heads.into_iter().map(|(_, head)| head).collect();
    while start > 0 && bases[start] > proven && heads.len() < MESSAGES_MAX {
        start -= 1;
        let earlier = earlier_heads(segments, bases[start], ends(start), proven, &mut found)?;
        earlier.into_iter().rev().for_each(|head| heads.push_front(head));
    }
    let session = fold.controls.session.map(|(session, _)| session);
    found.messages = heads.into_iter().filter(|head| Some(head.session) == session).collect();
    found.numbers = fold.stream.map(|stream| Numbers { stream, next: places(&fold.numbers) });
    found.wall_ms_max = found.wall_ms_max.max(fold.wall_ms_max);
    (found.durable, found.tail, found.controls) = (fold.durable, fold.tail, fold.controls);
    Ok(found)
}

fn earlier_heads(
    segments: &Segments,
    base: u64,
    end: Option<u64>,
    proven: u64,
    found: &mut Recovered,
) -> Result<Vec<FrameHead>, Error> {
    let mut heads = Vec::new();
    let mut given_up = Vec::new();
    let mut wall_ms_max = found.wall_ms_max;
    let on = |batch: &Batch<'_>, _: &[u8]| {
        for frame in batch.frames() {
            wall_ms_max = wall_ms_max.max(frame.head.arrived.trusted.then_some(frame.head.arrived.wall_ms));
            let unproven = batch.position >= proven;
            if unproven && frame.head.packet != 0 {
                heads.push(frame.head);
            }
            for record in frame.records() {
                match record {
                    Record::GivenUp { from, to } => given_up.push((from, to)),
                    Record::Seen(seen) if unproven => heads.extend(seen.heads(frame.head.arrived)),
                    _ => {}
                }
            }
        }
        ControlFlow::Continue(())
    };
    scan_segment(segments, base, end, &mut found.damage, on)?;
    given_up.into_iter().for_each(|(from, to)| segments.give_up(from, to));
    found.wall_ms_max = wall_ms_max;
    found.read.insert(0, (base, heads.len()));
    Ok(heads)
}

/// What is gathered batch by batch.
#[derive(Default)]
pub(super) struct Fold {
    controls: Controls,
    stream: Option<StreamId>,
    numbers: BTreeMap<(Sent, u32), u64>,
    heads: VecDeque<(u64, FrameHead)>,
    /// In the segment at hand.
    messages: usize,
    wall_ms_max: Option<i64>,
    given_up: Vec<(u64, u64)>,
    durable: u64,
    tail: Vec<u8>,
    tail_end: u64,
}

impl Fold {
    /// Takes a batch in, and, of the newest segment, its bytes.
    pub(super) fn batch(&mut self, batch: &Batch<'_>, bytes: Option<&[u8]>) -> ControlFlow<()> {
        if is_snapshot(batch) {
            self.controls = Controls::default();
        }
        if self.stream != Some(batch.stream) {
            self.stream = Some(batch.stream);
            self.numbers.clear();
        }
        for frame in batch.frames() {
            let head = frame.head;
            self.wall_ms_max = self.wall_ms_max.max(head.arrived.trusted.then_some(head.arrived.wall_ms));
            if head.packet != 0 {
                self.messages += 1;
                self.head(batch.position, head);
            }
            for record in frame.records() {
                match record {
                    Record::Sent { place, .. } => {
                        self.number(place.kind, place.partition, place.number.saturating_add(1));
                    }
                    Record::Numbers(numbers) if numbers.stream == batch.stream => {
                        numbers.next.iter().for_each(|p| self.number(p.kind, p.partition, p.number));
                    }
                    Record::GivenUp { from, to } => self.given_up.push((from, to)),
                    Record::Seen(seen) => {
                        seen.heads(head.arrived).for_each(|head| self.head(batch.position, head));
                    }
                    control => self.controls.take(control),
                }
            }
        }
        while self.heads.front().is_some_and(|(position, _)| *position < self.controls.proven) {
            self.heads.pop_front();
        }
        if let Some(bytes) = bytes {
            self.newest(batch, bytes);
        }
        ControlFlow::Continue(())
    }

    fn head(&mut self, position: u64, head: FrameHead) {
        self.heads.push_back((position, head));
        if self.heads.len() > MESSAGES_MAX {
            self.heads.pop_front();
        }
    }

    fn number(&mut self, kind: Sent, partition: u32, next: u64) {
        let number = self.numbers.entry((kind, partition)).or_default();
        *number = next.max(*number);
    }

    /// A batch vouches for all that was durable when it was written; one behind damage, for all before it.
    fn newest(&mut self, batch: &Batch<'_>, bytes: &[u8]) {
        let begin = self.tail_end - self.tail.len() as u64;
        let whole = batch.position == self.tail_end || self.tail.is_empty();
        let durable = if whole { batch.durable.min(batch.position) } else { batch.position };
        self.durable = self.durable.max(durable);
        let done = usize::try_from(self.durable.saturating_sub(begin)).unwrap_or(usize::MAX);
        self.tail.drain(..done.min(self.tail.len()));
        if self.tail.is_empty() {
            // What stands between was damaged.
            self.durable = self.durable.max(batch.position);
        }
        self.tail.extend_from_slice(bytes);
        self.tail_end = batch.end();
    }
}

fn places(numbers: &BTreeMap<(Sent, u32), u64>) -> Vec<Place> {
    let place = |(&(kind, partition), &number)| Place { kind, partition, number };
    numbers.iter().map(place).collect()
}

/// Whether it is known from this segment alone how things stood at its end.
fn has_snapshot(segments: &Segments, base: u64, end: Option<u64>) -> Result<bool, Error> {
    let mut any = false;
    let on = |batch: &Batch<'_>, _: &[u8]| {
        any = is_snapshot(batch);
        if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    scan_segment(segments, base, end, &mut Vec::new(), on)?;
    Ok(any)
}

struct End {
    position: u64,
    torn_bytes: u64,
}

/// Hands out all whole batches of a segment that ends at `end`; the newest one ends where its last batch does.
fn scan_segment(
    segments: &Segments,
    base: u64,
    end: Option<u64>,
    damage: &mut Vec<Skipped>,
    mut on: impl FnMut(&Batch<'_>, &[u8]) -> ControlFlow<()>,
) -> Result<End, Error> {
    let path = segments.path(base);
    let file = File::open(&path).map_err(Error::io(&path))?;
    let mut told = |from, to, blank| {
        let why = if blank { Why::Missing } else { Why::Damaged };
        let skipped = Skipped { from, to, why };
        if segments.given_up(from).is_none_or(|end| end < to) {
            segments.tell(Some(base), &skipped);
            damage.push(skipped);
        }
    };
    let range = Range { base, begin: end.unwrap_or(u64::MAX), end: end.unwrap_or(u64::MAX) };
    let (position, torn_bytes) = scan_bytes(&file, range, &mut told, &mut on).map_err(Error::io(&path))?;
    Ok(End { position, torn_bytes })
}

/// The same for any bytes: where the last batch ends, and how much that is not zero follows it.
pub(super) fn scan_bytes<B: Bytes + ?Sized>(
    bytes: &B,
    range: Range,
    told: &mut impl FnMut(u64, u64, bool),
    on: &mut impl FnMut(&Batch<'_>, &[u8]) -> ControlFlow<()>,
) -> std::io::Result<(u64, u64)> {
    let mut buffer = Vec::new();
    let mut position = range.base;
    loop {
        match scan::find(bytes, range, position, &mut buffer)? {
            Found::Batch => {
                let batch = Batch::of(&buffer);
                position = batch.end();
                if on(&batch, &buffer).is_break() {
                    return Ok((position, 0));
                }
            }
            Found::Gap { to, blank } => {
                told(position, to, blank);
                position = to;
            }
            Found::End(rest) if range.end == u64::MAX => return Ok((position, rest)),
            Found::End(rest) => {
                if position < range.end {
                    told(position, range.end, rest == 0);
                }
                return Ok((range.end, 0));
            }
        }
    }
}

/// See [`super::fuzz`].
pub(super) fn fuzz(bytes: &[u8]) {
    let header = super::format::read_segment_header(bytes);
    let base = header.map_or(0, |(base, _)| base).min(super::segments::POSITION_MAX);
    let mut fold = Fold { durable: base, ..Fold::default() };
    let range = Range { base, begin: u64::MAX, end: u64::MAX };
    let mut on = |batch: &Batch<'_>, bytes: &[u8]| fold.batch(batch, Some(bytes));
    let end = scan_bytes(bytes, range, &mut |_, _, _| {}, &mut on);
    assert!(end.is_ok_and(|(end, _)| fold.durable <= end), "a batch lies within its segment");
}
