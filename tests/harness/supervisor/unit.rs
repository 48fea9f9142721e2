//! One server or program of the supervisor and its life.
//!
//! In: start, stop, the passing of time, ends of its process, its probe's answer. Out: its [`State`].
//! Guarantees: at most one process at a time; a process that ends unasked is started again after a
//! growing pause if it is a server or was asked for; a server that never gets ready three times in a row
//! is given up.
//! On failure: the state is `Failed` and `detail` says why; `start` tries again.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use weir_shared::clock::{self, Deadline};

use super::Event;
use crate::control::{Exit, State, UnitStatus};
use crate::process::{Launch, signal_group, spawn};
use crate::server::Recipe;

const READY_TIME_MAX: Duration = Duration::from_secs(120);
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 3;
const PORT_TIME_MAX: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A process that lived this long has earned the shortest pause again.
const LIVED_LONG: Duration = Duration::from_secs(30);
/// In a server's folder: its preparation has ended well.
const PREPARED: &str = ".prepared";

pub(super) struct Unit {
    launch: Launch,
    name: String,
    recipe: Option<Recipe>,
    restart: bool,
    events: Sender<Event>,
    state: State,
    detail: String,
    child: Option<Child>,
    prepare_step: usize,
    starts: u32,
    /// Starts in a row that did not get ready.
    attempts: u32,
    pause: Duration,
    /// When the state changes by itself: a pause ends, patience ends.
    deadline: Option<Instant>,
    began: Instant,
    port_wanted_since: Option<Instant>,
    ready_after: Option<Duration>,
    last_exit: Option<Exit>,
    probe_given_up: Arc<AtomicBool>,
}

impl Unit {
    pub(super) fn server(
        recipe: Recipe,
        root: &Path,
        log: &Path,
        env: BTreeMap<String, String>,
        events: Sender<Event>,
    ) -> Self {
        let log = log.join(format!("{}.log", recipe.name));
        let launch = Launch { argv: recipe.run.clone(), env, folder: root.to_owned(), log };
        Self::new(recipe.name.to_owned(), launch, Some(recipe), true, events)
    }

    pub(super) fn program(name: String, launch: Launch, restart: bool, events: Sender<Event>) -> Self {
        Self::new(name, launch, None, restart, events)
    }

    fn new(
        name: String,
        launch: Launch,
        recipe: Option<Recipe>,
        restart: bool,
        events: Sender<Event>,
    ) -> Self {
        Self {
            launch,
            name,
            recipe,
            restart,
            events,
            state: State::Down,
            detail: String::new(),
            child: None,
            prepare_step: 0,
            starts: 0,
            attempts: 0,
            pause: PAUSE_MIN,
            deadline: None,
            began: clock::instant(),
            port_wanted_since: None,
            ready_after: None,
            last_exit: None,
            probe_given_up: Arc::new(AtomicBool::new(false)),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
    pub(super) fn is_server(&self) -> bool {
        self.recipe.is_some()
    }
    pub(super) fn state(&self) -> State {
        self.state
    }
    pub(super) fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }
    pub(super) fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }
    pub(super) fn starts(&self) -> u32 {
        self.starts
    }
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
    pub(super) fn due(&self) -> Option<Instant> {
        self.deadline
    }

    /// No process, and none to come.
    pub(super) fn is_down(&self) -> bool {
        self.child.is_none() && matches!(self.state, State::Down | State::Failed)
    }

    /// A pause is cut short: nothing is started any more.
    pub(super) fn stay_down(&mut self) {
        if self.child.is_none() && self.state == State::Waiting {
            self.enter(State::Down, "stopped");
        }
    }

    /// Asked for from outside: earlier failures are forgotten.
    pub(super) fn start(&mut self, now: Instant) {
        if self.child.is_none() {
            (self.attempts, self.pause, self.port_wanted_since) = (0, PAUSE_MIN, None);
            self.start_again(now);
        }
    }

    fn start_again(&mut self, now: Instant) {
        self.began = now;
        self.ready_after = None;
        if let Err(error) = self.try_start(now) {
            self.give_up(&format!("{error:#}"));
        }
    }

    fn try_start(&mut self, now: Instant) -> Result<()> {
        let Some(recipe) = &self.recipe else { return self.launch_main() };
        if let Some(port) = recipe.ports.iter().find(|port| !is_free(**port)) {
            let since = *self.port_wanted_since.get_or_insert(now);
            anyhow::ensure!(
                now - since < PORT_TIME_MAX,
                "port {port} is taken by another process: end it (`ss -ltnp 'sport = {port}'` names it)"
            );
            self.enter(State::Waiting, &format!("port {port} is still taken"));
            self.deadline = Some(now + PAUSE_MIN);
            return Ok(());
        }
        self.port_wanted_since = None;
        let prepared = recipe.folder.join(PREPARED).exists();
        if !prepared && recipe.folder.exists() {
            fs::remove_dir_all(&recipe.folder).context("cannot remove a half-made data folder")?;
        }
        for (path, content) in &recipe.files {
            let folder = path.parent().unwrap_or(&recipe.folder);
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.prepare_step = 0;
        if prepared { self.launch_main() } else { self.prepare_or_launch(now) }
    }

    /// The next command of the preparation, or the server when all of them are done.
    fn prepare_or_launch(&mut self, now: Instant) -> Result<()> {
        let Some(recipe) = &self.recipe else { return self.launch_main() };
        if let Some(argv) = recipe.prepare.get(self.prepare_step) {
            let step = Launch { argv: argv.clone(), ..self.launch.clone() };
            self.child = Some(spawn(&step)?);
            self.enter(State::Preparing, "");
            self.deadline = Some(now + READY_TIME_MAX);
            return Ok(());
        }
        fs::write(recipe.folder.join(PREPARED), "").context("cannot mark the data folder as complete")?;
        self.launch_main()
    }

    fn launch_main(&mut self) -> Result<()> {
        self.child = Some(spawn(&self.launch)?);
        self.starts += 1;
        let Some(recipe) = &self.recipe else {
            self.enter(State::Ready, "");
            return Ok(());
        };
        let deadline = Deadline::after(READY_TIME_MAX);
        let (probe, events, name, start) =
            (recipe.probe.clone(), self.events.clone(), self.name.clone(), self.starts);
        self.probe_given_up = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&self.probe_given_up);
        thread::spawn(move || {
            let result = probe.wait(deadline, &given_up).map_err(|error| format!("{error:#}"));
            let _supervisor_ended = events.send(Event::Probed { name, start, result });
        });
        self.enter(State::Starting, "");
        Ok(())
    }

    pub(super) fn probed(&mut self, start: u32, result: Result<(), String>, now: Instant) {
        if self.state != State::Starting || start != self.starts {
            return; // of an earlier process
        }
        match result {
            Ok(()) => {
                self.ready_after = Some(now - self.began);
                self.attempts = 0;
                self.enter(State::Ready, "");
            }
            Err(error) => {
                if let Some(child) = &self.child {
                    signal_group(child, Signal::KILL);
                }
                self.attempts = ATTEMPTS_MAX;
                self.detail = format!("did not get ready in {READY_TIME_MAX:?}: {error}");
            }
        }
    }

    /// SIGTERM now, SIGKILL after a while.
    pub(super) fn stop(&mut self, now: Instant) {
        match (&self.child, self.state) {
            (_, State::Stopping) => {}
            (Some(child), _) => {
                signal_group(child, Signal::TERM);
                self.probe_given_up.store(true, Ordering::Relaxed);
                self.enter(State::Stopping, "");
                self.deadline = Some(now + STOP_TIME_MAX);
            }
            (None, State::Down | State::Failed) => {}
            (None, _) => self.enter(State::Down, "stopped"),
        }
    }

    /// Looks whether the process has ended and whether a deadline has passed.
    pub(super) fn advance(&mut self, now: Instant) {
        let ended = self.child.as_mut().map(Child::try_wait);
        match ended {
            Some(Ok(Some(status))) => {
                if let Some(child) = self.child.take() {
                    signal_group(&child, Signal::KILL); // what it may have left in its group
                }
                self.probe_given_up.store(true, Ordering::Relaxed);
                let exit = Exit { code: status.code(), signal: status.signal() };
                self.last_exit = Some(exit);
                self.ended(exit, now);
            }
            Some(Err(error)) => eprintln!("{}: cannot ask for its end: {error}", self.name),
            Some(Ok(None)) | None => {}
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            match (self.state, &self.child) {
                (State::Waiting, None) => self.start_again(now),
                (State::Stopping | State::Preparing, Some(child)) => {
                    eprintln!("{}: took too long, SIGKILL", self.name);
                    signal_group(child, Signal::KILL);
                }
                _ => {}
            }
        }
    }

    fn ended(&mut self, exit: Exit, now: Instant) {
        match self.state {
            State::Stopping => self.enter(State::Down, &format!("stopped, {exit}")),
            State::Preparing if exit.code == Some(0) => {
                self.prepare_step += 1;
                if let Err(error) = self.prepare_or_launch(now) {
                    self.give_up(&format!("{error:#}"));
                }
            }
            State::Preparing => self.give_up(&format!("its data folder could not be made: {exit}")),
            _ if !self.restart => self.enter(State::Down, &format!("ended, {exit}")),
            state => {
                if self.is_server() && state == State::Starting {
                    self.attempts += 1;
                }
                if self.attempts >= ATTEMPTS_MAX {
                    let why = if self.detail.is_empty() {
                        "never got ready".to_owned()
                    } else {
                        self.detail.clone()
                    };
                    self.give_up(&format!("{why} ({exit})"));
                    return;
                }
                if now - self.began > LIVED_LONG {
                    self.pause = PAUSE_MIN;
                }
                self.enter(
                    State::Waiting,
                    &format!("ended unasked ({exit}), starts again in {:?}", self.pause),
                );
                self.deadline = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
        }
    }

    fn give_up(&mut self, why: &str) {
        self.probe_given_up.store(true, Ordering::Relaxed);
        self.enter(State::Failed, why);
    }

    fn enter(&mut self, state: State, detail: &str) {
        let pid = self.child.as_ref().map_or(String::new(), |child| format!(" pid {}", child.id()));
        eprintln!("{}: {state}{pid} {detail}", self.name);
        (self.state, self.deadline) = (state, None);
        detail.clone_into(&mut self.detail);
    }

    pub(super) fn status(&self) -> UnitStatus {
        UnitStatus {
            name: self.name.clone(),
            is_server: self.is_server(),
            state: self.state,
            pid: self.child.as_ref().map(Child::id),
            starts: self.starts,
            ready_after_ms: self.ready_after.and_then(|time| u64::try_from(time.as_millis()).ok()),
            last_exit: self.last_exit,
            detail: self.detail.clone(),
            log: PathBuf::from(&self.launch.log),
        }
    }
}

/// Whether a server could listen there now.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
