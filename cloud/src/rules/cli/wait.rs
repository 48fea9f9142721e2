//! Waiting for what the processes make of a change.
//!
//! Comes in: the versions made active. Goes out: what each process says, on standard output.
//! Guarantees: only what was said after the change counts. On failure: refused somewhere, or nobody says anything.

use std::time::Duration;

use mysql_async::Conn;
use weir_shared::clock::Deadline;

use super::read::{self, Report};
use super::{Failed, say};
use crate::rules::store::tables::Failure;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until every live process has said something of every version, at most `seconds`.
pub(super) async fn for_processes(
    connection: &mut Conn,
    changed: &[(String, u32)],
    seconds: u64,
) -> Result<(), Failed> {
    let deadline = Deadline::after(Duration::from_secs(seconds));
    loop {
        let processes = read::processes(connection).await?;
        let reports = of(connection, changed).await?;
        let all = !processes.is_empty() && reports.len() >= processes.len() * changed.len();
        if all || deadline.passed() {
            if !reports.is_empty() {
                say(&shown(&reports))?;
            }
            return judge(&reports, &processes, changed, seconds);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn of(connection: &mut Conn, changed: &[(String, u32)]) -> Result<Vec<Report>, Failure> {
    let reports = read::reports(connection, None).await?;
    let asked =
        |r: &Report| r.of_this && changed.iter().any(|(id, version)| *id == r.id && *version == r.version);
    Ok(reports.into_iter().filter(asked).collect())
}

fn shown(reports: &[Report]) -> String {
    let line = |r: &Report| {
        let why = if r.reason.is_empty() { String::new() } else { format!(": {}", r.reason) };
        format!("{} version {} in {}: {}{why}\n", r.id, r.version, r.slot, r.state)
    };
    reports.iter().map(line).collect()
}

fn judge(
    reports: &[Report],
    processes: &[String],
    changed: &[(String, u32)],
    seconds: u64,
) -> Result<(), Failed> {
    if reports.iter().any(|r| r.state == "refused") {
        let undo = "which goes on with the version that it had; `weir-cloud rules rollback ID` makes that the active one";
        return Err(Failed::Failed(format!("refused by a process, {undo}")));
    }
    let unheard =
        changed.iter().find(|(id, version)| !reports.iter().any(|r| r.id == *id && r.version == *version));
    if let Some((id, version)) = unheard {
        return Err(Failed::Failed(format!(
            "{id} version {version} is stored and active, but no process has said anything of it within {seconds} s: \
             is one running with this database in [rules]? --wait 0 does not ask"
        )));
    }
    for slot in processes.iter().filter(|slot| !reports.iter().any(|r| r.slot == **slot)) {
        say(&format!("{slot} has said nothing within {seconds} s"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, slot: &str, state: &str) -> Report {
        Report {
            id: id.into(),
            version: 1,
            slot: slot.into(),
            state: state.into(),
            reason: String::new(),
            since: String::new(),
            of_this: true,
        }
    }

    #[test]
    fn refused_or_unheard_is_a_failure() {
        let (slots, changed) = (["p".to_owned()], [("a".to_owned(), 1), ("b".to_owned(), 1)]);
        let judged = |reports: &[Report]| judge(reports, &slots, &changed, 1).map_err(|e| e.to_string());
        assert!(judged(&[]).unwrap_err().contains("a version 1 is stored"));
        assert!(judged(&[report("a", "p", "active")]).unwrap_err().contains("b version 1 is stored"));
        assert_eq!(judged(&[report("a", "p", "active"), report("b", "p", "waiting")]), Ok(()));
        let refused = [report("a", "p", "active"), report("b", "p", "refused")];
        assert!(judged(&refused).unwrap_err().contains("refused by a process"));
    }
}
