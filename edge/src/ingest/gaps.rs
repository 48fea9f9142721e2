//! What the edge tells the cloud of itself: gaps, and streams that are closed.
//!
//! Comes in: numbers that will not come, streams that are done. Goes out: the JSON of `weir.gaps` (see
//! `weir_shared::wire`) and of control records. Pure.

use serde::Serialize;

use crate::journal::format::Acknowledged;
use crate::journal::writer::GivenUpRange as Range;

/// Why numbers will not come. The text forms are values in the stores: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Given up under the policy `drop_oldest`.
    Dropped,
    /// Given up under the policy `roll_up`; results of the rule `roll_up` say what they came to.
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

#[derive(Serialize)]
struct Gap<'a> {
    edge: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'static str>,
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
        edge,
        reason: why.as_str(),
        stream: range.map(|r| r.stream.to_string()),
        topic: range.map(|r| r.kind.topic()),
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

/// The JSON that closes a stream in one partition.
pub(crate) fn closed(done: &Acknowledged) -> Vec<u8> {
    format!(r#"{{"stream":"{}","next":{}}}"#, done.stream, done.next.number).into_bytes()
}

#[cfg(test)]
mod tests {
    use weir_shared::record::StreamId;

    use super::*;
    use crate::journal::format::{Place, Sent};

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
}
