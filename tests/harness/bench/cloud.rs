//! How fast the cloud drains a backlog.
//!
//! 500,000 readings of about 200 bytes from 1,000 devices wait in `weir.readings`, put there by an idempotent producer
//! with the identities that an edge would give them. First each role alone: `weir-cloud process`, by the committed
//! offsets of its group; then each sink, by the rows in its store. Then another backlog with all roles in one process
//! (`weir-cloud run`). Time counts from the last look at which nothing had moved yet, so that starting is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weir_shared::clock::{self, Deadline};

use super::backlog::{self, Backlog, Lag};
use super::{COUNT_EVERY, LOOK_EVERY, seconds, usage, watch};
use crate::oracle::{Oracle, Rows, Store};
use crate::programs::{Program, Programs};
use crate::stack::Stack;

const READINGS: u64 = 500_000;
const DEVICES: u64 = 1000;
const WITHIN: Duration = Duration::from_secs(300);
/// requirements.md, E.
const WANTED_PER_SECOND: u64 = 100_000;
const WANTED_MB: u64 = 512;
pub(super) const SINKS: [Store; 3] = [Store::Mysql, Store::Elasticsearch, Store::Clickhouse];

/// Measures; the cloud is stopped before and after, and the edge must not run.
///
/// # Errors
/// When a store does not end with exactly the backlog, or something fails.
pub fn measure(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    let brokers = stack.addresses().kafka;
    let lag = Lag::new(&brokers)?;
    let mut figures = serde_json::Map::new();

    let (before, from) = (oracle.rows()?, oracle.all_written()?);
    backlog::put(&brokers, &backlog_of(READINGS))?;
    programs.start_role(&["process"])?;
    let drained = || Ok(Some(READINGS - lag.records()?.min(READINGS)));
    let process = watch(READINGS, WITHIN, LOOK_EVERY, drained)?;
    let process_mb = usage::of(programs.pid(Program::Cloud)?.context("process ended")?)?.resident_mb_max;
    programs.stop_one(Program::Cloud)?;
    tell(&format!("process alone: {} events/s, {process_mb} MB", process.per_second()));
    figures.insert("process_alone_per_second".to_owned(), process.per_second().into());
    for sink in SINKS {
        programs.start_role(&["sink", sink.name()])?;
        let drained = watch(READINGS, WITHIN, COUNT_EVERY, || Ok(Some(came(sink, oracle, &from)?)))?;
        programs.stop_one(Program::Cloud)?;
        tell(&format!("{} alone: {} rows/s", sink.name(), drained.per_second()));
        figures.insert(format!("{}_alone_per_second", sink.name()), drained.per_second().into());
    }
    exactly(oracle, &before, READINGS)?;

    let (before, from) = (oracle.rows()?, oracle.all_written()?);
    backlog::put(&brokers, &backlog_of(READINGS))?;
    programs.start(Program::Cloud)?;
    let together = all_at_once(&lag, oracle, &from)?;
    let usage = usage::of(programs.pid(Program::Cloud)?.context("weir-cloud ended")?)?;
    programs.stop_one(Program::Cloud)?;
    exactly(oracle, &before, READINGS)?;
    tell(&format!("all in one process: {together:?}, {} MB", usage.resident_mb_max));
    figures.insert("together_seconds".to_owned(), json!(together));
    figures.insert("together_cpu_seconds".to_owned(), json!((usage.cpu_seconds * 10.0).round() / 10.0));
    figures.insert("resident_mb_max".to_owned(), usage.resident_mb_max.into());
    figures.insert("process_resident_mb_max".to_owned(), process_mb.into());
    figures.insert("readings".to_owned(), READINGS.into());
    let wanted = json!({"process_alone_per_second": WANTED_PER_SECOND, "resident_mb_max": WANTED_MB});
    figures.insert("wanted".to_owned(), wanted);
    let ok = process.per_second() >= WANTED_PER_SECOND && usage.resident_mb_max <= WANTED_MB;
    figures.insert("ok".to_owned(), ok.into());
    Ok(Value::Object(figures))
}

/// Seconds until the processor, and each store, had everything.
fn all_at_once(lag: &Lag, oracle: &Oracle, from: &Rows) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let deadline = Deadline::after(WITHIN);
    let (mut first_look, mut moved) = (clock::instant(), false);
    let mut count_next = Deadline::after(Duration::ZERO);
    let mut done = BTreeMap::new();
    while done.len() <= SINKS.len() {
        ensure!(!deadline.passed(), "after {WITHIN:?} only these have everything: {done:?}");
        let now = clock::instant();
        let behind = lag.records()?;
        if !moved && behind >= READINGS {
            first_look = now;
        }
        moved |= behind < READINGS;
        if behind == 0 {
            done.entry("process").or_insert_with(|| seconds(clock::since(first_look)));
        }
        if count_next.passed() {
            for sink in SINKS {
                if !done.contains_key(sink.name()) && came(sink, oracle, from)? >= READINGS {
                    done.insert(sink.name(), seconds(clock::since(first_look)));
                }
            }
            count_next = Deadline::after(COUNT_EVERY);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(done)
}

/// How many rows came since [`Oracle::all_written`] said `from`.
pub(super) fn came(sink: Store, oracle: &Oracle, from: &Rows) -> anyhow::Result<u64> {
    Ok(oracle.written(sink)?.saturating_sub(from.of(sink)))
}

pub(super) fn exactly(oracle: &Oracle, before: &Rows, wanted: u64) -> anyhow::Result<()> {
    for sink in SINKS {
        let rows = oracle.rows_of(sink)? - before.of(sink);
        ensure!(rows == wanted, "{} has {rows} rows of {wanted}", sink.name());
    }
    Ok(())
}

pub(super) fn backlog_of(readings: u64) -> Backlog {
    Backlog { readings, devices: DEVICES, per_second: 0, value: reading }
}

fn reading(value: &mut String, device: &str, n: u64, now: i64) {
    let values =
        format!(r#"{{"t":{}.{},"p":1.0135,"rpm":{},"on":true}}"#, 20 + n % 10, n % 97, 1400 + n % 200);
    *value = format!(
        r#"{{"device":"{device}","time":{now},"values":{values},"tags":{{"line":"3","plant":"north"}},"received":{now},"clock":"trusted"}}"#
    );
}
