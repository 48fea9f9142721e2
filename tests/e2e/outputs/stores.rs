//! What the stores hold of a run, in the words of [`super::records`].

use std::collections::BTreeMap;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use weir_harness::oracle::{Oracle, Store};

use super::Rows;
use super::records::Table;

/// More documents than a run has.
const DOCUMENTS_MAX: u64 = 10_000;

/// All rows of the run, by table, sorted.
pub(super) fn rows(oracle: &Oracle, store: Store, run: &str) -> anyhow::Result<Rows> {
    let mut rows = match store {
        Store::Mysql => mysql(oracle, run),
        Store::Clickhouse => clickhouse(oracle, run, "toUnixTimestamp64Milli"),
        _ => elasticsearch(oracle, run),
    }?;
    rows.values_mut().for_each(|rows| rows.sort());
    // The sink of MySQL may repeat a dead letter when it is killed between two commits; Kafka has it twice then.
    rows.entry(Table::Letters).or_default().dedup();
    rows.entry(Table::Revisions).or_default();
    Ok(rows)
}

fn mysql(oracle: &Oracle, run: &str) -> anyhow::Result<Rows> {
    let select = |words: &str, from: &str| {
        let of_run = if from.contains("WHERE") { "" } else { &format!(" WHERE edge = '{run}'") };
        oracle.rows_in_mysql(&format!("SELECT CONCAT_WS('|', {words}) FROM {from}{of_run}"))
    };
    let ms = |time: &str| format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', {time}) DIV 1000");
    let window = format!("rule, device, {}, IFNULL(part, 'none'), revision, `count`", ms("`start`"));
    let letters = format!("weir_rejected WHERE origin = 'weir.aggregates' AND raw LIKE '%\"{run}\"%'");
    let number = "SUBSTRING_INDEX(TRIM(TRAILING '}' FROM CONVERT(raw USING utf8mb4)), ':', -1)";
    Ok(BTreeMap::from([
        (Table::Readings, select("number, device, IFNULL(rules, 0)", "weir_readings")?),
        (Table::Rejected, select("stage, source_topic", "weir_rejected")?),
        (Table::Aggregates, select(&window, "weir_aggregates")?),
        (Table::Losses, select("reason, lost_from, lost_to", "weir_losses")?),
        (Table::Alerts, select("rule, `key`, episode_number, kind, `repeat`, value", "weir_alerts")?),
        (Table::Letters, select(&format!("stage, {number}"), &letters)?),
    ]))
}

/// `ms`: what makes milliseconds of the type that times have there.
pub(crate) fn clickhouse(oracle: &Oracle, run: &str, ms: &str) -> anyhow::Result<Rows> {
    let select = |words: &str, from: &str| -> anyhow::Result<Vec<String>> {
        let of_run = if from.contains("WHERE") { "" } else { &format!(" WHERE edge = '{run}'") };
        let words = words.split(", ").map(|word| format!("toString({word})")).collect::<Vec<_>>();
        let select = format!("SELECT concat({}) FROM {from}{of_run} FORMAT TSVRaw", words.join(", '|', "));
        Ok(oracle.in_clickhouse(&select)?.lines().map(str::to_owned).collect())
    };
    let window = &format!("rule, device, {ms}(`start`), ifNull(toString(part),'none'), revision, `count`");
    let letters =
        format!("weir_rejected WHERE origin = 'weir.aggregates' AND position(raw, '\"{run}\"') > 0");
    Ok(BTreeMap::from([
        (Table::Readings, select("number, device, rules", "weir_readings")?),
        (Table::Rejected, select("stage, source_topic", "weir_rejected")?),
        (Table::Aggregates, select(window, "weir_aggregates_latest")?),
        (Table::Revisions, select(window, "weir_aggregates")?),
        (Table::Losses, select("reason, lost_from, lost_to", "weir_losses")?),
        (Table::Alerts, select("rule, key, episode_number, kind, repeat, value", "weir_alerts")?),
        (Table::Letters, select("stage, extract(raw,'\"broken\":([0-9]+)')", &letters)?),
    ]))
}

fn elasticsearch(oracle: &Oracle, run: &str) -> anyhow::Result<Rows> {
    oracle.rows_of(Store::Elasticsearch)?; // refreshes
    let documents = |index: &str, query: Value| -> anyhow::Result<Vec<Value>> {
        let body = json!({"size": DOCUMENTS_MAX, "query": query});
        let mut answer = oracle.in_elasticsearch(&format!("weir-{index}-*/_search"), &body)?;
        let Value::Array(hits) = answer["hits"]["hits"].take() else { anyhow::bail!("{index}: {answer}") };
        Ok(hits.into_iter().map(|mut hit| hit["_source"].take()).collect())
    };
    let select = |index: &str, members: &[&str]| -> anyhow::Result<Vec<String>> {
        let edge = if index == "losses" { "edge" } else { "weir.edge" };
        let found = documents(index, json!({"term": {edge: run}}))?;
        Ok(found.iter().map(|document| words(document, members)).collect())
    };
    let window = ["/rule", "/key/device", "/start", "/part none", "/revision", "/count"];
    let alert = ["/rule", "/key", "/episode/number", "/kind", "/repeat", "/value"];
    let mut letters = Vec::new();
    for document in documents("rejected", json!({"term": {"weir.topic": "weir.aggregates"}}))? {
        let raw = BASE64.decode(document["raw"].as_str().context("raw")?)?;
        let raw: Value = serde_json::from_slice(&raw)?;
        if raw["weir"]["edge"] == run {
            letters.push(format!("{}|{}", words(&document, &["/stage"]), raw["broken"]));
        }
    }
    Ok(BTreeMap::from([
        (Table::Readings, select("readings", &["/weir/number", "/device", "/weir/rules 0"])?),
        (Table::Rejected, select("rejected", &["/stage", "/topic"])?),
        (Table::Aggregates, select("aggregates", &window)?),
        (Table::Losses, select("losses", &["/reason", "/from", "/to"])?),
        (Table::Alerts, select("alerts", &alert)?),
        (Table::Letters, letters),
    ]))
}

/// Members of a document; after a blank what stands for one that is not there.
fn words(document: &Value, members: &[&str]) -> String {
    let word = |member: &&str| {
        let (pointer, absent) = member.split_once(' ').unwrap_or((member, "?"));
        match document.pointer(pointer) {
            None => absent.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    };
    members.iter().map(word).collect::<Vec<_>>().join("|")
}
