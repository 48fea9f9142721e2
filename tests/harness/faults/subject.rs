//! One program of a fault suite: a child process of its own, not of the supervisor, so that nobody starts it again.
//!
//! Comes in: what to start, environment variables that hurt it. Goes out: a process to kill, ask and measure.
//! Guarantees: it is killed when this process dies or the value is dropped. Start it from the main thread only: its life
//! is tied to the thread.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};
use weir_shared::clock::{self, Deadline};

use crate::control::Exit;
use crate::places::last_lines;
use crate::process::{Launch, spawn};
use crate::programs::{Admin, Samples};

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What to start.
pub(super) struct Program<'a> {
    pub(super) binary: &'a Path,
    /// Its first arguments.
    pub(super) command: &'a [&'a str],
    /// Its configuration.
    pub(super) config: &'a Path,
    /// Its working folder.
    pub(super) folder: &'a Path,
    /// Appended to.
    pub(super) log: PathBuf,
    /// Its admin port on this host.
    pub(super) admin_port: u16,
}

/// A running program.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    log: PathBuf,
    admin: String,
    started: Instant,
    exit: Option<Exit>,
}

impl Subject {
    /// Starts it, with these environment variables.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(program: Program<'_>, env: &[(String, String)]) -> anyhow::Result<Self> {
        let text = |path: &Path| path.display().to_string();
        let Program { binary, command, config, folder, log, admin_port } = program;
        let mut argv = vec![text(binary)];
        argv.extend(command.iter().map(|word| (*word).to_owned()));
        argv.extend(["--config".to_owned(), text(config)]);
        let launch =
            Launch { argv, env: env.iter().cloned().collect(), folder: folder.to_owned(), log: log.clone() };
        Ok(Self {
            child: spawn(&launch)?,
            log,
            admin: format!("127.0.0.1:{admin_port}"),
            started: clock::instant(),
            exit: None,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<Exit>> {
        if self.exit.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            self.exit = Some(Exit { code: status.code(), signal: status.signal() });
        }
        Ok(self.exit)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on for longer than `patience`.
    pub fn wait_end(&mut self, patience: Duration) -> anyhow::Result<Exit> {
        let deadline = Deadline::after(patience);
        loop {
            if let Some(exit) = self.ended()? {
                return Ok(exit);
            }
            if deadline.passed() {
                bail!("it has not ended within {patience:?}; {}", self.last_words());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Sends it a signal; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && self.exit.is_none()
        {
            let _ended_meanwhile = kill_process(pid, signal);
        }
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it does not end even then.
    pub fn kill(&mut self) -> anyhow::Result<Exit> {
        self.signal(Signal::KILL);
        self.wait_end(Duration::from_secs(30))
    }

    /// SIGTERM, and the exit that follows.
    ///
    /// # Errors
    /// When it does not end within half a minute.
    pub fn stop(&mut self) -> anyhow::Result<Exit> {
        self.signal(Signal::TERM);
        self.wait_end(Duration::from_secs(30))
    }

    /// Whether `/live` says that it is.
    #[must_use]
    pub fn is_live(&self, admin: &Admin) -> bool {
        admin.page(&self.admin, "/live").is_some()
    }

    /// Whether `/ready` says that it is.
    #[must_use]
    pub fn is_ready(&self, admin: &Admin) -> bool {
        admin.page(&self.admin, "/ready").is_some()
    }

    /// Its metrics; `None` while it does not answer.
    #[must_use]
    pub fn metrics(&self, admin: &Admin) -> Option<Samples> {
        admin.page(&self.admin, "/metrics").map(|page| Samples::parse(&page))
    }

    /// The most memory it ever held resident; `None` when it is gone.
    #[must_use]
    pub fn resident_mb_max(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.div_ceil(1024))
    }

    /// CPU time that it has used, in seconds; `None` when it is gone.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // Fields 14 and 15, counted after the name, which may hold anything but ends with the last parenthesis.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Whether its log, which earlier processes may have begun, holds this text.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        fs::read(&self.log).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text))
    }

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        format!("{}:\n{}", self.log.display(), last_lines(&self.log, 2))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _nothing_more_can_be_done = self.kill();
    }
}
