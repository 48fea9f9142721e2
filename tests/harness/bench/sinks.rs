//! How fast each store gets what waits in `weir.enriched`, exactly once: each sink alone, Apache Flink ([`flink`]) from the
//! same records into the same MySQL and Elasticsearch, then all three sinks in one process.
//!
//! 1,000,000 readings of about 200 bytes from 1,000 devices are put into `weir.readings` and processed before anything is
//! measured. Rows are counted in the stores; time runs from the last look at which nothing had come, so that starting is
//! left out; of Flink also the first tenth, so that compiling is. CPU seconds are those of the program and of the store in
//! that time; all servers and the load's brokers share the machine. For ClickHouse also how fast the engine reads the same
//! rows from a file, with nothing else running.
//! Guarantees: every store ends with exactly the backlog, Flink's with the same rows as Weir's. On failure: an error,
//! Flink's with the exceptions in its log.

mod flink;

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use super::arrivals::Arrivals;
use super::backlog::{self, Begin, Lag};
use super::cloud::{SINKS, backlog_of, came, exactly};
use super::flink::Cluster;
use super::{COUNT_EVERY, LOOK_EVERY, seconds, usage, watch};
use crate::install::Flink;
use crate::oracle::{Oracle, Rows, Store};
use crate::programs::{Program, Programs};
use crate::stack::Stack;
use flink::Peer;

const READINGS: u64 = 1_000_000;
/// Before anything is measured.
const WARM_UP: u64 = 400_000;
const WITHIN: Duration = Duration::from_secs(300);
const PEER_WITHIN: Duration = Duration::from_secs(500);
/// Rows a second, one sink alone.
const WANTED: [u64; 3] = [75_000, 40_000, 250_000];
/// How many times Flink's rows a second.
const WANTED_RATIO: [(Store, f64); 2] = [(Store::Mysql, 3.0), (Store::Elasticsearch, 4.0)];
/// The first of Flink's rows are not measured.
const PEER_WARM_UP: u64 = READINGS / 10;

/// Measures; the cloud is stopped before and after, and the edge must not run. Without `jars` there is no Flink to compare
/// with.
///
/// # Errors
/// When a store does not end with exactly the backlog, or something fails.
pub fn measure(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    jars: Option<Flink>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    let brokers = stack.addresses().kafka;
    let bench = Bench { stack, programs, oracle, lag: Lag::new(&brokers)? };
    let cluster = jars.map(|jars| Cluster::new(stack, jars)).transpose()?;
    let peer = cluster.map(|cluster| Peer { cluster, oracle });
    let mut figures = Map::new();
    let mut ok = peer.is_some();
    bench.warm_up()?;
    let (before, from) = (oracle.rows()?, oracle.all_written()?);
    let begin = Arrivals::new(&brokers, wire::ENRICHED)?.ends()?;
    bench.process_a_backlog(READINGS)?;
    for (sink, wanted) in SINKS.into_iter().zip(WANTED) {
        let mut measured = bench.alone(sink, &from)?;
        ok &= measured["rows_per_second"].as_u64() >= Some(wanted);
        measured["wanted"] = wanted.into();
        tell(&format!("{} alone: {measured}", sink.name()));
        figures.insert(format!("{}_alone", sink.name()), measured);
    }
    exactly(oracle, &before, READINGS)?;
    for ((store, wanted), peer) in WANTED_RATIO.into_iter().zip(std::iter::repeat(peer.as_ref())) {
        let Some(peer) = peer else { break };
        let name = store.name();
        let measured = bench.flink(peer, store, &begin)?;
        tell(&format!("flink, {name}: {measured}"));
        let per_second = |of: &Value| of["rows_per_second"].as_f64().context("rows a second");
        let ratio = per_second(&figures[&format!("{name}_alone")])? / per_second(&measured)?;
        ok &= ratio >= wanted;
        figures.insert(format!("flink_{name}"), measured);
        figures
            .insert(format!("ratio_{name}"), json!({"weir_to_flink": hundredths(ratio), "wanted": wanted}));
    }
    let from_file = bench.read_a_file()?;
    tell(&format!("ClickHouse from a file: {from_file} rows/s"));
    figures.insert("clickhouse_from_a_file_per_second".to_owned(), from_file.into());

    let (before, from) = (oracle.rows()?, oracle.all_written()?);
    bench.process_a_backlog(READINGS)?;
    let together = bench.together(&from)?;
    exactly(oracle, &before, READINGS)?;
    tell(&format!("all three: {together}"));
    figures.insert("together".to_owned(), together);
    figures.insert("readings".to_owned(), READINGS.into());
    figures.insert("ok".to_owned(), ok.into());
    Ok(Value::Object(figures))
}

struct Bench<'a> {
    stack: &'a Stack,
    programs: &'a Programs<'a>,
    oracle: &'a Oracle,
    lag: Lag,
}

impl Bench<'_> {
    /// The servers have done this before when they are measured, whoever writes: a fresh Elasticsearch needs three times the
    /// CPU for a document. What came is removed.
    fn warm_up(&self) -> anyhow::Result<()> {
        let from = self.oracle.all_written()?;
        self.process_a_backlog(WARM_UP)?;
        self.programs.start_role(&["sink", "mysql", "elasticsearch", "clickhouse"])?;
        for sink in SINKS {
            watch(WARM_UP, WITHIN, COUNT_EVERY, || Ok(Some(came(sink, self.oracle, &from)?)))?;
        }
        self.programs.stop_one(Program::Cloud)?;
        self.oracle.in_mysql("TRUNCATE TABLE weir_readings")?;
        self.oracle.in_clickhouse("TRUNCATE TABLE weir_readings")?;
        self.oracle.remove_in_elasticsearch("weir-readings-*")
    }

    fn process_a_backlog(&self, readings: u64) -> anyhow::Result<()> {
        backlog::put(&self.stack.addresses().kafka, &backlog_of(readings))?;
        self.programs.start_role(&["process"])?;
        let drained = || Ok(Some(readings - self.lag.records()?.min(readings)));
        watch(readings, WITHIN, LOOK_EVERY, drained)?;
        self.programs.stop_one(Program::Cloud)?;
        Ok(())
    }

    /// CPU seconds of a program and of the store's server so far.
    fn cpu(&self, program: u32, store: Store) -> anyhow::Result<[f64; 2]> {
        let server = if store == Store::Mysql { "mariadb" } else { store.name() };
        let status = self.stack.status_if_up()?.context("the stack is not up")?;
        let unit = status.units.iter().find(|unit| unit.name == server).and_then(|unit| unit.pid);
        Ok([usage::of(program)?.cpu_seconds, usage::of(unit.context(server)?)?.cpu_seconds])
    }

    fn alone(&self, sink: Store, from: &Rows) -> anyhow::Result<Value> {
        self.programs.start_role(&["sink", sink.name()])?;
        let pid = self.programs.pid(Program::Cloud)?.context("weir-cloud ended")?;
        let measured = self.filled(pid, sink, WITHIN, 0, || came(sink, self.oracle, from))?;
        self.programs.stop_one(Program::Cloud)?;
        Ok(measured)
    }

    fn flink(&self, peer: &Peer<'_>, store: Store, begin: &Begin) -> anyhow::Result<Value> {
        let pid = peer.start(store, begin)?;
        let from = peer.written(store)?;
        let came = || Ok(peer.written(store)?.saturating_sub(from));
        let measured = self.filled(pid, store, PEER_WITHIN, PEER_WARM_UP, came);
        peer.cluster.stop()?;
        let measured = measured.with_context(|| peer.cluster.why())?;
        let rows = peer.rows(store)?;
        ensure!(rows == READINGS, "Flink's {} has {rows} rows of {READINGS}", store.name());
        peer.check(store)?;
        peer.remove(store)?;
        Ok(measured)
    }

    /// Watches a program that has just been started until the store has all rows. The first ones are not measured.
    fn filled(
        &self,
        program: u32,
        store: Store,
        within: Duration,
        first: u64,
        rows: impl Fn() -> anyhow::Result<u64>,
    ) -> anyhow::Result<Value> {
        let mut before = [0.0; 2];
        let drained = watch(READINGS - first, within, COUNT_EVERY, || {
            let measured = rows()?.saturating_sub(first);
            let now = self.cpu(program, store)?; // an error when it has ended
            if measured == 0 {
                before = now;
            }
            Ok(Some(measured))
        })?;
        let after = self.cpu(program, store)?;
        let [own, server] = [0, 1].map(|at| after[at] - before[at]);
        Ok(json!({
            "rows_per_second": drained.per_second(), "cpu_seconds": tenth(own), "server_cpu_seconds": tenth(server),
            "server_cores": tenth(server / drained.took.as_secs_f64()),
            "resident_mb_max": usage::of(program)?.resident_mb_max,
        }))
    }

    /// Seconds until each store has everything, and rows a second of all three.
    fn together(&self, from: &Rows) -> anyhow::Result<Value> {
        self.programs.start_role(&["sink", "mysql", "elasticsearch", "clickhouse"])?;
        let deadline = Deadline::after(WITHIN);
        let (mut begun, mut moved) = (clock::instant(), false);
        let mut done = Map::new();
        while done.len() < SINKS.len() {
            ensure!(!deadline.passed(), "after {WITHIN:?} only these have everything: {done:?}");
            let now = clock::instant();
            for sink in SINKS {
                let rows = came(sink, self.oracle, from)?;
                moved |= rows > 0;
                if rows >= READINGS {
                    done.entry(sink.name()).or_insert_with(|| json!(seconds(clock::since(begun))));
                }
            }
            if !moved {
                begun = now;
            }
            std::thread::park_timeout(COUNT_EVERY);
        }
        let all = 3.0 * READINGS as f64 / clock::since(begun).as_secs_f64();
        self.programs.stop_one(Program::Cloud)?;
        Ok(json!({"seconds": done, "rows_per_second": all.round()}))
    }

    /// Rows a second that the engine itself takes from a file.
    fn read_a_file(&self) -> anyhow::Result<u64> {
        let file = self.stack.data_dir().join("bench-rows.bin").display().to_string();
        let run = |statement: &str| self.oracle.in_clickhouse(statement);
        run(&format!("SELECT * FROM weir_readings INTO OUTFILE '{file}' TRUNCATE FORMAT RowBinary"))?;
        run("CREATE OR REPLACE TABLE bench_copy AS weir_readings")?;
        let begun = clock::instant();
        run(&format!("INSERT INTO bench_copy FROM INFILE '{file}' FORMAT RowBinary"))?;
        let took = clock::since(begun);
        let rows: u64 = run("SELECT count() FROM bench_copy FORMAT TabSeparated")?.trim().parse()?;
        run("DROP TABLE bench_copy")?;
        std::fs::remove_file(&file)?;
        ensure!(rows >= READINGS, "the copy has {rows} rows");
        Ok((rows as f64 / took.as_secs_f64()).round() as u64)
    }
}

fn tenth(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn hundredths(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}
