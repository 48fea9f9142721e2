//! The Elasticsearch sink, its store and Kafka as one protocol: what a state is, and what is wrong with one.
//!
//! Comes in: which guards stand. Goes out: a [`Protocol`]; its steps are in [`super::worker`] (what the sink does) and
//! [`super::troubles`] (what happens to it).

use std::fmt;

use super::store::{RECORDS, Records, Store, records_before};
use super::{troubles, worker};
use crate::explorer::{self, Harm, Protocol, Step};
use crate::group::{Group, Trouble, WORKERS};

/// The guards and the troubles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elasticsearch {
    /// A reading always has the same id.
    pub(super) id: bool,
    /// A window result replaces only one of a lower revision.
    pub(super) version: bool,
    /// Progress is committed after the documents are in; without, before.
    pub(super) commit_last: bool,
    /// Kafka takes commits, also those of a transaction, of the group's member only.
    pub(super) fence: bool,
    /// Dead letters and the progress behind them are one transaction.
    pub(super) one_transaction: bool,
    /// Asking for the committed offset waits for transactions that carry one.
    pub(super) waits_for_transactions: bool,
    pub(super) trouble: Trouble,
}

impl Elasticsearch {
    /// As the code is.
    pub(super) const AS_IT_IS: Self = Self {
        id: true,
        version: true,
        commit_last: true,
        fence: true,
        one_transaction: true,
        waits_for_transactions: true,
        trouble: Trouble { crashes: 1, faults: 1, takeovers: 1 },
    };
}

/// The offsets of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Range {
    pub(super) start: u8,
    pub(super) end: u8,
}

impl Range {
    pub(super) fn records(self) -> Records {
        records_before(self.end) & !records_before(self.start)
    }
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Dead, or outside of the group and knowing it.
    Out,
    /// About to ask the group for the committed offset.
    Ask,
    /// Reading from this offset on.
    Idle(u8),
    /// About to send these documents of a batch.
    Send(Range, Records),
    /// A bulk request is sent.
    Wait(Range),
    /// About to commit the end of a batch, or to put it and the dead letters into a transaction.
    Commit(Range),
    /// About to commit the transaction.
    End(Range),
    /// The letters went in a transaction of their own (a guard is out): about to commit the progress.
    Progress(Range),
}

/// An open transaction of a worker's producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transaction {
    /// The offset that it commits, if any.
    pub(super) offset: Option<u8>,
    /// Its producer died after it asked to commit: nobody knows how that ends.
    pub(super) is_left: bool,
}

/// Everything that is anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) group: Group,
    pub(super) committed: u8,
    pub(super) transactions: [Option<Transaction>; 2],
    /// How many dead letters were committed; 2 is enough to know.
    pub(super) letters: u8,
    pub(super) workers: [Phase; 2],
    pub(super) trouble: Trouble,
    /// The highest offset ever committed. Known to nobody but the judge.
    pub(super) furthest: u8,
}

impl State {
    pub(super) fn commit(&mut self, offset: u8) {
        self.committed = offset;
        self.furthest = self.furthest.max(offset);
    }

    pub(super) fn commit_transaction(&mut self, worker: u8) {
        if let Some(transaction) = self.transactions[usize::from(worker)].take() {
            self.letters = (self.letters + 1).min(2);
            if let Some(offset) = transaction.offset {
                self.commit(offset);
            }
        }
    }

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
    /// Done by a worker to a batch.
    Of(u8, &'static str, Range),
    /// A document of a bulk request at the store.
    At(&'static str, Records),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(worker, what) => write!(f, "worker {worker} {what}"),
            Self::Of(worker, what, range) => {
                write!(f, "worker {worker} {what} {}..{}", range.start, range.end)
            }
            Self::At(what, record) => write!(f, "document of record {} {what}", record.trailing_zeros()),
        }
    }
}

impl Protocol for Elasticsearch {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        State {
            store: Store::new(),
            group: Group::new(),
            committed: 0,
            transactions: [None; 2],
            letters: 0,
            workers: [Phase::Ask, Phase::Out],
            trouble: self.trouble,
            furthest: 0,
        }
    }

    fn steps(&self, state: &State) -> Vec<Step<Self>> {
        let mut steps = Vec::new();
        for worker in WORKERS {
            worker::steps(self, state, worker, &mut steps);
            troubles::of_worker(self, state, worker, &mut steps);
            troubles::of_transactions(state, worker, &mut steps);
        }
        troubles::of_requests(self, state, &mut steps);
        steps
    }

    fn harms(&self, state: &State) -> Vec<Harm> {
        let store = &state.store;
        explorer::done([
            (Harm::Doubled, store.readings > 1 || state.letters > 1),
            (Harm::Altered, store.revision < store.highest),
            (Harm::WentBack, state.committed < state.furthest),
            (Harm::Ahead, records_before(state.committed) & !store.stored(state.letters) != 0),
        ])
    }

    fn harm_at_rest(&self, state: &State) -> Option<Harm> {
        if state.committed < RECORDS {
            return Some(Harm::Stuck);
        }
        (state.store.stored(state.letters) != records_before(RECORDS)).then_some(Harm::Lost)
    }
}
