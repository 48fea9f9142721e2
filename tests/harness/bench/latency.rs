//! How long a reading needs from being published to being acknowledged by each store, and its alert to be readable, at
//! 10,000 readings/s, and below that down to the rate at which all of it is as quick as wanted: the machine carries all the
//! servers too.
//!
//! Two parts, both over every reading of the run: **publish to edge**, exact, from the rows: a reading is stamped
//! when it is published, and the edge writes when it received it (one machine, one clock). **Edge to store**, from
//! the sinks' histogram `weir_event_latency_seconds`, which ends when the store has acknowledged the
//! batch; linear within a bucket, so as fine as its buckets are. Their sum is given too: for p50 about right, for p99
//! too high rather than too low, since the slowest in one part are not always the slowest in the other. Between them
//! [`hops`] shows when the records could be read from Kafka. A threshold over the shuttle's `f1` makes about one alert of 27
//! readings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};

use super::usage;
use crate::oracle::{Oracle, Store};
use crate::programs::{Program, Programs, Samples};
use crate::simulator::Plan;
use crate::simulator::message::Shapes;
use crate::stack::Stack;
use crate::stream;
use hops::Hops;
use weir_shared::wire;

mod hops;

/// Tried one after the other, until everything is as quick as wanted.
const RATES: [u64; 5] = [10_000, 7_500, 5_000, 2_500, 1_000];
const WARM_UP_RATE: u64 = 5_000;
const WARM_UP_SECONDS: u64 = 60;
const SECONDS: u64 = 30;
const HISTOGRAM: &str = "weir_event_latency_seconds";
/// requirements.md, E: milliseconds at p99 .
const WANTED: [(Store, f64); 3] =
    [(Store::Mysql, 100.0), (Store::Elasticsearch, 100.0), (Store::Clickhouse, 1000.0)];
/// Until an alert can be read from `weir.alerts`.
const ALERTS_WANTED_MS: f64 = 100.0;

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
    alert_rule(oracle)?;
    for program in [Program::Cloud, Program::Edge] {
        programs.start(program)?;
        programs.wait_ready(program)?;
    }
    let bench = Bench { programs, oracle };
    // The first seconds load code, open connections, make indices and let servers compile: not what is asked for.
    let warm_up = plan(WARM_UP_RATE, WARM_UP_SECONDS);
    let warm = stream::run(stack, programs, oracle, &warm_up, &[], |_, _| ())?;
    ensure!(oracle.wait_and_judge(&warm.issued, |_| ())?.is_right(), "the oracle found the warm-up wrong");
    let mut measured = Vec::new();
    for rate in RATES {
        let before = programs.metrics(Program::Cloud).context("metrics of weir-cloud")?;
        let hops = Hops::begin(&stack.addresses().kafka)?;
        let outcome = stream::run(stack, programs, oracle, &plan(rate, SECONDS), &[], |_, _| ())?;
        let hops = hops.end()?;
        let verdict = oracle.wait_and_judge(&outcome.issued, |_| ())?;
        ensure!(verdict.is_right(), "the oracle found the run wrong:\n{verdict}");
        let after = programs.metrics(Program::Cloud).context("metrics of weir-cloud")?;
        let was_kept = outcome.took <= Duration::from_secs(SECONDS + 2);
        tell(&format!("{rate} readings/s{}:", if was_kept { "" } else { ", which were not kept" }));
        let mut figures = bench.figures(&outcome.issued.run, &hops, (&before, &after), tell)?;
        let ok = was_kept && figures["ok"] == json!(true);
        figures.insert("readings_per_second".to_owned(), json!(rate));
        figures.insert("seconds".to_owned(), json!(outcome.took.as_secs()));
        figures.insert("ok".to_owned(), json!(ok));
        measured.push(Value::Object(figures));
        if ok {
            break;
        }
    }
    let quick = measured.last().filter(|last| last["ok"] == json!(true));
    let rate = quick.map(|figures| figures["readings_per_second"].clone());
    let ok = rate == Some(json!(RATES[0]));
    Ok(json!({"as_quick_as_wanted_at": rate, "ok": ok, "rates": measured}))
}

fn plan(rate: u64, seconds: u64) -> Plan {
    let shapes = Shapes { broken: 0, arrays: 0 };
    Plan { readings: rate * seconds, rate, connections: 2, in_flight: 500, shapes }
}

fn alert_rule(oracle: &Oracle) -> anyhow::Result<()> {
    oracle.in_mysql(
        "REPLACE INTO weir_rules (id, version, kind, spec, author, note) VALUES ('bench-latency', 1, 'threshold', \
         '{\"value\":\"values.f1\",\"above\":90,\"clear_below\":85,\"severity\":\"high\"}', 'bench', 'bench')",
    )?;
    oracle.in_mysql(
        "REPLACE INTO weir_rules_active (id, version, author, note) VALUES ('bench-latency', 1, 'bench', 'bench')",
    )?;
    Ok(())
}

struct Bench<'a> {
    programs: &'a Programs<'a>,
    oracle: &'a Oracle,
}

impl Bench<'_> {
    fn figures(
        &self,
        run: &str,
        hops: &BTreeMap<String, Value>,
        (before, after): (&Samples, &Samples),
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Map<String, Value>> {
        let (to_edge_p50, to_edge_p99) = publish_to_edge(self.oracle, run)?;
        let mut figures = Map::new();
        let mut ok = true;
        for (store, wanted) in WANTED {
            let label = format!("hop=\"{}\",from=\"received\"", store.name());
            let quantile = |q| after.quantile(HISTOGRAM, &label, q, before).map(|s| s * 1000.0);
            let p50 = quantile(0.5).with_context(|| format!("{HISTOGRAM} of {}", store.name()))?;
            let p99 = quantile(0.99);
            let total_p99 = p99.map(|p99| p99 + to_edge_p99);
            ok &= total_p99.is_some_and(|p99| p99 <= wanted);
            figures.insert(
                store.name().to_owned(),
                json!({"edge_to_store_p50_ms": tenth(p50), "edge_to_store_p99_ms": p99.map(tenth),
                       "p50_ms": tenth(p50 + to_edge_p50), "p99_ms": total_p99.map(tenth), "wanted_p99_ms": wanted}),
            );
            tell(&format!(
                "latency, {}: p50 {:.1} ms, p99 {total_p99:?} ms",
                store.name(),
                p50 + to_edge_p50
            ));
        }
        let alerts_p99 = hops[wire::ALERTS]["p99_ms"].as_f64().context("alerts")? + to_edge_p99;
        ok &= alerts_p99 <= ALERTS_WANTED_MS;
        figures.insert("alerts_p99_ms".to_owned(), json!(tenth(alerts_p99)));
        figures.insert("alerts_wanted_p99_ms".to_owned(), json!(ALERTS_WANTED_MS));
        tell(&format!("edge to topics: {hops:?}"));
        figures.insert("edge_to_topic".to_owned(), json!(hops));
        figures.insert("publish_to_edge_p50_ms".to_owned(), json!(to_edge_p50));
        figures.insert("publish_to_edge_p99_ms".to_owned(), json!(to_edge_p99));
        for (name, program) in [("edge", Program::Edge), ("cloud", Program::Cloud)] {
            let pid = self.programs.pid(program)?.context("a program ended")?;
            figures.insert(format!("{name}_resident_mb_max"), json!(usage::of(pid)?.resident_mb_max));
        }
        figures.insert("ok".to_owned(), json!(ok));
        Ok(figures)
    }
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
