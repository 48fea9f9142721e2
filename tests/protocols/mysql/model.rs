//! The MySQL sink, its database and its group as one protocol: what a state is, and what is wrong with one.
//!
//! Comes in: which guards stand. Goes out: a [`Protocol`]; its steps are in [`super::worker`] (what the sink does) and
//! [`super::troubles`] (what happens to it).

use std::fmt;

use super::database::{Conditions, Database, RECORDS, Statement};
use super::{troubles, worker};
use crate::explorer::{self, Harm, Protocol, Step};
use crate::group::{Group, Trouble, WORKERS};

/// When progress moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    /// In the transaction of the rows.
    Together,
    /// In a transaction of its own, before them.
    Before,
    /// In a transaction of its own, after them.
    After,
}

/// The guards and the troubles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mysql {
    pub(super) conditions: Conditions,
    pub(super) moves: Moves,
    /// A claim reads the progress row under its lock.
    pub(super) reads_locked: bool,
    /// A claim kills the session that claimed before.
    pub(super) kills: bool,
    /// The server ends sessions that say nothing.
    pub(super) session_timeout: bool,
    pub(super) trouble: Trouble,
    /// How often a worker that lost its membership, and does not know, may claim all the same.
    pub(super) stale_claims: u8,
}

impl Mysql {
    /// As the code is.
    pub(super) const AS_IT_IS: Self = Self {
        conditions: Conditions { epoch: true, start: true },
        moves: Moves::Together,
        reads_locked: true,
        kills: true,
        session_timeout: true,
        trouble: Trouble { crashes: 1, faults: 1, takeovers: 1 },
        stale_claims: 1,
    };
}

/// A batch on its way: its statements are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) start: u8,
    pub(super) end: u8,
    pub(super) number: u8,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Dead, or outside of the group and knowing it.
    Out,
    /// About to connect, to ask who held the claim, and to kill its session.
    Connect,
    /// About to read the progress row.
    Read(u8),
    /// About to take or add the progress row: what it read of it (offset and epoch).
    Take(u8, Option<(u8, u8)>),
    /// About to commit its claim.
    Claim(u8, Hold),
    /// Reading the log.
    Idle(u8, Hold),
    /// About to run the next statement of a batch.
    Write(u8, Hold, Write),
}

/// What a worker believes: its epoch, and up to where the partition is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hold {
    pub(super) epoch: u8,
    pub(super) next: u8,
}

/// Everything that is anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) database: Database,
    pub(super) group: Group,
    pub(super) workers: [Phase; 2],
    pub(super) trouble: Trouble,
    pub(super) stale_claims: u8,
    /// The highest offset that progress ever had. Known to nobody but the judge.
    pub(super) furthest: u8,
}

impl State {
    pub(super) fn phase(&mut self, worker: u8) -> &mut Phase {
        &mut self.workers[usize::from(worker)]
    }

    /// Called when anything was committed.
    pub(super) fn note_progress(&mut self) {
        self.furthest = self.furthest.max(self.next());
    }

    fn next(&self) -> u8 {
        self.database.progress.map_or(0, |row| row.next)
    }
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Done by a worker.
    By(u8, &'static str),
    /// A statement of a worker: how it went.
    Says(u8, Statement, &'static str),
    /// At a session of the server whose client is gone.
    At(u8, &'static str),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(worker, what) => write!(f, "worker {worker} {what}"),
            Self::Says(worker, statement, how) => write!(f, "worker {worker}: {statement:?} {how}"),
            Self::At(session, what) => write!(f, "session {session} {what}"),
        }
    }
}

impl Protocol for Mysql {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        State {
            database: Database::new(),
            group: Group::new(),
            workers: [Phase::Connect, Phase::Out],
            trouble: self.trouble,
            stale_claims: self.stale_claims,
            furthest: 0,
        }
    }

    fn steps(&self, state: &State) -> Vec<Step<Self>> {
        let mut steps = Vec::new();
        for worker in WORKERS {
            worker::steps(self, state, worker, &mut steps);
            troubles::of_worker(self, state, worker, &mut steps);
        }
        troubles::of_sessions(self, state, &mut steps);
        steps
    }

    fn harms(&self, state: &State) -> Vec<Harm> {
        let rows = &state.database.rows;
        explorer::done([
            (Harm::Doubled, rows.iter().any(|count| *count > 1)),
            (Harm::WentBack, state.next() < state.furthest),
            (Harm::Ahead, rows[..usize::from(state.next())].contains(&0)),
        ])
    }

    fn harm_at_rest(&self, state: &State) -> Option<Harm> {
        if state.next() < RECORDS {
            return Some(Harm::Stuck);
        }
        state.database.rows.contains(&0).then_some(Harm::Lost)
    }
}
