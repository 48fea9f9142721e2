//! A stack of real servers, for programs and tests: bring it up, use it, hurt it, take it down.
//!
//! In: a stack's name. Out: [`Stack`], with the addresses of its servers.
//! Guarantees: after [`Stack::up`] all five servers answer in their own protocols. Two processes may call
//! `up` at the same time: both get the same stack. Dropping a `Stack` changes nothing.
//! On failure: an error that names the server, says what to do and shows the end of its log.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::addresses::{Addresses, OLD_CLICKHOUSE, Ports, SEARCH};
use crate::control::{self, Exit, Reply, Request, State, Status, UnitStatus};
use crate::install::{self, Progress};
use crate::patience::holds_within;
use crate::places::{Places, last_lines};
use crate::server::elasticsearch::more_settings;
use crate::supervisor::LOCK;

const UP_TIME_MAX: Duration = Duration::from_secs(150);
const STOP_TIME_MAX: Duration = Duration::from_secs(160);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A stack that is up.
#[derive(Clone, Debug)]
pub struct Stack {
    name: String,
    places: Places,
    ports: Ports,
}

impl Stack {
    /// Brings the stack up: installs what is missing, starts the supervisor if there is none, waits until
    /// every server is ready. `fresh` first stops the stack and removes all its data.
    pub fn up(name: &str, fresh: bool, progress: Progress<'_>) -> Result<Self> {
        let stack = Self::named(name)?;
        let status = stack.status_if_up()?;
        if fresh || status.as_ref().is_some_and(|status| status.stopping) {
            stack.down()?;
        } else if let Some(status) = status {
            stack.heal(&status)?;
            stack.wait_ready(None, progress)?;
            return Ok(stack);
        }
        install::everything(&stack.places, progress)?;
        if name == OLD_CLICKHOUSE {
            install::old_clickhouse(&stack.places, progress)?;
        }
        if name == SEARCH {
            install::search_servers(&stack.places, progress)?;
        }
        let folder = stack.data_dir();
        if fresh {
            wipe(&folder)?;
        }
        fs::create_dir_all(folder.join("log"))?;
        let supervisor = stack.start_supervisor()?;
        stack.wait_ready(Some(supervisor), progress)?;
        Ok(stack)
    }

    /// A stack that somebody else has brought up; an error if it is not ready.
    pub fn connect(name: &str) -> Result<Self> {
        let stack = Self::named(name)?;
        let status = stack.status_if_up()?.with_context(|| not_up(name))?;
        if !status.ready {
            bail!("stack `{name}` is not ready: see `weir-stack status --name {name}`");
        }
        Ok(stack)
    }

    /// The stack called `name`, up or not.
    pub fn named(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), places: Places::find()?, ports: Ports::of(name)? })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its servers listen, and the ports kept free for our programs.
    pub fn addresses(&self) -> Addresses {
        self.ports.addresses()
    }

    /// Its ports.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Its folder: `data/`, `log/`, and whatever else belongs to this stack. `fresh` empties it.
    pub fn data_dir(&self) -> PathBuf {
        self.places.stack(&self.name)
    }

    /// Downloaded things: `data/shuttle.csv.gz`, `data/water-flow.csv`, the jars.
    pub fn dist_dir(&self) -> PathBuf {
        self.places.dist()
    }

    /// The log of a server or program.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.data_dir().join("log").join(format!("{name}.log"))
    }

    /// What the supervisor knows of everything; `None` when there is no supervisor.
    pub fn status_if_up(&self) -> Result<Option<Status>> {
        let reply = control::ask(&self.data_dir(), &Request::Status, ANSWER_TIME_MAX)?;
        Ok(reply.and_then(|reply| reply.status))
    }

    /// Starts a program under the supervisor; its output goes to [`Stack::log_of`]. With `restart` it is
    /// started again whenever it ends. Returns its process id.
    pub fn spawn(&self, name: &str, argv: &[&str], env: &[(&str, &str)], restart: bool) -> Result<u32> {
        let reply = self.ask(
            &Request::Spawn {
                name: name.to_owned(),
                argv: argv.iter().map(|part| (*part).to_owned()).collect(),
                env: env
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect::<BTreeMap<_, _>>(),
                log: None,
                restart,
            },
            ANSWER_TIME_MAX,
        )?;
        reply.pid.context("the supervisor gave no process id")
    }

    /// Sends a signal (its number: 9, 15, 19 …) to a program or server.
    pub fn signal(&self, name: &str, signal: i32) -> Result<()> {
        self.ask(&Request::Signal { name: name.to_owned(), signal }, ANSWER_TIME_MAX).map(drop)
    }

    /// Waits until the process that runs under this name now has ended. At once, with the last exit, if
    /// none runs; an error if it still runs after `patience`.
    pub fn wait_exit(&self, name: &str, patience: Duration) -> Result<Exit> {
        let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let reply = self.ask(
            &Request::WaitExit { name: name.to_owned(), timeout_ms },
            patience.saturating_add(ANSWER_TIME_MAX),
        )?;
        reply.exit.with_context(|| format!("`{name}` has never run"))
    }

    /// Stops a server or program (SIGTERM, after ten seconds SIGKILL) and leaves it down.
    pub fn stop_server(&self, name: &str) -> Result<()> {
        self.ask(&Request::StopServer { name: name.to_owned() }, STOP_TIME_MAX).map(drop)
    }

    /// Starts a server that is down and waits until it answers.
    pub fn start_server(&self, name: &str) -> Result<()> {
        self.ask(&Request::StartServer { name: name.to_owned() }, STOP_TIME_MAX).map(drop)
    }

    /// Starts Elasticsearch again with further settings; with none, as always.
    pub fn restart_elasticsearch(&self, settings: &[&str]) -> Result<()> {
        self.stop_server("elasticsearch")?;
        let more = more_settings(&self.data_dir());
        if settings.is_empty() {
            fs::remove_file(&more)?;
        } else {
            fs::write(&more, settings.join("\n"))?;
        }
        self.start_server("elasticsearch")
    }

    /// Stops everything and the supervisor. Data stays. Fine when nothing is up.
    pub fn down(&self) -> Result<()> {
        let asked = control::ask(&self.data_dir(), &Request::Stop, STOP_TIME_MAX);
        let Ok(lock) = File::open(self.data_dir().join(LOCK)) else { return Ok(()) };
        // Whatever was answered: the supervisor has ended when its lock is free.
        let is_free = || Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
        if !holds_within(ANSWER_TIME_MAX, LOOK_EVERY, is_free)? {
            asked?.map(check).transpose()?;
            bail!("the supervisor of stack `{}` holds its lock but does not listen", self.name);
        }
        Ok(())
    }

    fn ask(&self, request: &Request, patience: Duration) -> Result<Reply> {
        let reply = control::ask(&self.data_dir(), request, patience)?.with_context(|| not_up(&self.name))?;
        check(reply)
    }

    /// Starts again what was given up or stopped.
    fn heal(&self, status: &Status) -> Result<()> {
        for unit in &status.units {
            if unit.is_server && matches!(unit.state, State::Failed | State::Down) {
                self.start_server(&unit.name).with_context(|| self.advice(unit))?;
            }
        }
        Ok(())
    }

    fn start_supervisor(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_of("supervisor"))?;
        Command::new(stack_program()?)
            .args(["supervise", "--name", &self.name])
            .current_dir(self.places.root())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the supervisor")
    }

    /// Shows what changes until every server is ready.
    fn wait_ready(&self, mut supervisor: Option<Child>, progress: Progress<'_>) -> Result<()> {
        let mut shown: BTreeMap<String, State> = BTreeMap::new();
        let is_ready = || {
            let status = self.status_if_up()?;
            for unit in status.iter().flat_map(|status| &status.units).filter(|unit| unit.is_server) {
                if shown.insert(unit.name.clone(), unit.state) != Some(unit.state) && supervisor.is_some() {
                    progress(&describe(unit));
                }
                if unit.state == State::Failed {
                    bail!("{}", self.advice(unit));
                }
            }
            let ended = supervisor.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() && status.is_none() {
                let log = self.log_of("supervisor");
                bail!("the supervisor ended; {}:\n{}", log.display(), last_lines(&log, 10));
            }
            Ok(status.is_some_and(|status| status.ready))
        };
        let in_time = holds_within(UP_TIME_MAX, LOOK_EVERY, is_ready)?;
        ensure!(in_time, "not ready after {UP_TIME_MAX:?}: see `weir-stack status --name {}`", self.name);
        Ok(())
    }

    fn advice(&self, unit: &UnitStatus) -> String {
        let name = &self.name;
        // Without an exit it never ran, and its log is of an earlier time.
        let log = unit.last_exit.map_or(String::new(), |_| {
            format!("\n--- last lines of {} ---\n{}\n---", unit.log.display(), last_lines(&unit.log, 20))
        });
        format!(
            "{} did not start: {}{log}\nMend the cause, then `weir-stack up --name {name}` again; `--fresh` \
             starts with empty data; `weir-stack down --name {name}` stops the others.",
            unit.name, unit.detail,
        )
    }
}

/// One line about a unit, for people.
pub fn describe(unit: &UnitStatus) -> String {
    let mut line = format!("{:<14} {:<9}", unit.name, unit.state.to_string());
    if let (State::Ready, Some(ms)) = (unit.state, unit.ready_after_ms) {
        line += &format!(" after {}.{:01} s", ms / 1000, ms % 1000 / 100);
    }
    if let Some(pid) = unit.pid {
        line += &format!(" (pid {pid})");
    }
    if !unit.detail.is_empty() {
        line += &format!(" {}", unit.detail);
    }
    line
}

fn check(reply: Reply) -> Result<Reply> {
    match reply.error {
        _ if reply.ok => Ok(reply),
        Some(error) => bail!("{error}"),
        None => bail!("refused without a reason"),
    }
}

fn not_up(name: &str) -> String {
    format!("stack `{name}` is not up: `weir-stack up --name {name}` brings it up")
}

/// Everything in a stack's folder but the lock, which a supervisor may be taking right now.
fn wipe(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.ends_with(LOCK) {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The `weir-stack` binary: this program, or its neighbour (tests run from the `deps` folder beside it).
fn stack_program() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find the running program")?;
    let candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join("weir-stack"));
    candidates
        .into_iter()
        .find(|candidate| candidate.is_file())
        .context("no `weir-stack` beside this program: `cargo build --release -p weir-tests` makes it")
}
