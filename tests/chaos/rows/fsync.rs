//! Rows 7 and 9: fsync fails, fsync is slow.
//!
//! Must hold: after one failed fsync the edge goes on and loses nothing; when every fsync fails nothing is acknowledged
//! any more, and the process ends with an exit code and words that say so. With an fsync of 2 s the sources are held
//! back, memory stays bounded, `/live` stays good; and no acknowledgement leaves the edge while its fsync goes on.

use std::time::Duration;

use weir_harness::faults::shim::{Fault, Shim};

use crate::lab::{Lab, pass};
use crate::report::Report;
use crate::scene::{Scene, wait};

const RATE: u64 = 1000;
const SOON: Duration = Duration::from_secs(5);
/// What was durable before the failure may still be acknowledged for this long.
const GRACE: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_secs(2);
const SLOW_RATE: u64 = 5000;
const SLOW_FOR: Duration = Duration::from_secs(24);
const MEMORY_MB_MAX: u64 = 64;

/// Row 7.
pub(crate) fn fails(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did("EIO at one fsync, then at every fsync");
    for seed in 0..lab.wanted.seeds {
        once(lab, report, seed)?;
    }
    always(lab, report)
}

fn once(lab: &Lab, report: &mut Report, seed: u64) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, "eio-once", RATE)?;
    let shim = Shim::new(&scene.folder, &scene.specs[0].journal)?;
    scene.begin("", &shim.environment())?;
    pass(Duration::from_millis(700 + 37 * seed));
    shim.set(Fault::EioOnce)?;
    let failed = wait(SOON, || Ok(shim.failed()? > 0))?;
    report.check(failed, || "once: no fsync was there to fail".to_owned());
    pass(GRACE);
    let ended = scene.edge()?.ended()?;
    report.check(ended.is_none(), || format!("once: the edge ended ({ended:?}) instead of going on"));
    if ended.is_some() {
        scene.start("", &[])?;
    }
    let more = scene.acknowledges(SOON)?;
    report.check(more.is_some(), || "once: no acknowledgement after the failure".to_owned());
    report.heal("once", scene.canary()?);
    let (verdict, _) = scene.finish()?;
    report.verdict("once", &verdict);
    Ok(())
}

pub(super) fn always(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, "eio-always", RATE)?;
    let shim = Shim::new(&scene.folder, &scene.specs[0].journal)?;
    scene.begin("", &shim.environment())?;
    pass(Duration::from_secs(1));
    shim.set(Fault::EioAlways)?;
    let failed = wait(SOON, || Ok(shim.failed()? > 0))?;
    report.check(failed, || "always: no fsync was there to fail".to_owned());
    pass(GRACE);
    let after = scene.acknowledged_within(Duration::from_secs(3));
    report.check(after == 0, || format!("always: {after} acknowledgements after the disk had failed"));
    match scene.ended(SOON) {
        Ok(exit) => {
            let words = scene.edge()?.last_words();
            report.check(exit.code.is_some_and(|code| code != 0), || format!("always: ended with {exit}"));
            report
                .check(words.contains("os error 5"), || format!("always: its log does not say why; {words}"));
        }
        Err(error) => {
            report.problem(format!("always: {error:#}"));
            scene.edge()?.kill()?;
        }
    }
    shim.set(Fault::None)?;
    scene.start("", &[])?;
    report.heal("always, then restarted on a good disk", scene.canary()?);
    let (verdict, _) = scene.finish()?;
    report.verdict("always", &verdict);
    Ok(())
}

/// Row 9.
pub(crate) fn slow(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did(&format!("every fsync takes {DELAY:?} for {SLOW_FOR:?}"));
    let mut scene = Scene::new(lab, "slow", SLOW_RATE)?;
    let shim = Shim::new(&scene.folder, &scene.specs[0].journal)?;
    scene.begin("", &shim.environment())?;
    pass(Duration::from_secs(1));
    shim.set(Fault::Slow(DELAY))?;
    let done = shim.done()?;
    let rounds = SLOW_FOR.as_secs() / DELAY.as_secs();
    let (mut early, mut dead) = (0, 0);
    for _ in 0..rounds {
        early += acknowledged_inside(&scene, &shim)?;
        // A busy machine may be late with one answer; a watchdog asks again.
        let edge = scene.edge()?;
        dead += u64::from(!edge.is_live(&lab.admin) && !edge.is_live(&lab.admin));
    }
    report.check(early == 0, || format!("{early} acknowledgements left while their fsync was going on"));
    report.check(dead == 0, || format!("/live was bad {dead} times of {rounds}"));
    let synced = shim.done()? - done;
    report.check(synced > 0, || "no fsync ended while they were slow".to_owned());
    shim.set(Fault::None)?;
    report.heal("slow", scene.canary()?);
    let memory = scene.edge()?.resident_mb_max().unwrap_or(u64::MAX);
    report.check(memory <= MEMORY_MB_MAX, || format!("{memory} MB resident, wanted {MEMORY_MB_MAX}"));
    report.figure("resident_mb_max", memory);
    let (verdict, _) = scene.finish()?;
    report.verdict("slow", &verdict);
    Ok(())
}

/// Acknowledgements in the middle of one slow fsync: those of the fsync before have left by then.
fn acknowledged_inside(scene: &Scene<'_>, shim: &Shim) -> anyhow::Result<u64> {
    let done = shim.done()?;
    let another = wait(3 * DELAY, || Ok(shim.done()? > done && shim.inside()? == 1))?;
    anyhow::ensure!(another, "no fsync began within {:?}", 3 * DELAY);
    let done = shim.done()?;
    pass(DELAY / 3);
    let count = scene.acknowledged_within(DELAY / 3);
    Ok(if shim.done()? == done { count } else { 0 })
}
