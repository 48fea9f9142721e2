//! What a program uses: CPU time and memory, from `/proc`.
//!
//! Comes in: a process id. Goes out: CPU seconds so far, how often it woke up, the memory it holds and the most that it
//! ever held.
//! On failure: an error when the process is gone.

use std::fs;

use anyhow::Context;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// User and system time since its start.
    pub(super) cpu_seconds: f64,
    /// The most it was ever resident.
    pub(super) resident_mb_max: u64,
    /// What is resident now.
    pub(super) resident_mb: u64,
    /// How often one of its threads gave up the CPU to wait, which it did once for each time it woke up.
    pub(super) wake_ups: u64,
}

pub(super) fn of(pid: u32) -> anyhow::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let megabytes = |name| anyhow::Ok(number(&status, name)?.div_ceil(1024));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15, counted after the name, which may hold anything but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks: u64 =
        fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Usage {
        cpu_seconds: ticks as f64 / per_second as f64,
        resident_mb_max: megabytes("VmHWM:")?,
        resident_mb: megabytes("VmRSS:")?,
        wake_ups: wake_ups(pid)?,
    })
}

/// Of all its threads; one that ends takes its count with it.
fn wake_ups(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two.
        if let Ok(status) = fs::read_to_string(thread?.path().join("status")) {
            sum += number(&status, "voluntary_ctxt_switches:")?;
        }
    }
    Ok(sum)
}

/// A line of a `status` file: name, number, perhaps kB.
fn number(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_something() {
        let usage = super::of(std::process::id()).unwrap();
        assert!(usage.resident_mb > 0 && usage.cpu_seconds >= 0.0, "{usage:?}");
        assert!(usage.resident_mb_max >= usage.resident_mb, "{usage:?}");
    }

    #[test]
    fn a_thread_that_waits_counts() {
        let wake_ups = || super::of(std::process::id()).unwrap().wake_ups;
        let before = wake_ups();
        let (go, heard) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let echo = std::thread::spawn(move || heard.iter().try_for_each(|n: u32| answer.send(n)));
        for n in 0..1000 {
            go.send(n).unwrap();
            answered.recv().unwrap();
        }
        let counted = wake_ups() - before;
        drop(go);
        echo.join().unwrap().unwrap();
        assert!(counted >= 100, "{counted}");
    }
}
