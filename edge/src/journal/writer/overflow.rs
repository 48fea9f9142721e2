//! Giving up the oldest data that is not sent yet, so that there is room for new.
//!
//! Comes in: the wish for room. Goes out: which numbers go, before anything is removed. Guarantees: what is given up, the
//! gaps that say so and the cursor that steps over it are one batch; the segment goes only after that batch is durable;
//! the newest segment never goes, nor one that the windows still need. What was on its way to Kafka at that moment may
//! arrive all the same.
//! On failure: a crash before the batch is durable changes nothing; after it, the segment goes as acknowledged.

use std::collections::BTreeMap;

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::super::Error;
use super::super::format::{Acknowledged, Place, Record, Sent};
use super::super::reader::{Reader, Step};
use super::{Urgency, Writer, merge};

/// What is to be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// The first position of the segment, some of which may be acknowledged.
    pub from: u64,
    /// Behind the last.
    pub to: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Which records that were not acknowledged, per line.
    pub ranges: Vec<Range>,
}

/// Numbers of one stream in one partition of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The stream.
    pub stream: StreamId,
    /// The topic.
    pub kind: Sent,
    /// The partition.
    pub partition: u32,
    /// The first number.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// How many of them the journal held.
    pub count: u64,
    /// Earliest and latest time, ms since 1970: of readings their event time, of others when their frame arrived.
    pub times: Option<(i64, i64)>,
}

impl GivenUp {
    /// Whether this record of the segment is among what goes: it is not acknowledged.
    pub(crate) fn holds(&self, stream: StreamId, place: &Place) -> bool {
        let Place { kind, partition, number } = *place;
        let line = |r: &&Range| (r.stream, r.kind, r.partition) == (stream, kind, partition);
        self.ranges.iter().find(line).is_some_and(|r| (r.from..=r.to).contains(&number))
    }
}

/// What was given up above the forwarder's cursor.
#[derive(Clone, Debug)]
pub(super) struct Bump {
    pub(super) position: u64,
    pub(super) prefixes: Vec<Acknowledged>,
}

impl Writer {
    /// What would be given up next: the oldest segment that is not acknowledged. `None` when only the newest is left, or
    /// when the windows need it.
    pub(crate) fn plan_give_up(&self) -> Result<Option<GivenUp>, Error> {
        let bases = self.segments.bases();
        let oldest =
            bases.windows(2).map(|pair| (pair[0], pair[1])).find(|(_, end)| *end > self.cursor.position);
        let Some((base, to)) = oldest.filter(|(_, end)| *end <= self.needed_from) else { return Ok(None) };
        let acknowledged: BTreeMap<_, _> = self.cursor.prefixes.iter().map(line).collect();
        let mut ranges: BTreeMap<(StreamId, Sent, u32), Range> = BTreeMap::new();
        let mut reader = Reader::new(self.segments.clone(), base.max(self.cursor.position));
        while let Some(step) = reader.next(to)? {
            let Step::Batch(batch) = step else { continue };
            for frame in batch.frames() {
                for record in frame.records() {
                    let Record::Sent { place, closing, value, .. } = record else { continue };
                    let line = (batch.stream, place.kind, place.partition);
                    if acknowledged.get(&line).is_some_and(|next| place.number < *next) {
                        continue;
                    }
                    let event =
                        (place.kind == Sent::Reading && !closing).then(|| event_time(value)).flatten();
                    note(&mut ranges, line, place.number, event.unwrap_or(frame.head.arrived.wall_ms));
                }
            }
        }
        let bytes = self.segments.file_bytes(base);
        Ok(Some(GivenUp { from: base, to, bytes, ranges: ranges.into_values().collect() }))
    }

    /// Gives it up: appends that to what urgent frames the caller appended of it (gaps, roll-ups), and the cursor that
    /// steps over it; commits them, and removes the segment.
    pub(crate) fn give_up(&mut self, plan: GivenUp, now: Now) -> Result<(), Error> {
        let GivenUp { from, to, ranges, .. } = plan;
        let next = |r: Range| {
            let next = Place { kind: r.kind, partition: r.partition, number: r.to.saturating_add(1) };
            Acknowledged { stream: r.stream, next }
        };
        let prefixes: Vec<_> = ranges.into_iter().map(next).collect();
        merge(&mut self.cursor.prefixes, &prefixes);
        self.cursor.position = to;
        let bump = self.bump.get_or_insert_with(|| Bump { position: 0, prefixes: Vec::new() });
        bump.position = to;
        merge(&mut bump.prefixes, &prefixes);
        let keys = self.seen(from)?;
        let records = [
            // Older segments may be there which nothing was given up of.
            Record::Seen(self.seen_below(0, &keys)),
            Record::GivenUp { from, to },
            Record::Cursor(self.cursor.clone()),
        ];
        self.urgent(records.into_iter(), now);
        self.commit(Urgency::Control)?;
        Ok(())
    }
}

const fn line(a: &Acknowledged) -> ((StreamId, Sent, u32), u64) {
    ((a.stream, a.next.kind, a.next.partition), a.next.number)
}

fn note(
    ranges: &mut BTreeMap<(StreamId, Sent, u32), Range>,
    line: (StreamId, Sent, u32),
    number: u64,
    time: i64,
) {
    let (stream, kind, partition) = line;
    let range = ranges.entry(line).or_insert(Range {
        stream,
        kind,
        partition,
        from: number,
        to: number,
        count: 0,
        times: None,
    });
    (range.from, range.to) = (range.from.min(number), range.to.max(number));
    range.times = Some(range.times.map_or((time, time), |(from, to)| (from.min(time), to.max(time))));
    range.count += 1;
}

/// The event time in the JSON of a reading, as this edge writes it: behind the device, whose quotes are escaped.
fn event_time(value: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b",\"time\":";
    let at = value.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let end = value[at..].iter().position(|b| !b.is_ascii_digit() && *b != b'-')?;
    std::str::from_utf8(&value[at..at + end]).ok()?.parse().ok()
}
