//! Follows the dimension tables of one server, for ever.
//!
//! Comes in: the `[[dimension]]` of one server and mode. Goes out: their contents, on the [`Board`].
//! Guarantees: rows are published at the ends of transactions only, at most every [`PUBLISH`]; the version goes on with
//! the binlog even where no row changes, so that two processes that read the same server come to the same one.
//! On failure, whatever it is (connection, silence, an event that is not understood, a definition that changed, a
//! binlog that was purged or reset): everything is loaded afresh, with growing waits, while the old rows serve and are
//! shown as stale. Below a million rows that is as fast as reading on, and right in every case.

mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use tokio::sync::mpsc;
use weir_shared::audit::Audit;
use weir_shared::backoff::Backoff;
use weir_shared::clock;

use super::board::Board;
use super::config::{DimensionConfig, Mode};
use super::load::{self, Loaded};
use super::server;
use super::snapshot::Content;
use super::tail::{Change, Position, Tail};
use stream::Stream;

/// Changes that come within this time are published together.
const PUBLISH: Duration = Duration::from_millis(10);
/// How often a version is published that is only further on.
const PUBLISH_VERSION: Duration = Duration::from_millis(100);
/// How often it is asked whether the server's binlog is where it seems to be.
const CHECK: Duration = Duration::from_secs(5);
/// Whoever followed for this long begins with short waits again.
const STEADY: Duration = Duration::from_secs(5);

/// Why following ended.
#[derive(Debug)]
struct Broken {
    /// As metrics show it.
    reason: &'static str,
    detail: String,
}

impl Broken {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<load::Error> for Broken {
    fn from(error: load::Error) -> Self {
        let reason = if matches!(error, load::Error::Refused(_)) { "refused" } else { "connection" };
        Self::new(reason, error.to_string())
    }
}

/// Follows tables of one server in one mode.
pub(super) struct Follower {
    board: Arc<Board>,
    /// Where the dimensions stand on the board.
    places: Vec<usize>,
    configs: Vec<DimensionConfig>,
    /// What is, or will be, on the board.
    contents: Vec<Content>,
    names: String,
    audit: Option<Audit>,
}

impl Follower {
    /// Of dimensions that have server and mode in common.
    pub(super) fn new(
        board: Arc<Board>,
        dimensions: Vec<(usize, DimensionConfig)>,
        audit: Option<Audit>,
    ) -> Self {
        let (places, configs): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
        let names: Vec<&str> = configs.iter().map(|c| c.name.as_str()).collect();
        let names = format!("dimension {}", names.join(", "));
        Self { board, places, contents: Vec::new(), names, audit, configs }
    }

    /// Follows until it is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let began = clock::instant();
            let broken = match self.configs[0].mode {
                Mode::Binlog => self.follow().await,
                Mode::Poll(every) => self.poll(every).await,
            };
            if clock::instant().saturating_duration_since(began) > STEADY {
                backoff.reset();
            }
            let wait = backoff.wait();
            let (names, detail) = (&self.names, &broken.detail);
            if let Some(audit) = &self.audit {
                audit.note_logins(&[(names.clone(), detail.clone())]);
            }
            if !self.contents.is_empty() {
                self.board.reload(&self.places, broken.reason);
            }
            if let Some(more) = backoff.tells(detail) {
                let reason = broken.reason;
                let meanwhile =
                    if self.contents.is_empty() { "" } else { ", while the rows from before serve" };
                tracing::warn!(reason, "{names}: {detail}; will be loaded afresh{meanwhile}{more}");
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// What was loaded is in force from now on.
    fn put_in_force(&mut self) {
        self.publish();
        self.board.fresh(&self.places);
        for (config, content) in self.configs.iter().zip(&self.contents) {
            let (rows, version) = (content.table.rows(), content.version);
            tracing::info!("dimension {}: {rows} rows, version {version}, up to date", config.name);
        }
    }

    fn publish(&self) {
        self.board.publish(self.places.iter().copied().zip(self.contents.iter().cloned()));
    }

    /// Loads again and again; gives back why that ended.
    async fn poll(&mut self, every: Duration) -> Broken {
        let mut conn = match load::connect(&self.configs[0].server).await {
            Ok(conn) => conn,
            Err(error) => return error.into(),
        };
        let mut is_first = true;
        let broken = loop {
            let loaded = match load::load(&mut conn, &self.configs).await {
                Ok(loaded) => loaded.contents,
                Err(error) => break error.into(),
            };
            if self.take_polled(loaded) || is_first {
                is_first = false;
                self.put_in_force();
            } else {
                self.board.known(&self.places);
            }
            tokio::time::sleep(every).await;
        };
        load::disconnect(conn).await;
        broken
    }

    /// Takes what is new; a dimension that did not change keeps its version.
    fn take_polled(&mut self, loaded: Vec<Content>) -> bool {
        if self.contents.is_empty() {
            self.contents = loaded;
            return true;
        }
        let mut changed = false;
        for (old, mut new) in self.contents.iter_mut().zip(loaded) {
            if old.columns != new.columns || !old.table.equals(&new.table) {
                new.version = new.version.max(old.version + 1);
                *old = new;
                changed = true;
            }
        }
        changed
    }

    /// Loads once and reads on in the binlog; gives back why that ended.
    async fn follow(&mut self) -> Broken {
        let mut control = match load::connect(&self.configs[0].server).await {
            Ok(conn) => conn,
            Err(error) => return error.into(),
        };
        let loaded = match load::load(&mut control, &self.configs).await {
            Ok(loaded) => loaded,
            Err(error) => {
                load::disconnect(control).await;
                return error.into();
            }
        };
        let stream = match Stream::open(&self.configs[0].server, &loaded.file, loaded.from).await {
            Ok(stream) => stream,
            Err(broken) => return broken,
        };
        // Ends with this function, and the connection with it.
        let mut tasks = tokio::task::JoinSet::new();
        let (ends, server) = mpsc::channel(1);
        tasks.spawn_local(watch_end(control, ends));
        Follow::new(self, loaded).run(stream, server).await
    }
}

/// Asks again and again where the server's binlog ends. An error ends it; the stream will show the same soon.
async fn watch_end(mut control: Conn, ends: mpsc::Sender<Result<Position, load::Error>>) {
    loop {
        tokio::time::sleep(CHECK).await;
        let end = server::end(&mut control).await;
        let is_error = end.is_err();
        let end = end.map(|(file, offset)| Position::new(&file, offset).unwrap_or_default());
        if ends.send(end).await.is_err() || is_error {
            return;
        }
    }
}

/// Follows from one load on.
struct Follow<'f> {
    follower: &'f mut Follower,
    tail: Tail,
    /// From here on the rows are those of one moment; `None` when they are in force.
    whole_at: Option<Position>,
    /// The contents until then.
    loaded: Vec<Content>,
    published: Instant,
    published_to: Position,
    /// Rows changed since.
    changed: bool,
    /// What the server said last of its end, and where reading was then.
    checked: Option<(Position, Position)>,
}

impl<'f> Follow<'f> {
    fn new(follower: &'f mut Follower, loaded: Loaded) -> Self {
        Self {
            follower,
            tail: Tail::new(loaded.followed, loaded.from),
            whole_at: Some(loaded.whole_at),
            loaded: loaded.contents,
            published: clock::instant(),
            published_to: loaded.from,
            changed: false,
            checked: None,
        }
    }

    async fn run(
        mut self,
        mut stream: Stream,
        mut server: mpsc::Receiver<Result<Position, load::Error>>,
    ) -> Broken {
        loop {
            let done = match self.publish_when_due() {
                Err(broken) => Err(broken),
                Ok(due) => tokio::select! {
                    event = stream.next() => match event {
                        Ok(event) => self.event(&event),
                        Err(broken) => Err(broken),
                    },
                    Some(end) = server.recv() => match end {
                        Ok(end) => self.check(end),
                        Err(error) => Err(error.into()),
                    },
                    () = tokio::time::sleep(due.unwrap_or(CHECK)), if due.is_some() => Ok(()),
                },
            };
            if let Err(broken) = done {
                return broken;
            }
        }
    }

    fn event(&mut self, event: &mysql_async::binlog::events::Event) -> Result<(), Broken> {
        let header = event.header();
        let event = super::tail::Event {
            kind: header.event_type_raw(),
            flags: header.flags_raw(),
            end: header.log_pos(),
            data: event.data(),
        };
        let read = self.tail.read(event);
        for (i, events) in self.tail.take_events() {
            let place = self.follower.places[i];
            self.follower.board.dimension(place).measures.events.increment(events);
        }
        read.map_err(|reason| {
            let at = self.tail.position();
            Broken::new(reason, format!("binlog event {} at file {}, {}", event.kind, at.file, at.offset))
        })?;
        self.apply()?;
        if self.whole_at.is_none() {
            self.follower.board.known(&self.follower.places);
        }
        Ok(())
    }

    /// Applies the changes of transactions that have ended.
    fn apply(&mut self) -> Result<(), Broken> {
        if !self.tail.has_changes() {
            return Ok(());
        }
        let whole = self.whole_at.is_none();
        let contents = if whole { &mut self.follower.contents } else { &mut self.loaded };
        let mut changes = vec![0; contents.len()];
        for (i, change) in self.tail.take() {
            changes[i] += 1;
            match change {
                Change::Put(row) => contents[i].table.put(row),
                Change::Remove(key) => contents[i].table.remove(&key),
            }
        }
        self.changed = true;
        for (i, changes) in changes.into_iter().enumerate().filter(|(_, changes)| *changes > 0) {
            let place = self.follower.places[i];
            self.follower.board.dimension(place).measures.changes.increment(changes);
            load::check_size(&self.follower.configs[i], &contents[i].table)?;
        }
        Ok(())
    }

    /// Publishes what is due; gives back when something else will be.
    fn publish_when_due(&mut self) -> Result<Option<Duration>, Broken> {
        let complete = self.tail.complete();
        if let Some(whole_at) = self.whole_at {
            if complete < whole_at {
                return Ok(None);
            }
            self.whole_at = None;
            self.follower.contents = std::mem::take(&mut self.loaded);
            self.set_versions(complete);
            self.follower.put_in_force();
            return Ok(None);
        }
        let wait = match (self.changed, complete > self.published_to) {
            (true, _) => PUBLISH,
            (false, true) => PUBLISH_VERSION,
            (false, false) => return Ok(None),
        };
        let passed = clock::instant().saturating_duration_since(self.published);
        if passed < wait {
            return Ok(Some(wait.saturating_sub(passed)));
        }
        self.set_versions(complete);
        self.follower.publish();
        Ok(None)
    }

    fn set_versions(&mut self, complete: Position) {
        self.follower.contents.iter_mut().for_each(|content| content.version = complete.version());
        self.published = clock::instant();
        self.published_to = complete;
        self.changed = false;
    }

    /// Compares what was read with what the server says.
    fn check(&mut self, end: Position) -> Result<(), Broken> {
        let read = self.tail.position();
        // The server was asked after `checked` was noted, so its end can only be at or behind what was read then.
        match self.checked.replace((end, read)) {
            Some((_, then)) if end < then => {
                Err(Broken::new("binlog_reset", "the server's binlog is shorter than before"))
            }
            Some((wanted, then)) if read == then && read < wanted => Err(Broken::new(
                "stuck",
                format!("the binlog reaches {wanted:?}, but nothing came behind {read:?}"),
            )),
            _ => Ok(()),
        }
    }
}
