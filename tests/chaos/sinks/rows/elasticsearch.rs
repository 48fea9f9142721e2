//! Rows 20 and 21: what Elasticsearch does to its sink.
//!
//! Must hold: only what was refused is sent again; what can never be in is a dead letter with its reason; while the store
//! is away or read-only the others go on.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use weir_harness::faults::fleet::Shape;
use weir_harness::oracle::Store;

use super::super::lab::Lab;
use super::away::others_go_on;
use crate::lab::pass;
use crate::report::Report;

/// What it cannot write at once or next, it refuses (429).
const NO_QUEUE: [&str; 2] = ["thread_pool.write.size=1", "thread_pool.write.queue_size=1"];
/// Readings with a name that cannot be mapped, for so long.
const UNMAPPABLE: Duration = Duration::from_millis(100);
const REFUSING: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(60);

/// Row 20.
pub(super) fn refusals(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    lab.stack.restart_elasticsearch(&NO_QUEUE)?;
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    for _ in 0..3 {
        lab.fleet()?.shape(Shape::Unmappable);
        pass(UNMAPPABLE);
        lab.fleet()?.shape(Shape::Plain);
        pass(REFUSING / 3);
    }
    let count = |name: &str| {
        let name = format!("weir_cloud_sink_{name}_total");
        sinks.metrics(&lab.admin).map_or(0.0, |page| page.sum(&name, "sink=\"elasticsearch\""))
    };
    report.check(count("retries") < 1.0, || "whole batches were given up".to_owned());
    lab.stack.restart_elasticsearch(&[])?;
    report.heal("with room again", lab.canary()?);
    let (letters, again) = (count("dead_letters"), count("sent_again"));
    report.check(letters > 0.0, || "no document became a dead letter".to_owned());
    report.check(again > 0.0, || "no document was sent again: the queue never was full".to_owned());
    report.figure("dead_letters", letters);
    report.figure("sent_again", again);
    lab.judge(report, "refusals")?;
    lab.books(report, &sinks);
    report.did("a queue of one, and readings that cannot be mapped");
    Ok(())
}

/// Row 21.
pub(super) fn away(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    lab.stack.signal("elasticsearch", Signal::STOP.as_raw())?;
    let frozen = others_go_on(lab, report, Store::Elasticsearch, AWAY);
    lab.stack.signal("elasticsearch", Signal::CONT.as_raw())?;
    frozen?;
    report.heal("it goes on", lab.canary()?);

    let blocked = |blocked: bool| json!({"index.blocks.read_only_allow_delete": if blocked { json!(true) } else { json!(null) }});
    lab.oracle.put_in_elasticsearch("weir-*/_settings", &blocked(true))?;
    let read_only = others_go_on(lab, report, Store::Elasticsearch, REFUSING);
    lab.oracle.put_in_elasticsearch("weir-*/_settings", &blocked(false))?;
    read_only?;
    report.heal("no longer read-only", lab.canary()?);
    report.did(&format!(
        "frozen for {} s; read-only, as by a full disk, for {} s",
        AWAY.as_secs(),
        REFUSING.as_secs()
    ));
    lab.judge(report, "away")?;
    lab.books(report, &sinks);
    Ok(())
}
