//! Rows 11 and 12: brokers restart in turn; too few replicas are in sync.
//!
//! Must hold: outputs equal the reference through any failover; below the minimum nothing is acknowledged and nothing
//! committed, and all goes on when the brokers are back.

use std::time::Duration;

use weir_harness::control::State;
use weir_harness::patience::holds_within;

use super::super::lab::Lab;
use crate::lab::pass;
use crate::report::Report;

const BROKERS: [&str; 3] = ["kafka-0", "kafka-1", "kafka-2"];
const ROUNDS: usize = 3;
const SIGKILL: i32 = 9;
const BACK: Duration = Duration::from_secs(60);
/// Long enough that leaders move and sessions end.
const DOWN: Duration = Duration::from_secs(3);
/// Replicas leave those in sync within this time.
const SHRINKS: Duration = Duration::from_secs(20);
const HOLDS: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(100);

/// Row 11.
pub(super) fn roll(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let cloud = lab.start("a", "")?;
    lab.canary()?;
    for round in 0..ROUNDS {
        for (broker, at) in BROKERS.into_iter().zip(0..) {
            let in_order = (round + at) % 2 == 0;
            if in_order {
                lab.stack.stop_server(broker)?;
                pass(DOWN);
                lab.stack.start_server(broker)?;
            } else {
                let before = starts(lab, broker)?;
                lab.stack.signal(broker, SIGKILL)?;
                let back = || Ok(starts(lab, broker)? > before && is_ready(lab, broker)?);
                let _the_canary_tells = holds_within(BACK, LOOK, back)?;
            }
            let words = if in_order { "SIGTERM" } else { "SIGKILL" };
            report.heal(&format!("{broker} {words}"), lab.canary()?);
        }
        lab.judge(report, &format!("round {}", round + 1))?;
    }
    lab.books(report, &cloud);
    report.did(&format!("{ROUNDS} rounds of 3 brokers, SIGTERM and SIGKILL in turn"));
    Ok(())
}

fn starts(lab: &Lab, broker: &str) -> anyhow::Result<u32> {
    let status = lab.stack.status_if_up()?;
    Ok(status.iter().flat_map(|s| &s.units).find(|u| u.name == broker).map_or(0, |u| u.starts))
}

fn is_ready(lab: &Lab, broker: &str) -> anyhow::Result<bool> {
    let status = lab.stack.status_if_up()?;
    Ok(status.iter().flat_map(|s| &s.units).any(|u| u.name == broker && u.state == State::Ready))
}

/// Row 12.
pub(super) fn below_min(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let _cloud = lab.start("a", "")?;
    lab.canary()?;
    for broker in &BROKERS[1..] {
        lab.stack.stop_server(broker)?;
    }
    // What was in sync at first may still be acknowledged.
    let mut before = None;
    let _the_checks_tell = holds_within(SHRINKS, LOOK * 20, || {
        let now = lab.fleet()?.count();
        Ok(before.replace(now) == Some(now))
    })?;
    let (acknowledged, committed) = (lab.fleet()?.count(), lab.judge.committed());
    pass(HOLDS);
    let (acknowledged_after, committed_after) = (lab.fleet()?.count(), lab.judge.committed());
    for broker in &BROKERS[1..] {
        lab.stack.start_server(broker)?;
    }
    report.check(acknowledged == acknowledged_after, || {
        format!("{} records acknowledged by one replica", acknowledged_after - acknowledged)
    });
    // A coordinator that cannot be asked commits nothing either.
    if let (Ok(before), Ok(after)) = (&committed, &committed_after) {
        report.check(before == after, || format!("{} offsets committed by one replica", after - before));
    }
    report.figure("coordinator_answered", committed.is_ok() && committed_after.is_ok());
    report.heal("two brokers back", lab.canary()?);
    lab.judge(report, "below the minimum")?;
    report.did("2 of 3 brokers stopped");
    Ok(())
}
