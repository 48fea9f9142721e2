//! Rows 17, 18 and 19: what MySQL does to its sink.
//!
//! Must hold: a transaction that is refused, undone, or whose COMMIT was not answered, is done once in the end.

use std::time::Duration;

use anyhow::ensure;
use weir_harness::addresses::{HOST, MYSQL_ADMIN, MYSQL_PASSWORD, Ports};
use weir_shared::clock::Deadline;

use super::super::lab::Lab;
use crate::lab::pass;
use crate::process::database::Database;
use crate::report::Report;

const LOOK: Duration = Duration::from_millis(20);
/// Longer than a statement of the sink waits for a lock (10 s).
const LOCKED_SECONDS: u32 = 13;
const DEADLOCKS: u32 = 10;
const LOST: u64 = 10;
/// What is to be seen comes within this time.
const COMES: Duration = Duration::from_secs(20);
const BETWEEN: Duration = Duration::from_millis(700);
const READ_ONLY: Duration = Duration::from_secs(8);

/// Locks the progress of a partition.
fn lock(partition: i32) -> String {
    format!(
        "SELECT * FROM weir_progress WHERE sink = 'weir-sink-mysql' AND topic = 'weir.enriched' \
         AND `partition` = {partition} FOR UPDATE"
    )
}

/// Row 17.
pub(super) fn locks(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    let retries = |lab: &Lab| {
        let page = sinks.metrics(&lab.admin);
        page.map_or(0.0, |page| page.sum("weir_cloud_sink_retries_total", "sink=\"mysql\""))
    };
    let transaction = |between: [String; 3]| {
        [vec!["START TRANSACTION".to_owned()], between.to_vec(), vec!["ROLLBACK".to_owned()]].concat()
    };
    lab.database.run(&transaction([lock(0), format!("SELECT SLEEP({LOCKED_SECONDS})"), lock(0)]))?;
    report.heal("locked for 13 s", lab.canary()?);
    let waited = retries(lab);
    report.check(waited > 0.0, || "a lock of 13 s brought no retry".to_owned());
    lab.database.run(&["CREATE TABLE chaos_weight (n INT) ENGINE = InnoDB".to_owned()])?;
    for _ in 0..DEADLOCKS {
        // Locks the last partition, then the first: the sink takes them the other way round. The server undoes the
        // transaction that has changed less.
        let weight = "INSERT INTO chaos_weight SELECT seq FROM seq_1_to_2000".to_owned();
        let [first, pause, then] = [lock(3), "SELECT SLEEP(0.4)".to_owned(), lock(0)];
        let _ours_may_be_undone = lab.database.run(&[
            "START TRANSACTION".to_owned(),
            weight,
            first,
            pause,
            then,
            "ROLLBACK".to_owned(),
        ]);
    }
    let deadlocks = retries(lab) - waited;
    report.check(deadlocks > 0.0, || "the sink was not undone by any deadlock".to_owned());
    report.heal("after the deadlocks", lab.canary()?);
    lab.judge(report, "locks")?;
    lab.books(report, &sinks);
    let all = retries(lab);
    report.figure("retries", all);
    report.did(&format!("a lock of {LOCKED_SECONDS} s; {DEADLOCKS} deadlocks"));
    Ok(())
}

/// Row 19.
pub(super) fn lost_commits(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let sinks = lab.start("a", "")?;
    lab.canary()?;
    for _ in 0..LOST {
        let lost = lab.relays.mysql.lost();
        // COM_QUERY, and nothing else.
        lab.relays.mysql.lose_reply(b"\x03COMMIT");
        let deadline = Deadline::after(COMES);
        while lab.relays.mysql.lost() == lost && !deadline.passed() {
            pass(LOOK);
        }
        report.check(lab.relays.mysql.lost() > lost, || format!("no COMMIT within {COMES:?}"));
        pass(BETWEEN);
    }
    report.heal("after the last reply", lab.canary()?);
    report.did(&format!("{LOST} replies to COMMIT lost"));
    lab.judge(report, "lost replies")?;
    lab.books(report, &sinks);
    Ok(())
}

/// Row 18. The replica stays the primary until the rows are made anew.
pub(super) fn failover(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let ports = lab.stack.ports();
    let admin = |port| Database::new(&Ports::mysql_admin_url(port));
    let (primary, replica) = (admin(ports.mysql())?, admin(ports.mysql_replica())?);
    let run = |database: &Database, statement: &str| database.run(&[statement.to_owned()]);
    run(
        &replica,
        &format!(
            "CHANGE MASTER TO MASTER_HOST = '{HOST}', MASTER_PORT = {}, MASTER_USER = '{MYSQL_ADMIN}', \
             MASTER_PASSWORD = '{MYSQL_PASSWORD}', MASTER_USE_GTID = slave_pos",
            ports.mysql()
        ),
    )?;
    run(&replica, "START SLAVE")?;
    let sinks = lab.start("a", "")?;
    lab.canary()?;

    run(&primary, "SET GLOBAL read_only = ON")?;
    pass(READ_ONLY);
    let says = sinks.says("read-only") || sinks.says("1290");
    report.check(says, || format!("read-only, and it does not say so; {}", sinks.last_words()));
    run(&primary, "SET GLOBAL read_only = OFF")?;
    report.heal("no longer read-only", lab.canary()?);

    run(&primary, "SET GLOBAL read_only = ON")?;
    let reached = primary.text("SELECT @@gtid_binlog_pos")?;
    let waited = replica.count(&format!("SELECT MASTER_GTID_WAIT('{reached}', 120) + 1"))?;
    ensure!(waited == 1, "the replica has not caught up with {reached}");
    run(&replica, "STOP SLAVE")?;
    lab.fail_over_to(ports.mysql_replica())?;
    report.heal("the replica took over", lab.canary()?);
    report.did("read-only for 8 s; then the replica took over");
    lab.judge(report, "replica")?;
    lab.books(report, &sinks);
    Ok(())
}
