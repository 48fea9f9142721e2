//! One `weir-edge` of the fault suite: a child process of its own, not of the supervisor, so that nobody starts it again.
//!
//! Comes in: an [`EdgeSpec`], environment variables that hurt it. Goes out: a process to kill, ask and measure.
//! Guarantees: it is killed when this process dies or the value is dropped. Start it from the main thread only: its life
//! is tied to the thread.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use weir_shared::clock::{self, Deadline};

use crate::control::Exit;
use crate::places::last_lines;
use crate::process::{Launch, spawn};
use crate::programs::{Admin, Samples};

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How an edge is configured.
#[derive(Clone, Debug)]
pub struct EdgeSpec {
    /// Its name.
    pub name: String,
    /// The program.
    pub binary: PathBuf,
    /// Its configuration and log.
    pub folder: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// Port of its broker on this host.
    pub mqtt_port: u16,
    /// What it subscribes.
    pub filter: String,
    /// Kafka.
    pub brokers: String,
    /// Partition count of its topics; 0: it asks Kafka.
    pub partitions: i32,
    /// Its admin port.
    pub admin_port: u16,
    /// Further lines by section; `""` is the text before the first section.
    pub more: BTreeMap<&'static str, String>,
}

impl EdgeSpec {
    /// Adds lines to a section.
    pub fn add(&mut self, section: &'static str, lines: &str) {
        let text = self.more.entry(section).or_default();
        text.push_str(lines);
        text.push('\n');
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("weir-edge.toml")
    }

    /// Its log, appended to by each process.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("weir-edge.log")
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.config(), self.text()).context("configuration of the edge")
    }

    fn text(&self) -> String {
        let more = |section: &str| self.more.get(section).cloned().unwrap_or_default();
        let own = ["", "admin", "mqtt", "journal", "kafka"];
        let others = self.more.iter().filter(|(section, _)| !own.contains(section));
        let others: String = others.map(|(section, lines)| format!("[{section}]\n{lines}")).collect();
        format!(
            "name = \"{name}\"\n{top}[admin]\nlisten = \"127.0.0.1:{admin}\"\n{admin_more}[mqtt]\nhost = \"127.0.0.1\"\n\
             port = {mqtt}\ntopics = [\"{filter}\"]\n{mqtt_more}[journal]\ndir = \"{journal}\"\n{journal_more}\
             [kafka]\nbrokers = \"{brokers}\"\npartitions = {partitions}\n{kafka_more}{others}",
            name = self.name,
            top = more(""),
            admin = self.admin_port,
            admin_more = more("admin"),
            mqtt = self.mqtt_port,
            filter = self.filter,
            mqtt_more = more("mqtt"),
            journal = self.journal.display(),
            journal_more = more("journal"),
            brokers = self.brokers,
            partitions = self.partitions,
            kafka_more = more("kafka"),
        )
    }
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    child: Child,
    log: PathBuf,
    admin: String,
    started: Instant,
    exit: Option<Exit>,
}

impl Edge {
    /// Starts it, with these environment variables.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(spec: &EdgeSpec, env: &[(String, String)]) -> anyhow::Result<Self> {
        spec.write()?;
        let text = |path: &Path| path.display().to_string();
        let launch = Launch {
            argv: vec![text(&spec.binary), "run".to_owned(), "--config".to_owned(), text(&spec.config())],
            env: env.iter().cloned().collect(),
            folder: spec.folder.clone(),
            log: spec.log(),
        };
        Ok(Self {
            child: spawn(&launch)?,
            log: spec.log(),
            admin: format!("127.0.0.1:{}", spec.admin_port),
            started: clock::instant(),
            exit: None,
        })
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
                bail!("the edge has not ended within {patience:?}; {}", self.last_words());
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

    /// The end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        format!("{}:\n{}", self.log.display(), last_lines(&self.log, 2))
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _nothing_more_can_be_done = self.kill();
    }
}
