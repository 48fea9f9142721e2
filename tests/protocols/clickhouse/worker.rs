//! What the ClickHouse sink does, step by step: `clickhouse.rs` and `drive.rs` of the sinks.
//!
//! Comes in: a state. Goes out: the next step of one worker; where batches may end differently, one for each end.
//! Guarantees: every step is one exchange with one server, so that anything can happen between two.

use super::model::{Action, Clickhouse, Phase, Sending, State, Then};
use super::server::{Insert, Plan, RECORDS, Request, Rows, rows_before};
use crate::explorer::Step;

/// As `ROUNDS_MAX` there.
const ROUNDS_MAX: u8 = 3;

type Steps = Vec<Step<Clickhouse>>;

/// A step that is no fault.
fn goes_on(steps: &mut Steps, action: Action, next: State) {
    steps.push(Step { action, is_fault: false, next });
}

/// The same state with a worker elsewhere.
fn with(state: &State, worker: u8, phase: Phase) -> State {
    let mut next = state.clone();
    next.workers[usize::from(worker)] = phase;
    next
}

/// What the worker does next.
pub(super) fn steps(model: &Clickhouse, state: &State, worker: u8, steps: &mut Steps) {
    match state.workers[usize::from(worker)] {
        Phase::Out | Phase::Wait(_) => {}
        Phase::Ask => {
            let (start, plan) = state.committed;
            let (what, phase) = match plan {
                Some(end) => ("reads an open plan", Phase::Kill(Plan { start, end })),
                None => ("reads the committed offset", Phase::Check(start)),
            };
            goes_on(steps, Action::By(worker, what), with(state, worker, phase));
        }
        Phase::Check(start) => check(model, state, worker, start, steps),
        Phase::Idle(start) => {
            for end in start + 1..=RECORDS {
                plan(model, state, worker, Plan { start, end }, steps);
            }
        }
        Phase::Send(sending) => send(model, state, worker, sending, steps),
        Phase::Kill(plan) => {
            let mut next = with(state, worker, Phase::Look(plan, 0, None));
            if model.kill {
                for sender in next.server.kill(plan) {
                    next.workers[usize::from(sender)] = Phase::Ask;
                }
            }
            if !model.ask {
                let sending = Sending { plan, inserts: whole(plan), then: Then::Finish };
                next.workers[usize::from(worker)] = Phase::Send(sending);
            }
            goes_on(steps, Action::Of(worker, "kills the queries of", plan), next);
        }
        Phase::Look(plan, round, before) => look(model, state, worker, (plan, round, before), steps),
        Phase::Finish(plan) => finish(model, state, worker, plan, steps),
    }
}

/// What a question may find: the table, or what a replica has of it.
fn answers(model: &Clickhouse, state: &State) -> Vec<Rows> {
    let arrived = state.server.arrived();
    if model.lags && state.server.replica != arrived {
        vec![arrived, state.server.replica]
    } else {
        vec![arrived]
    }
}

/// Rows beyond the start: the worker waits here until somebody mends it.
fn check(model: &Clickhouse, state: &State, worker: u8, start: u8, steps: &mut Steps) {
    let is_free = answers(model, state).into_iter().any(|rows| rows & !rows_before(start) == 0);
    if is_free || !model.check_start {
        let next = with(state, worker, Phase::Idle(start));
        goes_on(steps, Action::By(worker, "finds no row beyond its start"), next);
    }
}

/// The inserts of a plan, one per month.
fn whole(plan: Plan) -> [Option<Insert>; 2] {
    plan.blocks().map(|rows| (rows != 0).then_some(Insert { plan, rows, is_rest: false }))
}

fn plan(model: &Clickhouse, state: &State, worker: u8, plan: Plan, steps: &mut Steps) {
    let then = if model.asks_always { Then::Look(0, 0) } else { Then::Finish };
    let sending = Sending { plan, inserts: whole(plan), then };
    let mut next = with(state, worker, Phase::Send(sending));
    if !model.plan && model.end_last {
        goes_on(steps, Action::Of(worker, "collects", plan), next);
    } else if model.fence && !state.group.has(worker) {
        next.leaves(worker);
        goes_on(steps, Action::Of(worker, "is not allowed to commit the plan", plan), next);
    } else {
        if model.end_last {
            next.commit(plan.start, Some(plan.end));
        } else {
            next.commit(plan.end, None);
        }
        let mut unheard = next.clone();
        goes_on(steps, Action::Of(worker, "commits the plan", plan), next);
        if let Some(rest) = state.trouble.fault() {
            unheard.trouble = rest;
            unheard.leaves(worker);
            let action = Action::Of(worker, "gets no answer to its commit of the plan", plan);
            steps.push(Step { action, is_fault: true, next: unheard });
        }
    }
}

fn send(model: &Clickhouse, state: &State, worker: u8, sending: Sending, steps: &mut Steps) {
    let Sending { plan, inserts: [first, second], then } = sending;
    let Some(insert) = first.or(second) else {
        let phase = match then {
            Then::Finish => Phase::Finish(plan),
            // The store gets a pause, then it is asked anew.
            Then::Look(ROUNDS_MAX.., _) => Phase::Ask,
            Then::Look(round, before) => Phase::Look(plan, round, Some(before)),
        };
        goes_on(steps, Action::Of(worker, "has sent all of", plan), with(state, worker, phase));
        return;
    };
    let rest = Sending { inserts: [first.and(second), None], ..sending };
    let mut next = with(state, worker, Phase::Wait(rest));
    next.server.add_request(Request { insert, sender: Some(worker), is_running: !model.arrives_late });
    let what = if worker == 0 { "is sent by worker 0" } else { "is sent by worker 1" };
    goes_on(steps, Action::At(what, insert), next);
}

/// Asks what arrived and decides what is missing, as `mend` does.
fn look(
    model: &Clickhouse,
    state: &State,
    worker: u8,
    (plan, round, before): (Plan, u8, Option<Rows>),
    steps: &mut Steps,
) {
    for rows in answers(model, state) {
        let arrived = rows & plan.rows();
        let is_stale = rows != state.server.arrived();
        let what = if is_stale { "asks a late replica what arrived of" } else { "asks what arrived of" };
        let phase = if arrived == plan.rows() {
            Phase::Finish(plan)
        } else {
            let is_swallowed = model.another_token && before == Some(arrived);
            let inserts = plan.blocks().map(|block| {
                let rows = block & !arrived;
                let is_rest = rows != block || is_swallowed;
                (rows != 0).then_some(Insert { plan, rows, is_rest })
            });
            Phase::Send(Sending { plan, inserts, then: Then::Look(round + 1, arrived) })
        };
        goes_on(steps, Action::Of(worker, what, plan), with(state, worker, phase));
    }
}

fn finish(model: &Clickhouse, state: &State, worker: u8, plan: Plan, steps: &mut Steps) {
    let mut next = with(state, worker, Phase::Idle(plan.end));
    if !model.end_last {
        goes_on(steps, Action::Of(worker, "is done with", plan), next);
    } else if model.fence && !state.group.has(worker) {
        next.leaves(worker);
        goes_on(steps, Action::Of(worker, "is not allowed to commit the end of", plan), next);
    } else {
        next.commit(plan.end, None);
        let mut unheard = next.clone();
        goes_on(steps, Action::Of(worker, "commits the end of", plan), next);
        if let Some(rest) = state.trouble.fault() {
            unheard.trouble = rest;
            unheard.leaves(worker);
            let action = Action::Of(worker, "gets no answer to its commit of the end of", plan);
            steps.push(Step { action, is_fault: true, next: unheard });
        }
    }
}
