//! Rows 22, 23 and 24: what ClickHouse does to its sink.
//!
//! Must hold: a row is there once, counted without FINAL: the same insert again has the same token, and where the token
//! is forgotten the table is asked.

use std::time::Duration;

use weir_shared::clock::Deadline;

use super::super::lab::Lab;
use super::kills::die_at;
use crate::lab::pass;
use crate::report::Report;

const LOOK: Duration = Duration::from_millis(20);
const LOST: u64 = 5;
const COMES: Duration = Duration::from_secs(20);
const BETWEEN: Duration = Duration::from_millis(700);
const TOO_MANY: Duration = Duration::from_secs(20);
/// Tries in this time: more would be a tight loop.
const TRIES_MAX: f64 = 30.0;
/// Inserts of others between two tries: twice as many as the window has.
const OTHERS: u32 = 10;
const WINDOW: u32 = 5;

/// Row 22.
pub(super) fn too_many_parts(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    let retries = |lab: &Lab| {
        let page = sinks.metrics(&lab.admin);
        page.map_or(0.0, |page| page.sum("weir_cloud_sink_retries_total", "sink=\"clickhouse\""))
    };
    let before = retries(lab);
    run(lab, "SYSTEM STOP MERGES weir_readings")?;
    run(
        lab,
        "ALTER TABLE weir_readings MODIFY SETTING parts_to_delay_insert = 4, parts_to_throw_insert = 5",
    )?;
    pass(TOO_MANY);
    let tries = retries(lab) - before;
    run(lab, "ALTER TABLE weir_readings RESET SETTING parts_to_delay_insert, parts_to_throw_insert")?;
    run(lab, "SYSTEM START MERGES weir_readings")?;
    report.heal("merges again", lab.canary()?);
    report.check(tries > 0.0, || "it never was refused".to_owned());
    report.check(tries < TRIES_MAX, || format!("{tries} tries within {TOO_MANY:?}: a tight loop"));
    let told = sinks.says("Too many parts") || sinks.says("TOO_MANY_PARTS");
    report.check(told, || format!("it does not say why; {}", sinks.last_words()));
    report.figure("tries", tries);
    report.did(&format!("no merges and at most 5 parts for {} s", TOO_MANY.as_secs()));
    lab.judge(report, "too many parts")?;
    lab.books(report, &sinks);
    Ok(())
}

/// Row 23.
pub(super) fn lost_replies(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    for _ in 0..LOST {
        let lost = lab.relays.clickhouse.lost();
        lab.relays.clickhouse.lose_reply(b"query=INSERT");
        let deadline = Deadline::after(COMES);
        while lab.relays.clickhouse.lost() == lost && !deadline.passed() {
            pass(LOOK);
        }
        report.check(lab.relays.clickhouse.lost() > lost, || format!("no insert within {COMES:?}"));
        pass(BETWEEN);
    }
    report.heal("after the last reply", lab.canary()?);
    report.did(&format!("{LOST} replies to inserts lost"));
    lab.judge(report, "lost replies")?;
    lab.books(report, &sinks);
    Ok(())
}

/// Row 24.
pub(super) fn forgotten(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let window = "non_replicated_deduplication_window";
    run(lab, &format!("ALTER TABLE weir_readings MODIFY SETTING {window} = {WINDOW}"))?;
    let done = forgotten_in(lab, report);
    run(lab, &format!("ALTER TABLE weir_readings MODIFY SETTING {window} = 10000"))?;
    done?;
    report.did(&format!("a window of {WINDOW}, {OTHERS} inserts of others after a kill at c3"));
    Ok(())
}

/// Dies after an insert; others push its token out of the window; it starts again.
pub(super) fn forgotten_in(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    die_at(lab, report, "sink.c3=5*off->return")?;
    for n in 0..OTHERS {
        // A row of nobody, in a partition that Kafka does not have.
        run(
            lab,
            &format!(
                "INSERT INTO weir_readings (device, _weir_topic, _weir_partition, _weir_offset) \
                 SETTINGS insert_deduplicate = 1 VALUES ('other', 'other', 0, {n})"
            ),
        )?;
    }
    let _sinks = lab.start("a", "")?;
    report.heal("the tokens are forgotten", lab.canary()?);
    lab.judge(report, "forgotten")?;
    run(lab, "ALTER TABLE weir_readings DELETE WHERE _weir_topic = 'other' SETTINGS mutations_sync = 2")
}

fn run(lab: &Lab, statement: &str) -> anyhow::Result<()> {
    lab.oracle.in_clickhouse(statement).map(drop)
}
