//! What the Elasticsearch sink does, step by step: `elasticsearch.rs`, `dead_letters.rs` and `drive.rs` of the sinks.
//!
//! Comes in: a state. Goes out: the next step of one worker; where batches may end differently, one for each end.
//! Guarantees: every step is one exchange with one server, so that anything can happen between two.

use super::model::{Action, Elasticsearch, Phase, Range, State, Transaction};
use super::store::{POISON, RECORDS, Request};
use crate::explorer::Step;

type Steps = Vec<Step<Elasticsearch>>;

fn goes_on(steps: &mut Steps, action: Action, next: State) {
    steps.push(Step { action, is_fault: false, next });
}

/// The same state with a worker elsewhere.
fn with(state: &State, worker: u8, phase: Phase) -> State {
    let mut next = state.clone();
    next.workers[usize::from(worker)] = phase;
    next
}

/// The documents of a batch: all but what no store can hold.
fn first_try(range: Range) -> Phase {
    Phase::Send(range, range.records() & !POISON)
}

/// What the worker does next.
pub(super) fn steps(model: &Elasticsearch, state: &State, worker: u8, steps: &mut Steps) {
    let place = usize::from(worker);
    match state.workers[place] {
        Phase::Out | Phase::Wait(_) => {}
        Phase::Ask => {
            let is_clear = state.transactions.iter().flatten().all(|t| t.offset.is_none());
            if is_clear || !model.waits_for_transactions {
                let next = with(state, worker, Phase::Idle(state.committed));
                goes_on(steps, Action::By(worker, "reads the committed offset"), next);
            }
        }
        Phase::Idle(start) => {
            for end in start + 1..=RECORDS {
                let range = Range { start, end };
                let phase = if model.commit_last { first_try(range) } else { Phase::Commit(range) };
                goes_on(steps, Action::Of(worker, "collects", range), with(state, worker, phase));
            }
        }
        Phase::Send(range, documents) => {
            let phase = match model.commit_last {
                _ if documents != 0 => Phase::Wait(range),
                true => Phase::Commit(range),
                false => Phase::Idle(range.end),
            };
            let mut next = with(state, worker, phase);
            if documents != 0 {
                next.store.add_request(Request { open: documents, refused: 0, sender: Some(worker) });
            }
            goes_on(steps, Action::Of(worker, "sends documents of", range), next);
        }
        Phase::Commit(range) if range.records() & POISON != 0 => begin(model, state, worker, range, steps),
        Phase::Commit(range) | Phase::Progress(range) => commit(model, state, worker, range, steps),
        Phase::End(range) => end(model, state, worker, range, steps),
    }
}

fn after_commit(model: &Elasticsearch, range: Range) -> Phase {
    if model.commit_last { Phase::Idle(range.end) } else { first_try(range) }
}

fn is_refused(model: &Elasticsearch, state: &State, worker: u8) -> bool {
    model.fence && !state.group.has(worker)
}

fn commit(model: &Elasticsearch, state: &State, worker: u8, range: Range, steps: &mut Steps) {
    let mut next = with(state, worker, after_commit(model, range));
    if is_refused(model, state, worker) {
        next.leaves(worker);
        goes_on(steps, Action::Of(worker, "is not allowed to commit", range), next);
        return;
    }
    next.commit(range.end);
    let mut unheard = next.clone();
    goes_on(steps, Action::Of(worker, "commits", range), next);
    if let Some(rest) = state.trouble.fault() {
        unheard.trouble = rest;
        unheard.leaves(worker);
        let action = Action::Of(worker, "gets no answer to its commit of", range);
        steps.push(Step { action, is_fault: true, next: unheard });
    }
}

/// Dead letter and progress go into a transaction. A producer first waits for the end of an earlier one of its name.
fn begin(model: &Elasticsearch, state: &State, worker: u8, range: Range, steps: &mut Steps) {
    if state.transactions[usize::from(worker)].is_some() {
        return;
    }
    let mut next = with(state, worker, Phase::End(range));
    if model.one_transaction && is_refused(model, state, worker) {
        next.leaves(worker);
        goes_on(
            steps,
            Action::Of(worker, "is not allowed to put its progress into a transaction,", range),
            next,
        );
        return;
    }
    let offset = model.one_transaction.then_some(range.end);
    next.transactions[usize::from(worker)] = Some(Transaction { offset, is_left: false });
    goes_on(steps, Action::Of(worker, "begins a transaction with the dead letter of", range), next);
}

fn end(model: &Elasticsearch, state: &State, worker: u8, range: Range, steps: &mut Steps) {
    let mut next = state.clone();
    if state.transactions[usize::from(worker)].is_none() {
        next.leaves(worker);
        goes_on(steps, Action::Of(worker, "finds its transaction aborted,", range), next);
        return;
    }
    next.commit_transaction(worker);
    let mut unheard = next.clone();
    let phase = if model.one_transaction { after_commit(model, range) } else { Phase::Progress(range) };
    next.workers[usize::from(worker)] = phase;
    goes_on(steps, Action::Of(worker, "commits the transaction of", range), next);
    if let Some(rest) = state.trouble.fault() {
        unheard.trouble = rest;
        unheard.leaves(worker);
        let action = Action::Of(worker, "gets no answer to its commit of the transaction of", range);
        steps.push(Step { action, is_fault: true, next: unheard });
    }
}
