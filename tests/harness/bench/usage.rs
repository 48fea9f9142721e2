//! What a program uses: CPU time and memory, from `/proc`.
//!
//! Comes in: a process id. Goes out: CPU seconds so far, and the most memory it ever held.
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
}

pub(super) fn of(pid: u32) -> anyhow::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let megabytes = |name: &str| -> anyhow::Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()?.div_ceil(1024))
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15, counted after the name, which may hold anything but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks: u64 =
        fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Usage { cpu_seconds: ticks as f64 / per_second as f64, resident_mb_max: megabytes("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_something() {
        let usage = super::of(std::process::id()).unwrap();
        assert!(usage.resident_mb_max > 0 && usage.cpu_seconds >= 0.0, "{usage:?}");
    }
}
