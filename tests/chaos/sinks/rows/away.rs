//! A store is away for a minute.
//!
//! Must hold: the other sinks stay less than 5 s behind; the lag of the one whose store is away is told truly.

use std::time::Duration;

use weir_harness::oracle::Store;
use weir_shared::clock::Deadline;

use super::super::lab::{Lab, STORES};
use crate::lab::pass;
use crate::report::{Report, tenth};

const AWAY: Duration = Duration::from_secs(60);
/// How far behind the others may be.
const LAG_SECONDS_MAX: f64 = 5.0;
const BETWEEN: Duration = Duration::from_millis(500);

/// Each store in turn.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    for store in [Store::Mysql, Store::Clickhouse] {
        lab.relays.to(store).cut();
        let done = others_go_on(lab, report, store, AWAY);
        let name = store.name();
        let told = sinks.metrics(&lab.admin).map_or(0.0, |page| {
            let labels = format!("sink=\"{name}\"");
            page.max("weir_cloud_sink_lag_seconds", &labels).unwrap_or(0.0)
        });
        lab.relays.to(store).heal();
        done?;
        let wanted = AWAY.as_secs_f64();
        report.check((wanted - 5.0..wanted + 15.0).contains(&told), || {
            format!("{name} was away for {wanted} s, and its lag is told as {told} s")
        });
        report.heal(&format!("{name} is back"), lab.canary()?);
    }
    report.did(&format!("MySQL and ClickHouse, each for {} s", AWAY.as_secs()));
    lab.judge(report, "away")?;
    lab.books(report, &sinks);
    Ok(())
}

/// For so long, canaries must come through in all stores but this one.
pub(super) fn others_go_on(lab: &Lab, report: &mut Report, but: Store, time: Duration) -> anyhow::Result<()> {
    let others: Vec<Store> = STORES.into_iter().filter(|store| *store != but).collect();
    let deadline = Deadline::after(time);
    let (mut lag_max, mut count) = (0.0_f64, 0);
    while !deadline.passed() {
        lag_max = lag_max.max(lab.canary_in(&others)?);
        count += 1;
        pass(BETWEEN);
    }
    report.check(lag_max < LAG_SECONDS_MAX, || {
        format!("while {} was away, a reading took {lag_max:.1} s to the others", but.name())
    });
    report.check(count > 1, || "only one canary was sent".to_owned());
    report.figure(&format!("others_seconds_max_without_{}", but.name()), tenth(lag_max));
    Ok(())
}
