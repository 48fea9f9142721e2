//! The supervisor: one process per stack that owns every server and program of it.
//!
//! In: requests on the control socket, ends of children, answers of readiness probes. Out: replies, logs
//! in `log/`, children started, stopped, started again.
//! Guarantees: one supervisor per stack (a lock on its folder). One thread decides and is the only one
//! that spawns, so that the kernel kills all children when the supervisor dies in whatever way. A child
//! that ends unasked is started again with backoff. `stop` ends programs in reverse order, then the
//! servers, each with SIGTERM and, after ten seconds, SIGKILL.
//! On failure: a server that cannot start is `failed`, with the reason in `status`; the others go on.

mod leftovers;
mod requests;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use weir_shared::clock;

use self::requests::Waiter;
use self::unit::Unit;
use crate::control::{self, Reply, Request, State};
use crate::patience::holds_within;
use crate::places::Places;
use crate::server;

/// The lock that the supervisor of a stack holds while it lives.
pub(crate) const LOCK: &str = "lock";

/// The loop looks at everything at least this often, even if it hears nothing.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to try to become the one supervisor.
const LOCK_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the last replies may take when the supervisor ends.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
const TRY_EVERY: Duration = Duration::from_millis(2);

enum Event {
    /// A child may have ended.
    Child,
    /// SIGTERM or SIGINT.
    Terminate,
    /// From the control socket.
    Asked(Request, Sender<Reply>),
    /// A readiness probe has ended.
    Probed { name: String, start: u32, result: Result<(), String> },
}

/// Everything the deciding thread owns.
struct Supervisor {
    stack: String,
    root: PathBuf,
    log: PathBuf,
    /// Of every child; what a request gives is added.
    environment: BTreeMap<String, String>,
    units: Vec<Unit>,
    waiters: Vec<Waiter>,
    events: Sender<Event>,
    stopping: bool,
}

/// Runs the supervisor of the stack called `name` until it is asked to stop.
pub fn run(name: &str) -> Result<()> {
    let places = Places::find()?;
    let folder = places.stack(name);
    let log = folder.join("log");
    fs::create_dir_all(&log)?;
    let Some(_lock) = take_lock(&folder)? else {
        eprintln!("another supervisor holds {}", folder.join(LOCK).display());
        return Ok(());
    };
    let recipes = server::recipes(&places, name)?;
    leftovers::end(&folder);
    let (events, heard) = channel();
    watch_signals(SIGCHLD, &events, || Event::Child)?;
    watch_signals(SIGTERM, &events, || Event::Terminate)?;
    watch_signals(SIGINT, &events, || Event::Terminate)?;
    // The zone of the machine must not show in what the servers store or answer.
    let zone = ("TZ".to_owned(), "UTC".to_owned());
    let mark = (leftovers::MARK.to_owned(), folder.display().to_string());
    let environment = BTreeMap::from([zone, mark]);
    let units = recipes
        .into_iter()
        .map(|recipe| Unit::server(recipe, places.root(), &log, environment.clone(), events.clone()))
        .collect();
    let mut supervisor = Supervisor {
        stack: name.to_owned(),
        root: places.root().to_owned(),
        log,
        environment,
        units,
        waiters: Vec::new(),
        events: events.clone(),
        stopping: false,
    };
    eprintln!("supervisor {} of stack {name} starts", std::process::id());
    for unit in &mut supervisor.units {
        unit.start(clock::instant());
    }
    let being_answered = listen(control::listen(&folder)?, events);
    supervisor.decide(&heard);
    let _gone = fs::remove_file(folder.join(control::SOCKET));
    wait_until_answered(&being_answered);
    eprintln!("supervisor of stack {name} ends: everything is down");
    Ok(())
}

impl Supervisor {
    fn decide(&mut self, heard: &Receiver<Event>) {
        loop {
            match heard.recv_timeout(self.patience(clock::instant())) {
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
            let now = clock::instant();
            for unit in &mut self.units {
                unit.advance(now);
            }
            if self.stopping {
                self.stop_next(now);
            }
            self.answer_waiters(now);
            if self.stopping && self.units.iter().all(Unit::is_down) && self.waiters.is_empty() {
                return;
            }
        }
    }

    /// Until when nothing is due.
    fn patience(&self, now: Instant) -> Duration {
        let deadlines = self.units.iter().filter_map(Unit::due).chain(self.waiters.iter().map(Waiter::due));
        deadlines.map(|at| at.saturating_duration_since(now)).min().unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Child => {}
            Event::Terminate => self.stopping = true,
            Event::Asked(request, reply) => self.carry_out(request, reply),
            Event::Probed { name, start, result } => {
                if let Some(unit) = self.units.iter_mut().find(|unit| unit.name() == name) {
                    unit.probed(start, result, clock::instant());
                }
            }
        }
    }

    /// Programs one by one, the youngest first; when none is left, all servers at once.
    fn stop_next(&mut self, now: Instant) {
        for unit in &mut self.units {
            unit.stay_down();
        }
        if let Some(program) = self.units.iter_mut().rev().find(|unit| !unit.is_server() && !unit.is_down()) {
            program.stop(now);
            return;
        }
        for unit in &mut self.units {
            unit.stop(now);
        }
    }

    fn is_ready(&self) -> bool {
        self.units.iter().filter(|unit| unit.is_server()).all(|unit| unit.state() == State::Ready)
    }
}

/// Held as long as the file is open. `down` holds it for a moment, so one try is not enough.
fn take_lock(folder: &Path) -> Result<Option<File>> {
    let lock = File::create(folder.join(LOCK))?;
    let take = || Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
    Ok(holds_within(LOCK_TIME_MAX, TRY_EVERY, take)?.then_some(lock))
}

/// Turns a signal into an event. The handler itself only writes to a pipe.
fn watch_signals(signal: i32, events: &Sender<Event>, event: fn() -> Event) -> Result<()> {
    let (mut read, write) = UnixStream::pair()?;
    pipe::register(signal, write).with_context(|| format!("cannot watch signal {signal}"))?;
    let events = events.clone();
    thread::spawn(move || {
        let mut some = [0; 64];
        while read.read(&mut some).is_ok_and(|count| count > 0) && events.send(event()).is_ok() {}
    });
    Ok(())
}

/// Takes connections; each is one request, answered when the deciding thread has carried it out. Returns
/// what every connection holds a copy of.
fn listen(socket: UnixListener, events: Sender<Event>) -> Arc<()> {
    let being_answered = Arc::new(());
    let held = Arc::clone(&being_answered);
    thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let (events, held) = (events.clone(), Arc::clone(&held));
            thread::spawn(move || {
                let served = control::serve(stream, |request| {
                    let (reply, replied) = channel();
                    let sent = events.send(Event::Asked(request, reply));
                    let reply = sent.ok().and_then(|()| replied.recv().ok());
                    reply.unwrap_or_else(|| Reply::refused("the supervisor is ending"))
                });
                if let Err(error) = served {
                    eprintln!("control socket: {error:#}");
                }
                drop(held);
            });
        }
    });
    being_answered
}

/// The last replies reach their askers before the process ends.
fn wait_until_answered(being_answered: &Arc<()>) {
    // Two copies are the caller's and the listening thread's.
    let is_answered = || Ok(Arc::strong_count(being_answered) <= 2);
    let _an_asker_may_be_gone = holds_within(ANSWER_TIME_MAX, TRY_EVERY, is_answered);
}
