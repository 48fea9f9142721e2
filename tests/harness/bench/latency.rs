//! How long a reading needs from being published to being acknowledged by each store, at 5,000 readings/s.
//!
//! Two parts, both over every reading of the run: **publish to edge**, exact, from the rows: a reading is stamped
//! when it is published, and the edge writes when it received it (one machine, one clock). **Edge to store**, from
//! the sinks' histogram `weir_cloud_sink_event_latency_seconds`, which ends when the store has acknowledged the
//! batch; linear within a bucket, so as fine as its buckets are. Their sum is given too: for p50 about right, for p99
//! too high rather than too low, since the slowest in one part are not always the slowest in the other.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::usage;
use crate::oracle::{Oracle, Store};
use crate::programs::{Program, Programs};
use crate::simulator::Plan;
use crate::simulator::message::Shapes;
use crate::stack::Stack;
use crate::stream;

const RATE: u64 = 5000;
const SECONDS: u64 = 30;
const HISTOGRAM: &str = "weir_cloud_sink_event_latency_seconds";
/// requirements.md, E: milliseconds at p99 (named there for 10,000 events/s).
const WANTED: [(Store, f64); 3] =
    [(Store::Mysql, 100.0), (Store::Elasticsearch, 100.0), (Store::Clickhouse, 1000.0)];

/// Measures; both programs run afterwards.
///
/// # Errors
/// When the oracle finds anything wrong, or something fails.
pub fn measure(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    for program in [Program::Cloud, Program::Edge] {
        programs.start(program)?;
        programs.wait_ready(program)?;
    }
    let shapes = Shapes { broken: 0, arrays: 0 };
    let plan =
        |seconds| Plan { readings: RATE * seconds, rate: RATE, connections: 2, in_flight: 500, shapes };
    // The first seconds load code, open connections and make indices: not what is asked for.
    let warm = stream::run(stack, programs, oracle, &plan(5), &[], |_, _| ())?;
    ensure!(oracle.wait_and_judge(&warm.issued, |_| ())?.is_right(), "the oracle found the warm-up wrong");
    let before = programs.metrics(Program::Cloud).context("metrics of weir-cloud")?;
    let outcome = stream::run(stack, programs, oracle, &plan(SECONDS), &[], |_, _| ())?;
    let verdict = oracle.wait_and_judge(&outcome.issued, |_| ())?;
    ensure!(verdict.is_right(), "the oracle found the run wrong:\n{verdict}");
    let after = programs.metrics(Program::Cloud).context("metrics of weir-cloud")?;

    let run = &outcome.issued.run;
    let (to_edge_p50, to_edge_p99) = publish_to_edge(oracle, run)?;
    let mut figures = Map::new();
    let mut ok = true;
    for (store, wanted) in WANTED {
        let label = format!("sink=\"{}\"", store.name());
        let quantile = |q| after.quantile(HISTOGRAM, &label, q, &before).map(|s| s * 1000.0);
        let p50 = quantile(0.5).with_context(|| format!("{HISTOGRAM} of {}", store.name()))?;
        let p99 = quantile(0.99);
        let total_p99 = p99.map(|p99| p99 + to_edge_p99);
        ok &= total_p99.is_some_and(|p99| p99 <= wanted);
        figures.insert(
            store.name().to_owned(),
            json!({"edge_to_store_p50_ms": tenth(p50), "edge_to_store_p99_ms": p99.map(tenth),
                   "p50_ms": tenth(p50 + to_edge_p50), "p99_ms": total_p99.map(tenth), "wanted_p99_ms": wanted}),
        );
        tell(&format!("latency, {}: p50 {:.1} ms, p99 {total_p99:?} ms", store.name(), p50 + to_edge_p50));
    }
    let memory = |program| -> anyhow::Result<u64> {
        Ok(usage::of(programs.pid(program)?.context("a program ended")?)?.resident_mb_max)
    };
    figures.insert("publish_to_edge_p50_ms".to_owned(), json!(to_edge_p50));
    figures.insert("publish_to_edge_p99_ms".to_owned(), json!(to_edge_p99));
    figures.insert("readings_per_second".to_owned(), json!(RATE));
    figures.insert("edge_resident_mb_max".to_owned(), json!(memory(Program::Edge)?));
    figures.insert("cloud_resident_mb_max".to_owned(), json!(memory(Program::Cloud)?));
    let slow = outcome.took > Duration::from_secs(SECONDS + 2);
    ensure!(!slow, "the rate was not kept: {} s for {SECONDS} s of readings", outcome.took.as_secs());
    figures.insert("ok".to_owned(), json!(ok));
    Ok(Value::Object(figures))
}

fn publish_to_edge(oracle: &Oracle, run: &str) -> anyhow::Result<(f64, f64)> {
    let waited = "toUnixTimestamp64Milli(received) - toUnixTimestamp64Milli(time)";
    let answer = oracle.in_clickhouse(&format!(
        "SELECT quantileExact(0.5)({waited}), quantileExact(0.99)({waited}) FROM weir_readings \
         WHERE tags['run'] = '{run}' FORMAT TabSeparated"
    ))?;
    let (p50, p99) = answer.trim().split_once('\t').context("two quantiles of ClickHouse")?;
    Ok((p50.parse()?, p99.parse()?))
}

fn tenth(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}
