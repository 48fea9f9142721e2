//! How fast each store gets what waits in `weir.enriched`, exactly once: each sink alone, then all three in one process.
//!
//! 1,000,000 readings of about 200 bytes from 1,000 devices are put into `weir.readings` and processed before anything is
//! measured. Rows are counted in the stores; time runs from the last look at which nothing had come, so that starting is
//! left out. CPU seconds are those of weir-cloud and of the store in that time; all servers and the load's brokers share
//! the machine. For ClickHouse also how fast the engine reads the same rows from a file, with nothing else running.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use weir_shared::clock::{self, Deadline};

use super::backlog::{self, Lag};
use super::cloud::{SINKS, backlog_of, exactly, rows_of};
use super::{COUNT_EVERY, LOOK_EVERY, seconds, usage, watch};
use crate::oracle::{Oracle, Rows, Store};
use crate::programs::{Program, Programs};
use crate::stack::Stack;

const READINGS: u64 = 1_000_000;
const WITHIN: Duration = Duration::from_secs(300);
/// Rows a second, one sink alone.
const WANTED: [u64; 3] = [75_000, 40_000, 250_000];

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
    let bench = Bench { stack, programs, oracle, lag: Lag::new(&stack.addresses().kafka)? };
    let mut figures = Map::new();
    let mut ok = true;
    let before = oracle.rows()?;
    bench.process_a_backlog()?;
    for (sink, wanted) in SINKS.into_iter().zip(WANTED) {
        let mut measured = bench.alone(sink, &before)?;
        ok &= measured["rows_per_second"].as_u64() >= Some(wanted);
        measured["wanted"] = wanted.into();
        tell(&format!("{} alone: {measured}", sink.name()));
        figures.insert(format!("{}_alone", sink.name()), measured);
    }
    exactly(oracle, &before, READINGS)?;
    let from_file = bench.read_a_file()?;
    tell(&format!("ClickHouse from a file: {from_file} rows/s"));
    figures.insert("clickhouse_from_a_file_per_second".to_owned(), from_file.into());

    let before = oracle.rows()?;
    bench.process_a_backlog()?;
    let together = bench.together(&before)?;
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
    fn process_a_backlog(&self) -> anyhow::Result<()> {
        backlog::put(&self.stack.addresses().kafka, &backlog_of(READINGS))?;
        self.programs.start_role(&["process"])?;
        let drained = || Ok(Some(READINGS - self.lag.records()?.min(READINGS)));
        watch(READINGS, WITHIN, LOOK_EVERY, drained)?;
        self.programs.stop_one(Program::Cloud)?;
        Ok(())
    }

    /// CPU seconds of weir-cloud and of the store's server so far.
    fn cpu(&self, sink: Store) -> anyhow::Result<[f64; 2]> {
        let server = if sink == Store::Mysql { "mariadb" } else { sink.name() };
        let status = self.stack.status_if_up()?.context("the stack is not up")?;
        let unit = status.units.iter().find(|unit| unit.name == server).and_then(|unit| unit.pid);
        let cloud = self.programs.pid(Program::Cloud)?.context("weir-cloud ended")?;
        Ok([usage::of(cloud)?.cpu_seconds, usage::of(unit.context(server)?)?.cpu_seconds])
    }

    fn alone(&self, sink: Store, before: &Rows) -> anyhow::Result<Value> {
        self.programs.start_role(&["sink", sink.name()])?;
        let mut cpu_before = [0.0; 2];
        let drained = watch(READINGS, WITHIN, COUNT_EVERY, || {
            let rows = rows_of(sink, self.oracle, before)?;
            if rows == 0 {
                cpu_before = self.cpu(sink)?;
            }
            Ok(Some(rows))
        })?;
        let cpu = self.cpu(sink)?;
        let pid = self.programs.pid(Program::Cloud)?.context("weir-cloud ended")?;
        let resident = usage::of(pid)?.resident_mb_max;
        self.programs.stop_one(Program::Cloud)?;
        let tenth = |x: f64| (x * 10.0).round() / 10.0;
        let [weir, server] = [0, 1].map(|at| tenth(cpu[at] - cpu_before[at]));
        let cores = tenth((cpu[1] - cpu_before[1]) / drained.took.as_secs_f64());
        Ok(json!({
            "rows_per_second": drained.per_second(), "cpu_seconds": weir, "server_cpu_seconds": server,
            "server_cores": cores, "resident_mb_max": resident,
        }))
    }

    /// Seconds until each store has everything, and rows a second of all three.
    fn together(&self, before: &Rows) -> anyhow::Result<Value> {
        self.programs.start_role(&["sink", "mysql", "elasticsearch", "clickhouse"])?;
        let deadline = Deadline::after(WITHIN);
        let (mut begun, mut moved) = (clock::instant(), false);
        let mut done = Map::new();
        while done.len() < SINKS.len() {
            ensure!(!deadline.passed(), "after {WITHIN:?} only these have everything: {done:?}");
            let now = clock::instant();
            for sink in SINKS {
                let rows = rows_of(sink, self.oracle, before)?;
                moved |= rows > 0;
                if rows >= READINGS {
                    done.entry(sink.name()).or_insert_with(|| json!(seconds(begun.elapsed())));
                }
            }
            if !moved {
                begun = now;
            }
            std::thread::park_timeout(COUNT_EVERY);
        }
        let all = 3.0 * READINGS as f64 / begun.elapsed().as_secs_f64();
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
        let took = begun.elapsed();
        let rows: u64 = run("SELECT count() FROM bench_copy FORMAT TabSeparated")?.trim().parse()?;
        run("DROP TABLE bench_copy")?;
        std::fs::remove_file(&file)?;
        ensure!(rows >= READINGS, "the copy has {rows} rows");
        Ok((rows as f64 / took.as_secs_f64()).round() as u64)
    }
}
