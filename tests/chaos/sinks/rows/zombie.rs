//! Row 14: sinks are frozen, others take over, then the frozen ones go on.
//!
//! Must hold: what a frozen one had begun is ended by its successor, refused by the store, or the same thing again.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use weir_harness::patience::holds_within;

use super::super::lab::{ALL, Lab};
use crate::lab::pass;
use crate::report::Report;
use crate::suite::Lab as _;

/// The session in the group ends after 6 s.
const FROZEN: Duration = Duration::from_secs(15);
const AFTER: Duration = Duration::from_secs(3);
/// The twin is fenced off for a minute when the held one joins again.
const WORKS_AGAIN: Duration = Duration::from_secs(8);
const FENCED: &str = "staying away for a while";
/// It is held in the batch after so many.
const BATCHES: u32 = 10;
const COMES: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Where a sink is held: before it writes rows of MySQL, and between plan and insert of ClickHouse.
const POINTS: [&str; 2] = ["sink.m0", "sink.c1"];

/// For so long a sink is held: in MySQL shorter than its session (5 s), so that only the guards hold it back; in ClickHouse
/// long enough for the twin to have asked and sent.
fn held_ms(point: &str) -> u64 {
    if point == "sink.m0" { 4_500 } else { 12_000 }
}

/// Row 14.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did("held in mid-write while a twin takes over; frozen for 15 s while another slot does");
    for point in POINTS {
        let fenced = held(lab, report, point)?;
        report.check(fenced, || format!("held at {point}: neither of the twins said that it was fenced"));
    }
    frozen(lab, report)
}

/// Held before it writes; a twin with the same slot takes over meanwhile and writes the same. Whether one of them said that it
/// was fenced.
pub(super) fn held(lab: &mut Lab, report: &mut Report, point: &str) -> anyhow::Result<bool> {
    let held = held_ms(point);
    let old = lab.start("a", &format!("{point}={BATCHES}*off->1*sleep({held})->off"))?;
    let label = format!("point=\"{point}\"");
    let came =
        || old.metrics(&lab.admin).map_or(0.0, |page| page.sum("weir_cloud_fault_point_total", &label));
    // A twin that comes sooner would fence the sink off between two batches.
    let is_held = holds_within(COMES, LOOK, || Ok(came() > f64::from(BATCHES)))?;
    ensure!(is_held, "it is not held at {point} within {COMES:?}");
    let mut spec = lab.spec("a", ALL)?;
    let twin = lab.spec("a-twin", ALL)?;
    (spec.folder, spec.admin_port) = (twin.folder, twin.admin_port);
    let new = lab.start_as(&spec, "")?;
    pass(Duration::from_millis(held) + WORKS_AGAIN);
    let fenced = old.says(FENCED) || new.says(FENCED);
    // One of two twins is too many, whichever works: end both, and see what they did.
    drop((old, new));
    let _sinks = lab.start("a", "")?;
    report.heal(&format!("{point}: after both twins"), lab.canary()?);
    lab.judge(report, &format!("held at {point}"))?;
    Ok(fenced)
}

/// Another slot takes its partitions over.
fn frozen(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (old, _new) = (lab.start("a", "")?, lab.start("b", "")?);
    lab.canary()?;
    pass(AFTER);
    old.signal(Signal::STOP);
    report.heal("another slot takes over", lab.canary()?);
    pass(FROZEN);
    old.signal(Signal::CONT);
    pass(AFTER);
    report.heal("the old one went on", lab.canary()?);
    lab.judge(report, "other slot")
}
