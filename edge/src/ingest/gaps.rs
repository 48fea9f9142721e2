//! What the edge tells the cloud of itself: gaps, and streams that are closed.
//!
//! Comes in: numbers that will not come, streams that are done. Goes out: the JSON of `weir.gaps` (see
//! `weir_shared::wire`) and of control records. Pure.

use serde::{Deserialize, Serialize};
use weir_shared::record::StreamId;

use crate::journal::format::{Acknowledged, Record, Sent};
use crate::journal::reader::Step;
use crate::journal::writer::{GivenUp, GivenUpRange as Range};
use crate::journal::{Error, Reader, Segments};

/// Why numbers will not come. The text forms are values in the stores: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Given up under the policy `drop_oldest`, or under `roll_up` what is in no result.
    Dropped,
    /// Readings given up under the policy `roll_up`; results of the rule `roll_up` say what they came to.
    RolledUp,
    /// The journal was damaged.
    Damaged,
    /// Kafka refused the record three times; a dead letter holds it.
    Refused,
    /// The state of the windows was lost, and the journal that it came from is gone.
    StateLost,
}

impl Why {
    /// All of them, for metrics that start at zero.
    pub(crate) const ALL: [Self; 5] =
        [Self::Dropped, Self::RolledUp, Self::Damaged, Self::Refused, Self::StateLost];

    /// The text form.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::RolledUp => "rolled_up",
            Self::Damaged => "damaged",
            Self::Refused => "refused_by_kafka",
            Self::StateLost => "state_lost",
        }
    }
}

/// What is told in one gap; without a range it is not known which numbers.
pub(crate) type Told = (Why, Option<Range>);

#[derive(Serialize, Deserialize)]
struct Gap {
    edge: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_from: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to: Option<i64>,
    noticed: i64,
}

/// The JSON of a gap; `range` where it is known which numbers.
pub(crate) fn gap(edge: &str, why: Why, range: Option<&Range>, noticed_ms: i64) -> Vec<u8> {
    let gap = Gap {
        edge: edge.to_owned(),
        reason: why.as_str().to_owned(),
        stream: range.map(|r| r.stream.to_string()),
        topic: range.map(|r| r.kind.topic().to_owned()),
        partition: range.map(|r| r.partition),
        from: range.map(|r| r.from),
        to: range.map(|r| r.to),
        count: range.map(|r| r.count),
        time_from: range.and_then(|r| r.times).map(|(from, _)| from),
        time_to: range.and_then(|r| r.times).map(|(_, to)| to),
        noticed: noticed_ms,
    };
    serde_json::to_vec(&gap).expect("a struct of texts and numbers is JSON")
}

/// Reads what [`gap`] wrote.
fn told(value: &[u8]) -> Option<Told> {
    let gap: Gap = serde_json::from_slice(value).ok()?;
    let why = Why::ALL.into_iter().find(|why| why.as_str() == gap.reason)?;
    let Some(stream) = gap.stream else { return Some((why, None)) };
    let range = Range {
        stream: StreamId::from_hex(stream.as_bytes())?,
        kind: Sent::ALL.into_iter().find(|kind| Some(kind.topic()) == gap.topic.as_deref())?,
        partition: gap.partition?,
        from: gap.from?,
        to: gap.to?,
        count: gap.count?,
        times: gap.time_from.zip(gap.time_to),
    };
    Some((why, Some(range)))
}

/// What a segment tells of gaps, which must not go with it: to be told again, together with its `own`, of what it holds.
/// Ranges that touch become one.
pub(crate) fn carried(own: Vec<Told>, plan: &GivenUp, segments: &Segments) -> Result<Vec<Told>, Error> {
    let mut all = own;
    let mut reader = Reader::new(segments.clone(), plan.from);
    while let Some(step) = reader.next(plan.to)? {
        let Step::Batch(batch) = step else { continue };
        for record in batch.frames().flat_map(|frame| frame.records().collect::<Vec<_>>()) {
            if let Record::Sent { place, closing: false, value, .. } = record
                && place.kind == Sent::Gap
                && plan.holds(batch.stream, &place)
            {
                all.extend(told(value));
            }
        }
    }
    Ok(merged(all))
}

fn merged(mut all: Vec<Told>) -> Vec<Told> {
    let line = |told: &Told| told.1.map(|r| (r.stream, r.kind, r.partition, r.from));
    all.sort_by_key(|told| (told.0.as_str(), line(told)));
    let mut merged: Vec<Told> = Vec::with_capacity(all.len());
    for told in all {
        if let Some((why, Some(last))) = merged.last_mut()
            && let (same, Some(range)) = told
            && same == *why
            && (range.stream, range.kind, range.partition) == (last.stream, last.kind, last.partition)
            && range.from <= last.to + 1
        {
            last.to = last.to.max(range.to);
            last.count += range.count;
            last.times = match (last.times, range.times) {
                (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
                (some, None) | (None, some) => some,
            };
        } else if merged.last() != Some(&told) {
            merged.push(told);
        }
    }
    merged
}

/// The JSON that closes a stream in one partition.
pub(crate) fn closed(done: &Acknowledged) -> Vec<u8> {
    format!(r#"{{"stream":"{}","next":{}}}"#, done.stream, done.next.number).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::format::Place;

    #[test]
    fn the_format_stays() {
        let stream = StreamId([0xab; 16]);
        let range = Range {
            stream,
            kind: Sent::Reading,
            partition: 3,
            from: 17,
            to: 42,
            count: 26,
            times: Some((5, 9)),
        };
        let text = String::from_utf8(gap("gw-1", Why::Dropped, Some(&range), 99)).unwrap();
        let hex = "ab".repeat(16);
        assert_eq!(
            text,
            format!(
                r#"{{"edge":"gw-1","reason":"dropped","stream":"{hex}","topic":"weir.readings","partition":3,"from":17,"to":42,"count":26,"time_from":5,"time_to":9,"noticed":99}}"#
            )
        );
        assert_eq!(
            gap("gw-1", Why::StateLost, None, 99),
            br#"{"edge":"gw-1","reason":"state_lost","noticed":99}"#
        );
        let place = Place { kind: Sent::Gap, partition: 1, number: 7 };
        assert_eq!(
            closed(&Acknowledged { stream, next: place }),
            format!(r#"{{"stream":"{hex}","next":7}}"#).into_bytes()
        );
    }
    #[test]
    fn gaps_that_are_carried_on_become_one_where_they_touch() {
        let stream = StreamId([0xab; 16]);
        let range = |partition, from, to| Range {
            stream,
            kind: Sent::Reading,
            partition,
            from,
            to,
            count: to - from + 1,
            times: Some((from.cast_signed(), to.cast_signed())),
        };
        let told_again = |r: &Range| told(&gap("gw", Why::Dropped, Some(r), 1)).unwrap();
        assert_eq!(told_again(&range(1, 5, 9)), (Why::Dropped, Some(range(1, 5, 9))));
        let all = vec![
            (Why::Dropped, Some(range(1, 10, 12))),
            (Why::StateLost, None),
            (Why::Dropped, Some(range(2, 0, 3))),
            told_again(&range(1, 5, 9)),
            (Why::Damaged, Some(range(1, 13, 20))),
            (Why::Dropped, Some(range(1, 14, 15))),
        ];
        let wanted = vec![
            (Why::Damaged, Some(range(1, 13, 20))),
            (Why::Dropped, Some(range(1, 5, 12))),
            (Why::Dropped, Some(range(1, 14, 15))),
            (Why::Dropped, Some(range(2, 0, 3))),
            (Why::StateLost, None),
        ];
        assert_eq!(merged(all), wanted);
    }
}
