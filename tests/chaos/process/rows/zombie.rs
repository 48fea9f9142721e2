//! Row 14: a processor is frozen past its session, another one takes over, then the frozen one goes on.
//!
//! Must hold: what the frozen one had begun is fenced and never seen; of two twins one works and the other says why it does
//! not. (Which one: librdkafka joins again by itself when it finds its session over, and so may take the slot back.)

use std::time::Duration;

use rustix::process::Signal;
use weir_harness::patience::holds_within;

use super::super::lab::Lab;
use crate::lab::pass;
use crate::report::Report;
use crate::suite::Lab as _;

/// Session and transaction end after 6 s; 60 s would show no more.
const FROZEN: Duration = Duration::from_secs(15);
/// Each of the two may fence the other once before one of them has it; then it looks for 9 s whether the other is alive.
const FENCED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const AFTER: Duration = Duration::from_secs(3);

/// Row 14.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    report.did(&format!("frozen for {} s; a twin, and another slot", FROZEN.as_secs()));
    twin(lab, report)?;
    other(lab, report)
}

/// The same slot, twice.
pub(super) fn twin(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let old = lab.start("a", "")?;
    lab.canary()?;
    pass(LOOK * 7);
    old.signal(Signal::STOP);
    pass(FROZEN);
    // Same slot, folder and port of its own.
    let mut spec = lab.spec("a")?;
    let twin = lab.spec("a-twin")?;
    (spec.folder, spec.admin_port) = (twin.folder, twin.admin_port);
    let new = lab.start_as(&spec, "")?;
    report.heal("a twin took over", lab.canary()?);
    old.signal(Signal::CONT);
    // Each worker has a slot of its own.
    let told = |worker| {
        let alarm = format!("process.{worker}: ALARM: another process works as slot");
        old.says(&alarm) || new.says(&alarm)
    };
    let both_told = || told(0) && told(1);
    let fenced = holds_within(FENCED, LOOK, || Ok(both_told()))?;
    report.check(fenced, || {
        let (old, new) = (old.last_words(), new.last_words());
        format!("neither of the twins said that it was fenced within {FENCED:?}; {old}; {new}")
    });
    pass(AFTER);
    report.heal("the old one went on", lab.canary()?);
    lab.judge(report, "twin")
}

/// Another slot takes its partitions over.
pub(super) fn other(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
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
