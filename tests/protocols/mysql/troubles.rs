//! What happens to the MySQL sink: workers die, are taken for dead, give up; sessions end, or say their last words.
//!
//! Comes in: a state. Goes out: what may happen next that the sink does not do itself.
//! Guarantees: a fault costs one of the budget, so that there is an end. A deadlock and a session that the server
//! drops look the same from here: the transaction is gone, and the worker claims again.

use super::database::{Answer, Client};
use super::model::{Action, Mysql, Phase, State};
use super::worker::{leave, says, session_of};
use crate::explorer::Step;

type Steps = Vec<Step<Mysql>>;

/// Joining, dying, losing the membership, giving up.
pub(super) fn of_worker(model: &Mysql, state: &State, worker: u8, steps: &mut Steps) {
    let mut step =
        |what, is_fault, next| steps.push(Step { action: Action::By(worker, what), is_fault, next });
    let phase = state.workers[usize::from(worker)];
    if phase == Phase::Out {
        let mut next = state.clone();
        next.group.join(worker);
        *next.phase(worker) = Phase::Connect;
        if state.group.is_empty() {
            step("joins and gets the partition", false, next);
        } else if let Some(rest) = state.trouble.takeover() {
            next.trouble = rest;
            step("takes over: the group believes the other dead", true, next);
        }
        return;
    }
    let last_words = says(model, phase).map(|(_, statement)| statement);
    if let Some(rest) = state.trouble.crash() {
        let mut next = state.clone();
        next.trouble = rest;
        leave(&mut next, worker, Client::Silent, last_words);
        next.group.leave(worker);
        *next.phase(worker) = Phase::Out;
        step("dies", true, next);
    }
    if !state.group.has(worker) && matches!(phase, Phase::Connect | Phase::Idle(..)) {
        let mut next = state.clone();
        leave(&mut next, worker, Client::Left, None);
        *next.phase(worker) = Phase::Out;
        step("polls and learns that the partition is gone", false, next);
    }
    let (Some(rest), Some(session)) = (state.trouble.fault(), session_of(phase)) else { return };
    if last_words.is_some() && state.database.is_open(session, worker) {
        let mut next = state.clone();
        next.trouble = rest;
        leave(&mut next, worker, Client::Silent, last_words);
        step("waits no longer for the answer", true, next);
    }
    if state.database.is_open(session, worker) {
        let mut next = state.clone();
        next.trouble = rest;
        next.database.roll_back(session);
        step("has its transaction rolled back: deadlock, or the session ended", true, next);
    }
}

/// Sessions whose client is gone.
pub(super) fn of_sessions(model: &Mysql, state: &State, steps: &mut Steps) {
    for session in &state.database.sessions {
        let mut step = |what, next| {
            steps.push(Step { action: Action::At(session.id, what), is_fault: false, next });
        };
        if let Client::Is(_) = session.client {
            continue;
        }
        if let Some(statement) = session.last_words {
            let mut next = state.clone();
            if next.database.run(session.id, statement, model.conditions) != Answer::Waits {
                if let Some(session) = next.database.session(session.id) {
                    session.last_words = None;
                }
                next.database.tidy();
                next.note_progress();
                step("runs the last words of its client", next);
            }
        }
        if session.client == Client::Left || model.session_timeout {
            let mut next = state.clone();
            next.database.roll_back(session.id);
            step("is ended by the server", next);
        }
    }
}
