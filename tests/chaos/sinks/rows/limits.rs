//! Rows 26 and 32: a store that is slow, and a process that is short of files or memory.
//!
//! Must hold: memory stays bounded, the lag is told truly, nothing is lost; a process that is killed for its memory, or
//! can open nothing, works again as soon as it may.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use weir_harness::oracle::Store;

use super::super::lab::Lab;
use super::away::others_go_on;
use crate::lab::pass;
use crate::report::Report;

const SLOW: Duration = Duration::from_secs(30);
/// A tenth of what the stream needs, about.
const BYTES_PER_SECOND: u64 = 40_000;
const RESIDENT_MB_MAX: u64 = 400;
const NO_FILES: Duration = Duration::from_secs(10);
/// Fewer than it needs.
const FILES: u64 = 8;

/// Row 26.
pub(super) fn slow(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    lab.relays.mysql.slow(BYTES_PER_SECOND);
    let done = others_go_on(lab, report, Store::Mysql, SLOW);
    let lag = sinks
        .metrics(&lab.admin)
        .and_then(|page| page.max("weir_cloud_sink_lag_seconds", "sink=\"mysql\""))
        .unwrap_or(0.0);
    lab.relays.mysql.slow(0);
    done?;
    report.check(lag > 5.0, || format!("a tenth of the speed for {SLOW:?}, and its lag is told as {lag} s"));
    report.heal("fast again", lab.canary()?);
    let resident = sinks.resident_mb_max().unwrap_or(u64::MAX);
    report.check(resident < RESIDENT_MB_MAX, || format!("{resident} MB"));
    report.figure("resident_mb_max", resident);
    report.figure("lag_seconds", crate::report::tenth(lag));
    report.did(&format!("MySQL with {BYTES_PER_SECOND} bytes a second for {} s", SLOW.as_secs()));
    lab.judge(report, "slow")?;
    lab.books(report, &sinks);
    Ok(())
}

/// Row 32.
pub(super) fn exhausted(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let mut sinks = lab.start("a", "")?;
    lab.canary()?;
    let pid = i32::try_from(sinks.pid()).ok().and_then(Pid::from_raw);
    let old = prlimit(pid, Resource::Nofile, Rlimit { current: Some(FILES), ..getrlimit(Resource::Nofile) })?;
    // All ways end, and no new one can be opened.
    for store in super::super::lab::STORES {
        lab.relays.to(store).cut();
        lab.relays.to(store).heal();
    }
    // Somebody asks how it is, and cannot be let in.
    let _not_now = sinks.is_live(&lab.admin);
    pass(NO_FILES);
    let ended = sinks.ended()?;
    prlimit(pid, Resource::Nofile, old)?;
    report
        .check(ended.is_none(), || format!("it ended for want of files: {ended:?}; {}", sinks.last_words()));
    report.heal("files again", lab.canary()?);
    lab.judge(report, "no files")?;
    // The kernel ends it for its memory, at any point; whoever watches it starts it again.
    sinks.signal(Signal::KILL);
    drop(sinks);
    let _sinks = lab.start("a", "")?;
    report.heal("after the kernel's kill", lab.canary()?);
    report.did(&format!("no new files for {} s; killed as for its memory", NO_FILES.as_secs()));
    lab.judge(report, "no memory")
}
