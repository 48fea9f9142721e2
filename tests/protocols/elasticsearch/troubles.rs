//! What happens to the Elasticsearch sink: documents arrive late or are refused for now; workers die, are taken for
//! dead, give up; transactions are left behind.
//!
//! Comes in: a state. Goes out: what may happen next that the sink does not do itself.
//! Guarantees: a fault costs one of the budget, so that there is an end. A request that never arrives is the same as
//! one that arrives after all else.

use super::model::{Action, Elasticsearch, Phase, State};
use crate::explorer::Step;

type Steps = Vec<Step<Elasticsearch>>;

/// Joining, dying, losing the membership, giving a request up.
pub(super) fn of_worker(model: &Elasticsearch, state: &State, worker: u8, steps: &mut Steps) {
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
        if let Some(transaction) = &mut next.transactions[place] {
            transaction.is_left = true;
        }
        next.leaves(worker);
        step("dies", true, next);
    }
    if !state.group.has(worker) && matches!(phase, Phase::Ask | Phase::Idle(_)) {
        let mut next = state.clone();
        next.leaves(worker);
        step("polls and learns that the partition is gone", false, next);
    }
    if let (Phase::Wait(_), Some(rest), true) = (phase, state.trouble.fault(), model.commit_last) {
        let mut next = state.clone();
        next.trouble = rest;
        forget_sender(&mut next, worker);
        next.workers[place] = Phase::Ask;
        step("waits no longer for the answer", true, next);
    }
}

/// Its request goes its own way from here.
fn forget_sender(state: &mut State, worker: u8) {
    for request in &mut state.store.requests {
        if request.sender == Some(worker) {
            request.sender = None;
        }
    }
    state.store.requests.sort_unstable();
}

/// A transaction that is not ended in time is aborted; the commit of a dead producer may have got through.
pub(super) fn of_transactions(state: &State, worker: u8, steps: &mut Steps) {
    let place = usize::from(worker);
    let Some(transaction) = state.transactions[place] else { return };
    let mut step = |what, next| steps.push(Step { action: Action::By(worker, what), is_fault: false, next });
    let mut aborted = state.clone();
    aborted.transactions[place] = None;
    step("has its transaction aborted", aborted);
    if transaction.is_left {
        let mut committed = state.clone();
        committed.commit_transaction(worker);
        step("has the commit of its transaction arrive late", committed);
    }
}

/// What the store does with each document.
pub(super) fn of_requests(model: &Elasticsearch, state: &State, steps: &mut Steps) {
    for (place, request) in state.store.requests.iter().enumerate() {
        // The same as the one before: the same steps.
        if place > 0 && state.store.requests[place - 1] == *request {
            continue;
        }
        for document in request.next_documents() {
            let mut next = state.clone();
            next.store.requests[place].open &= !document;
            let mut refused = next.clone();
            next.store.index(document, model.id, model.version);
            answer(model, &mut next, place);
            steps.push(Step { action: Action::At("is in", document), is_fault: false, next });
            if let (Some(_), Some(rest)) = (request.sender, state.trouble.fault()) {
                refused.trouble = rest;
                refused.store.requests[place].refused |= document;
                answer(model, &mut refused, place);
                steps.push(Step {
                    action: Action::At("is refused for now", document),
                    is_fault: true,
                    next: refused,
                });
            }
        }
    }
}

/// A request without open documents is over; who waits for it sends again what was refused, and only that.
fn answer(model: &Elasticsearch, state: &mut State, place: usize) {
    let request = state.store.requests[place];
    if request.open == 0 {
        state.store.requests.remove(place);
        let phase = request.sender.map(|sender| &mut state.workers[usize::from(sender)]);
        if let Some(phase) = phase
            && let Phase::Wait(range) = *phase
        {
            *phase = match request.refused {
                0 if model.commit_last => Phase::Commit(range),
                0 => Phase::Idle(range.end),
                refused => Phase::Send(range, refused),
            };
        }
    }
    state.store.requests.sort_unstable();
}
