//! Rows 1, 3 and 4: kill -9 at every step, at random, and while it recovers.
//!
//! Must hold: nothing lost, nothing doubled after the cloud's rule; the first acknowledgement within 3 s of a restart; no
//! hand repair, no crash loop.

use std::time::Duration;

use anyhow::ensure;
use weir_harness::control::Exit;

use crate::lab::{Dice, Lab, pass};
use crate::report::{Report, tenth};
use crate::scene::Scene;

/// The failpoint at each step, and how often it is passed before the kill.
const STEPS: [(&str, (u64, u64)); 10] = [
    ("edge.e0", (200, 4000)),
    ("edge.e1", (5, 300)),
    ("edge.e2", (5, 300)),
    ("edge.e3", (5, 300)),
    ("edge.e4", (20, 2000)),
    ("edge.e5", (0, 2)),
    ("edge.e6", (200, 4000)),
    ("edge.e7", (5, 300)),
    ("edge.e8", (1, 15)),
    ("edge.e9", (0, 4)),
];
const RATE: u64 = 2000;
/// A step is reached within this time.
const REACHED: Duration = Duration::from_secs(20);
/// How long a restarted edge may take until its first acknowledgement.
const FIRST_SECONDS_MAX: f64 = 3.0;
const FIRST: Duration = Duration::from_secs(20);
/// So long readings go on after a kill, so that windows close whose readings stand on both sides of it.
const GOES_ON: Duration = Duration::from_millis(3500);
/// Nested kills.
const NESTED: u64 = 50;
const SIGKILL: Exit = Exit { code: None, signal: Some(9) };
/// Small segments, so that every step is passed soon.
const JOURNAL: &str = "segment_bytes = 65536";
/// All of the journal stays, so that the windows can be computed again.
const RETAIN: &str = "retain_bytes = 1073741824";
const WINDOWS: [&str; 2] = ["1s", "10s"];

/// Row 1.
pub(crate) fn steps(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let (mut kills, mut first_max) = (0, 0.0_f64);
    for (step, counts) in STEPS {
        let mut firsts = Vec::new();
        for seed in 0..lab.wanted.seeds {
            let count = Dice::new(seed * 100 + kills).throw(counts);
            match step_once(lab, report, step, count) {
                Ok(first) => {
                    kills += 1;
                    first_max = first_max.max(first);
                    firsts.push(tenth(first));
                }
                Err(error) => report.problem(format!("{step}, {count} passes: {error:#}")),
            }
        }
        lab.tell(&format!("row 1: {step}: first acknowledgements after {firsts:?} s"));
    }
    report.did(&format!("{kills} kills at {} steps", STEPS.len()));
    report.figure("kills", kills);
    report.figure("first_acknowledgement_seconds_max", tenth(first_max));
    Ok(())
}

/// Gives the seconds from the restart to the first acknowledgement.
pub(super) fn step_once(lab: &Lab, report: &mut Report, step: &str, count: u64) -> anyhow::Result<f64> {
    let about = format!("{step}, {count} passes");
    let mut scene = Scene::new(lab, step, RATE)?;
    scene.spec().add("journal", JOURNAL);
    // Nothing is unlinked from a journal that is retained.
    let retained = step != "edge.e9" && lab.windows;
    if retained {
        scene.spec().add("journal", RETAIN);
    }
    scene.windows(&WINDOWS);
    scene.begin(&format!("{step}={count}*off->return"), &[])?;
    let exit = scene.ended(REACHED)?;
    ensure!(exit == SIGKILL, "ended with {exit} instead of a kill; {}", scene.edge()?.last_words());
    scene.start("", &[])?;
    let first = scene.acknowledges(FIRST)?;
    ensure!(first.is_some(), "no acknowledgement within {FIRST:?}; {}", scene.edge()?.last_words());
    let first = first.unwrap_or_default();
    report.check(first <= FIRST_SECONDS_MAX, || format!("{about}: first acknowledgement after {first:.1} s"));
    report.heal(&about, scene.canary()?);
    pass(GOES_ON);
    judge(&mut scene, report, &about, retained)?;
    Ok(first)
}

/// Small segments, windows, and a journal that stays.
fn retained<'a>(lab: &'a Lab, about: &str, rate: u64) -> anyhow::Result<Scene<'a>> {
    let mut scene = Scene::new(lab, about, rate)?;
    scene.spec().add("journal", JOURNAL);
    if lab.windows {
        scene.spec().add("journal", RETAIN);
    }
    scene.windows(&WINDOWS);
    Ok(scene)
}

/// Gives how many readings were found.
fn judge(scene: &mut Scene<'_>, report: &mut Report, about: &str, retained: bool) -> anyhow::Result<usize> {
    let (verdict, seen) = scene.finish()?;
    report.verdict(about, &verdict);
    for problem in scene.judge_windows(&seen, retained)? {
        report.problem(format!("{about}: {problem}"));
    }
    Ok(verdict.found)
}

/// Row 3.
pub(crate) fn random(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    random_kills(lab, report, lab.wanted.kills)
}

pub(super) fn random_kills(lab: &Lab, report: &mut Report, kills: u64) -> anyhow::Result<()> {
    let mut dice = Dice::new(3);
    let mut scene = retained(lab, "random", 1000)?;
    scene.begin("", &[])?;
    for kill in 1..=kills {
        pass(Duration::from_millis(dice.throw((0, 6000))));
        let exit = scene.edge()?.kill()?;
        report.check(exit == SIGKILL, || format!("kill {kill}: it had ended with {exit}"));
        scene.start("", &[])?;
        if kill % 10 == 0 {
            lab.tell(&format!("row 3: {kill} kills, {} readings acknowledged", scene.run.owed()));
        }
    }
    report.heal("after the last kill", scene.canary()?);
    report.did(&format!("{kills} kills, 0 to 6 s apart"));
    let found = judge(&mut scene, report, "random kills", lab.windows)?;
    for problem in lab.processed(&scene.run, found)? {
        report.problem(problem);
    }
    Ok(())
}

/// Row 4.
pub(crate) fn nested(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    nested_kills(lab, report, NESTED)
}

pub(super) fn nested_kills(lab: &Lab, report: &mut Report, kills: u64) -> anyhow::Result<()> {
    let mut dice = Dice::new(4);
    let mut scene = retained(lab, "nested", RATE)?;
    scene.begin("", &[])?;
    pass(Duration::from_secs(2));
    for kill in 1..=kills {
        let exit = scene.edge()?.kill()?;
        report.check(exit == SIGKILL, || format!("kill {kill}: it had ended with {exit}"));
        scene.start("", &[])?;
        pass(Duration::from_millis(dice.throw((50, 500))));
    }
    let ended = scene.edge()?.ended()?;
    report.check(ended.is_none(), || format!("the last start ended by itself: {ended:?}"));
    let first = scene.acknowledges(FIRST)?;
    report.check(first.is_some_and(|s| s <= FIRST_SECONDS_MAX), || {
        format!("first acknowledgement: {first:?} s")
    });
    report.heal("after the last kill", scene.canary()?);
    report.did(&format!("{kills} kills, each 50 to 500 ms after a start"));
    judge(&mut scene, report, "nested kills", lab.windows).map(drop)
}
