//! What happens to the ClickHouse sink: inserts run, late or cut; workers die, are taken for dead, give up.
//!
//! Comes in: a state. Goes out: what may happen next that the sink does not do itself.
//! Guarantees: a fault costs one of the budget, so that there is an end; a sender that waits hears of its insert or
//! gives it up. A lost commit that did not arrive is the same as a crash just before it.

use super::model::{Action, Clickhouse, Phase, State};
use super::server::{Request, Rows};
use crate::explorer::Step;
use crate::group::Trouble;

type Steps = Vec<Step<Clickhouse>>;

/// Joining, dying, losing the membership, giving an insert up.
pub(super) fn of_worker(state: &State, worker: u8, steps: &mut Steps) {
    let place = usize::from(worker);
    let mut step =
        |what, is_fault, next| steps.push(Step { action: Action::By(worker, what), is_fault, next });
    let phase = state.workers[place];
    if phase == Phase::Out {
        let mut next = state.clone();
        next.group.join(worker);
        next.workers[place] = Phase::Ask;
        if state.group.is_empty() {
            step("joins and gets the partition", false, next);
        } else if let Some(rest) = state.trouble.takeover() {
            next.trouble = rest;
            step("takes over: the group believes the other dead", true, next);
        }
        return;
    }
    if let Some(rest) = state.trouble.crash() {
        let mut next = state.clone();
        next.trouble = rest;
        forget_sender(&mut next, worker);
        next.leaves(worker);
        step("dies", true, next);
    }
    if !state.group.has(worker) && matches!(phase, Phase::Ask | Phase::Check(_) | Phase::Idle(_)) {
        let mut next = state.clone();
        next.leaves(worker);
        step("polls and learns that the partition is gone", false, next);
    }
    if let (Phase::Wait(_), Some(rest)) = (phase, state.trouble.fault()) {
        let mut next = state.clone();
        next.trouble = rest;
        forget_sender(&mut next, worker);
        next.workers[place] = Phase::Ask;
        step("waits no longer for the answer", true, next);
    }
}

/// Its request goes its own way from here.
fn forget_sender(state: &mut State, worker: u8) {
    for request in &mut state.server.requests {
        if request.sender == Some(worker) {
            request.sender = None;
        }
    }
    state.server.requests.sort_unstable();
}

/// What the server does with each insert.
pub(super) fn of_requests(model: &Clickhouse, state: &State, steps: &mut Steps) {
    for (place, request) in state.server.requests.iter().enumerate() {
        // The same as the one before: the same steps.
        if place > 0 && state.server.requests[place - 1] == *request {
            continue;
        }
        if !request.is_running {
            let mut next = state.clone();
            next.server.requests[place].is_running = true;
            next.server.requests.sort_unstable();
            let action = Action::At("reaches the server", request.insert);
            steps.push(Step { action, is_fault: false, next });
        } else {
            run(model, state, (place, *request), steps);
        }
    }
}

fn run(model: &Clickhouse, state: &State, (place, request): (usize, Request), steps: &mut Steps) {
    let insert = request.insert;
    let mut step =
        |what, is_fault, next| steps.push(Step { action: Action::At(what, insert), is_fault, next });
    // What is stored of it, and whether it is answered.
    let after = |rows: Option<Rows>, answered: bool, trouble: Trouble| {
        let mut next = state.clone();
        next.trouble = trouble;
        next.server.requests.remove(place);
        match rows {
            Some(rows) => next.server.store(insert, rows, model.window),
            None => next.server.remember(insert, model.window),
        }
        if let Some(sender) = request.sender {
            let phase = &mut next.workers[usize::from(sender)];
            *phase = match *phase {
                Phase::Wait(sending) if answered => Phase::Send(sending),
                _ => Phase::Ask,
            };
        }
        next
    };
    step("runs", false, after(Some(insert.rows), true, state.trouble));
    let Some(rest) = state.trouble.fault() else { return };
    if request.sender.is_some() {
        step("runs, its answer is lost", true, after(Some(insert.rows), false, rest));
    }
    let first = insert.rows & insert.rows.wrapping_neg();
    if model.is_cutting && first != insert.rows {
        step("was cut short and is taken for whole", true, after(Some(first), false, rest));
    }
    if model.tears {
        step("leaves its token without its rows: the server dies", true, after(None, false, rest));
    }
}

/// Replication, and a group that forgets.
pub(super) fn of_the_world(model: &Clickhouse, state: &State, steps: &mut Steps) {
    let mut step = |what, is_fault, next| steps.push(Step { action: Action::World(what), is_fault, next });
    if model.lags && state.server.replica != state.server.arrived() {
        let mut next = state.clone();
        next.server.replica = state.server.arrived();
        step("the replica catches up", false, next);
    }
    let is_quiet = state.workers == [Phase::Out; 2] && state.server.requests.is_empty();
    if model.forgets && is_quiet && !state.forgot {
        let mut next = state.clone();
        next.committed = (0, None);
        next.furthest = 0;
        next.forgot = true;
        step("the group forgets its offsets, init begins anew", true, next);
    }
}
