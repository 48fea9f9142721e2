//! Row 10: Kafka is away until the journal has reached its budget, under each policy.
//!
//! Must hold: `block`: acknowledgements stop at the budget, and everything drains in order when Kafka is back;
//! `drop_oldest` and `roll_up`: acknowledgements go on, and acknowledged = found + given up, to the number. The budget
//! is never exceeded on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use weir_harness::judge::tape::What;
use weir_harness::stack::Stack;

use crate::lab::{Lab, pass};
use crate::report::Report;
use crate::scene::{Scene, wait};

const RATE: u64 = 5000;
const BUDGET_BYTES: u64 = 4 << 20;
/// At this rate the budget is reached several times over.
const AWAY: Duration = Duration::from_secs(12);
const STOPS: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// Row 10.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did(&format!("Kafka away past a budget of {} MiB, three policies", BUDGET_BYTES >> 20));
    for policy in ["block", "drop_oldest", "roll_up"] {
        if let Err(error) = away(lab, report, policy) {
            report.problem(format!("{policy}: {error:#}"));
        }
    }
    Ok(())
}

pub(super) fn away(lab: &Lab, report: &mut Report, policy: &str) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, policy, RATE)?;
    let lines = format!(
        "segment_bytes = 262144\ncommit_bytes = 65536\nbudget_bytes = {BUDGET_BYTES}\npolicy = \"{policy}\"\nroll_up = \"1s\""
    );
    scene.spec().add("journal", &lines);
    scene.begin("", &[])?;
    pass(Duration::from_secs(1));
    let kafka = Stopped::server(&lab.stack, "kafka")?;
    let journal = scene.specs[0].journal.clone();
    let mut disk_max = 0;
    if policy == "block" {
        let stopped = wait(STOPS, || {
            disk_max = disk_max.max(on_disk(&journal));
            Ok(scene.acknowledged_within(2 * LOOK) == 0)
        })?;
        report.check(stopped, || format!("block: it still acknowledged after {STOPS:?}"));
    } else {
        for _ in 0..AWAY.as_millis() / LOOK.as_millis() {
            pass(LOOK);
            disk_max = disk_max.max(on_disk(&journal));
        }
        let going_on = scene.acknowledged_within(2 * LOOK);
        report.check(going_on > 0, || format!("{policy}: acknowledgements stopped"));
    }
    let live = scene.edge()?.is_live(&lab.admin);
    report.check(live, || format!("{policy}: /live is bad while Kafka is away"));
    report
        .check(disk_max <= BUDGET_BYTES, || format!("{policy}: {disk_max} bytes on disk of {BUDGET_BYTES}"));
    kafka.start()?;
    let healed = if policy == "block" { scene.canary() } else { scene.new_canaries() };
    report.heal(policy, healed?);
    let (verdict, seen) = scene.finish()?;
    report.verdict(policy, &verdict);
    report.check((policy == "block") == (verdict.given_up == 0), || {
        format!("{policy}: {} readings given up", verdict.given_up)
    });
    let windows = seen.iter().filter(|s| matches!(s.what, What::Window(..))).count();
    report.check(policy != "roll_up" || windows > 0, || "roll_up: no window came in their place".to_owned());
    Ok(())
}

/// The edge is killed while Kafka is away: what it handed over is nowhere but in the journal.
pub(super) fn killed(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut scene = Scene::new(lab, "killed", RATE)?;
    scene.spec().add("journal", "segment_bytes = 262144");
    scene.begin("", &[])?;
    pass(Duration::from_secs(1));
    let kafka = Stopped::server(&lab.stack, "kafka")?;
    pass(Duration::from_secs(2));
    scene.edge()?.kill()?;
    kafka.start()?;
    scene.start("", &[])?;
    report.heal("killed", scene.canary()?);
    let (verdict, _) = scene.finish()?;
    report.verdict("killed", &verdict);
    Ok(())
}

/// Bytes that the files of a folder take, without the rounding up to whole blocks.
fn on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => on_disk(&entry.path()),
            Ok(found) => found.len().min(found.blocks() * 512),
            Err(_) => 0, // removed meanwhile
        })
        .sum()
}

/// A server that is down, and started again at the latest when this is dropped.
struct Stopped<'a> {
    stack: &'a Stack,
    name: &'static str,
    started: bool,
}

impl<'a> Stopped<'a> {
    fn server(stack: &'a Stack, name: &'static str) -> anyhow::Result<Self> {
        stack.stop_server(name)?;
        Ok(Self { stack, name, started: false })
    }

    fn start(mut self) -> anyhow::Result<()> {
        self.started = true;
        self.stack.start_server(self.name)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if !self.started {
            let _the_next_row_tells = self.stack.start_server(self.name);
        }
    }
}
