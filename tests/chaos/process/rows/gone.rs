//! Row 16: records are deleted before they were processed; a topic is deleted and made again.
//!
//! Must hold: never silent: exactly which offsets, in `weir.losses`, and processing goes on; with `lost_records = "stop"`
//! it does not go on; a topic made anew is refused by its id, with the way out.

use std::time::Duration;

use weir_harness::judge::processed::Gone;
use weir_shared::clock::Deadline;
use weir_shared::wire;

use super::super::lab::Lab;
use crate::lab::pass;
use crate::report::Report;
use crate::suite::Lab as _;

const AWAY: Duration = Duration::from_secs(3);
const SAYS: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(100);
/// Of the records that wait, one in so many parts is deleted.
const PART: i64 = 2;

/// Row 16.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    told(lab, report)?;
    made_anew(lab, report)?;
    report.did("records deleted ahead of the group; a topic made anew");
    Ok(())
}

pub(super) fn told(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut cloud = lab.start("a", "")?;
    lab.canary()?;
    // What was processed and is deleted afterwards must have been judged.
    lab.judge_and_stay(report, "before", &[])?;
    cloud.stop()?;
    lab.fleet()?.resume();
    pass(AWAY);
    lab.fleet()?.pause(SAYS)?;
    let gone = delete_half(lab)?;
    report.figure("records_deleted", gone.iter().map(|g| g.to - g.from + 1).sum::<i64>());
    let offsets = |lab: &Lab| -> anyhow::Result<Vec<i64>> {
        let all = lab.judge.offsets()?;
        Ok(gone.iter().filter_map(|g| all.get(&(g.topic.clone(), g.partition)).copied()).collect())
    };
    let committed = offsets(lab)?;
    let mut spec = lab.spec("a")?;
    spec.process.push_str("\nlost_records = \"stop\"");
    let mut cloud = lab.start_as(&spec, "")?;
    says(&cloud, report, "lost_records = \"stop\"", "with \"stop\"");
    report.check(offsets(lab)? == committed, || "with \"stop\", but offsets moved".to_owned());
    report.check(!cloud.is_ready(&lab.admin), || "with \"stop\", but ready".to_owned());
    cloud.stop()?;
    let _cloud = lab.start("a", "")?;
    lab.fleet()?.resume();
    report.heal("records deleted", lab.canary()?);
    lab.judge_and_stay(report, "deleted", &gone)?;
    lab.fleet()?.resume();
    Ok(())
}

/// Deletes half of what waits, where much waits.
fn delete_half(lab: &Lab) -> anyhow::Result<Vec<Gone>> {
    let ends = lab.judge.ends()?;
    let (mut before, mut gone) = (Vec::new(), Vec::new());
    for ((topic, partition), offset) in lab.judge.offsets()? {
        let end = ends.get(&(topic.clone(), partition)).copied().unwrap_or(offset);
        let low = offset + (end - offset) / PART;
        if topic == wire::READINGS && low > offset {
            before.push((topic.clone(), partition, low));
            gone.push(Gone { topic, partition, from: offset, to: low - 1 });
        }
    }
    lab.delete_records(&before)?;
    Ok(gone)
}

fn says(cloud: &weir_harness::faults::cloud::Cloud, report: &mut Report, text: &str, about: &str) {
    let deadline = Deadline::after(SAYS);
    while !cloud.says(text) && !deadline.passed() {
        pass(LOOK);
    }
    report.check(cloud.says(text), || {
        format!("{about}: its log does not say {text:?} within {SAYS:?}; {}", cloud.last_words())
    });
}

fn made_anew(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut cloud = lab.start("a", "")?;
    lab.canary()?;
    lab.judge(report, "before a topic is made anew")?;
    cloud.stop()?;
    lab.fleet()?.pause(SAYS)?;
    lab.delete(&[wire::GAPS.to_owned()])?;
    lab.make(wire::GAPS)?;
    let cloud = lab.start("a", "")?;
    // Kafka forgets the offsets of a topic that is deleted; whoever follows the advice must be refused all the same.
    says(&cloud, report, "weir-cloud init", "a topic made anew");
    lab.init()?;
    says(&cloud, report, "weir.gaps was deleted and made again", "a topic made anew");
    report.check(!cloud.is_ready(&lab.admin), || "a topic was made anew, but ready".to_owned());
    Ok(())
}
