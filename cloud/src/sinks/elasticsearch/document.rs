//! Which id and which index a record gets.
//!
//! Comes in: a record. Goes out: its id (base64url of the identity) and its index.
//! Guarantees: a function of the record alone (its event time against its own receipt, never against our clock), so
//! that it is the same on every try; ids of different topics and stages differ. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use super::super::batch::{Record, Topic};
use super::super::calendar::civil;
use super::super::row::{self, Rejection, RowError};

/// How indices are named.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) prefix: String,
    pub(super) accepted_past_ms: i64,
    pub(super) accepted_future_ms: i64,
}

/// Where a document goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) index: String,
    pub(super) id: String,
    /// Receipt, ms since 1970.
    pub(super) received: i64,
}

impl Place {
    /// The place of a record.
    pub(super) fn of(&self, record: &Record, json: &[u8]) -> Result<Placed, RowError> {
        match record.part.topic {
            Topic::Enriched => {
                let r = row::reading(json)?;
                let id = BASE64URL.encode(r.identity.to_bytes());
                Ok(Placed { index: self.readings_index(r.time, r.received), id, received: r.received })
            }
            Topic::Rejected => {
                let r = row::rejection(json)?;
                let id = BASE64URL.encode(rejection_id(&r, record));
                let index = format!("{}-rejected-{}", self.prefix, day(r.received));
                Ok(Placed { index, id, received: r.received })
            }
        }
    }

    /// By event time, if that lies within the accepted range around the receipt: a wild clock must not make a
    /// thousand indices.
    fn readings_index(&self, time: i64, received: i64) -> String {
        let accepted = received - self.accepted_past_ms..=received + self.accepted_future_ms;
        if accepted.contains(&time) {
            format!("{}-readings-{}", self.prefix, day(time))
        } else {
            format!("{}-readings-outside", self.prefix)
        }
    }
}

fn day(ms: i64) -> String {
    let c = civil(ms);
    format!("{:04}.{:02}.{:02}", c.year, c.month, c.day)
}

/// What a dead letter is: the record it was, and where and by whom it was rejected. A record without identity is its
/// position in the topic it came from; without that either, its own position in `weir.rejected`.
fn rejection_id(r: &Rejection<'_>, record: &Record) -> Vec<u8> {
    let mut id = Vec::with_capacity(64);
    match (r.identity, r.origin_partition, r.origin_offset) {
        (Some(identity), _, _) => {
            id.push(b'i');
            id.extend_from_slice(&identity.to_bytes());
        }
        (None, Some(partition), Some(offset)) if !r.origin.is_empty() => {
            id.push(b'o');
            id.extend_from_slice(&partition.to_be_bytes());
            id.extend_from_slice(&offset.to_be_bytes());
        }
        _ => {
            id.push(b'p');
            id.extend_from_slice(&record.part.partition.to_be_bytes());
            id.extend_from_slice(&record.offset.to_be_bytes());
        }
    }
    // An id has at most 512 bytes; topics and stages of Weir are far shorter than this.
    id.extend_from_slice(&r.origin.as_bytes()[..r.origin.len().min(120)]);
    id.push(0);
    id.extend_from_slice(&r.stage.as_bytes()[..r.stage.len().min(120)]);
    id
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::{Batch, Part};
    use super::*;

    const DAY: i64 = 86_400_000;

    fn place() -> Place {
        Place { prefix: "weir".into(), accepted_past_ms: 400 * DAY, accepted_future_ms: 2 * DAY }
    }

    #[test]
    fn the_index_follows_the_event_time_within_the_range() {
        let (p, received) = (place(), 1_790_000_000_000);
        assert_eq!(p.readings_index(received, received), "weir-readings-2026.09.21");
        assert_eq!(p.readings_index(received - 400 * DAY, received), "weir-readings-2025.08.17");
        assert_eq!(p.readings_index(received - 400 * DAY - 1, received), "weir-readings-outside");
        assert_eq!(p.readings_index(received + 2 * DAY, received), "weir-readings-2026.09.23");
        assert_eq!(p.readings_index(received + 2 * DAY + 1, received), "weir-readings-outside");
        assert_eq!(p.readings_index(0, 0), "weir-readings-1970.01.01");
    }

    fn id_of(origin: &str, stage: &str, identity: &str, offset: i64) -> String {
        let json = format!(
            r#"{{"weir":{{{identity}"topic":"{origin}"}},"stage":"{stage}","reason":"r","received":1}}"#
        );
        let mut batch = Batch::default();
        batch.push(Part { topic: Topic::Rejected, partition: 2 }, offset, 0, json.as_bytes());
        place().of(&batch.records()[0], json.as_bytes()).unwrap().id
    }

    #[test]
    fn ids_of_dead_letters_differ_by_record_topic_and_stage_and_stay_the_same() {
        let identity = r#""stream":"000102030405060708090a0b0c0d0e0f","partition":1,"number":5,"#;
        let ids = [
            id_of("weir.readings", "process", identity, 0),
            id_of("weir.edge-rejected", "process", identity, 0),
            id_of("weir.readings", "sink.elasticsearch", identity, 0),
            id_of("weir.readings", "process", "\"partition\":1,\"offset\":5,", 0),
            id_of("weir.readings", "process", "\"partition\":1,\"offset\":6,", 0),
            id_of("weir.readings", "process", "", 0),
            id_of("weir.readings", "process", "", 1),
        ];
        for (i, a) in ids.iter().enumerate() {
            assert!(ids[i + 1..].iter().all(|b| a != b), "{ids:?}");
            assert!(a.len() < 512);
        }
        assert_eq!(ids[0], id_of("weir.readings", "process", identity, 99), "not where it stands");
        assert_eq!(ids[3], id_of("weir.readings", "process", "\"partition\":1,\"offset\":5,", 99));
    }
}
