//! What MySQL holds of a run.
//!
//! Comes in: rows of `weir_readings` and `weir_rejected`, streamed. Goes out: counts, and rows to a tally.
//! On failure: the server's error, with what was asked.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use mysql_async::prelude::Queryable;
use mysql_async::{Pool, Row, params};

use super::document;
use super::tally::{DeadLetter, Tally};
use super::{Found, letter_topics};
use crate::simulator::content::Value;
use crate::simulator::ledger::Issued;
use crate::simulator::message;

/// Of the run: readings by the tag in them, dead letters by the topic they came from.
const READINGS_OF_RUN: &str = "FROM weir_readings WHERE JSON_VALUE(tags, '$.run') = :run";
/// The beginning of the run, in a session whose time zone is UTC.
const SINCE: &str = "FROM_UNIXTIME(0) + INTERVAL :since * 1000 MICROSECOND";
const LETTERS_OF_RUN: &str = "FROM weir_rejected WHERE source_topic LIKE :topics";

/// How many rows of the run are there.
pub(super) async fn count(pool: &Pool, issued: &Issued) -> anyhow::Result<Found> {
    let mut connection = pool.get_conn().await.context("MySQL")?;
    // By the index on device and time, so that it stays cheap beside millions of rows of other runs. A row whose device
    // or time was altered is not counted here; `read`, which looks at every row, finds it.
    let devices: Vec<String> = message::devices().map(|device| format!("'{device}'")).collect();
    let indexed = format!("device IN ({}) AND time >= {SINCE}", devices.join(", "));
    connection.query_drop("SET time_zone = '+00:00'").await?;
    let readings: Option<u64> = connection
        .exec_first(
            format!("SELECT COUNT(*) {READINGS_OF_RUN} AND {indexed}"),
            params! { "run" => &issued.run, "since" => issued.started_ms - 1000 },
        )
        .await
        .context("weir_readings in MySQL")?;
    let letters: Option<u64> = connection
        .exec_first(
            format!("SELECT COUNT(*) {LETTERS_OF_RUN}"),
            params! { "topics" => letter_topics(issued, "%") },
        )
        .await
        .context("weir_rejected in MySQL")?;
    Ok(Found { readings: readings.unwrap_or(0), letters: letters.unwrap_or(0) })
}

/// How many readings are there in all.
pub(super) async fn total(pool: &Pool) -> anyhow::Result<u64> {
    let mut connection = pool.get_conn().await.context("MySQL")?;
    let readings: Option<u64> = connection.query_first("SELECT COUNT(*) FROM weir_readings").await?;
    Ok(readings.unwrap_or(0))
}

/// How many rows the server has taken since it started, for any table: unlike a count, it costs nothing.
pub(super) async fn written(pool: &Pool) -> anyhow::Result<u64> {
    let mut connection = pool.get_conn().await.context("MySQL")?;
    let status: Option<(String, u64)> =
        connection.query_first("SHOW GLOBAL STATUS LIKE 'Handler_write'").await?;
    Ok(status.context("no Handler_write")?.1)
}

/// Counts every row of the run.
pub(super) async fn read(pool: &Pool, issued: &Issued, tally: &mut Tally<'_>) -> anyhow::Result<()> {
    let mut connection = pool.get_conn().await.context("MySQL")?;
    // Not UNIX_TIMESTAMP: it depends on the time zone of the session.
    let time = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', time) DIV 1000";
    let select = format!("SELECT device, {time}, `values`, tags {READINGS_OF_RUN}");
    let mut rows = connection.exec_iter(select, params! { "run" => &issued.run }).await?;
    while let Some(row) = rows.next().await? {
        count_reading(row, tally)?;
    }
    rows.drop_result().await?;
    let select =
        format!("SELECT source_topic, reason, bytes, raw FROM weir_rejected WHERE received >= {SINCE}");
    let mut connection = pool.get_conn().await.context("MySQL")?;
    connection.query_drop("SET time_zone = '+00:00'").await?;
    let mut rows = connection.exec_iter(select, params! { "since" => issued.received_since_ms() }).await?;
    while let Some(row) = rows.next().await? {
        let (topic, reason, bytes, raw): (Option<String>, String, u64, Vec<u8>) = from_row(row)?;
        tally.dead_letter(&DeadLetter { topic: topic.unwrap_or_default(), reason, bytes, raw });
    }
    rows.drop_result().await?;
    Ok(())
}

fn count_reading(row: Row, tally: &mut Tally<'_>) -> anyhow::Result<()> {
    let (device, time_ms, values, tags): (String, i64, String, String) = from_row(row)?;
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(&values)?;
    let tags: BTreeMap<String, String> = serde_json::from_str(&tags)?;
    let typed: BTreeMap<_, _> =
        values.iter().filter_map(|(name, v)| Some((name.clone(), Value::from_json(v)?))).collect();
    ensure!(typed.len() == values.len(), "a value in MySQL is neither number, bool nor string: {values:?}");
    document::count(device, time_ms, typed, &tags, tally);
    Ok(())
}

fn from_row<T: mysql_async::prelude::FromRow>(row: Row) -> anyhow::Result<T> {
    mysql_async::from_row_opt(row)
        .map_err(|e| anyhow::anyhow!("a row of MySQL is not what the oracle reads: {e}"))
}
