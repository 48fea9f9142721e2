//! What the supervisor does when it is asked.
//!
//! In: a [`Request`] and where its [`Reply`] goes. Out: the reply, at once or when the thing has happened.
//! Guarantees: every request gets exactly one reply.
//! On failure: an unknown name, a program that runs already, a server that fails: refused with the reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use weir_shared::clock;

use super::Supervisor;
use super::unit::Unit;
use crate::control::{Reply, Request, State, Status};
use crate::process::{Launch, signal_group};

/// Longer than a start or a stop may take by itself.
const PATIENCE: Duration = Duration::from_secs(150);

/// Somebody who is answered later.
pub(super) struct Waiter {
    until: Until,
    deadline: Instant,
    reply: Sender<Reply>,
}

enum Until {
    /// The process of this start has ended.
    Ended { name: String, start: u32 },
    /// It runs no more and will not start by itself.
    Down { name: String },
    /// It answers.
    Ready { name: String },
    /// All of it is down.
    AllDown,
}

impl Waiter {
    pub(super) fn due(&self) -> Instant {
        self.deadline
    }
}

impl Supervisor {
    pub(super) fn carry_out(&mut self, request: Request, reply: Sender<Reply>) {
        let now = clock::instant();
        if self.stopping && !matches!(request, Request::Status | Request::Stop | Request::WaitExit { .. }) {
            let _asker_gone = reply.send(Reply::refused("the stack is stopping"));
            return;
        }
        let answered = match request {
            Request::Status => Reply { status: Some(self.status()), ..Reply::done() },
            Request::Spawn { name, argv, env, log, restart } => {
                self.spawn_program(name, argv, env, log, restart, now)
            }
            Request::Signal { name, signal } => self.signal(&name, signal),
            Request::WaitExit { name, timeout_ms } => {
                let Some(unit) = self.unit(&name) else { return refuse_unknown(&name, &reply) };
                let until = Until::Ended { start: unit.starts(), name };
                return self.answer_later(until, now + Duration::from_millis(timeout_ms), reply);
            }
            Request::StopServer { name } => {
                let Some(unit) = self.unit(&name) else { return refuse_unknown(&name, &reply) };
                unit.stop(now);
                return self.answer_later(Until::Down { name }, now + PATIENCE, reply);
            }
            Request::StartServer { name } => {
                let Some(unit) = self.unit(&name) else { return refuse_unknown(&name, &reply) };
                unit.start(now);
                return self.answer_later(Until::Ready { name }, now + PATIENCE, reply);
            }
            Request::Stop => {
                self.stopping = true;
                return self.answer_later(Until::AllDown, now + PATIENCE, reply);
            }
        };
        let _asker_gone = reply.send(answered);
    }

    fn unit(&mut self, name: &str) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| unit.name() == name)
    }

    fn answer_later(&mut self, until: Until, deadline: Instant, reply: Sender<Reply>) {
        self.waiters.push(Waiter { until, deadline, reply });
    }

    fn status(&self) -> Status {
        Status {
            stack: self.stack.clone(),
            supervisor_pid: std::process::id(),
            ready: self.is_ready() && !self.stopping,
            stopping: self.stopping,
            units: self.units.iter().map(Unit::status).collect(),
        }
    }

    fn spawn_program(
        &mut self,
        name: String,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        log: Option<PathBuf>,
        restart: bool,
        now: Instant,
    ) -> Reply {
        if let Some(unit) = self.units.iter().find(|unit| unit.name() == name) {
            if unit.is_server() {
                return Reply::refused(format!("`{name}` is the name of a server"));
            }
            if !unit.is_down() {
                return Reply::refused(format!("`{name}` runs already"));
            }
        }
        self.units.retain(|unit| unit.name() != name);
        let log = log.unwrap_or_else(|| self.log.join(format!("{name}.log")));
        let env = self.environment.clone().into_iter().chain(env).collect();
        let launch = Launch { argv, env, folder: self.root.clone(), log };
        let mut unit = Unit::program(name, launch, restart, self.events.clone());
        unit.start(now);
        let reply = match unit.child() {
            Some(child) => Reply { pid: Some(child.id()), ..Reply::done() },
            None => Reply::refused(unit.detail()),
        };
        self.units.push(unit);
        reply
    }

    fn signal(&mut self, name: &str, number: i32) -> Reply {
        let Some(unit) = self.unit(name) else { return Reply::refused(unknown(name)) };
        let Some(signal) = Signal::from_named_raw(number) else {
            return Reply::refused(format!("{number} is not a signal"));
        };
        let Some(child) = unit.child() else { return Reply::refused(format!("`{name}` does not run")) };
        signal_group(child, signal);
        Reply::done()
    }

    /// Answers those whose thing has happened or whose time is up.
    pub(super) fn answer_waiters(&mut self, now: Instant) {
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            match self.outcome(&waiter, now) {
                Some(reply) => {
                    let _asker_gone = waiter.reply.send(reply);
                }
                None => self.waiters.push(waiter),
            }
        }
    }

    fn outcome(&self, waiter: &Waiter, now: Instant) -> Option<Reply> {
        let find = |name: &str| self.units.iter().find(|unit| unit.name() == name);
        let happened = match &waiter.until {
            Until::Ended { name, start } => match find(name) {
                None => Some(Reply::refused(unknown(name))),
                Some(unit) if unit.child().is_none() || unit.starts() != *start => {
                    Some(Reply { exit: unit.last_exit(), ..Reply::done() })
                }
                Some(_) => None,
            },
            Until::Down { name } => find(name).is_none_or(Unit::is_down).then(Reply::done),
            Until::Ready { name } => match find(name).map(|unit| (unit.state(), unit)) {
                Some((State::Ready, _)) => Some(Reply::done()),
                Some((State::Failed | State::Down, unit)) => {
                    Some(Reply::refused(format!("`{name}` did not start: {}", unit.detail())))
                }
                Some(_) => None,
                None => Some(Reply::refused(unknown(name))),
            },
            Until::AllDown => self.units.iter().all(Unit::is_down).then(Reply::done),
        };
        happened.or_else(|| (waiter.deadline <= now).then(|| Reply::refused("not in time")))
    }
}

fn unknown(name: &str) -> String {
    format!("nothing here is called `{name}`")
}

fn refuse_unknown(name: &str, reply: &Sender<Reply>) {
    let _asker_gone = reply.send(Reply::refused(unknown(name)));
}
