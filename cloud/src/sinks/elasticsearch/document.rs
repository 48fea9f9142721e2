//! Which id and which index a record gets.
//!
//! Comes in: a record. Goes out: its id (base64url of what it is) and its index; for a window result also its version.
//! Guarantees: a function of the record alone (its event time against its own receipt, never against our clock), so
//! that it is the same on every try; ids of different topics and stages differ. All revisions of a window result have
//! the same id in the same index: the month in which the window starts. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use xxhash_rust::xxh3::xxh3_128;

use super::super::SinkName;
use super::super::batch::{Record, Topic};
use super::super::calendar::civil;
use super::super::measures::Times;
use super::super::own::{OwnKind, OwnRow, OwnTable};
use super::super::row::{self, RowError};
use super::super::table::{Cell, Row, table};
use super::schema;
use crate::faults::is_broken;

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
    /// It replaces a document of a lower one; without, any.
    pub(super) version: Option<i64>,
    /// Those of a reading; of anything else, one that does for both.
    pub(super) times: Times,
}

impl Place {
    /// The place of a record; `None` for one that goes only to other stores.
    pub(super) fn of(&self, record: &Record, json: &[u8]) -> Result<Option<Placed>, RowError> {
        match table(record.part.topic) {
            None => {
                let Some(r) = row::reading(json, SinkName::Elasticsearch)? else { return Ok(None) };
                let mut id = BASE64URL.encode(r.identity.to_bytes());
                if is_broken("bad.es_new_ids") {
                    id = format!("{id}{}", weir_shared::clock::wall_ms());
                }
                let index = self.readings_index(r.time, r.received);
                let times = Times { taken: r.time, received: r.received };
                Ok(Some(Placed { index, id, version: None, times }))
            }
            Some(table) => {
                let Some(row) = Row::decode(table, json, SinkName::Elasticsearch)? else { return Ok(None) };
                let id = match row.logical_id() {
                    Some(id) => BASE64URL.encode(id),
                    None => BASE64URL.encode(record_id(record, &row)),
                };
                let name = table.name.trim_start_matches("weir_");
                let time = row.time();
                let when = if record.part.topic == Topic::Rejected { day(time) } else { month(time) };
                let index = format!("{}-{name}-{when}", self.prefix);
                // Versions of documents begin at 1.
                let revision = table.revision.and_then(|revision| row.integer(revision));
                let times = Times::at(time);
                Ok(Some(Placed { index, id, version: revision.map(|n| n + 1), times }))
            }
        }
    }

    /// The place of a row of a table of the user's own.
    pub(super) fn of_own(&self, own: &OwnTable, record: &Record, row: &OwnRow<'_>) -> Placed {
        let name = schema::name(&self.prefix, own);
        let index = row.time(own).map_or_else(|| name.clone(), |time| format!("{name}-{}", month(time)));
        let version = row.version(own).and_then(|version| i64::try_from(version + 1).ok());
        let id = BASE64URL.encode(own.row_id(record, row));
        let times = Times::at(record.timestamp);
        Placed { index, id, version, times }
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

/// The document of a row: one member for each column that is not NULL.
pub(super) fn document(own: &OwnTable, row: &OwnRow<'_>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (column, cell) in own.columns.iter().zip(&row.cells) {
        if *cell == Cell::Null {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        // Names are identifiers: nothing to escape.
        out.extend_from_slice(format!("\"{}\":", column.name).as_bytes());
        match cell {
            Cell::Text(json) if column.kind == OwnKind::Json => out.extend_from_slice(json.as_bytes()),
            Cell::Text(text) => serde_json::to_writer(&mut out, text).expect("a string into memory"),
            Cell::Int(n) | Cell::Time(n) => out.extend_from_slice(n.to_string().as_bytes()),
            Cell::UInt(n) => out.extend_from_slice(n.to_string().as_bytes()),
            Cell::Float(n) => serde_json::to_writer(&mut out, n).expect("a number into memory"),
            Cell::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
            Cell::Null | Cell::Stream(_) | Cell::Bytes(_) => {
                unreachable!("no column of this type is described")
            }
        }
    }
    out.push(b'}');
    out
}

fn day(ms: i64) -> String {
    let c = civil(ms);
    format!("{:04}.{:02}.{:02}", c.year, c.month, c.day)
}

/// Months of these years have indices of their own: 600 at most, well below the shards that a node takes by default.
const YEARS: std::ops::RangeInclusive<u16> = 2010..=2059;

/// A wild clock must not make a thousand indices, and there is no receipt to compare with.
fn month(ms: i64) -> String {
    let c = civil(ms);
    if YEARS.contains(&c.year) { format!("{:04}.{:02}", c.year, c.month) } else { "outside".to_owned() }
}

/// What the dead letters of rules say in `stage`: one for each rule that failed on a record.
const RULE: &str = "rule";

/// What a dead letter or a loss is: the record it was, and for a dead letter where and by whom it was rejected, in a rule
/// by which of them: its detail. A record without identity is its position in the topic it came from; without that
/// either, its own position; there may be several losses at one, of different reasons.
fn record_id(record: &Record, row: &Row<'_>) -> Vec<u8> {
    let mut id = Vec::with_capacity(64);
    let origin = row.text("origin");
    match (row.identity(), row.get("stream_partition"), row.get("origin_offset")) {
        (Some(identity), _, _) => {
            id.push(b'i');
            id.extend_from_slice(&identity.to_bytes());
        }
        (None, Cell::Int(partition), Cell::Int(offset)) if !origin.is_empty() => {
            id.push(b'o');
            id.extend_from_slice(&i32::try_from(*partition).expect("it was read as one").to_be_bytes());
            id.extend_from_slice(&offset.to_be_bytes());
        }
        _ => {
            id.push(b'p');
            id.extend_from_slice(&record.part.partition.to_be_bytes());
            id.extend_from_slice(&record.offset.to_be_bytes());
        }
    }
    // An id has at most 512 bytes; topics and stages of Weir are far shorter than this.
    id.extend_from_slice(&origin.as_bytes()[..origin.len().min(120)]);
    if record.part.topic == Topic::Rejected {
        let stage = row.text("stage");
        id.push(0);
        id.extend_from_slice(&stage.as_bytes()[..stage.len().min(120)]);
        if stage == RULE {
            id.extend_from_slice(&xxh3_128(row.text("detail").as_bytes()).to_be_bytes());
        }
    } else if row.identity().is_none() {
        let reason = row.text("reason");
        id.push(0);
        id.extend_from_slice(&reason.as_bytes()[..reason.len().min(120)]);
    }
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
        place().of(&batch.records()[0], json.as_bytes()).unwrap().unwrap().id
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

    fn placed(topic: Topic, offset: i64, json: &str) -> Placed {
        let mut batch = Batch::default();
        batch.push(Part { topic, partition: 2 }, offset, 0, json.as_bytes());
        place().of(&batch.records()[0], json.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn all_revisions_of_a_window_result_meet_in_one_document() {
        let json = |start: i64, revision: u32| {
            format!(
                r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":1,"number":{revision},"edge":"g"}},
                "rule":"r","key":{{}},"start":{start},"end":9,"revision":{revision}}}"#
            )
        };
        let first = placed(Topic::Aggregates, 1, &json(1_790_000_000_000, 0));
        let second = placed(Topic::Aggregates, 2, &json(1_790_000_000_000, 1));
        assert_eq!((&*first.index, first.version), ("weir-aggregates-2026.09", Some(1)));
        assert_eq!((&first.index, &first.id, second.version), (&second.index, &second.id, Some(2)));
        for (start, index) in [
            (0, "weir-aggregates-outside"),
            (1_262_304_000_000, "weir-aggregates-2010.01"),
            (1_262_303_999_999, "weir-aggregates-outside"),
            (2_840_140_799_999, "weir-aggregates-2059.12"),
            (2_840_140_800_000, "weir-aggregates-outside"),
        ] {
            assert_eq!(placed(Topic::Aggregates, 0, &json(start, 0)).index, index);
        }
    }

    #[test]
    fn a_loss_is_the_record_that_told_it_or_that_showed_it() {
        let loss = |weir: &str| format!(r#"{{"weir":{{{weir}}},"reason":"r","noticed":1790000000000}}"#);
        let edge = loss(r#""stream":"000102030405060708090a0b0c0d0e0f","partition":1,"number":5"#);
        let cloud = loss(r#""topic":"weir.readings","partition":1,"offset":5"#);
        for json in [&edge, &cloud] {
            let (one, again) = (placed(Topic::Losses, 1, json), placed(Topic::Losses, 2, json));
            assert_eq!((&one, &*one.index, one.version), (&again, "weir-losses-2026.09", None));
        }
        assert_ne!(placed(Topic::Losses, 1, &edge).id, placed(Topic::Losses, 1, &cloud).id);
        assert_ne!(placed(Topic::Losses, 1, &loss("")).id, placed(Topic::Losses, 2, &loss("")).id);
        // One record can show several losses.
        let other = cloud.replace("\"reason\":\"r\"", "\"reason\":\"s\"");
        assert_ne!(placed(Topic::Losses, 1, &cloud).id, placed(Topic::Losses, 1, &other).id);
    }

    #[test]
    fn each_rule_that_fails_on_a_reading_has_its_own_dead_letter() {
        let letter = |stage: &str, detail: &str| {
            let json = format!(
                r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":1,"number":5,
                "topic":"weir.readings"}},"stage":"{stage}","reason":"rule_failed","detail":"{detail}","received":1}}"#
            );
            placed(Topic::Rejected, 1, &json).id
        };
        assert_ne!(letter("rule", "a: no such key"), letter("rule", "b: no such key"));
        assert_eq!(letter("rule", "a: no such key"), letter("rule", "a: no such key"));
        // Elsewhere the text may change with the program.
        assert_eq!(letter("process", "a"), letter("process", "b"));
    }

    #[test]
    fn a_revision_has_room_for_the_version_that_is_one_more() {
        let json = |revision: u64| {
            format!(
                r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":1,"number":1,"edge":"g"}},
                "rule":"r","key":{{}},"start":5,"end":9,"revision":{revision}}}"#
            )
        };
        let most = i64::MAX.unsigned_abs() - 1;
        assert_eq!(placed(Topic::Aggregates, 1, &json(most)).version, Some(i64::MAX));
        for revision in [most + 1, most + 2, u64::MAX] {
            let mut batch = Batch::default();
            let json = json(revision);
            batch.push(Part { topic: Topic::Aggregates, partition: 2 }, 1, 0, json.as_bytes());
            let refused = place().of(&batch.records()[0], json.as_bytes()).unwrap_err();
            assert_eq!(refused.reason, "row_malformed");
        }
    }
}
