//! Row 28: the wall clock jumps: 10 years ahead, 10 days back, 131,072 s ahead; or the gateway boots in 1970 and hears the
//! time later.
//!
//! Must hold: readings with a time of their device are windowed as if nothing had happened (no window closes early: its
//! count is that of all its readings); readings that took their time from the edge carry the right one in the end.

use std::time::Duration;

use weir_harness::faults::clock::FakeClock;
use weir_shared::clock;

use crate::lab::{Lab, pass};
use crate::report::Report;
use crate::scene::Scene;

const RATE: u64 = 1000;
const YEARS_10: i64 = 10 * 365 * 86_400;
const DAYS_10: i64 = 10 * 86_400;
const RTC_NOISE: i64 = 131_072;
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(4);

/// Row 28.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did("+10 years, -10 days, +131,072 s, and a boot in 1970 that hears the time later");
    for (about, seconds) in [("+10 years", YEARS_10), ("-10 days", -DAYS_10), ("+131,072 s", RTC_NOISE)] {
        if let Err(error) = jump(lab, report, about, seconds) {
            report.problem(format!("{about}: {error:#}"));
        }
    }
    boot_in_1970(lab, report)
}

fn jump(lab: &Lab, report: &mut Report, about: &str, seconds: i64) -> anyhow::Result<()> {
    for timed in [true, false] {
        let about = format!("{about}, {}", if timed { "times of the devices" } else { "times of the edge" });
        let mut scene = scene(lab, "clock-jump", timed)?;
        let turned = FakeClock::new(&scene.folder, 0)?;
        scene.begin("", &turned.environment()?)?;
        pass(BEFORE);
        turned.turn(seconds)?;
        pass(AFTER);
        turned.turn(0)?;
        finish(scene, report, &about, timed)?;
    }
    Ok(())
}

pub(super) fn boot_in_1970(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    for timed in [true, false] {
        let about = format!("1970, {}", if timed { "times of the devices" } else { "times of the edge" });
        let mut scene = scene(lab, "clock-1970", timed)?;
        let turned = FakeClock::new(&scene.folder, 5 - clock::wall_ms() / 1000)?;
        scene.begin("", &turned.environment()?)?;
        pass(BEFORE);
        turned.turn(0)?;
        pass(AFTER);
        finish(scene, report, &about, timed)?;
    }
    Ok(())
}

fn scene<'a>(lab: &'a Lab, about: &str, timed: bool) -> anyhow::Result<Scene<'a>> {
    let mut scene = Scene::new(lab, about, RATE)?;
    scene.windows(&["1s"]);
    if !timed {
        scene.without_times()?;
        scene.spec().add("decode", "time_field = \"\"");
    }
    Ok(scene)
}

fn finish(mut scene: Scene<'_>, report: &mut Report, about: &str, timed: bool) -> anyhow::Result<()> {
    let ended = scene.edge()?.ended()?;
    report.check(ended.is_none(), || format!("{about}: the edge ended: {ended:?}"));
    report.heal(about, scene.canary()?);
    let (verdict, seen) = scene.finish()?;
    report.verdict(about, &verdict);
    if !timed {
        return Ok(()); // the times of arrival are not known here to the millisecond
    }
    for problem in scene.judge_windows(&seen, false)? {
        report.problem(format!("{about}: {problem}"));
    }
    Ok(())
}
