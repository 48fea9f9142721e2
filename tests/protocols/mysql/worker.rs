//! What the MySQL sink does, step by step: `mysql.rs`, `mysql/claim.rs` and `drive.rs` of the sinks.
//!
//! Comes in: a state. Goes out: the next step of one worker; where batches may end differently, one for each end.
//! Guarantees: every step is one exchange with the server, so that anything can happen between two. Whatever fails,
//! the worker leaves its connection and claims again, on a new one.

use super::database::{Answer, Client, RECORDS, Statement};
use super::model::{Action, Hold, Moves, Mysql, Phase, State, Write};
use crate::explorer::Step;

type Steps = Vec<Step<Mysql>>;

fn goes_on(steps: &mut Steps, action: Action, next: State) {
    steps.push(Step { action, is_fault: false, next });
}

/// The statements of a batch, in order.
fn script(model: &Mysql, hold: Hold, write: Write) -> Option<Statement> {
    let Write { start, end, number } = write;
    let progress = Statement::Move { epoch: hold.epoch, start, end };
    let insert = Statement::Insert { start, end };
    let all = match model.moves {
        Moves::Together => &[progress, insert, Statement::Commit][..],
        Moves::Before => &[progress, Statement::Commit, insert, Statement::Commit],
        Moves::After => &[insert, Statement::Commit, progress, Statement::Commit],
    };
    all.get(usize::from(number)).copied()
}

/// The session of a worker, and what it says next on it.
pub(super) fn says(model: &Mysql, phase: Phase) -> Option<(u8, Statement)> {
    Some(match phase {
        Phase::Read(session) if model.reads_locked => (session, Statement::Lock),
        Phase::Read(session) => (session, Statement::Read),
        Phase::Take(session, None) => (session, Statement::Add),
        Phase::Take(session, Some((_, epoch))) => (session, Statement::Take { epoch: epoch + 1 }),
        Phase::Claim(session, _) => (session, Statement::Commit),
        Phase::Write(session, hold, write) => (session, script(model, hold, write)?),
        Phase::Out | Phase::Connect | Phase::Idle(..) => return None,
    })
}

/// The session that a worker has open.
pub(super) fn session_of(phase: Phase) -> Option<u8> {
    match phase {
        Phase::Out | Phase::Connect => None,
        Phase::Read(session)
        | Phase::Take(session, _)
        | Phase::Claim(session, _)
        | Phase::Idle(session, _)
        | Phase::Write(session, ..) => Some(session),
    }
}

/// What the worker does next.
pub(super) fn steps(model: &Mysql, state: &State, worker: u8, steps: &mut Steps) {
    let phase = state.workers[usize::from(worker)];
    let mut next = state.clone();
    if let Some(session) = session_of(phase)
        && !state.database.is_open(session, worker)
    {
        *next.phase(worker) = Phase::Connect;
        goes_on(steps, Action::By(worker, "finds its session gone"), next);
        return;
    }
    match phase {
        Phase::Out => {}
        Phase::Connect => {
            if !state.group.has(worker) {
                let Some(left) = state.stale_claims.checked_sub(1) else { return };
                next.stale_claims = left;
            }
            let session = next.database.connect(worker);
            *next.phase(worker) = Phase::Read(session);
            if model.kills
                && let Some(row) = state.database.progress
            {
                kill(model, &mut next, row.session);
            }
            goes_on(steps, Action::By(worker, "connects and kills the session that claimed before"), next);
        }
        Phase::Idle(session, hold) => {
            // A batch begins with its first statement: before it, nobody could tell.
            for end in hold.next + 1..=RECORDS {
                let write = Write { start: hold.next, end, number: 0 };
                *next.phase(worker) = Phase::Write(session, hold, write);
                say(model, &next, worker, steps);
            }
        }
        Phase::Read(_) | Phase::Take(..) | Phase::Claim(..) | Phase::Write(..) => {
            say(model, state, worker, steps);
        }
    }
}

/// Its client cannot speak any more; a statement that it sent may be running, and run to its end.
fn kill(model: &Mysql, state: &mut State, id: u8) {
    let Some(session) = state.database.session(id) else { return };
    if let Client::Is(worker) = session.client {
        session.last_words = says(model, state.workers[usize::from(worker)]).map(|(_, words)| words);
    }
    if let Some(session) = state.database.session(id) {
        session.client = Client::Left;
    }
    state.database.tidy();
}

/// Runs the next statement; a second step has its answer lost.
fn say(model: &Mysql, state: &State, worker: u8, steps: &mut Steps) {
    let phase = state.workers[usize::from(worker)];
    let Some((session, statement)) = says(model, phase) else { return };
    let mut next = state.clone();
    let answer = next.database.run(session, statement, model.conditions);
    if answer == Answer::Waits {
        return;
    }
    next.note_progress();
    if let Some(rest) = state.trouble.fault() {
        let mut unheard = next.clone();
        unheard.trouble = rest;
        leave(&mut unheard, worker, Client::Silent, None);
        let action = Action::Says(worker, statement, "runs, its answer is lost");
        steps.push(Step { action, is_fault: true, next: unheard });
    }
    match heard(model, phase, answer) {
        Some(phase) => *next.phase(worker) = phase,
        None => leave(&mut next, worker, Client::Left, None),
    }
    next.database.tidy();
    let how = if answer == Answer::NoRow { "fits no row" } else { "is done" };
    goes_on(steps, Action::Says(worker, statement, how), next);
}

/// Where an answer leads; `None`: the batch or claim is given up.
fn heard(model: &Mysql, phase: Phase, answer: Answer) -> Option<Phase> {
    match (phase, answer) {
        (Phase::Read(session), Answer::Progress(row)) => {
            Some(Phase::Take(session, row.map(|row| (row.next, row.epoch))))
        }
        (Phase::Take(session, read), Answer::Done) => {
            let (next, epoch) = read.map_or((0, 1), |(next, epoch)| (next, epoch + 1));
            Some(Phase::Claim(session, Hold { epoch, next }))
        }
        (Phase::Claim(session, hold), Answer::Done) => Some(Phase::Idle(session, hold)),
        (Phase::Write(session, hold, write), Answer::Done) => {
            let write = Write { number: write.number + 1, ..write };
            Some(match script(model, hold, write) {
                Some(_) => Phase::Write(session, hold, write),
                None => Phase::Idle(session, Hold { next: write.end, ..hold }),
            })
        }
        _ => None,
    }
}

/// The worker gives its connection up and will claim again.
pub(super) fn leave(state: &mut State, worker: u8, client: Client, last_words: Option<Statement>) {
    let phase = std::mem::replace(state.phase(worker), Phase::Connect);
    if let Some(session) = session_of(phase).and_then(|id| state.database.session(id))
        && session.client == Client::Is(worker)
    {
        session.client = client;
        session.last_words = last_words;
    }
    state.database.tidy();
}
