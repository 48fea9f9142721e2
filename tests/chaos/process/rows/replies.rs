//! Row 13: Kafka has done it, but its reply is lost and the connection cut: to records, offsets and the end of a
//! transaction.
//!
//! Must hold: what is asked again is the same thing again: outputs equal the reference.

use std::time::Duration;

use weir_harness::faults::kafka_proxy::Api;
use weir_harness::patience::holds_within;

use super::super::lab::Lab;
use crate::lab::pass;
use crate::report::Report;
use crate::suite::Lab as _;

const LOST_EACH: u64 = 5;
/// A reply comes within this time.
const COMES: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
const BETWEEN: Duration = Duration::from_millis(700);

/// Row 13.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let brokers = lab.proxy()?.brokers().to_owned();
    let mut spec = lab.spec("a")?;
    spec.brokers = brokers;
    let cloud = lab.start_as(&spec, "")?;
    lab.canary()?;
    for api in [Api::Produce, Api::TxnOffsetCommit, Api::EndTxn] {
        for _ in 0..LOST_EACH {
            let proxy = lab.proxy()?;
            let lost = proxy.lost();
            proxy.lose(api);
            let came = holds_within(COMES, LOOK, || Ok(proxy.lost() > lost))?;
            report.check(came, || format!("{api:?}: no reply came to be lost within {COMES:?}"));
            pass(BETWEEN);
        }
        report.heal(&format!("{api:?}"), lab.canary()?);
        lab.judge(report, &format!("{api:?}"))?;
    }
    let count = lab.proxy()?.lost();
    report.did(&format!("{count} replies lost: Produce, TxnOffsetCommit, EndTxn"));
    lab.books(report, &cloud);
    Ok(())
}
