//! The values of what goes out: `weir.enriched` and `weir.rejected`.
//!
//! Comes in: where a record came from, what it was joined with, its bytes. Goes out: JSON in a buffer of the caller.
//! Guarantees: the bytes of a reading or of an edge's dead letter stay as they are, unknown fields included: ours is
//! spliced in at the front (layout: `weir_shared::wire`). No output is larger than [`VALUE_BYTES_MAX`]. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use weir_shared::record::Identity;

use super::reading::Refusal;

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

/// Writes an enriched reading; `body` is the reading, a JSON object without `weir` and `dims`. `versions` and `dims`
/// are JSON objects.
pub(super) fn enriched(
    out: &mut Vec<u8>,
    (identity, edge): (Identity, &str),
    joined: bool,
    versions: &[u8],
    dims: &[u8],
    body: &[u8],
) {
    out.clear();
    out.extend_from_slice(b"{\"weir\":{");
    write_identity(out, identity, edge);
    out.extend_from_slice(if joined {
        b",\"joined\":true,\"versions\":"
    } else {
        b",\"joined\":false,\"versions\":"
    });
    out.extend_from_slice(versions);
    out.extend_from_slice(b"},\"dims\":");
    out.extend_from_slice(dims);
    splice(out, body);
}

/// Writes a dead letter of an edge with its identity in the cloud; `body` is a JSON object without `weir`.
pub(super) fn forwarded(out: &mut Vec<u8>, origin: &Origin<'_>, body: &[u8]) {
    out.clear();
    out.extend_from_slice(b"{\"weir\":");
    write_origin(out, origin);
    splice(out, body);
}

/// Writes the dead letter of a record that was refused here. `received_ms` is when the record came to Kafka.
pub(super) fn rejection(
    out: &mut Vec<u8>,
    origin: &Origin<'_>,
    refusal: &Refusal,
    received_ms: i64,
    raw: &[u8],
) {
    let mut detail = refusal.detail.as_str();
    if detail.len() > DETAIL_BYTES_MAX {
        detail = &detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)];
    }
    let body = json!({
        "stage": "process",
        "reason": refusal.reason,
        "detail": detail,
        "received": received_ms,
        "bytes": raw.len(),
        "raw": BASE64.encode(&raw[..raw.len().min(RAW_BYTES_MAX)]),
    });
    forwarded(out, origin, body.to_string().as_bytes());
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
        enriched(&mut out, (ID, "gw \"1\""), true, b"{\"devices\":5}", b"{\"devices\":{\"line\":3}}", body);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"weir\":{\"stream\":\"abababababababababababababababab\",\"partition\":3,\"number\":17,\
             \"edge\":\"gw \\\"1\\\"\",\"joined\":true,\"versions\":{\"devices\":5}},\
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
        rejection(&mut out, &origin(None), &refusal, 42, b"\xff{");
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
        rejection(&mut out, &origin(Some((ID, "gw"))), &refusal, 42, &vec![7; 2_000_000]);
        assert!(out.len() < VALUE_BYTES_MAX, "{}", out.len());
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["bytes"], 2_000_000);
        assert_eq!(value["weir"]["number"], 17);
        assert_eq!(BASE64.decode(value["raw"].as_str().unwrap()).unwrap().len(), RAW_BYTES_MAX);
    }
}
