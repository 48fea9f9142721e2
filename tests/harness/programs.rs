//! `weir-edge` and `weir-cloud` on a stack: their configurations, starting, killing, asking how they are.
//!
//! Comes in: a stack that is up. Goes out: both programs as children of the stack's supervisor, which starts them
//! again at once when they die.
//! Guarantees: what runs is what stands beside this program in `target/release`; a configuration is checked by the
//! program itself before it runs. On failure: an error with the end of the program's log.

mod admin;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use weir_shared::clock::Deadline;

use crate::addresses::Addresses;
use crate::places::last_lines;
use crate::stack::Stack;

pub use admin::{Admin, Sample, Samples};

/// Name of the edge in the demo and the tests.
pub const EDGE_NAME: &str = "gw-demo";
/// The dimension table in MySQL.
pub const DEVICES_TABLE: &str = "weir_devices";

const INIT_TIME_MAX: Duration = Duration::from_secs(180);
const READY_TIME_MAX: Duration = Duration::from_secs(90);
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SIGKILL: i32 = 9;

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `weir-edge run`.
    Edge,
    /// `weir-cloud run`.
    Cloud,
}

impl Program {
    /// Name of the binary, and under the supervisor.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "weir-edge",
            Self::Cloud => "weir-cloud",
        }
    }
}

/// Both programs on one stack.
pub struct Programs<'a> {
    stack: &'a Stack,
    binaries: PathBuf,
    /// What starts the edge, where it is not the one beside this program.
    edge: Option<Vec<String>>,
    /// An earlier version, and this one; [`Programs::kill`] then changes which one runs.
    versions: Option<[PathBuf; 2]>,
    admin: Admin,
}

impl<'a> Programs<'a> {
    /// Finds the binaries and writes the configurations; starts nothing.
    ///
    /// # Errors
    /// When a binary is missing or a configuration cannot be written.
    pub fn new(stack: &'a Stack) -> anyhow::Result<Self> {
        let programs =
            Self { stack, binaries: binaries()?, edge: None, versions: None, admin: Admin::new()? };
        fs::create_dir_all(stack.data_dir().join("config"))?;
        let (addresses, folder) = (stack.addresses(), stack.data_dir());
        fs::write(programs.config(Program::Edge), edge_config(&addresses, &folder.join("edge-journal")))?;
        fs::write(programs.config(Program::Cloud), cloud_config(&addresses))?;
        Ok(programs)
    }

    /// The edge is this program, for example one of another processor with what runs it.
    #[must_use]
    pub fn with_edge(self, words: &[String]) -> Self {
        Self { edge: Some(words.to_vec()), ..self }
    }

    /// Both are those of an earlier version, in this folder, until they are killed: what runs then is of the other version,
    /// each time.
    ///
    /// # Errors
    /// When one is not there, or the links to them cannot be made.
    pub fn with_before(mut self, before: &Path) -> anyhow::Result<Self> {
        let links = self.stack.data_dir().join("versions");
        fs::create_dir_all(&links)?;
        let (before, now) = (before.canonicalize()?, std::mem::replace(&mut self.binaries, links));
        for program in [Program::Edge, Program::Cloud] {
            self.link(program, &before.join(program.name()))?;
        }
        self.versions = Some([before, now]);
        Ok(self)
    }

    /// What its link leads to from now on.
    fn link(&self, program: Program, target: &Path) -> anyhow::Result<()> {
        ensure!(target.is_file(), "{} is not there", target.display());
        let (link, new) = (self.binary(program), self.binaries.join("new"));
        std::os::unix::fs::symlink(target, &new)?;
        Ok(fs::rename(new, link)?)
    }

    /// Changes the version of one that is to be killed.
    fn switch(&self, program: Program) -> anyhow::Result<()> {
        let Some([before, now]) = &self.versions else { return Ok(()) };
        let runs = fs::read_link(self.binary(program))?;
        let next = if runs.starts_with(before) { now } else { before };
        self.link(program, &next.join(program.name()))
    }

    /// Stops what runs of both (in order: edge, then cloud), gracefully.
    ///
    /// # Errors
    /// When one of them does not stop.
    pub fn stop(&self) -> anyhow::Result<()> {
        for program in [Program::Edge, Program::Cloud] {
            if self.pid(program)?.is_some() {
                self.stop_one(program)?;
            }
        }
        Ok(())
    }

    /// Stops one that runs, gracefully, and gives its exit code.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop_one(&self, program: Program) -> anyhow::Result<Option<i32>> {
        self.stack.stop_server(program.name())?;
        Ok(self.stack.wait_exit(program.name(), STOP_TIME_MAX)?.code)
    }

    /// `weir-cloud init`: topics, tables, templates.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn init(&self) -> anyhow::Result<()> {
        let log_path = self.stack.log_of("weir-cloud-init");
        let log = fs::File::create(&log_path)?;
        let mut child = Command::new(self.binary(Program::Cloud))
            .args(["init", "--config"])
            .arg(self.config(Program::Cloud))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("weir-cloud init")?;
        let deadline = Deadline::after(INIT_TIME_MAX);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if deadline.passed() {
                child.kill()?;
                child.wait()?;
                bail!("weir-cloud init did not end within {INIT_TIME_MAX:?}:\n{}", last_lines(&log_path, 20));
            }
            std::thread::park_timeout(LOOK_EVERY);
        };
        ensure!(status.success(), "weir-cloud init: {status}:\n{}", last_lines(&log_path, 20));
        Ok(())
    }

    /// One of its other commands, with its configuration; not started yet.
    #[must_use]
    pub fn command(&self, program: Program, words: &[&str]) -> Command {
        let mut command = Command::new(self.binary(program));
        command.args(words).arg("--config").arg(self.config(program));
        command
    }

    /// Starts one under the supervisor.
    ///
    /// # Errors
    /// When the supervisor refuses.
    pub fn start(&self, program: Program) -> anyhow::Result<()> {
        self.start_with(program, &["run"])
    }

    /// Starts `weir-cloud` with one role only: `process`, or `sink` and its name.
    ///
    /// # Errors
    /// When the supervisor refuses.
    pub fn start_role(&self, role: &[&str]) -> anyhow::Result<()> {
        self.start_with(Program::Cloud, role)
    }

    fn start_with(&self, program: Program, command: &[&str]) -> anyhow::Result<()> {
        let (binary, config) = (text(&self.binary(program))?, text(&self.config(program))?);
        let mut argv = match (&self.edge, program) {
            (Some(edge), Program::Edge) => edge.iter().map(String::as_str).collect(),
            _ => vec![binary.as_str()],
        };
        argv.extend_from_slice(command);
        argv.extend_from_slice(&["--config", &config]);
        self.stack.spawn(program.name(), &argv, &[], true)?;
        Ok(())
    }

    /// Waits until its `/ready` says so.
    ///
    /// # Errors
    /// With the end of its log, after a minute and a half.
    pub fn wait_ready(&self, program: Program) -> anyhow::Result<()> {
        let deadline = Deadline::after(READY_TIME_MAX);
        while self.admin.page(&self.address(program), "/ready").is_none() {
            if deadline.passed() {
                let log = self.stack.log_of(program.name());
                let name = program.name();
                bail!(
                    "{name} is not ready after {READY_TIME_MAX:?}; {}:\n{}",
                    log.display(),
                    last_lines(&log, 20)
                );
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    /// Kills it (SIGKILL) and waits until the supervisor has started it again; gives its old process and its new one.
    ///
    /// # Errors
    /// When it does not run, or is not started again.
    pub fn kill(&self, program: Program) -> anyhow::Result<(u32, u32)> {
        let name = program.name();
        let old =
            self.pid(program)?.with_context(|| format!("{name} does not run, so it cannot be killed"))?;
        self.switch(program)?;
        self.stack.signal(name, SIGKILL)?;
        let deadline = Deadline::after(READY_TIME_MAX);
        loop {
            match self.pid(program)? {
                Some(new) if new != old => return Ok((old, new)),
                _ if deadline.passed() => bail!("{name} was not started again after it was killed"),
                _ => std::thread::park_timeout(LOOK_EVERY),
            }
        }
    }

    /// Its process, when it runs.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn pid(&self, program: Program) -> anyhow::Result<Option<u32>> {
        let status = self.stack.status_if_up()?.context("the stack is not up")?;
        Ok(status.units.iter().find(|unit| unit.name == program.name()).and_then(|unit| unit.pid))
    }

    /// Its metrics; `None` while it does not answer.
    #[must_use]
    pub fn metrics(&self, program: Program) -> Option<Samples> {
        self.admin.page(&self.address(program), "/metrics").map(|page| Samples::parse(&page))
    }

    /// Address of its admin port.
    #[must_use]
    pub fn address(&self, program: Program) -> String {
        let addresses = self.stack.addresses();
        match program {
            Program::Edge => addresses.edge_admin,
            Program::Cloud => addresses.cloud_admin,
        }
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self, program: Program) -> PathBuf {
        self.stack.data_dir().join("config").join(format!("{}.toml", program.name()))
    }

    fn binary(&self, program: Program) -> PathBuf {
        self.binaries.join(program.name())
    }
}

/// The folder of the binaries: that of this program, or the one above (tests run from `deps` in it).
fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the running program")?;
    let has_both =
        |folder: &&Path| [Program::Edge, Program::Cloud].iter().all(|p| folder.join(p.name()).is_file());
    let found = own.ancestors().skip(1).take(2).find(has_both);
    Ok(found.context("no weir-edge and weir-cloud beside this program: `make build` makes them")?.to_owned())
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
}

fn edge_config(addresses: &Addresses, journal: &Path) -> String {
    format!(
        r#"name = "{EDGE_NAME}"
[admin]
listen = "{admin}"
[mqtt]
host = "{host}"
port = {port}
topics = ["sensors/#"]
[journal]
dir = "{journal}"
[kafka]
brokers = "{kafka}"
"#,
        admin = addresses.edge_admin,
        host = addresses.mqtt.0,
        port = addresses.mqtt.1,
        journal = journal.display(),
        kafka = addresses.kafka,
    )
}

fn cloud_config(addresses: &Addresses) -> String {
    format!(
        r#"slot = "weir-cloud-0"
[admin]
listen = "{admin}"
[kafka]
brokers = "{kafka}"
[[dimension]]
name = "devices"
url = "{mysql}"
table = "{DEVICES_TABLE}"
key = "device"
columns = []
[rules]
url = "{mysql}"
[sink.mysql]
enabled = true
url = "{mysql}"
[sink.elasticsearch]
enabled = true
url = "{elasticsearch}"
[sink.clickhouse]
enabled = true
url = "{clickhouse}"
"#,
        admin = addresses.cloud_admin,
        kafka = addresses.kafka,
        mysql = addresses.mysql_url,
        elasticsearch = addresses.elasticsearch_url,
        clickhouse = addresses.clickhouse_url,
    )
}
