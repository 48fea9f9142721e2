//! Ends what a supervisor that was killed may have left: children of its children.
//!
//! In: the stack's folder. Out: nothing of this stack runs any more.
//! Guarantees: the kernel ends a dead supervisor's own children; what those had started is found by a
//! mark in its environment, and nothing without this stack's mark is touched.
//! On failure: a process that cannot be looked at is somebody else's and is left alone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::holds_within;

/// Set in every child's environment; its value is the stack's folder.
pub(super) const MARK: &str = "WEIR_STACK_FOLDER";

const END_TIME_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Kills them and waits until they are gone. Call it before the first child is started.
pub(super) fn end(folder: &Path) {
    end_marked(&format!("{MARK}={}", folder.display()));
}

fn end_marked(mark: &str) {
    let _who_still_holds_a_port_is_seen_at_start = holds_within(END_TIME_MAX, LOOK_EVERY, || {
        let left = marked(mark);
        for pid in &left {
            eprintln!("process {pid} is left from a supervisor that was killed: SIGKILL");
            let _gone_already = Pid::from_raw(*pid).map(|pid| kill_process(pid, Signal::KILL));
        }
        Ok(left.is_empty())
    });
}

/// Living processes with this mark. A process that has ended but was not yet reaped has no environment.
fn marked(mark: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| *name != own && has_mark(name, mark)).filter_map(|name| name.parse().ok()).collect()
}

fn has_mark(process: &str, mark: &str) -> bool {
    fs::read(format!("/proc/{process}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Not [`MARK`]: were the guard broken, this test must not reach a stack that somebody uses.
    const UNIT_TEST: &str = "WEIR_LEFTOVERS_UNIT_TEST";

    #[test]
    fn only_the_marked_process_is_ended() {
        let sleep = |mark: &str| Command::new("sleep").arg("60").env(UNIT_TEST, mark).spawn().expect("sleep");
        let (mut ours, mut other) = (sleep("/a/stack"), sleep("/a/stack/of/another"));
        let mark = format!("{UNIT_TEST}=/a/stack");
        // A program that was started this moment may not show its environment yet.
        let shows = holds_within(END_TIME_MAX * 2, LOOK_EVERY, || Ok(!marked(&mark).is_empty()));
        assert!(shows.unwrap(), "it shows no environment");
        end_marked(&mark);
        assert!(!ours.wait().expect("ended").success());
        assert!(other.try_wait().expect("asked").is_none(), "another stack's process was ended");
        other.kill().expect("killed");
        other.wait().expect("ended");
    }
}
