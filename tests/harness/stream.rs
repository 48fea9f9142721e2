//! One run of the simulated devices through the running programs, with kills in mid-stream.
//!
//! Comes in: programs that are ready, a [`Plan`], the kills. Goes out: what was published ([`Outcome`]).
//! Guarantees: a kill falls when its share of the readings is acknowledged, so never before or after the stream.
//! On failure: an error; the run's log stays in the stack's folder.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use weir_shared::clock;

use crate::oracle::Oracle;
use crate::programs::{Program, Programs};
use crate::simulator::ledger::{Counts, Issued, Ledger};
use crate::simulator::series::Series;
use crate::simulator::{Plan, simulate};
use crate::stack::Stack;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A kill -9 of a program when so many readings are acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Which.
    pub program: Program,
    /// When.
    pub at_readings: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything published.
    pub issued: Issued,
    /// How much of it was acknowledged.
    pub counts: Counts,
    /// How long publishing took.
    pub took: Duration,
    /// Kills that were carried out.
    pub kills: Vec<Kill>,
}

/// Where the log of a run lies.
#[must_use]
pub fn log_path(stack: &Stack, run: &str) -> PathBuf {
    stack.data_dir().join("run").join(format!("{run}.log"))
}

/// A name for a run that begins now: sorts by time, and no two on one machine are the same.
#[must_use]
pub fn new_run_name() -> String {
    format!("r{:x}p{:x}", clock::wall_ms(), std::process::id())
}

/// Publishes the plan; `told` hears of progress about twenty times a second, and of kills.
///
/// # Errors
/// When publishing fails, a kill cannot be carried out, or its moment never came.
pub fn run(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    plan: &Plan,
    kills: &[Kill],
    mut told: impl FnMut(Counts, Option<&str>),
) -> anyhow::Result<Outcome> {
    let run = new_run_name();
    let path = log_path(stack, &run);
    fs::create_dir_all(path.parent().context("the log lies in a folder")?)?;
    let series = Series::read(&stack.dist_dir().join("data"))?;
    let ledger = Ledger::begin(&path, &run, clock::wall_ms(), oracle.offsets()?)?;
    let started = clock::instant();
    let mut waiting = kills.iter();
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        let (running, heard) = mpsc::channel::<()>();
        let (ledger, series, mqtt) = (&ledger, &series, stack.addresses().mqtt);
        let publisher = scope.spawn(move || {
            let result = simulate(&mqtt, series, plan, ledger);
            drop(running);
            result
        });
        let mut next = waiting.next();
        // The channel ends with the publisher, however that ends.
        while matches!(heard.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout)) {
            let counts = ledger.counts();
            told(counts, None);
            if let Some(kill) = next.filter(|kill| counts.acked >= kill.at_readings) {
                let (old, new) = programs.kill(kill.program)?;
                let words = format!("killed {} -9 (pid {old}); it runs again as {new}", kill.program.name());
                told(counts, Some(&words));
                done.push(*kill);
                next = waiting.next();
            }
        }
        publisher.join().map_err(|_| anyhow!("the simulator panicked"))?
    })?;
    told(ledger.counts(), None);
    ensure!(done.len() == kills.len(), "only {} of {} kills fell into the stream", done.len(), kills.len());
    Ok(Outcome {
        issued: ledger.issued(),
        counts: ledger.counts(),
        took: clock::instant() - started,
        kills: done,
    })
}
