//! What Elasticsearch holds of a run.
//!
//! Comes in: documents of `weir-readings-*` and `weir-rejected-*`, by scrolling (a point in time would need a
//! licensed plugin). Goes out: counts, and documents to a tally. Indices are refreshed first, so that everything
//! acknowledged is seen. On failure: the server's answer.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::{Client, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use weir_shared::clock::Deadline;

use super::document;
use super::tally::Tally;
use super::{Found, letter_topics};
use crate::simulator::ledger::Issued;

pub(super) const READINGS: &str = "weir-readings-*";
const REJECTED: &str = "weir-rejected-*";
/// Documents in one page.
const PAGE: u64 = 2000;
const KEEP: &str = "1m";
/// How long a new index may have no shard that answers.
const INDEX_MADE: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_millis(100);

#[derive(serde::Deserialize)]
struct Page {
    #[serde(rename = "_scroll_id")]
    scroll: String,
    hits: Hits,
}

#[derive(serde::Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(serde::Deserialize)]
struct Hit {
    #[serde(rename = "_source")]
    source: Box<RawValue>,
}

fn of_run(issued: &Issued) -> Value {
    json!({"term": {"tags.run": issued.run}})
}

fn letters_of_run(issued: &Issued) -> Value {
    json!({"prefix": {"topic": letter_topics(issued, "")}})
}

/// How many documents of the run are there.
pub(super) async fn count(http: &Client, url: &str, issued: &Issued) -> anyhow::Result<Found> {
    refresh(http, url).await?;
    let readings = count_by(http, url, READINGS, &of_run(issued)).await?;
    let letters = count_by(http, url, REJECTED, &letters_of_run(issued)).await?;
    Ok(Found { readings, letters })
}

/// How many readings are there in all.
pub(super) async fn total(http: &Client, url: &str) -> anyhow::Result<u64> {
    count_by(http, url, READINGS, &json!({"match_all": {}})).await
}

/// How many documents some indices took since the server started: unlike a count, it needs no refresh. None where
/// there is no index.
pub(super) async fn indexed(http: &Client, url: &str, indices: &str) -> anyhow::Result<u64> {
    let answer =
        http.get(format!("{url}/{indices}/_stats/indexing")).send().await.context("Elasticsearch")?;
    let answer: Value = answer.json().await.context("Elasticsearch, _stats")?;
    Ok(answer["_all"]["primaries"]["indexing"]["index_total"].as_u64().unwrap_or(0))
}

/// Counts every document of the run.
pub(super) async fn read(
    http: &Client,
    url: &str,
    issued: &Issued,
    tally: &mut Tally<'_>,
) -> anyhow::Result<()> {
    refresh(http, url).await?;
    let run = issued.run.clone();
    let mut page = first_page(http, url, READINGS, &of_run(issued), PAGE).await?;
    while !page.hits.hits.is_empty() {
        for hit in &page.hits.hits {
            document::count_reading(hit.source.get().as_bytes(), &run, false, tally);
        }
        page = next_page(http, url, &page.scroll).await?;
    }
    end(http, url, &page.scroll).await?;
    let since = json!({"range": {"received": {"gte": issued.received_since_ms(), "format": "epoch_millis"}}});
    let mut page = first_page(http, url, REJECTED, &since, 50).await?; // some hold 400 KB
    while !page.hits.hits.is_empty() {
        for hit in &page.hits.hits {
            match document::dead_letter(hit.source.get().as_bytes()) {
                Some(letter) => tally.dead_letter(&letter),
                None => tally.unreadable("a document of weir-rejected-*"),
            }
        }
        page = next_page(http, url, &page.scroll).await?;
    }
    end(http, url, &page.scroll).await
}

pub(super) async fn refresh(http: &Client, url: &str) -> anyhow::Result<()> {
    let answer = http.post(format!("{url}/weir-*/_refresh")).send().await.context("Elasticsearch")?;
    ensure!(answer.status().is_success(), "Elasticsearch, _refresh: {}", answer.text().await?);
    Ok(())
}

async fn count_by(http: &Client, url: &str, index: &str, query: &Value) -> anyhow::Result<u64> {
    let body = json!({"query": query});
    let answer: Value = post(http, &format!("{url}/{index}/_count"), &body).await?;
    answer["count"].as_u64().with_context(|| format!("Elasticsearch, _count of {index}: {answer}"))
}

async fn first_page(http: &Client, url: &str, index: &str, query: &Value, size: u64) -> anyhow::Result<Page> {
    let body = json!({"size": size, "query": query, "sort": ["_doc"]});
    post(http, &format!("{url}/{index}/_search?scroll={KEEP}"), &body).await
}

async fn next_page(http: &Client, url: &str, scroll: &str) -> anyhow::Result<Page> {
    post(http, &format!("{url}/_search/scroll"), &json!({"scroll": KEEP, "scroll_id": scroll})).await
}

async fn end(http: &Client, url: &str, scroll: &str) -> anyhow::Result<()> {
    let body = json!({"scroll_id": scroll});
    let answer = http.delete(format!("{url}/_search/scroll")).json(&body).send().await?;
    // 404: the server has ended it already, as it does with one that found nothing.
    let ended = answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND;
    ensure!(ended, "Elasticsearch, end of scroll: {}", answer.text().await?);
    Ok(())
}

pub(super) async fn post<T: serde::de::DeserializeOwned>(
    http: &Client,
    url: &str,
    body: &Value,
) -> anyhow::Result<T> {
    send(http.post(url).json(body), url).await
}

pub(super) async fn put(http: &Client, url: &str, body: &Value) -> anyhow::Result<Value> {
    send(http.put(url).json(body), url).await
}

pub(super) async fn get(http: &Client, url: &str) -> anyhow::Result<Value> {
    send(http.get(url), url).await
}

/// An index that was just made has no shard that answers (503): asked again for a while.
async fn send<T: serde::de::DeserializeOwned>(
    request: reqwest::RequestBuilder,
    url: &str,
) -> anyhow::Result<T> {
    let deadline = Deadline::after(INDEX_MADE);
    loop {
        let again = request.try_clone().context("a body in one piece")?;
        let answer = again.send().await.context("Elasticsearch")?;
        let (status, bytes) = (answer.status(), answer.bytes().await?);
        if status.is_success() {
            return serde_json::from_slice(&bytes).with_context(|| format!("answer of {url}"));
        }
        if status != StatusCode::SERVICE_UNAVAILABLE || deadline.passed() {
            bail!("Elasticsearch, {url}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
