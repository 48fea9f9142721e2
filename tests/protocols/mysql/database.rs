//! The database as the MySQL sink sees it: rows, the progress row with its lock, and sessions.
//!
//! Comes in: statements on a session. Goes out: their answers.
//! Guarantees: what a session wrote is seen by others, and stays, only when it commits (READ COMMITTED); whoever wrote
//! or locked the progress row keeps the others waiting until its transaction is over. Only one partition: one
//! progress row.

/// Records in the log.
pub(super) const RECORDS: u8 = 2;

/// One that ended.
pub(super) const NO_SESSION: u8 = 0;

/// A row of `weir_progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    pub(super) next: u8,
    pub(super) epoch: u8,
    /// The session that claimed it last.
    pub(super) session: u8,
}

/// What is said to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Statement {
    /// SELECT … FOR UPDATE of the progress row.
    Lock,
    /// The same without the lock, where the guard is out.
    Read,
    /// INSERT of the progress row, from offset 0, under epoch 1.
    Add,
    /// UPDATE of the epoch and the session of the progress row.
    Take {
        epoch: u8,
    },
    /// UPDATE … SET next = end WHERE owner_epoch = epoch AND next_offset = start.
    Move {
        epoch: u8,
        start: u8,
        end: u8,
    },
    /// INSERT of the rows of a range.
    Insert {
        start: u8,
        end: u8,
    },
    Commit,
}

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Another session holds the lock.
    Waits,
    Done,
    /// An UPDATE that fits no row, or a row that is there already.
    NoRow,
    Progress(Option<Progress>),
}

/// Who listens at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Client {
    /// This worker.
    Is(u8),
    /// Nobody, and the server knows, as the connection was closed or killed.
    Left,
    /// Nobody, and only the time-out of the session tells the server.
    Silent,
}

/// A connection at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) id: u8,
    pub(super) client: Client,
    /// What was still on its way when the client went; it may run yet.
    pub(super) last_words: Option<Statement>,
    has_lock: bool,
    /// The progress row as its transaction sees it, if it changed it.
    progress: Option<Progress>,
    /// Rows of its transaction.
    rows: [u8; RECORDS as usize],
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Database {
    /// How often each record stands in the table; 2 is enough to know.
    pub(super) rows: [u8; RECORDS as usize],
    pub(super) progress: Option<Progress>,
    pub(super) sessions: Vec<Session>,
}

impl Database {
    pub(super) fn new() -> Self {
        Self { rows: [0; RECORDS as usize], progress: None, sessions: Vec::new() }
    }

    pub(super) fn connect(&mut self, worker: u8) -> u8 {
        let is_taken = |id: &u8| self.sessions.iter().any(|session| session.id == *id);
        let id = (1..=u8::MAX).find(|id| !is_taken(id)).expect("there are few sessions");
        let client = Client::Is(worker);
        let (has_lock, progress, rows) = (false, None, [0; RECORDS as usize]);
        self.sessions.push(Session { id, client, last_words: None, has_lock, progress, rows });
        id
    }

    pub(super) fn session(&mut self, id: u8) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    /// A session that listens to this worker, and to which it can speak.
    pub(super) fn is_open(&self, id: u8, worker: u8) -> bool {
        self.sessions.iter().any(|session| session.id == id && session.client == Client::Is(worker))
    }

    /// Ends a session; what it did not commit is gone.
    pub(super) fn roll_back(&mut self, id: u8) {
        self.sessions.retain(|session| session.id != id);
        self.tidy();
    }

    /// Forgets what makes no difference to anybody, so that fewer states are the same: sessions without client that
    /// hold nothing and will do nothing, and the ids of sessions that ended (a new one may get them).
    pub(super) fn tidy(&mut self) {
        for session in &mut self.sessions {
            if let Some(Statement::Insert { .. } | Statement::Read) = session.last_words {
                // What follows it will never come, so it is never committed.
                session.last_words = None;
            }
        }
        self.sessions.retain(|s| matches!(s.client, Client::Is(_)) || s.has_lock || s.last_words.is_some());
        self.sessions.sort_unstable_by_key(|session| session.id);
        let ids: Vec<u8> = self.sessions.iter().map(|session| session.id).collect();
        if let Some(row) = &mut self.progress
            && !ids.contains(&row.session)
        {
            row.session = NO_SESSION;
        }
    }

    /// Runs one statement; `by` says which conditions of [`Statement::Move`] hold.
    pub(super) fn run(&mut self, id: u8, statement: Statement, by: Conditions) -> Answer {
        let committed = self.progress;
        let is_locked = self.sessions.iter().any(|session| session.has_lock && session.id != id);
        let Some(session) = self.session(id) else { return Answer::NoRow };
        let seen = session.progress.or(committed);
        match statement {
            Statement::Read => return Answer::Progress(seen),
            Statement::Insert { start, end } => {
                session.rows[usize::from(start)..usize::from(end)].fill(1);
                return Answer::Done;
            }
            Statement::Commit => {
                let (rows, progress) = (session.rows, session.progress);
                session.rows = [0; RECORDS as usize];
                (session.progress, session.has_lock) = (None, false);
                for (count, row) in self.rows.iter_mut().zip(rows) {
                    *count = (*count + row).min(2);
                }
                self.progress = progress.or(self.progress);
                return Answer::Done;
            }
            _ if is_locked => return Answer::Waits,
            _ => {}
        }
        let (changed, answer) = match (statement, seen) {
            (Statement::Lock, seen) => (seen, Answer::Progress(seen)),
            (Statement::Add, None) => (Some(Progress { next: 0, epoch: 1, session: id }), Answer::Done),
            (Statement::Take { epoch }, Some(row)) => {
                (Some(Progress { epoch, session: id, ..row }), Answer::Done)
            }
            (Statement::Move { epoch, start, end }, Some(row)) if by.fit(row, epoch, start) => {
                (Some(Progress { next: end, ..row }), Answer::Done)
            }
            _ => (None, Answer::NoRow),
        };
        if changed.is_some() {
            session.progress = changed;
            session.has_lock = true;
        }
        answer
    }
}

/// The conditions in the UPDATE that moves progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    /// `owner_epoch = mine`
    pub(super) epoch: bool,
    /// `next_offset = start`
    pub(super) start: bool,
}

impl Conditions {
    fn fit(self, row: Progress, epoch: u8, start: u8) -> bool {
        (!self.epoch || row.epoch == epoch) && (!self.start || row.next == start)
    }
}
