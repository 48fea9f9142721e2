//! The values of what goes out: `weir.enriched`, `weir.aggregates`, `weir.losses` and `weir.rejected`.
//!
//! Comes in: where a record came from, what it was joined with, its bytes. Goes out: JSON in a buffer of the caller.
//! Guarantees: the bytes of a reading or of an edge's dead letter stay as they are, unknown fields included: ours is
//! spliced in at the front (layout: `weir_shared::wire`). No output is larger than [`VALUE_BYTES_MAX`]. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use weir_shared::reading::strict::Refusal;
use weir_shared::record::{Identity, StreamId};

/// Largest value that is produced: what Kafka takes by default (1,048,588), less room for key and headers.
pub(super) const VALUE_BYTES_MAX: usize = 980_000;
/// Most bytes of a refused record that its dead letter carries; in base64 and with the rest still under the limit.
const RAW_BYTES_MAX: usize = 512 * 1024;
/// Most bytes of a dead letter's explanation.
const DETAIL_BYTES_MAX: usize = 1_000;

/// Where a record came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// Source topic.
    pub(super) topic: &'a str,
    /// Its partition.
    pub(super) partition: i32,
    /// Its offset there.
    pub(super) offset: i64,
    /// What its headers say it is, and the edge's name.
    pub(super) identity: Option<(Identity, &'a str)>,
}

/// What a reading or window result was made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined<'a> {
    /// Whether every dimension had a row.
    pub(super) joined: bool,
    /// Number of the rule set; 0: there is none, and nothing is said of it.
    pub(super) rules: u64,
    /// The only stores that are to keep it; `None`: all.
    pub(super) stores: Option<&'a [&'static str]>,
    /// JSON object: dimension → version.
    pub(super) versions: &'a [u8],
    /// JSON object: dimension → row.
    pub(super) dims: &'a [u8],
}

/// Something that the cloud found missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss<'a> {
    /// Why it is told.
    pub(super) reason: &'static str,
    /// Edge of the record that showed it; empty when there is none.
    pub(super) edge: &'a str,
    /// The stream whose numbers are missing; `None`: they are offsets.
    pub(super) stream: Option<StreamId>,
    /// The first that is missing.
    pub(super) from: u64,
    /// The last.
    pub(super) to: u64,
    /// When, ms since 1970.
    pub(super) noticed: i64,
}

/// Writes an enriched reading or window result; `body` is a JSON object without `weir` and `dims`.
pub(super) fn enriched(
    out: &mut Vec<u8>,
    (identity, edge): (Identity, &str),
    joined: &Joined<'_>,
    body: &[u8],
) {
    out.clear();
    out.extend_from_slice(b"{\"weir\":{");
    write_identity(out, identity, edge);
    out.extend_from_slice(if joined.joined {
        b",\"joined\":true,\"versions\":"
    } else {
        b",\"joined\":false,\"versions\":"
    });
    out.extend_from_slice(joined.versions);
    if joined.rules > 0 {
        out.extend_from_slice(b",\"rules\":");
        write_number(out, joined.rules);
    }
    if let Some(stores) = joined.stores {
        out.extend_from_slice(b",\"stores\":");
        serde_json::to_writer(&mut *out, stores).expect("names into memory");
    }
    out.extend_from_slice(b"},\"dims\":");
    out.extend_from_slice(joined.dims);
    splice(out, body);
}

/// Writes a gap that an edge announced; `body` is a JSON object without `weir`.
pub(super) fn loss(out: &mut Vec<u8>, (identity, edge): (Identity, &str), body: &[u8]) {
    out.clear();
    out.extend_from_slice(b"{\"weir\":{");
    write_identity(out, identity, edge);
    out.push(b'}');
    splice(out, body);
}

/// Writes what the cloud itself found missing; `origin` is the record that showed it, or the place where it was.
pub(super) fn found_loss(out: &mut Vec<u8>, origin: &Origin<'_>, loss: &Loss<'_>) {
    out.clear();
    out.extend_from_slice(b"{\"weir\":");
    write_origin(out, origin);
    let body = json!({
        "edge": loss.edge,
        "reason": loss.reason,
        "stream": loss.stream.map(|stream| stream.to_string()),
        "topic": origin.topic,
        "partition": origin.partition,
        "from": loss.from,
        "to": loss.to,
        "count": loss.to - loss.from + 1,
        "noticed": loss.noticed,
    });
    splice(out, body.to_string().as_bytes());
}

/// Writes a dead letter of an edge with its identity in the cloud; `body` is a JSON object without `weir`.
pub(super) fn forwarded(out: &mut Vec<u8>, origin: &Origin<'_>, body: &[u8]) {
    out.clear();
    out.extend_from_slice(b"{\"weir\":");
    write_origin(out, origin);
    splice(out, body);
}

/// The bytes of a refused record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    /// As they may be shown.
    Shown(&'a [u8]),
    /// There are masks, and what cannot be read cannot be masked: only how many there were.
    Withheld(usize),
}

/// A dead letter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letter<'a> {
    /// Where it was refused.
    pub(super) stage: &'static str,
    /// Why.
    pub(super) refusal: &'a Refusal,
    /// When the record came to Kafka, ms since 1970.
    pub(super) received_ms: i64,
    /// The record.
    pub(super) raw: Raw<'a>,
}

/// Writes the dead letter of a record that was refused here.
pub(super) fn rejection(out: &mut Vec<u8>, origin: &Origin<'_>, letter: &Letter<'_>) {
    let Letter { stage, refusal, received_ms, raw } = *letter;
    let mut detail = refusal.detail.as_str();
    if detail.len() > DETAIL_BYTES_MAX {
        detail = &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)];
    }
    let (bytes, raw) = match raw {
        Raw::Shown(raw) => (raw.len(), BASE64.encode(&raw[..raw.len().min(RAW_BYTES_MAX)])),
        Raw::Withheld(bytes) => (bytes, String::new()),
    };
    let body = json!({
        "stage": stage,
        "reason": refusal.reason,
        "detail": detail,
        "received": received_ms,
        "bytes": bytes,
        "raw": raw,
    });
    forwarded(out, origin, body.to_string().as_bytes());
}

/// What of an edge's dead letter may leave while there are masks: its bytes, its topic and what is said of them may show
/// what no mask can be laid on.
pub(super) fn withheld(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    const SHOWN: [&str; 6] = ["stage", "reason", "source", "received", "bytes", "index"];
    let mut whole: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|e| unreadable("not_json", &e))?;
    whole.retain(|name, _| SHOWN.contains(&name.as_str()));
    serde_json::to_vec(&whole).map_err(|e| unreadable("not_json", &e))
}

/// Why a text is not what it should be, without a word of it.
pub(super) fn unreadable(reason: &'static str, error: &serde_json::Error) -> Refusal {
    Refusal::new(reason, format!("wrong at line {} column {}", error.line(), error.column()))
}

/// Ends a JSON object that has members already with the members of another.
fn splice(out: &mut Vec<u8>, body: &[u8]) {
    let inner = body.trim_ascii_start();
    debug_assert_eq!(inner.first(), Some(&b'{'), "the caller checked that it is an object");
    let inner = inner.get(1..).unwrap_or_default();
    if !inner.trim_ascii_start().starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(inner);
}

fn write_origin(out: &mut Vec<u8>, origin: &Origin<'_>) {
    out.push(b'{');
    match origin.identity {
        Some((identity, edge)) => write_identity(out, identity, edge),
        None => {
            out.extend_from_slice(b"\"partition\":");
            write_number(out, origin.partition);
        }
    }
    out.extend_from_slice(b",\"topic\":");
    write_text(out, origin.topic);
    out.extend_from_slice(b",\"offset\":");
    write_number(out, origin.offset);
    out.push(b'}');
}

fn write_identity(out: &mut Vec<u8>, identity: Identity, edge: &str) {
    out.extend_from_slice(b"\"stream\":\"");
    out.extend_from_slice(&identity.stream.to_hex());
    out.extend_from_slice(b"\",\"partition\":");
    write_number(out, identity.partition);
    out.extend_from_slice(b",\"number\":");
    write_number(out, identity.number);
    out.extend_from_slice(b",\"edge\":");
    write_text(out, edge);
}

fn write_number(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Writes a JSON string.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let plain = |b: &u8| *b >= b' ' && *b != b'"' && *b != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a string into memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use weir_shared::record::StreamId;

    const ID: Identity = Identity { stream: StreamId([0xab; 16]), partition: 3, number: 17 };

    fn origin(identity: Option<(Identity, &'static str)>) -> Origin<'static> {
        Origin { topic: "weir.readings", partition: 3, offset: 99, identity }
    }

    #[test]
    fn enriched_is_the_reading_with_two_members_at_the_front() {
        let mut out = Vec::new();
        let body = b" \n{ \"device\":\"d\", \"n\": 1.50 , \"x\":{}} ";
        let joined = Joined {
            joined: true,
            rules: 4,
            stores: Some(&["mysql"]),
            versions: b"{\"devices\":5}",
            dims: b"{\"devices\":{\"line\":3}}",
        };
        enriched(&mut out, (ID, "gw \"1\""), &joined, body);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"weir\":{\"stream\":\"abababababababababababababababab\",\"partition\":3,\"number\":17,\
             \"edge\":\"gw \\\"1\\\"\",\"joined\":true,\"versions\":{\"devices\":5},\
             \"rules\":4,\"stores\":[\"mysql\"]},\
             \"dims\":{\"devices\":{\"line\":3}}, \"device\":\"d\", \"n\": 1.50 , \"x\":{}} "
        );
    }

    #[test]
    fn an_empty_object_gets_no_comma() {
        for body in ["{}", " { } ", "\t{\n}"] {
            let mut out = Vec::new();
            forwarded(&mut out, &origin(Some((ID, "gw"))), body.as_bytes());
            let value: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["weir"]["topic"], "weir.readings");
            assert_eq!(value["weir"]["offset"], 99);
            assert_eq!(value["weir"]["edge"], "gw");
        }
    }

    #[test]
    fn a_rejection_carries_what_is_known() {
        let mut out = Vec::new();
        let refusal = Refusal::new("not_json", "line 1");
        let raw = Raw::Shown(b"\xff{");
        rejection(
            &mut out,
            &origin(None),
            &Letter { stage: "process", refusal: &refusal, received_ms: 42, raw },
        );
        let value: Value = serde_json::from_slice(&out).unwrap();
        let want = json!({
            "weir": {"partition": 3, "topic": "weir.readings", "offset": 99},
            "stage": "process", "reason": "not_json", "detail": "line 1",
            "received": 42, "bytes": 2, "raw": "/3s=",
        });
        assert_eq!(value, want);
    }

    #[test]
    fn a_rejection_always_fits() {
        let mut out = Vec::new();
        let refusal = Refusal::new("not_json", "ä".repeat(5_000));
        let long = vec![7; 2_000_000];
        let letter = Letter { stage: "process", refusal: &refusal, received_ms: 42, raw: Raw::Shown(&long) };
        rejection(&mut out, &origin(Some((ID, "gw"))), &letter);
        assert!(out.len() < VALUE_BYTES_MAX, "{}", out.len());
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["bytes"], 2_000_000);
        assert_eq!(value["weir"]["number"], 17);
        assert_eq!(BASE64.decode(value["raw"].as_str().unwrap()).unwrap().len(), RAW_BYTES_MAX);
    }
}
