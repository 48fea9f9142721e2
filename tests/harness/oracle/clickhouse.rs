//! What ClickHouse holds of a run, without FINAL.
//!
//! Comes in: rows of `weir_readings` and `weir_rejected` as JSON lines. Goes out: counts, and rows to a tally.
//! On failure: the server's answer, with the statement.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::document;
use super::tally::{DeadLetter, Tally};
use super::{Found, letter_topics};
use crate::simulator::content::Value;
use crate::simulator::ledger::Issued;

/// One row of `weir_readings`: each type of value has a map of its own.
#[derive(Deserialize)]
struct ReadingRow {
    device: String,
    time_ms: Number,
    numbers: BTreeMap<String, f64>,
    integers: BTreeMap<String, Number>,
    texts: BTreeMap<String, String>,
    flags: BTreeMap<String, bool>,
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct LetterRow {
    topic: String,
    reason: String,
    bytes: Number,
    raw: String,
}

#[derive(Deserialize)]
struct CountRow {
    n: Number,
}

/// A 64-bit integer, which ClickHouse writes with or without quotes.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "serde_json::Value")]
struct Number(i64);

impl TryFrom<serde_json::Value> for Number {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        number.map(Self).ok_or_else(|| format!("{value} is no integer"))
    }
}

fn of_run(issued: &Issued) -> String {
    format!("FROM weir_readings WHERE tags['run'] = '{}'", issued.run)
}

/// How many rows of the run are there.
pub(super) async fn count(http: &Client, url: &str, issued: &Issued) -> anyhow::Result<Found> {
    let readings = number(http, url, &format!("SELECT count() AS n {}", of_run(issued))).await?;
    let topics = letter_topics(issued, "");
    let letters =
        format!("SELECT count() AS n FROM weir_rejected WHERE startsWith(source_topic, '{topics}')");
    Ok(Found { readings, letters: number(http, url, &letters).await? })
}

/// How many readings are there in all.
pub(super) async fn total(http: &Client, url: &str) -> anyhow::Result<u64> {
    number(http, url, "SELECT count() AS n FROM weir_readings").await
}

/// Counts every row of the run.
pub(super) async fn read(
    http: &Client,
    url: &str,
    issued: &Issued,
    tally: &mut Tally<'_>,
) -> anyhow::Result<()> {
    let columns = "device, toUnixTimestamp64Milli(time) AS time_ms, numbers, integers, texts, flags, tags";
    let rows: Vec<ReadingRow> = select(http, url, &format!("SELECT {columns} {}", of_run(issued))).await?;
    for row in rows {
        let numbers = row.numbers.into_iter().map(|(name, n)| (name, Value::Number(n)));
        let integers = row.integers.into_iter().map(|(name, n)| (name, Value::integer(n.0)));
        let texts = row.texts.into_iter().map(|(name, t)| (name, Value::Text(t)));
        let flags = row.flags.into_iter().map(|(name, f)| (name, Value::Flag(f)));
        let values = numbers.chain(integers).chain(texts).chain(flags).collect();
        document::count(row.device, row.time_ms.0, values, &row.tags, tally);
    }
    let since = format!("toUnixTimestamp64Milli(received) >= {}", issued.received_since_ms());
    let columns = "source_topic AS topic, reason, bytes, base64Encode(raw) AS raw";
    let rows: Vec<LetterRow> =
        select(http, url, &format!("SELECT {columns} FROM weir_rejected WHERE {since}")).await?;
    for row in rows {
        let raw = STANDARD.decode(&row.raw).context("base64Encode in ClickHouse")?;
        let bytes = row.bytes.0.cast_unsigned();
        tally.dead_letter(&DeadLetter { topic: row.topic, reason: row.reason, bytes, raw });
    }
    Ok(())
}

async fn number(http: &Client, url: &str, statement: &str) -> anyhow::Result<u64> {
    let rows: Vec<CountRow> = select(http, url, statement).await?;
    rows.first().map(|row| row.n.0.cast_unsigned()).context("ClickHouse counted nothing")
}

async fn select<T: DeserializeOwned>(http: &Client, url: &str, statement: &str) -> anyhow::Result<Vec<T>> {
    let body = execute(http, url, &format!("{statement} FORMAT JSONEachRow")).await?;
    body.split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).with_context(|| String::from_utf8_lossy(line).into_owned()))
        .collect::<anyhow::Result<_>>()
        .with_context(|| format!("ClickHouse, {statement}"))
}

/// Runs one statement.
pub(super) async fn execute(http: &Client, url: &str, statement: &str) -> anyhow::Result<Vec<u8>> {
    let answer = http.post(url).body(statement.to_owned()).send().await.context("ClickHouse")?;
    let (status, bytes) = (answer.status(), answer.bytes().await?);
    if !status.is_success() {
        bail!("ClickHouse, {statement}: {status}: {}", String::from_utf8_lossy(&bytes));
    }
    Ok(bytes.to_vec())
}
