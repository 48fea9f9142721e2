//! The ClickHouse sink, its server and its group as one protocol: what a state is, and what is wrong with one.
//!
//! Comes in: which guards stand and what the surroundings may do. Goes out: a [`Protocol`]; its steps are in
//! [`super::worker`] (what the sink does) and [`super::troubles`] (what happens to it).

use std::fmt;

use super::server::{Insert, Plan, RECORDS, Rows, Server, rows_before};
use super::{troubles, worker};
use crate::explorer::{self, Harm, Protocol, Step};
use crate::group::{Group, Trouble, WORKERS};

/// The guards, the server and the troubles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clickhouse {
    /// The end of a range is committed before anything of it is sent.
    pub(super) plan: bool,
    /// How many deduplication tokens the table keeps; `None`: the server knows none.
    pub(super) window: Option<usize>,
    /// The group takes commits of its member only.
    pub(super) fence: bool,
    /// An open plan's queries are killed before asking.
    pub(super) kill: bool,
    /// The table is asked what of an open plan arrived; without, all of it is sent again under the same tokens.
    pub(super) ask: bool,
    /// Rows beyond the committed offset stop the sink.
    pub(super) check_start: bool,
    /// When the same token brings no rows, another one is taken.
    pub(super) another_token: bool,
    /// The end is committed after the rows are in; without, in place of the plan.
    pub(super) end_last: bool,
    /// What the code does not do: the table is asked after every insert, not only when a plan was found open.
    pub(super) asks_always: bool,
    /// A request may reach the server after its sender gave up or died.
    pub(super) arrives_late: bool,
    /// An old server takes a body that was cut short for a whole one.
    pub(super) is_cutting: bool,
    /// The server may die between keeping a token and keeping its rows.
    pub(super) tears: bool,
    /// Questions may be answered by a replica that does not have all rows yet.
    pub(super) lags: bool,
    /// The group forgets its offsets, and `init` sets them to the beginning.
    pub(super) forgets: bool,
    pub(super) trouble: Trouble,
}

impl Clickhouse {
    /// As the code is, on a server of today.
    pub(super) const AS_IT_IS: Self = Self {
        plan: true,
        window: Some(usize::MAX),
        fence: true,
        kill: true,
        ask: true,
        check_start: true,
        another_token: true,
        end_last: true,
        asks_always: false,
        arrives_late: true,
        is_cutting: false,
        tears: false,
        lags: false,
        forgets: false,
        trouble: Trouble { crashes: 1, faults: 1, takeovers: 1 },
    };
}

/// What comes after the last insert of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Then {
    Finish,
    /// Ask again: the number of the round, and what had arrived before.
    Look(u8, Rows),
}

/// Inserts still to be sent, and what comes then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    pub(super) plan: Plan,
    pub(super) inserts: [Option<Insert>; 2],
    pub(super) then: Then,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Dead, or outside of the group and knowing it.
    Out,
    /// About to ask the group for the committed offset.
    Ask,
    /// About to ask whether rows stand beyond this offset.
    Check(u8),
    /// Reading from this offset on.
    Idle(u8),
    /// About to send the next insert.
    Send(Sending),
    /// An insert is sent; these follow.
    Wait(Sending),
    /// About to end the queries of an open plan.
    Kill(Plan),
    /// About to ask what of an open plan arrived.
    Look(Plan, u8, Option<Rows>),
    /// About to commit the end of the plan.
    Finish(Plan),
}

/// Everything that is anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) server: Server,
    pub(super) group: Group,
    /// The committed offset, and the end in its metadata.
    pub(super) committed: (u8, Option<u8>),
    pub(super) workers: [Phase; 2],
    pub(super) trouble: Trouble,
    /// The highest offset ever committed. Known to nobody but the judge.
    pub(super) furthest: u8,
    /// The group forgot its offsets once: a sink that refuses to go on is right.
    pub(super) forgot: bool,
}

impl State {
    pub(super) fn commit(&mut self, offset: u8, plan: Option<u8>) {
        self.committed = (offset, plan);
        self.furthest = self.furthest.max(offset);
    }

    /// The worker's membership is over, and it knows.
    pub(super) fn leaves(&mut self, worker: u8) {
        self.group.leave(worker);
        self.workers[usize::from(worker)] = Phase::Out;
    }
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Done by a worker.
    By(u8, &'static str),
    /// Done by a worker to a range or a set of offsets.
    Of(u8, &'static str, Plan),
    /// An insert at the server: what happens, whose plan, which rows.
    At(&'static str, Insert),
    /// In the world.
    World(&'static str),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(worker, what) => write!(f, "worker {worker} {what}"),
            Self::Of(worker, what, plan) => write!(f, "worker {worker} {what} {}..{}", plan.start, plan.end),
            Self::At(what, insert) => {
                let offsets: Vec<u8> = (0..RECORDS).filter(|offset| insert.rows & 1 << offset != 0).collect();
                let (Plan { start, end }, rest) = (insert.plan, if insert.is_rest { ", rest" } else { "" });
                write!(f, "insert of {offsets:?} (plan {start}..{end}{rest}) {what}")
            }
            Self::World(what) => f.write_str(what),
        }
    }
}

impl Protocol for Clickhouse {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        State {
            server: Server::new(),
            group: Group::new(),
            committed: (0, None),
            workers: [Phase::Ask, Phase::Out],
            trouble: self.trouble,
            furthest: 0,
            forgot: false,
        }
    }

    fn steps(&self, state: &State) -> Vec<Step<Self>> {
        let mut steps = Vec::new();
        for worker in WORKERS {
            worker::steps(self, state, worker, &mut steps);
            troubles::of_worker(state, worker, &mut steps);
        }
        troubles::of_requests(self, state, &mut steps);
        troubles::of_the_world(self, state, &mut steps);
        steps
    }

    fn harms(&self, state: &State) -> Vec<Harm> {
        let (offset, _) = state.committed;
        explorer::done([
            (Harm::Doubled, state.server.counts.iter().any(|count| *count > 1)),
            (Harm::WentBack, offset < state.furthest),
            (Harm::Ahead, rows_before(offset) & !state.server.arrived() != 0),
        ])
    }

    fn harm_at_rest(&self, state: &State) -> Option<Harm> {
        if state.committed != (RECORDS, None) {
            return (!state.forgot).then_some(Harm::Stuck);
        }
        (state.server.arrived() != rows_before(RECORDS)).then_some(Harm::Lost)
    }
}
