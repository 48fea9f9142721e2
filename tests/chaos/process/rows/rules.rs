//! Rules change several times a second while processors are killed and take over from each other.
//!
//! Must hold: each output is that of the rules whose number it names, episodes of thresholds too; a version that cannot
//! be right changes nothing; the last change is in force everywhere within 10 s.

use std::time::Duration;

use anyhow::Context;
use weir_harness::programs::Samples;
use weir_shared::clock::{self, Deadline};

use super::super::lab::Lab;
use crate::lab::{Dice, pass};
use crate::report::Report;
use crate::suite::Lab as _;

const CHANGES: u64 = 40;
/// A processor is killed after so many.
const KILL_EVERY: u64 = 5;
const BETWEEN_MS: (u64, u64) = (100, 900);
const SLOTS: [&str; 2] = ["a", "b"];
const IN_FORCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// A version that is larger than all others, and no CEL.
const WRONG: [&str; 2] = [
    "REPLACE INTO weir_rules (id, version, kind, spec) VALUES ('hot', 1000000, 'threshold', \
     '{\"value\":\"values.n +\",\"above\":1}')",
    "UPDATE weir_rules_active SET version = 1000000 WHERE id = 'hot'",
];

/// Rules.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    changes(lab, report, CHANGES)?;
    without(lab, report)
}

/// A process that knows of no rules must not go on where others had some: it would show what masks hide.
fn without(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    const SAYS: &str = "this process has no rules";
    let mut spec = lab.spec("without")?;
    let dimension = spec.sections.find("[[dimension]]").context("the section of the dimension")?;
    spec.sections.drain(..dimension);
    let mut cloud = lab.start_as(&spec, "")?;
    let deadline = Deadline::after(IN_FORCE);
    while !cloud.says(SAYS) && !deadline.passed() {
        pass(LOOK);
    }
    report.check(cloud.says(SAYS), || {
        format!("without rules it does not say {SAYS:?}; {}", cloud.last_words())
    });
    cloud.stop()?;
    let _cloud = lab.start(SLOTS[0], "")?;
    report.heal("after a process without rules", lab.canary()?);
    lab.judge(report, "a process without rules")
}

pub(super) fn changes(lab: &mut Lab, report: &mut Report, changes: u64) -> anyhow::Result<()> {
    let mut dice = Dice::new(40);
    let mut clouds = [lab.start(SLOTS[0], "")?, lab.start(SLOTS[1], "")?];
    lab.canary()?;
    for change in 1..=changes {
        pass(Duration::from_millis(dice.throw(BETWEEN_MS)));
        lab.change_rules()?;
        if change % KILL_EVERY == 0 {
            let at = usize::try_from(dice.throw((0, 1)))?;
            clouds[at].kill()?;
            clouds[at] = lab.start(SLOTS[at], "")?;
        }
    }
    lab.database.run(&WRONG.map(str::to_owned))?;
    pass(Duration::from_millis(dice.throw(BETWEEN_MS)));
    lab.change_rules()?;
    let begun = clock::instant();
    let deadline = Deadline::after(IN_FORCE);
    // A process may have made its number before it saw the last change: asked again each time.
    let all = loop {
        lab.database.read_rules(&mut lab.history)?;
        let newest = lab.history.newest_rules() as f64;
        let shown = |page: Samples| page.sum("weir_cloud_rules_set", "");
        let all = clouds.iter().all(|cloud| cloud.metrics(&lab.admin).map(shown) == Some(newest));
        if all && lab.database.rules_in_force()? || deadline.passed() {
            break all;
        }
        pass(LOOK);
    };
    report.check(all, || format!("the last change is not in force everywhere within {IN_FORCE:?}"));
    report.heal("the last change", clock::since(begun).as_secs_f64());
    report.heal("after the last change", lab.canary()?);
    lab.judge(report, "rules")?;
    report.did(&format!(
        "{changes} changes of the rules, {} kills, a version that was refused",
        changes / KILL_EVERY
    ));
    Ok(())
}
