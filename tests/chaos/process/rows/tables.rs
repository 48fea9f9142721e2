//! Row 30, and what else happens to the dimension table: torn refreshes, MySQL away while rows change, the binlog purged
//! and reset, columns dropped and renamed.
//!
//! Must hold: the row in each output is exactly the row at the version that the output names; after the database is back,
//! its changes are in force within 10 s.

use std::time::Duration;

use weir_harness::faults::cloud::Cloud;
use weir_harness::faults::relay::Relay;
use weir_shared::clock::{self, Deadline};

use super::super::database::Columns;
use super::super::lab::Lab;
use crate::lab::pass;
use crate::report::Report;
use crate::suite::Lab as _;

const REWRITES: u64 = 20;
const AWAY: Duration = Duration::from_secs(60);
const CUT: Duration = Duration::from_secs(4);
const IN_FORCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Row 30.
pub(super) fn torn(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (cloud, _relay) = begin(lab, report)?;
    for _ in 0..REWRITES {
        lab.rewrite(Columns::All)?;
    }
    in_force(lab, &cloud, report, "rewritten")?;
    lab.judge(report, "torn refresh")?;
    report.did(&format!("{REWRITES} transactions, each rewrites every row"));
    Ok(())
}

/// MySQL away; binlog purged and reset.
pub(super) fn away(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (cloud, relay) = begin(lab, report)?;
    relay.cut();
    lab.rewrite(Columns::All)?;
    pass(AWAY);
    lab.rewrite(Columns::All)?;
    relay.heal();
    in_force(lab, &cloud, report, "away")?;
    lab.judge(report, "away")?;

    relay.cut();
    pass(CUT);
    lab.rewrite(Columns::All)?;
    lab.database.run(&["FLUSH BINARY LOGS".to_owned(), "FLUSH BINARY LOGS".to_owned()])?;
    lab.database.purge()?;
    relay.heal();
    in_force(lab, &cloud, report, "purged")?;
    lab.judge(report, "purged")?;

    // Versions begin with small numbers again: nothing of before may be left to be judged.
    lab.fleet()?.pause(IN_FORCE)?;
    lab.judge(report, "before the reset")?;
    lab.database.run(&["RESET MASTER".to_owned()])?;
    lab.history.restart();
    lab.rewrite(Columns::All)?;
    in_force(lab, &cloud, report, "reset")?;
    lab.judge(report, "reset")?;
    report.did("MySQL away for 60 s with changes; binlog purged, and reset");
    Ok(())
}

/// Columns dropped, renamed and added while running.
pub(super) fn columns(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (cloud, _relay) = begin(lab, report)?;
    for (columns, statement) in [
        (Columns::WithoutLine, "ALTER TABLE weir_devices DROP COLUMN line"),
        (Columns::Renamed, "ALTER TABLE weir_devices CHANGE COLUMN site place VARCHAR(32)"),
    ] {
        lab.alter(statement, columns)?;
        lab.rewrite(columns)?;
        in_force(lab, &cloud, report, statement)?;
        lab.judge(report, statement)?;
    }
    lab.refill()?;
    Ok(())
}

/// A processor whose way to MySQL can be cut.
fn begin(lab: &mut Lab, report: &mut Report) -> anyhow::Result<(Cloud, Relay)> {
    anyhow::ensure!(lab.binlog, "this weir-cloud does not follow the binlog");
    let relay = Relay::start(lab.stack.ports().mysql())?;
    let mut spec = lab.spec("a")?;
    let (direct, through) = (format!(":{}/", lab.stack.ports().mysql()), format!(":{}/", relay.port()));
    spec.sections = spec.sections.replace(&direct, &through);
    let cloud = lab.start_as(&spec, "")?;
    report.heal("start", lab.canary()?);
    Ok((cloud, relay))
}

/// Waits until the processor shows the newest version.
fn in_force(lab: &Lab, cloud: &Cloud, report: &mut Report, about: &str) -> anyhow::Result<()> {
    let begun = clock::instant();
    let (wanted, deadline) = (lab.history.newest() as f64, Deadline::after(IN_FORCE));
    loop {
        let shown = cloud.metrics(&lab.admin).map(|page| page.sum("weir_cloud_dimension_version", ""));
        if shown.is_some_and(|shown| shown >= wanted) {
            report.heal(&format!("{about}: the change"), clock::since(begun).as_secs_f64());
            report.heal(about, lab.canary()?);
            return Ok(());
        }
        if deadline.passed() {
            report
                .problem(format!("{about}: version {wanted} is not in force within {IN_FORCE:?}: {shown:?}"));
            return Ok(());
        }
        pass(LOOK);
    }
}
