//! MySQL / MariaDB: rows and progress in one transaction.
//!
//! Comes in: a batch over any partitions. Goes out: rows of the topics' tables, and `weir_progress` moved from `start`
//! to `end` for each partition.
//! Guarantees: a row is there exactly once; of a window result, the highest revision. Progress moves only from where this owner left it, in the transaction
//! that carries the rows; reading starts where the database says, never where Kafka does.
//! On failure: whatever happened (lost connection, unknown outcome of COMMIT, deadlock, lost claim), there is one way
//! back: a new connection claims the partitions again, which ends the old connection, waits for its locks and reads
//! how far it came. A row that the database refuses for what is in it becomes a dead letter; the rest goes on.

mod claim;
mod insert;
mod load;
mod schema;
mod standing;
pub(super) mod tables;
pub(super) mod witness;

use std::future::Future;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};
use weir_shared::clock::{self, Deadline};
use weir_shared::supervise::Stop;

use super::batch::{Batch, Part, Range};
use super::config::MysqlConfig;
use super::consumer::{Commit, Source};
use super::dead_letters::DeadLetters;
use super::drive::Store;
use super::measures::{Count, Stored};
use super::own::OwnTables;
use super::{Failure, SinkName};
use crate::database::Server;
use crate::faults::{is_broken, kill_at, kill_during};

/// The server drops a session that says nothing for this long, so a frozen process frees its locks.
const SESSION_SECONDS: u64 = 5;
/// Each exchange with the server.
const ANSWER: Duration = Duration::from_secs(30);
/// A new connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The offsets shown to Kafka's tools lag at most this much.
const SHOW: Duration = Duration::from_secs(2);

const MOVE: &str = "UPDATE weir_progress SET next_offset = ? \
    WHERE sink = ? AND topic = ? AND `partition` = ? AND owner_epoch = ? AND next_offset = ?";

/// The sink's state: a connection and what it has claimed.
pub(super) struct Mysql {
    server: Server,
    session: Option<Session>,
    dead_letters: DeadLetters,
    tables: OwnTables,
    shown: Deadline,
}

/// A connection with its claims.
struct Session {
    connection: Conn,
    /// Epoch under which each partition is held.
    epochs: Vec<(Part, i64)>,
    used: std::time::Instant,
    /// Whether the server takes LOCAL data, as far as known.
    loads: bool,
}

impl Mysql {
    pub(super) fn new(config: &MysqlConfig, dead_letters: DeadLetters, tables: OwnTables) -> Self {
        let server = config.server.clone();
        Self { server, session: None, dead_letters, tables, shown: Deadline::after(SHOW) }
    }
}

async fn connect(server: &Server) -> Result<Conn, Failure> {
    let target = server.target();
    let set = format!(
        "SET SESSION wait_timeout = {SESSION_SECONDS}, innodb_lock_wait_timeout = 10, autocommit = 1, \
         time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"
    );
    let options = server
        .connection()
        .map_err(|error| Failure::Store(format!("no connection to {target}: {error}")))?
        .init(vec![set, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned()])
        .tcp_nodelay(true)
        .stmt_cache_size(64);
    match tokio::time::timeout(CONNECT, Conn::new(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Failure::Store(format!("no connection to {target}: {error}"))),
        Err(_) => Err(Failure::Store(format!("no connection to {target} within {CONNECT:?}"))),
    }
}

/// One exchange with the server, within [`ANSWER`].
async fn answer<T>(work: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(done) => done.map_err(|e| Failure::Store(e.to_string())),
        Err(_) => Err(Failure::Late(format!("no answer within {ANSWER:?}"))),
    }
}

impl Store for Mysql {
    async fn positions(
        &mut self,
        source: &Source,
        parts: &[Part],
        _stop: &Stop,
    ) -> Result<Vec<(Part, i64)>, Failure> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.server, self.tables).await?,
        };
        let claims = claim::claim(&mut session.connection, source, parts).await?;
        session.used = clock::instant();
        kill_at("sink.r1");
        session.epochs.retain(|(part, _)| !parts.contains(part));
        session.epochs.extend(claims.iter().map(|c| (c.part, c.epoch)));
        self.session = Some(session);
        Ok(claims.iter().map(|c| (c.part, c.next_offset)).collect())
    }

    async fn write(&mut self, source: &Source, batch: &Batch, _stop: &Stop) -> Result<Stored, Failure> {
        // Taken: only a batch that went through to the end puts it back.
        let mut session = self.session.take().ok_or_else(|| Failure::Store("no connection".to_owned()))?;
        let ranges = batch.ranges(|part| source.stored(part));
        kill_at("sink.m0");
        answer(session.connection.query_drop("START TRANSACTION")).await?;
        for range in &ranges {
            session.move_progress(range).await?;
        }
        if is_broken("bad.mysql_progress_apart") {
            answer(session.connection.query_drop("COMMIT")).await?;
            answer(session.connection.query_drop("START TRANSACTION")).await?;
        }
        let inserted =
            insert::insert(&mut session.connection, batch, self.tables, &mut session.loads).await?;
        let letters = inserted.letters.into_list();
        kill_at("sink.m1");
        if !letters.is_empty() {
            self.dead_letters.send(batch, &letters, &[], source)?;
        }
        kill_during("sink.m2");
        answer(session.connection.query_drop("COMMIT")).await?;
        kill_at("sink.m3");
        session.used = clock::instant();
        self.session = Some(session);
        let dead_letters = Count::of(letters.iter().map(|letter| letter.record.part.topic));
        Ok(Stored { receipts: inserted.receipts, dead_letters, skipped: inserted.skipped, sent_again: 0 })
    }

    async fn idle(&mut self, source: &Source) -> Result<(), Failure> {
        if let Some(mut session) = self.session.take() {
            if clock::since(session.used) > Duration::from_secs(SESSION_SECONDS) / 4 {
                answer(session.connection.ping()).await?;
                session.used = clock::instant();
            }
            self.session = Some(session);
        }
        if self.shown.passed() {
            self.shown = Deadline::after(SHOW);
            let shown = |(part, offset)| Commit { part, offset, metadata: String::new() };
            let commits: Vec<_> = source.progress().into_iter().map(shown).collect();
            source.commit_for_show(&commits);
        }
        Ok(())
    }
}

impl Session {
    async fn open(server: &Server, own: OwnTables) -> Result<Self, Failure> {
        let mut connection = connect(server).await?;
        tables::check(&mut connection, own).await?;
        Ok(Self { connection, epochs: Vec::new(), used: clock::instant(), loads: true })
    }

    /// Moves one partition's progress; the transaction must not commit unless this changed exactly one row.
    async fn move_progress(&mut self, range: &Range) -> Result<(), Failure> {
        let Range { part, start, end } = *range;
        let epoch = self.epochs.iter().find(|(p, _)| *p == part).map(|(_, epoch)| *epoch);
        let epoch = epoch.ok_or_else(|| Failure::Store(format!("{part} is not claimed")))?;
        let which = SinkName::Mysql.group();
        let params = Params::from((end, which, part.topic.name(), part.partition, epoch, start));
        answer(self.connection.exec_drop(MOVE, params)).await?;
        if self.connection.affected_rows() == 1 || is_broken("bad.mysql_ignore_fence") {
            return Ok(());
        }
        Err(Failure::Store(format!("{part}: another process claimed it, or its progress is not at {start}")))
    }
}
