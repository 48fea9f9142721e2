//! The bulk request: its body, sending it, and its answer.
//!
//! Comes in: records and their places. Goes out: `_bulk` with the records as they are, nothing serialised anew.
//! Guarantees: items keep their order, so the n-th answer belongs to the n-th item; the buffer is reused. Split into lanes
//! of requests, documents of the same id stay in one lane, in order; no request is larger than it may be, but for one
//! document that is.
//! On failure: an answer that is no 200 concerns the whole request: [`Failure::Store`]; but 429 refuses each item for now.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;

use elasticsearch::Elasticsearch as Client;
use elasticsearch::http::headers::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::{Method, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use weir_shared::client::root_cause;
use xxhash_rust::xxh3::xxh3_64;

use super::super::Failure;
use super::super::batch::Record;
use super::super::own::OwnTable;
use super::document::Placed;

const FILTER: [(&str, &str); 1] =
    [("filter_path", "errors,items.*.status,items.*.error.type,items.*.error.reason")];

/// A document of the body.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) record: Record,
    /// The table of the user's own that it is a row of.
    pub(super) own: Option<&'static OwnTable>,
    /// Whether a document of the same or a higher version keeps it out.
    pub(super) versioned: bool,
    /// Which of the indices of its body.
    index: usize,
    /// Of its id.
    hash: u64,
    range: Range<usize>,
}

/// Requests that go one after the other.
pub(super) type Lane = VecDeque<Body>;

/// The body of a bulk request.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
    items: Vec<Item>,
    indices: Vec<String>,
}

impl Body {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.indices.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Adds a document that is a row of a table of the user's own.
    pub(super) fn add_own(&mut self, record: Record, own: &'static OwnTable, placed: &Placed, json: &[u8]) {
        self.add(record, placed, json);
        let last = self.items.last_mut().expect("one was added");
        last.own = Some(own);
    }

    /// Adds a document. Index and id have no character that JSON escapes.
    pub(super) fn add(&mut self, record: Record, placed: &Placed, json: &[u8]) {
        let start = self.bytes.len();
        for part in ["{\"index\":{\"_index\":\"", &placed.index, "\",\"_id\":\"", &placed.id, "\""] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        if let Some(version) = placed.version {
            // "external": only a higher version replaces a document.
            let versioned = format!(",\"version\":{version},\"version_type\":\"external\"");
            self.bytes.extend_from_slice(versioned.as_bytes());
        }
        self.bytes.extend_from_slice(b"}}\n");
        let document = self.bytes.len();
        self.bytes.extend_from_slice(json);
        // A line break ends the document for _bulk. Inside of JSON it can only stand between tokens.
        for byte in &mut self.bytes[document..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        self.bytes.push(b'\n');
        let (range, versioned) = (start..self.bytes.len(), placed.version.is_some());
        let (index, hash) = (self.index(&placed.index), xxh3_64(placed.id.as_bytes()));
        self.items.push(Item { record, own: None, versioned, index, hash, range });
    }

    /// The place of an index among those of this body.
    fn index(&mut self, name: &str) -> usize {
        self.indices.iter().position(|index| index == name).unwrap_or_else(|| {
            self.indices.push(name.to_owned());
            self.indices.len() - 1
        })
    }

    /// Adds a document of another body.
    pub(super) fn add_of(&mut self, other: &Self, item: &Item) {
        let index = self.index(&other.indices[item.index]);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes[item.range.clone()]);
        self.items.push(Item { index, range: start..self.bytes.len(), ..item.clone() });
    }

    /// The same documents as so many lanes at most, by their ids, of requests of at most so many bytes.
    pub(super) fn lanes(&self, most: usize, bytes_max: usize) -> Vec<Lane> {
        let most = most.max(1);
        self.split(bytes_max, |item| usize::try_from(item.hash % most as u64).unwrap_or(0))
    }

    /// The same documents as one lane for each index.
    pub(super) fn lanes_by_index(&self, bytes_max: usize) -> Vec<Lane> {
        self.split(bytes_max, |item| item.index)
    }

    fn split(&self, bytes_max: usize, lane_of: impl Fn(&Item) -> usize) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = Vec::new();
        for item in &self.items {
            let lane = lane_of(item);
            if lanes.len() <= lane {
                lanes.resize_with(lane + 1, Lane::new);
            }
            let lane = &mut lanes[lane];
            if lane.back().is_none_or(|body| body.bytes.len() + item.range.len() > bytes_max) {
                lane.push_back(Self::default());
            }
            if let Some(body) = lane.back_mut() {
                body.add_of(self, item);
            }
        }
        lanes.retain(|lane| !lane.is_empty());
        lanes
    }
}

/// The answer to a bulk request.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// One per document, in order.
    #[serde(default)]
    pub(super) items: Vec<ItemAnswer>,
}

/// What became of one document.
#[derive(Debug, Deserialize)]
#[serde(from = "ActionAnswer")]
pub(super) struct ItemAnswer {
    pub(super) status: u16,
    error: Option<Cause>,
}

#[derive(Debug, Deserialize)]
struct ActionAnswer {
    index: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    status: u16,
    error: Option<Cause>,
}

#[derive(Debug, Deserialize)]
struct Cause {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
}

impl From<ActionAnswer> for ItemAnswer {
    fn from(answer: ActionAnswer) -> Self {
        Self { status: answer.index.status, error: answer.index.error }
    }
}

impl ItemAnswer {
    pub(super) fn kind(&self) -> &str {
        self.error.as_ref().map_or("", |e| &e.kind)
    }

    pub(super) fn reason(&self) -> &str {
        self.error.as_ref().map_or("", |e| &e.reason)
    }
}

/// Sends one bulk request.
pub(super) async fn send(client: &Client, body: &Body, compress: bool) -> Result<Answer, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let packed;
    let bytes = if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        packed = pack(body.bytes()).map_err(|e| Failure::Store(format!("compressing a request: {e}")))?;
        &packed[..]
    } else {
        body.bytes()
    };
    let sent =
        client.transport().send(Method::Post, "/_bulk", headers, Some(&FILTER), Some(bytes), None).await;
    let response = sent.map_err(|e| unreachable(&e))?;
    let status = response.status_code();
    let answer = response.bytes().await.map_err(|e| unreachable(&e))?;
    if status.as_u16() == 429 {
        let refused = || ItemAnswer { status: 429, error: None };
        return Ok(Answer { items: body.items().iter().map(|_| refused()).collect() });
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let (bytes, items) = (bytes.len(), body.items().len());
        return Err(Failure::Store(format!(
            "the server, or what stands before it, refuses a request of {bytes} bytes with {items} documents \
             (413): make sink.elasticsearch.bulk_bytes_max smaller, or allow more there"
        )));
    }
    if !status.is_success() {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
        return Err(Failure::Store(format!("bulk request: {status}: {text}")));
    }
    sonic_rs::from_slice(&answer).map_err(|e| Failure::Store(format!("answer to a bulk request: {e}")))
}

/// As gzip, in the fastest way: the usual one costs three times as much for a fifth less.
fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// No answer, or not all of it.
pub(super) fn unreachable(error: &elasticsearch::Error) -> Failure {
    let text = format!("no answer: {}", root_cause(error));
    if error.is_timeout() { Failure::Late(text) } else { Failure::Store(text) }
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::{Batch, Part, Topic};
    use super::super::super::measures::Times;
    use super::*;

    fn body() -> Body {
        let mut body = Body::default();
        let mut batch = Batch::default();
        for (i, json) in ["{\"a\":\n1}", "{}", "{\"c\":3}"].into_iter().enumerate() {
            batch.push(Part { topic: Topic::Enriched, partition: 0 }, i as i64, 0, json.as_bytes());
            let record = batch.records()[i];
            let placed = Placed { index: "x".into(), id: i.to_string(), version: None, times: Times::at(0) };
            body.add(record, &placed, json.as_bytes());
        }
        body
    }

    #[test]
    fn two_lines_per_document_whatever_is_in_it() {
        let body = body();
        let text = std::str::from_utf8(body.bytes()).unwrap();
        assert_eq!(text.lines().count(), 6);
        assert!(text.starts_with("{\"index\":{\"_index\":\"x\",\"_id\":\"0\"}}\n{\"a\": 1}\n"));
    }

    #[test]
    fn a_window_result_replaces_only_lower_revisions() {
        let mut body = body();
        let record = body.items()[0].record;
        body.clear();
        let placed = Placed { index: "x".into(), id: "i".into(), version: Some(3), times: Times::at(0) };
        body.add(record, &placed, b"{}");
        let wanted =
            "{\"index\":{\"_index\":\"x\",\"_id\":\"i\",\"version\":3,\"version_type\":\"external\"}}\n{}\n";
        assert_eq!(std::str::from_utf8(body.bytes()).unwrap(), wanted);
        assert!(body.items()[0].versioned);
    }

    fn texts(lane: &Lane) -> Vec<&str> {
        lane.iter().map(|body| std::str::from_utf8(body.bytes()).unwrap()).collect()
    }

    #[test]
    fn only_the_refused_are_sent_again_index_by_index() {
        let mut body = body();
        let record = body.items()[1].record;
        let placed = Placed { index: "y".into(), id: "9".into(), version: None, times: Times::at(0) };
        body.add(record, &placed, b"{}");
        let mut refused = Body::default();
        [3, 0, 2].iter().for_each(|at: &usize| refused.add_of(&body, &body.items()[*at]));
        let lanes = refused.lanes_by_index(usize::MAX);
        assert_eq!(texts(&lanes[0]), ["{\"index\":{\"_index\":\"y\",\"_id\":\"9\"}}\n{}\n"]);
        let lines: Vec<&str> = texts(&lanes[1])[0].lines().collect();
        assert_eq!((lines.len(), lines[1], lines[3]), (4, "{\"a\": 1}", "{\"c\":3}"));
        let mut last = Body::default();
        last.add_of(&lanes[1][0], &lanes[1][0].items()[1]);
        assert_eq!(last.items()[0].record.offset, 2);
        assert!(last.bytes().ends_with(b"{\"c\":3}\n"));
    }

    #[test]
    fn lanes_keep_the_order_of_each_id_and_requests_their_size() {
        let (part, mut batch) = (Part { topic: Topic::Aggregates, partition: 0 }, Batch::default());
        let mut body = Body::default();
        for n in 0..500_usize {
            let json = format!("{{\"n\":{n},\"more\":\"{}\"}}", "x".repeat(n % 300));
            batch.push(part, n as i64, 0, json.as_bytes());
            let version = Some(1 + n as i64 / 50);
            let placed =
                Placed { index: "x".into(), id: format!("w{}", n % 50), version, times: Times::at(0) };
            body.add(batch.records()[n], &placed, json.as_bytes());
        }
        let lanes = body.lanes(4, 2_000);
        assert_eq!(lanes.len(), 4);
        let mut seen = Vec::new();
        for lane in &lanes {
            let offsets: Vec<i64> =
                lane.iter().flat_map(Body::items).map(|item| item.record.offset).collect();
            assert!(offsets.is_sorted(), "an id is in one lane, in order");
            for body in lane {
                assert!(body.bytes().len() <= 2_000, "{}", body.bytes().len());
                assert_eq!(
                    std::str::from_utf8(body.bytes()).unwrap().lines().count(),
                    2 * body.items().len()
                );
            }
            let of_lane: std::collections::BTreeSet<_> = offsets.iter().map(|offset| offset % 50).collect();
            seen.extend(of_lane);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>(), "each id in one lane only");
        assert_eq!(body.lanes(1, usize::MAX).len(), 1);
        // One that is larger than a request may be goes alone.
        assert_eq!(body.lanes(1, 1)[0].len(), 500);
    }

    #[test]
    fn a_packed_body_is_the_same_body() {
        let body = body();
        let mut unpacked = Vec::new();
        let packed = pack(body.bytes()).unwrap();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
        assert_eq!(unpacked, body.bytes());
    }

    #[test]
    fn the_answer_is_read() {
        let text = r#"{"errors":true,"items":[{"index":{"status":201}},
            {"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"why"}}}]}"#;
        let answer: Answer = sonic_rs::from_str(text).unwrap();
        assert_eq!((answer.items[0].status, answer.items[0].kind()), (201, ""));
        let second = &answer.items[1];
        assert_eq!((second.status, second.kind(), second.reason()), (400, "mapper_parsing_exception", "why"));
    }
}
