//! A program that a test starts itself, and its audit log.
//!
//! Guarantees: it is killed when it is dropped, so also when a test fails: the next one has the same ports. What it says goes
//! to a file, which a test that fails shows.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use weir_harness::places::last_lines;

/// Most lines that are shown of what it said.
const SHOWN: usize = 60;

/// It, and where its log is.
pub(crate) struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// Starts it; its log begins anew.
    pub(crate) fn new(command: &mut Command, log: &Path) -> Self {
        let child = command.stdout(Stdio::null()).stderr(File::create(log).unwrap()).spawn().unwrap();
        Self { child, log: log.to_owned() }
    }

    /// All that it said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Asks it to stop.
    pub(crate) fn stop(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), last_lines(&self.log, SHOWN));
        }
    }
}

/// The entries of an audit log that may be being written: the last line is whole, or not taken.
pub(crate) fn entries(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
