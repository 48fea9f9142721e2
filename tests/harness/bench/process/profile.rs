//! Where the CPU time of a program goes, by Linux' `perf`.
//!
//! Comes in: a process. Goes out: `perf.data` and a table of functions by share, below the stack's folder.
//! On failure: an error; without `perf`: one that names Debian's package.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use crate::install;
use crate::stack::Stack;

/// Samples per second and CPU; no round number, so that it does not beat with timers.
const SAMPLES_PER_SECOND: &str = "997";

/// Where a profile is written.
pub(super) struct Profile {
    perf: PathBuf,
    folder: PathBuf,
}

/// A recording that ends with the program.
pub(super) struct Recording(Child);

impl Profile {
    pub(super) fn new(stack: &Stack) -> anyhow::Result<Self> {
        let perf = install::program("perf").context("a profile needs perf: Debian's package linux-perf")?;
        let folder = stack.data_dir().join("profile");
        fs::create_dir_all(&folder)?;
        Ok(Self { perf, folder })
    }

    pub(super) fn record(&self, pid: u32) -> anyhow::Result<Recording> {
        let log = File::create(self.folder.join("perf.log"))?;
        let mut perf = Command::new(&self.perf);
        // The CPU's clock and not its counters: those are not there in most virtual machines.
        perf.args(["record", "-e", "cpu-clock", "-F", SAMPLES_PER_SECOND, "-o"])
            .arg(self.folder.join("perf.data"))
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Recording(perf.spawn().context("perf")?))
    }

    /// Writes the table; gives its path.
    pub(super) fn report(&self) -> anyhow::Result<PathBuf> {
        let table = self.folder.join("process.txt");
        let mut perf = Command::new(&self.perf);
        perf.args(["report", "--stdio", "--sort", "comm,dso,symbol", "--percent-limit", "0.2", "-i"])
            .arg(self.folder.join("perf.data"))
            .stdin(Stdio::null())
            .stdout(File::create(&table)?)
            .stderr(File::create(self.folder.join("report.log"))?);
        ensure!(perf.status().context("perf")?.success(), "perf report: see {}", self.folder.display());
        Ok(table)
    }
}

impl Recording {
    /// Waits for its end; the program has ended.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.0.wait().context("perf")?;
        Ok(())
    }
}
