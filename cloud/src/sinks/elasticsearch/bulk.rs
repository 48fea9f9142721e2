//! The bulk request: its body, sending it, and its answer.
//!
//! Comes in: records and their places. Goes out: `_bulk` with the records as they are, nothing serialised anew.
//! Guarantees: items keep their order, so the n-th answer belongs to the n-th item; the buffer is reused.
//! On failure: an answer that is no 200 concerns the whole request: [`Failure::Store`]; but 429 refuses each item for now.

use std::ops::Range;

use elasticsearch::Elasticsearch as Client;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::super::batch::Record;
use super::super::{Failure, root_cause};
use super::document::Placed;

const FILTER: [(&str, &str); 1] =
    [("filter_path", "errors,items.*.status,items.*.error.type,items.*.error.reason")];

/// A document of the body.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) record: Record,
    /// Whether a document of the same or a higher version keeps it out.
    pub(super) versioned: bool,
    /// Which of the indices of its body.
    index: usize,
    range: Range<usize>,
}

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
        let index = self.indices.iter().position(|index| *index == placed.index).unwrap_or_else(|| {
            self.indices.push(placed.index.clone());
            self.indices.len() - 1
        });
        self.items.push(Item { record, versioned, index, range });
    }

    /// The items at these places, given in ascending order, as bodies of their own: one for each index.
    pub(super) fn by_index(&self, places: &[usize]) -> Vec<Self> {
        let mut bodies: Vec<Self> = Vec::new();
        for item in places.iter().map(|place| &self.items[*place]) {
            let at = bodies.iter().position(|body| body.items[0].index == item.index).unwrap_or_else(|| {
                bodies.push(Self { indices: self.indices.clone(), ..Self::default() });
                bodies.len() - 1
            });
            let body = &mut bodies[at];
            let start = body.bytes.len();
            body.bytes.extend_from_slice(&self.bytes[item.range.clone()]);
            body.items.push(Item { range: start..body.bytes.len(), ..item.clone() });
        }
        bodies
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
pub(super) async fn send(client: &Client, body: &Body) -> Result<Answer, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let sent = client
        .transport()
        .send(Method::Post, "/_bulk", headers, Some(&FILTER), Some(body.bytes()), None)
        .await;
    let response = sent.map_err(|e| unreachable(&e))?;
    let status = response.status_code();
    let answer = response.bytes().await.map_err(|e| unreachable(&e))?;
    if status.as_u16() == 429 {
        let refused = || ItemAnswer { status: 429, error: None };
        return Ok(Answer { items: body.items().iter().map(|_| refused()).collect() });
    }
    if !status.is_success() {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
        return Err(Failure::Store(format!("bulk request: {status}: {text}")));
    }
    sonic_rs::from_slice(&answer).map_err(|e| Failure::Store(format!("answer to a bulk request: {e}")))
}

/// No answer, or not all of it.
pub(super) fn unreachable(error: &elasticsearch::Error) -> Failure {
    let text = format!("no answer: {}", root_cause(error));
    if error.is_timeout() { Failure::Late(text) } else { Failure::Store(text) }
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::{Batch, Part, Topic};
    use super::*;

    fn body() -> Body {
        let mut body = Body::default();
        let mut batch = Batch::default();
        for (i, json) in ["{\"a\":\n1}", "{}", "{\"c\":3}"].into_iter().enumerate() {
            batch.push(Part { topic: Topic::Enriched, partition: 0 }, i as i64, 0, json.as_bytes());
            let record = batch.records()[i];
            let placed = Placed { index: "x".into(), id: i.to_string(), version: None, received: 0 };
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
        let placed = Placed { index: "x".into(), id: "i".into(), version: Some(3), received: 0 };
        body.add(record, &placed, b"{}");
        let wanted =
            "{\"index\":{\"_index\":\"x\",\"_id\":\"i\",\"version\":3,\"version_type\":\"external\"}}\n{}\n";
        assert_eq!(std::str::from_utf8(body.bytes()).unwrap(), wanted);
        assert!(body.items()[0].versioned);
    }

    #[test]
    fn only_the_refused_are_sent_again_index_by_index() {
        let mut body = body();
        let record = body.items()[1].record;
        let placed = Placed { index: "y".into(), id: "9".into(), version: None, received: 0 };
        body.add(record, &placed, b"{}");
        let parts = body.by_index(&[0, 2, 3]);
        let texts: Vec<&str> = parts.iter().map(|part| std::str::from_utf8(part.bytes()).unwrap()).collect();
        let lines: Vec<&str> = texts[0].lines().collect();
        assert_eq!((lines.len(), lines[1], lines[3]), (4, "{\"a\": 1}", "{\"c\":3}"));
        assert_eq!(texts[1], "{\"index\":{\"_index\":\"y\",\"_id\":\"9\"}}\n{}\n");
        let last = &parts[0].by_index(&[1])[0];
        assert_eq!(last.items()[0].record.offset, 2);
        assert!(last.bytes().ends_with(b"{\"c\":3}\n"));
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
