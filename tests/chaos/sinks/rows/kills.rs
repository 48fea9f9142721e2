//! Rows 2 and 3: kill -9 at every step of every sink and of a take-over, and at random.
//!
//! Must hold: every store equals the log, nothing lost, doubled or altered, a canary in all of them within 10 s.

use std::time::Duration;

use weir_harness::control::Exit;

use super::super::lab::Lab;
use crate::lab::{Dice, pass};
use crate::report::Report;
use crate::suite::Lab as _;

const SIGKILL: Exit = Exit { code: None, signal: Some(9) };
/// Sinks that are to die at a step do so within this time.
const DIES: Duration = Duration::from_secs(40);
/// Steps, and how often one may be passed before it kills.
const STEPS: [(&str, u64); 12] = [
    ("sink.m1", 40),
    ("sink.m2", 40),
    ("sink.m3", 40),
    ("sink.l0", 40),
    ("sink.l1", 40),
    ("sink.l2", 40),
    ("sink.l3", 40),
    ("sink.c1", 8),
    ("sink.c2", 30),
    ("sink.c3", 8),
    ("sink.c4", 8),
    ("sink.r1", 0),
];

/// Row 2.
pub(super) fn steps(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let seeds = lab.wanted.seeds;
    report.did(&format!("{} steps and a plan in doubt, {seeds} seeds each", STEPS.len()));
    for (step, count_max) in STEPS {
        let counts = (0..seeds).map(|seed| Dice::new(seed).throw((0, count_max)));
        killed_at(lab, report, step, counts)?;
        lab.tell(&format!("{step}: killed {seeds} times"));
    }
    in_doubt(lab, report, seeds)?;
    lab.tell(&format!("sink.r3: killed {seeds} times"));
    Ok(())
}

/// Dies at a step, passed so often before, and starts again, once for each count; then everything is compared.
pub(super) fn killed_at(
    lab: &mut Lab,
    report: &mut Report,
    step: &str,
    counts: impl IntoIterator<Item = u64>,
) -> anyhow::Result<()> {
    for count in counts {
        die_at(lab, report, &format!("{step}={count}*off->return"))?;
        let mut sinks = lab.start("a", "")?;
        report.heal(step, lab.canary()?);
        lab.books(report, &sinks);
        let exit = sinks.stop()?;
        report
            .check(exit.code == Some(0), || format!("stopped in order, but {exit}; {}", sinks.last_words()));
    }
    let _sinks = lab.start("a", "")?;
    lab.judge(report, step)
}

/// Dies when this failpoint says so.
pub(super) fn die_at(lab: &mut Lab, report: &mut Report, failpoints: &str) -> anyhow::Result<()> {
    let mut sinks = lab.start("a", failpoints)?;
    let exit = sinks.wait_end(DIES)?;
    report.check(exit == SIGKILL, || format!("{failpoints}: it ended with {exit}; {}", sinks.last_words()));
    Ok(())
}

/// Dies with an open plan, and again when the next one has asked what arrived of it.
fn in_doubt(lab: &mut Lab, report: &mut Report, seeds: u64) -> anyhow::Result<()> {
    for seed in 0..seeds {
        die_at(lab, report, &format!("sink.c3={}*off->return", 3 + seed))?;
        die_at(lab, report, "sink.r3=return")?;
        let _sinks = lab.start("a", "")?;
        report.heal("sink.r3", lab.canary()?);
    }
    let _sinks = lab.start("a", "")?;
    lab.judge(report, "sink.r3")
}

/// Row 3.
pub(super) fn random(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    const SLOTS: [&str; 2] = ["a", "b"];
    let kills = lab.wanted.kills;
    let mut dice = Dice::new(3);
    let mut processes = SLOTS.map(|slot| lab.start(slot, ""));
    for _ in 0..kills {
        pass(Duration::from_millis(dice.throw((0, 6000))));
        let at = usize::try_from(dice.throw((0, 1)))?;
        match &mut processes[at] {
            Ok(sinks) => {
                let exit = sinks.kill()?;
                report.check(exit == SIGKILL, || format!("it had ended with {exit}; {}", sinks.last_words()));
            }
            Err(error) => report.problem(format!("could not be started: {error:#}")),
        }
        processes[at] = lab.start(SLOTS[at], "");
    }
    report.did(&format!("{kills} kills of one of two processes with all sinks, 0 to 6 s apart"));
    report.heal("after the last kill", lab.canary()?);
    lab.judge(report, "random kills")
}
