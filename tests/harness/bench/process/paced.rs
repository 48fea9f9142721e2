//! Memory and lag of the processor at 100,000 readings per second for twenty seconds.
//!
//! Comes in: the servers. Goes out: the most memory it ever held, its CPU share, and how far it was behind when the last
//! reading had come. On failure: an error when it does not keep up or something fails.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use super::{Bench, DEVICES, WANTED_PACED_MB, hundredths, judge, reading};
use crate::bench::backlog::{self, Backlog, Begin};
use crate::bench::{LOOK_EVERY, usage};
use crate::programs::Program;

const PER_SECOND: u64 = 100_000;
const SECONDS: u64 = 20;
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn measure(bench: &Bench<'_>, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Value> {
    let from = bench.enriched.ends()?;
    bench.programs.start_role(&["process"])?;
    bench.programs.wait_ready(Program::Cloud)?;
    let pid = bench.programs.pid(Program::Cloud)?.context("weir-cloud ended")?;
    let (began, before) = (clock::instant(), usage::of(pid)?);
    let readings = PER_SECOND * SECONDS;
    backlog::put(
        &bench.brokers,
        &Backlog { readings, devices: DEVICES, per_second: PER_SECOND, value: reading },
    )?;
    let (took, behind, after) = (clock::since(began), bench.lag.records()?, usage::of(pid)?);
    let deadline = Deadline::after(CAUGHT_UP_WITHIN);
    while bench.lag.records()? > 0 {
        ensure!(!deadline.passed(), "still behind {CAUGHT_UP_WITHIN:?} after the paced load");
        std::thread::park_timeout(LOOK_EVERY);
    }
    let most = usage::of(pid)?.resident_mb_max;
    bench.programs.stop_one(Program::Cloud)?;
    judge::exactly(&bench.brokers, wire::ENRICHED, &from, &Begin::new(), readings)?;
    let share = (after.cpu_seconds - before.cpu_seconds) / took.as_secs_f64();
    tell(&format!("paced: {most} MB, {share:.2} CPUs, {behind} behind at the end, in {took:?}"));
    Ok(json!({
        "resident_mb_max": most,
        "cpu_share": hundredths(share),
        "behind_at_end": behind,
        "put_per_second": (readings as f64 / took.as_secs_f64()).round(),
        "wanted": {"resident_mb_max": WANTED_PACED_MB},
        "ok": most <= WANTED_PACED_MB,
    }))
}
