//! How records look in Kafka: topics, headers, keys, and the partition of a device.
//!
//! Comes in: a device name, header bytes. Goes out: a partition, an identity.
//! Guarantees: [`partition_of`] equals the Java client's default partitioner for keyed records, so that any
//! other producer or a Flink job puts a device into the same partition; names here never change.
//! On failure: [`identity`] returns `None` when a header is missing or malformed.
//!
//! A **reading** (`weir.readings`, key: device, headers [`EDGE`], [`STREAM`], [`NUMBER`]):
//! ```json
//! {"device":"pump-7","time":1790000000000,"values":{"t":21.5,"on":true,"mode":"auto"},
//!  "tags":{"line":"3"},"received":1790000000042,"clock":"trusted"}
//! ```
//! Times are ms since 1970 (UTC). A value is a number, a bool or a string; a number stays an integer if it was one.
//! `clock`: `trusted`; `untrusted` when the edge did not know the time; `mended` when it learned it before it sent the
//! reading, whose `received` (and `time`, if that was the edge's) are then right.
//!
//! A **rejection** (`weir.edge-rejected`, `weir.rejected`):
//! ```json
//! {"stage":"edge.decode","reason":"not_json","detail":"expected value at line 1 column 2","source":"mqtt",
//!  "topic":"sensors/7","received":1790000000042,"bytes":11,"raw":"<base64, maybe only the first part>"}
//! ```
//!
//! One of a sink has `"tables":["weir_readings"]` after `bytes`, those that have no row of the record, and `"partly":true`
//! where other tables of that store may have one.
//!
//! A **window result** (`weir.windows`, key: the window's key; the same rule, key, start and end come again with a higher
//! `revision` when late readings changed the result, and the higher one replaces the lower):
//! ```json
//! {"rule":"avg-10s","key":{"device":"pump-7"},"start":1790000000000,"end":1790000010000,"revision":0,"count":10,
//!  "values":{"t":{"count":10,"mean":21.5,"max":22.0}},"completeness":1.0,"incomplete":"state_lost"}
//! ```
//! `count` is the number of readings in the window; `completeness` only where the expected interval is known;
//! `incomplete` only where readings are known to be missing, and why. Results of the rule `roll_up` stand in for readings
//! that were given up; they have a `part` after the rule, and the parts of a window add up.
//!
//! A **late** reading (`weir.late`, key: device): beyond the allowed lateness of a window rule, so in no result of it:
//! ```json
//! {"rule":"avg-10s","watermark":1790000020000,"reading":{…}}
//! ```
//!
//! A **gap** (`weir.gaps`, key: the edge): what an edge gave up or lost, of records that it had numbered:
//! ```json
//! {"edge":"gw-1","reason":"dropped","stream":"<32 hex>","topic":"weir.readings","partition":3,"from":17,"to":42,
//!  "count":26,"time_from":1790000000000,"time_to":1790000009000,"noticed":1790000099000}
//! ```
//! `from` and `to` are the first and the last number that will not come; some of the last ones may have been on their way.
//! `count` is how many of them the journal held; `time_from` and `time_to`, where they are known, are the earliest and
//! latest time of those: event times of readings, times of arrival of others. `reason`:
//! - `dropped`: given up to make room;
//! - `rolled_up`: readings given up to make room; results of the rule `roll_up` say what they came to, so a reading that
//!   was given up is in such a result or in a gap that says `dropped`, never in both;
//! - `damaged`: the journal lost them. Without `stream` to `time_to` when its newest part is lost: then it is not known
//!   which records, if any, had been acknowledged to their sources and not sent yet;
//! - `refused_by_kafka`: one record, which Kafka refused three times; if it was a reading, a dead letter holds it;
//! - `state_lost`: no record is missing. An edge began without the state of its windows, or with one that is older than
//!   its journal reaches back (also where windows are configured for the first time over a journal whose beginning is
//!   gone), so results of windows that were open then lack readings; those say so in `incomplete`. Always without numbers, as there are none:
//! ```json
//! {"edge":"gw-1","reason":"state_lost","noticed":1790000099000}
//! ```
//!
//! A **control** record (header [`CONTROL`], in any topic of an edge) is no data but counts as a number. [`CLOSED`]: the
//! stream in its value gets no more records in this partition; its mark may be forgotten after some time.
//!
//! A **retry** (header [`RETRY`], in an input topic) is the record of a dead letter once more, under the identity it had;
//! [`RETRIED`] has a mark for each dead letter that was sent through again (key: `partition:offset` in `weir.rejected`):
//! ```json
//! {"at":1790000000000,"by":"anna","of":1789999999000}
//! ```
//! `at` is when, `of` is Kafka's time of the dead letter.
//!
//! An **enriched** reading (`weir.enriched`) is the reading with two more members at the front:
//! ```json
//! {"weir":{"stream":"<32 hex>","partition":3,"number":17,"edge":"gw-1","joined":true,"versions":{"devices":1},
//!  "rules":17,"stores":["mysql"]},"dims":{"devices":{"site":"Graz","line":3}},"device":"pump-7", …}
//! ```
//! `rules`: the rule set that was in force; only when one was. `stores`: the only stores it goes to (`mysql`,
//! `elasticsearch`, `clickhouse`); only when a rule chose some, otherwise it goes to all.
//!
//! An **aggregate** (`weir.aggregates`, key: as it came) is a window result with two more members at the front:
//! ```json
//! {"weir":{"stream":"<32 hex>","partition":3,"number":17,"edge":"gw-1","joined":true,"versions":{"devices":1}},
//!  "dims":{…},"rule":"avg-10s", …}
//! ```
//! What it is: edge, rule, key, start, end and part; a higher `revision` replaces a lower one.
//!
//! A **loss** (`weir.losses`, key: the edge) is a gap with one more member at the front, or what the cloud itself found
//! missing; then `weir` is the position of the record that showed it, and there may be no `edge`:
//! ```json
//! {"weir":{"stream":"<32 hex>","partition":3,"number":17,"edge":"gw-1"},"edge":"gw-1","reason":"dropped", …}
//! {"weir":{"topic":"weir.readings","partition":3,"offset":99},"edge":"gw-1","reason":"observed","stream":"<32 hex>",
//!  "topic":"weir.readings","partition":3,"from":17,"to":42,"count":26,"noticed":1790000099000}
//! ```
//!
//! An **alert** (`weir.alerts`, key: the alert's key):
//! ```json
//! {"weir":{"stream":"<32 hex>","partition":3,"number":17,"edge":"gw-1","rules":17,"versions":{"devices":1}},
//!  "rule":"too-hot","rule_version":3,"kind":"first","severity":"high","key":"pump-7","device":"pump-7",
//!  "episode":{"stream":"<32 hex>","partition":3,"number":12},"since":1790000000000,"time":1790000009000,"repeat":0,
//!  "value":81.5,"limit":80.0,"message":"…","values":{…},"tags":{…},"dims":{…},"received":1790000009042}
//! ```
//! `weir` is the reading that made it, `episode` the one that began the episode. `kind`: `first`, `repeat` (then `repeat`
//! is 1, 2, …) or `recovered`. `since` and `time` are event times, `received` is that of the reading. What it is: rule,
//! rule_version, key, episode, kind and repeat.

use crate::record::{Identity, StreamId};

/// Readings from the edges.
pub const READINGS: &str = "weir.readings";
/// Messages that an edge could not turn into readings.
pub const EDGE_REJECTED: &str = "weir.edge-rejected";
/// Results of the edges' windows.
pub const WINDOWS: &str = "weir.windows";
/// Readings that came too late for a window of an edge.
pub const LATE: &str = "weir.late";
/// What edges gave up or lost.
pub const GAPS: &str = "weir.gaps";
/// Readings deduplicated and joined.
pub const ENRICHED: &str = "weir.enriched";
/// Window results, deduplicated and joined.
pub const AGGREGATES: &str = "weir.aggregates";
/// What will not come: gaps that edges announced, and what the cloud itself found missing.
pub const LOSSES: &str = "weir.losses";
/// What threshold rules found.
pub const ALERTS: &str = "weir.alerts";
/// Those of severity high, where they are wanted apart.
pub const ALERTS_HIGH: &str = "weir.alerts.high";
/// Those of severity medium.
pub const ALERTS_MEDIUM: &str = "weir.alerts.medium";
/// Those of severity low.
pub const ALERTS_LOW: &str = "weir.alerts.low";
/// All dead letters: the edges' and the cloud's own.
pub const REJECTED: &str = "weir.rejected";
/// Which dead letters were sent through again; compacted, one partition, see [`RETRY`].
pub const RETRIED: &str = "weir.state.dlq";
/// Prefix of the changelog of an input topic's state.
pub const STATE_PREFIX: &str = "weir.state.";

/// Header: name of the edge.
pub const EDGE: &str = "edge";
/// Header: stream id, 32 hex digits.
pub const STREAM: &str = "stream";
/// Header of a record that is no data: what it tells, so far only [`CLOSED`].
pub const CONTROL: &str = "control";
/// A stream is closed: all of it that went to this partition is acknowledged. Value: `{"stream":"<32 hex>","next":42}`.
pub const CLOSED: &[u8] = b"closed";
/// Header of a record that was held back while newer ones were sent first: rules that need order leave it out.
pub const BACKLOG: &str = "backlog";
/// Header of a dead letter's record that `weir-cloud dlq retry` sent through again: its number was counted when it was
/// rejected, so no mark is asked and none moves.
pub const RETRY: &str = "retry";
/// Header: number within (stream, topic, partition), decimal.
pub const NUMBER: &str = "number";

/// The identity that the headers and the partition of a record carry.
#[must_use]
pub fn identity(stream: &[u8], number: &[u8], partition: i32) -> Option<Identity> {
    let stream = StreamId::from_hex(stream)?;
    if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(Identity { stream, partition, number })
}

/// The partition of a keyed record among `partitions` (≥ 1), as Kafka's Java client computes it:
/// `toPositive(murmur2(key)) % partitions`.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let hash = murmur2(key) & 0x7fff_ffff;
    let count = partitions.max(1).unsigned_abs();
    i32::try_from(hash % count).unwrap_or(0)
}

/// Murmur2, 32 bits, seed 0x9747b28c (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, &byte) in rest.iter().enumerate() {
            h ^= u32::from(byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_equals_kafkas() {
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key).cast_signed(), hash, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(partition_of(b"21", 1), 0);
        assert!((0..7).contains(&partition_of(b"foobar", 7)));
    }

    #[test]
    fn identity_needs_both_headers_well_formed() {
        let hex = [b'a'; 32];
        let id = identity(&hex, b"12", 3).unwrap();
        assert_eq!((id.partition, id.number), (3, 12));
        assert_eq!(identity(&hex, b"", 3), None);
        assert_eq!(identity(&hex, b"-1", 3), None);
        assert_eq!(identity(&hex, b"99999999999999999999", 3), None);
        assert_eq!(identity(b"", b"1", 3), None);
    }
}
