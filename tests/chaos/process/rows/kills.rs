//! Rows 2, 3 and 4: kill -9 at every step of a cycle and of a take-over, at random, and again during the recovery.
//!
//! Must hold: outputs equal the reference, nothing lost or doubled, a canary within 10 s; no crash loop.

use std::time::Duration;

use weir_harness::control::Exit;

use super::super::lab::Lab;
use crate::lab::{Dice, pass};
use crate::report::Report;
use crate::suite::Lab as _;

const SIGKILL: Exit = Exit { code: None, signal: Some(9) };
/// A processor that is to die at a step does so within this time.
const DIES: Duration = Duration::from_secs(40);
/// Steps, and how often one may be passed before it kills.
const STEPS: [(&str, u64); 8] = [
    ("cloud.s0", 60),
    ("cloud.s1", 60),
    ("cloud.s2", 60),
    ("cloud.s3", 60),
    ("cloud.s4", 60),
    ("cloud.s5", 60),
    ("cloud.r1", 1),
    ("cloud.r2", 15),
];
/// Cycles that are taken back, within this time.
const ABORTS: u32 = 5;
const ABORTED: Duration = Duration::from_secs(5);
const NESTED: u64 = 20;
const NESTED_FULL: u64 = 50;

/// Row 2.
pub(super) fn steps(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let seeds = lab.wanted.seeds;
    report.did(&format!("{} steps, {seeds} seeds each", STEPS.len()));
    for (step, count_max) in STEPS {
        for seed in 0..seeds {
            step_once(lab, report, step, Dice::new(seed).throw((0, count_max)))?;
        }
        lab.tell(&format!("{step}: killed {seeds} times"));
    }
    aborts(lab, report)
}

/// Cycles are taken back just before their commit, and done again.
pub(super) fn aborts(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let cloud = lab.start("a", &format!("cloud.abort=20*off->{ABORTS}*return->off"))?;
    lab.canary()?;
    pass(ABORTED);
    report.heal("taken back", lab.canary()?);
    lab.judge(report, "cycles taken back")?;
    lab.books(report, &cloud);
    let aborted = cloud
        .metrics(&lab.admin)
        .map_or(0.0, |page| page.sum("weir_cloud_process_commits_total", "outcome=\"aborted\""));
    report.check(aborted >= f64::from(ABORTS), || format!("only {aborted} cycles were taken back"));
    Ok(())
}

/// Dies at a step, passed so often before; starts again; judged.
pub(super) fn step_once(lab: &mut Lab, report: &mut Report, step: &str, count: u64) -> anyhow::Result<()> {
    let mut cloud = lab.start("a", &format!("{step}={count}*off->return"))?;
    let exit = cloud.wait_end(DIES)?;
    report.check(exit == SIGKILL, || format!("{step}: it ended with {exit}; {}", cloud.last_words()));
    let mut cloud = lab.start("a", "")?;
    report.heal(step, lab.canary()?);
    lab.judge(report, &format!("{step} after {count}"))?;
    lab.books(report, &cloud);
    let exit = cloud.stop()?;
    report.check(exit.code == Some(0), || format!("stopped in order, but {exit}; {}", cloud.last_words()));
    Ok(())
}

/// Row 3.
pub(super) fn random(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    random_kills(lab, report, lab.wanted.kills)
}

pub(super) fn random_kills(lab: &mut Lab, report: &mut Report, kills: u64) -> anyhow::Result<()> {
    const SLOTS: [&str; 2] = ["a", "b"];
    let mut dice = Dice::new(3);
    let mut clouds = SLOTS.map(|slot| lab.start(slot, ""));
    for _ in 0..kills {
        pass(Duration::from_millis(dice.throw((0, 6000))));
        let at = usize::try_from(dice.throw((0, 1)))?;
        match &mut clouds[at] {
            Ok(cloud) => {
                let exit = cloud.kill()?;
                report.check(exit == SIGKILL, || format!("it had ended with {exit}; {}", cloud.last_words()));
            }
            Err(error) => report.problem(format!("could not be started: {error:#}")),
        }
        clouds[at] = lab.start(SLOTS[at], "");
    }
    report.did(&format!("{kills} kills of one of two processors, 0 to 6 s apart"));
    report.heal("after the last kill", lab.canary()?);
    lab.judge(report, "random kills")
}

/// Row 4.
pub(super) fn nested(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    nested_kills(lab, report, if lab.wanted.seeds > 10 { NESTED_FULL } else { NESTED })
}

pub(super) fn nested_kills(lab: &mut Lab, report: &mut Report, kills: u64) -> anyhow::Result<()> {
    let mut dice = Dice::new(4);
    let mut cloud = lab.start("a", "")?;
    pass(Duration::from_secs(2));
    for kill in 1..=kills {
        let exit = cloud.kill()?;
        report.check(exit == SIGKILL, || format!("kill {kill}: it had ended with {exit}"));
        cloud = lab.start("a", "")?;
        pass(Duration::from_millis(dice.throw((50, 500))));
    }
    report.did(&format!("{kills} kills, each 50 to 500 ms after a start"));
    report.heal("after the last kill", lab.canary()?);
    lab.judge(report, "nested kills")?;
    let ended = cloud.ended()?;
    report.check(ended.is_none(), || format!("the last start ended by itself: {ended:?}"));
    Ok(())
}
