//! What Elasticsearch has of the records of the log.
//!
//! Guarantees: changes no document; asks for a refresh first, so that every document that was acknowledged is found. An id
//! is looked for in all of our indices: one in two of them is doubled. On failure: the server's error.

use std::borrow::Cow;
use std::collections::HashMap;

use elasticsearch::Elasticsearch as Client;
use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use weir_shared::client::root_cause;
use xxhash_rust::xxh3::xxh3_128;

use super::super::batch::{Batch, Part, Record};
use super::super::config::ElasticsearchConfig;
use super::super::own::{Decoder, Target};
use super::super::row::RowError;
use super::super::verify::{self, Found, Logs};
use super::super::{Failure, SinkName};
use super::document::{Place, Placed, document};
use super::{client, place};

/// Ids that one request looks for.
const LOOKED_UP: usize = 1_000;
/// Documents that one answer may hold: an id that stands in ten indices is doubled enough.
const DOCUMENTS_MAX: usize = 10 * LOOKED_UP;

/// Where a document should be, and what it should be.
type Expected<'a> = (Placed, Cow<'a, [u8]>);

/// A client.
pub(in crate::sinks) struct Witness {
    client: Client,
    place: Place,
    refreshed: bool,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_version")]
    version: Option<i64>,
    #[serde(rename = "_source", borrow)]
    source: Option<&'a RawValue>,
}

impl Witness {
    /// Asks nothing yet.
    pub(in crate::sinks) fn open(
        config: &ElasticsearchConfig,
    ) -> Result<Self, weir_shared::supervise::Error> {
        Ok(Self { client: client(config)?, place: place(config), refreshed: false })
    }

    /// Where the document of a record should be, and what it should be.
    fn expected<'a>(
        &self,
        own: Option<&mut Decoder>,
        record: &Record,
        json: &'a [u8],
    ) -> Result<Option<Expected<'a>>, RowError> {
        let Some(decoder) = own else {
            return Ok(self.place.of(record, json)?.map(|placed| (placed, Cow::Borrowed(json))));
        };
        let Some(row) = decoder.decode(json, SinkName::Elasticsearch)? else { return Ok(None) };
        let own = decoder.table;
        Ok(Some((self.place.of_own(own, record, &row), Cow::Owned(document(own, &row)))))
    }

    async fn ask(&self, path: &str, body: String) -> Result<String, Failure> {
        let away = |e: elasticsearch::Error| Failure::Store(format!("no answer: {}", root_cause(&e)));
        let (headers, query) = (HeaderMap::new(), None::<&()>);
        let sent =
            self.client.send(Method::Post, path, headers, query, Some(body), None).await.map_err(away)?;
        let status = sent.status_code();
        let text = sent.text().await.map_err(away)?;
        if status.is_success() {
            return Ok(text);
        }
        let shown: String = text.chars().take(300).collect();
        Err(Failure::Store(format!("{path}: {status}: {shown}")))
    }
}

impl verify::Witness for Witness {
    async fn ends(&mut self, logs: &Logs) -> Result<Vec<(Part, i64)>, Failure> {
        logs.committed(SinkName::Elasticsearch).map_err(|e| Failure::Kafka(e.to_string()))
    }

    async fn look(
        &mut self,
        target: Target,
        batch: &Batch,
        end: i64,
        deep: bool,
    ) -> Result<Vec<(i64, Found)>, Failure> {
        let indices = format!("/{}-*", self.place.prefix);
        if !self.refreshed {
            self.ask(&format!("{indices}/_refresh"), String::new()).await?;
            self.refreshed = true;
        }
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        let mut own = target.own().map(Decoder::new);
        for record in batch.records().iter().filter(|record| record.offset < end) {
            match self.expected(own.as_mut(), record, batch.value(record)) {
                Ok(Some((placed, document))) => expected.push((record, placed, document)),
                Ok(None) => found.push((record.offset, Found::Elsewhere)),
                Err(_) => found.push((record.offset, Found::Refused)),
            }
        }
        for chunk in expected.chunks(LOOKED_UP) {
            let ids: Vec<&str> = chunk.iter().map(|(_, placed, _)| &*placed.id).collect();
            let query = json!({
                "size": DOCUMENTS_MAX, "version": true, "_source": deep, "query": {"ids": {"values": ids}}
            });
            let text = self.ask(&format!("{indices}/_search"), query.to_string()).await?;
            let answer: Answer<'_> =
                serde_json::from_str(&text).map_err(|e| Failure::Store(format!("{indices}/_search: {e}")))?;
            let mut by_id: HashMap<&str, Vec<&Hit<'_>>> = HashMap::new();
            for hit in &answer.hits.hits {
                by_id.entry(&hit.id).or_default().push(hit);
            }
            for (record, placed, document) in chunk {
                let hits = by_id.get(&*placed.id).map_or(&[][..], Vec::as_slice);
                let sent = deep.then_some(&**document);
                let unique = record.part.topic.has_readings() && placed.version.is_none();
                found.push((record.offset, judge(hits, placed.version, sent, (&placed.id, unique))));
            }
        }
        Ok(found)
    }
}

/// What became of a record of this version; `sent` is what the document should be, where that is to be compared. Of a dead
/// letter that was sent again there may be another of the same id: readings are `unique`.
fn judge(hits: &[&Hit<'_>], version: Option<i64>, sent: Option<&[u8]>, (id, unique): (&str, bool)) -> Found {
    let key = xxh3_128(id.as_bytes());
    match hits {
        [] => Found::Missing,
        [hit] => {
            let parsed = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
            let source = hit.source.map_or("null", RawValue::get);
            match version.map(|version| hit.version.cmp(&Some(version))) {
                Some(std::cmp::Ordering::Greater) => Found::Replaced,
                Some(std::cmp::Ordering::Less) => Found::Missing,
                _ if sent.is_some_and(|sent| parsed(sent) != parsed(source.as_bytes())) => {
                    Found::Altered { key }
                }
                _ if unique => Found::Stored,
                _ => Found::Kept { key },
            }
        }
        hits => Found::Times { key, rows: hits.len() as u64 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_judged_by_its_version_and_its_content() {
        let text = r#"{"hits":{"hits":[{"_id":"a","_version":3,"_source":{"n":1.50}}]}}"#;
        let answer: Answer<'_> = serde_json::from_str(text).unwrap();
        let hits: Vec<&Hit<'_>> = answer.hits.hits.iter().collect();
        assert_eq!(judge(&hits, None, Some(b"{ \"n\" : 1.5 }"), ("a", true)), Found::Stored);
        assert_eq!(
            judge(&hits, None, Some(br#"{"n":1.6}"#), ("a", true)),
            Found::Altered { key: xxh3_128(b"a") }
        );
        assert_eq!(judge(&hits, None, None, ("a", true)), Found::Stored);
        assert_eq!(judge(&hits, Some(2), None, ("a", true)), Found::Replaced);
        assert_eq!(judge(&hits, Some(3), None, ("a", true)), Found::Stored);
        assert_eq!(judge(&hits, Some(4), None, ("a", true)), Found::Missing);
        assert_eq!(judge(&[], None, None, ("a", true)), Found::Missing);
        let two = [hits[0], hits[0]];
        assert!(matches!(judge(&two, None, None, ("a", true)), Found::Times { rows: 2, .. }));
    }
}
