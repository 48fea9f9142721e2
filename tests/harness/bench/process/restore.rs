//! How long the processor takes to have its state again, and what memory that needs, with a million keys and with ten.
//!
//! A key is the state of a threshold for one device: a duration has begun that does not end while it is measured, so that
//! each reading leaves a state and no alert. Time counts from the start of the program, with a changelog that no start
//! before it has read, until all partitions are ready; that includes joining the group.
//! Guarantees: the program itself says that it holds as many states. On failure: an error when it does not.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use weir_shared::clock::{self, Deadline};

use super::{Bench, hundredths, reading, rules};
use crate::bench::backlog::{self, Backlog};
use crate::bench::{LOOK_EVERY, usage};
use crate::programs::Program;

const KEYS: [u64; 2] = [1_000_000, 10_000_000];
const WITHIN: Duration = Duration::from_secs(300);
const STATES: &str = "weir_cloud_process_rule_states";

/// Adds keys until there are as many, and measures each time.
pub(super) fn measure(bench: &Bench<'_>, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Value> {
    let hour = json!({"value": "values.t", "above": 0, "for_ms": 3_600_000});
    for statement in rules::statements(&[("threshold", hour)]) {
        bench.oracle.in_mysql(&statement)?;
    }
    let mut figures = Map::new();
    for keys in KEYS {
        backlog::put(
            &bench.brokers,
            &Backlog { readings: keys, devices: keys, per_second: 0, value: reading },
        )?;
        bench.programs.start_role(&["process"])?;
        drained(bench)?;
        bench.programs.stop_one(Program::Cloud)?;

        let began = clock::instant();
        bench.programs.start_role(&["process"])?;
        let states = until(bench, keys)?;
        let took = clock::since(began).as_secs_f64();
        let pid = bench.programs.pid(Program::Cloud)?.context("weir-cloud ended")?;
        let used = usage::of(pid)?;
        bench.programs.stop_one(Program::Cloud)?;
        tell(&format!(
            "{states} keys: back after {took:.1} s, {} MB, {:.1} CPU-seconds",
            used.resident_mb_max, used.cpu_seconds
        ));
        let of = json!({
            "seconds": hundredths(took),
            "resident_mb_max": used.resident_mb_max,
            "cpu_seconds": hundredths(used.cpu_seconds),
        });
        figures.insert(states.to_string(), of);
    }
    figures.insert("ok".to_owned(), true.into());
    Ok(Value::Object(figures))
}

fn drained(bench: &Bench<'_>) -> anyhow::Result<()> {
    let deadline = Deadline::after(WITHIN);
    while bench.lag.records()? > 0 {
        ensure!(!deadline.passed(), "the keys were not made within {WITHIN:?}");
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

/// Waits until it says that it holds at least so many states: how many.
fn until(bench: &Bench<'_>, keys: u64) -> anyhow::Result<u64> {
    let deadline = Deadline::after(WITHIN);
    loop {
        let states = bench.programs.metrics(Program::Cloud).map_or(0.0, |page| page.sum(STATES, ""));
        if states >= keys as f64 {
            return Ok(states as u64);
        }
        ensure!(!deadline.passed(), "{states} of {keys} states came back within {WITHIN:?}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}
