//! Readings and dead letters as JSON documents: in Kafka and in Elasticsearch they look the same.
//!
//! Comes in: the JSON of `weir.enriched` or `weir.rejected`. Goes out: what the tally counts.
//! On failure: `None` for what is not such a document; the caller counts it as unreadable. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::tally::{DeadLetter, Tally};
use crate::simulator::content::{Content, Value};

/// An enriched reading; members that the oracle does not compare are left out.
#[derive(Deserialize)]
struct Enriched {
    weir: Origin,
    device: String,
    time: i64,
    values: BTreeMap<String, serde_json::Value>,
    /// A reading without any is of no run.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Origin {
    stream: String,
    partition: i64,
    number: i64,
}

/// A dead letter.
#[derive(Deserialize)]
struct Rejected {
    reason: String,
    #[serde(default)]
    topic: String,
    bytes: u64,
    raw: String,
}

/// Counts one document of `weir.enriched` if it is of this run; with its identity where that counts too.
pub(super) fn count_reading(json: &[u8], run: &str, with_identity: bool, tally: &mut Tally<'_>) {
    let Ok(reading) = serde_json::from_slice::<Enriched>(json) else {
        return tally.unreadable(&String::from_utf8_lossy(&json[..json.len().min(300)]));
    };
    if reading.tags.get("run").is_none_or(|r| r != run) {
        return;
    }
    if with_identity {
        tally.identity(&reading.weir.stream, reading.weir.partition, reading.weir.number);
    }
    let values =
        reading.values.iter().map(|(name, value)| Value::from_json(value).map(|v| (name.clone(), v)));
    match values.collect::<Option<_>>() {
        Some(values) => count(reading.device, reading.time, values, &reading.tags, tally),
        None => tally.unreadable(&String::from_utf8_lossy(&json[..json.len().min(300)])),
    }
}

/// Counts one reading of this run, taken apart already.
pub(super) fn count(
    device: String,
    time_ms: i64,
    values: BTreeMap<String, Value>,
    tags: &BTreeMap<String, String>,
    tally: &mut Tally<'_>,
) {
    let tag = |name| tags.get(name).cloned().unwrap_or_default();
    tally.reading(&tag("id"), &Content { device, time_ms, source_time: tag("source_time"), values });
}

/// The dead letter in a document of `weir.rejected`.
pub(super) fn dead_letter(json: &[u8]) -> Option<DeadLetter> {
    let rejected: Rejected = serde_json::from_slice(json).ok()?;
    let raw = STANDARD.decode(rejected.raw).ok()?;
    Some(DeadLetter { topic: rejected.topic, reason: rejected.reason, bytes: rejected.bytes, raw })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::ledger::{Issued, Reading};

    #[test]
    fn a_document_says_what_was_published() {
        let json = br#"{"weir":{"stream":"ab","partition":0,"number":7,"edge":"e","joined":false},"dims":{},
            "device":"d","time":5,"values":{"a":1,"b":true,"c":"x"},"tags":{"run":"r1","id":"r1-0","source_time":"s"},
            "received":6,"clock":"trusted"}"#;
        let content = Content {
            device: "d".to_owned(),
            time_ms: 5,
            source_time: "s".to_owned(),
            values: [("a", Value::Number(1.0)), ("b", Value::Flag(true)), ("c", Value::Text("x".to_owned()))]
                .map(|(n, v)| (n.to_owned(), v))
                .into(),
        };
        let readings = vec![Reading { digest: content.digest(), acked: true }];
        let issued = Issued { run: "r1".to_owned(), readings, ..Issued::default() };
        let mut tally = Tally::new(&issued);
        count_reading(json, "r1", true, &mut tally);
        let judgement = tally.judge();
        assert!(judgement.is_right() && judgement.found == 1, "{judgement:?}");

        let mut tally = Tally::new(&issued);
        count_reading(b"{}", "r1", true, &mut tally);
        assert_eq!(tally.judge().unexpected, 1);
        let letter =
            dead_letter(br#"{"stage":"edge.decode","reason":"empty","topic":"t","bytes":0,"raw":""}"#);
        assert_eq!(letter.unwrap().reason, "empty");
        assert_eq!(dead_letter(b"[]"), None);
    }
}
