//! A server, a connection to it, and dimensions that follow it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::runtime::Runtime;
use weir_shared::clock::Deadline;
use weir_shared::config::check;
use weir_shared::reading::Reading;
use weir_shared::supervise::Stop;

use super::super::{DimensionConfig, Dimensions, Found, Snapshot, load, probe};
use crate::database::Server;

/// Longest wait for what a test expects.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The server of the stack `test`, unless another is named.
pub(super) fn stack_url() -> String {
    let stack = || weir_harness::addresses::Ports::of("test").unwrap().addresses().mysql_url;
    std::env::var("WEIR_DIMENSIONS_MYSQL").unwrap_or_else(|_| stack())
}

pub(super) struct Rig {
    url: String,
    runtime: Runtime,
    conn: Conn,
    dimensions: Option<Dimensions>,
    stop: Stop,
    follower: Option<JoinHandle<()>>,
    spawned: Option<JoinHandle<()>>,
}

impl Rig {
    pub(super) fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let conn = runtime.block_on(load::connect(&Server::plain(url)));
        let conn = conn.unwrap_or_else(|e| panic!("no server for the tests: {e}; `make test` starts it"));
        Self {
            url: url.to_owned(),
            runtime,
            conn,
            dimensions: None,
            stop: Stop::new(),
            follower: None,
            spawned: None,
        }
    }

    /// Connects once more, to a server that was away.
    pub(super) fn reconnect(&mut self) {
        let server = Server::plain(&self.url);
        self.conn = patiently(|| {
            self.runtime.block_on(load::connect(&server)).map_err(|error| format!("no server: {error}"))
        });
    }

    /// Runs statements.
    pub(super) fn run(&mut self, statements: &str) {
        let done = self.runtime.block_on(self.conn.query_drop(statements));
        done.unwrap_or_else(|e| panic!("{statements}: {e}"));
    }

    /// Runs statements on a connection of their own, meanwhile.
    pub(super) fn spawn(&mut self, statements: &str) {
        let (server, statements) = (Server::plain(&self.url), statements.to_owned());
        self.spawned = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut conn = load::connect(&server).await.unwrap();
                conn.query_drop(statements).await.unwrap();
                conn.disconnect().await.unwrap();
            });
        }));
    }

    pub(super) fn join_spawned(&mut self) {
        self.spawned.take().unwrap().join().unwrap();
    }

    /// Makes a table anew.
    pub(super) fn table(&mut self, name: &str, columns: &str, rows: &str) {
        self.run(&format!("DROP TABLE IF EXISTS {name}; CREATE TABLE {name} ({columns}); {rows}"));
    }

    fn configs(&self, dimensions: &[(&str, &str, &str)]) -> Vec<DimensionConfig> {
        let items = dimensions.iter().map(|(name, table, more)| {
            format!("[[dimension]]\nname = '{name}'\nurl = '{}'\ntable = '{table}'\n{more}\n", self.url)
        });
        let text: String = items.collect();
        check("test", &text, "[[dimension]]\n", DimensionConfig::read_all).unwrap()
    }

    /// Follows tables, and waits until they are loaded: name, table, more of the configuration.
    pub(super) fn start(&mut self, dimensions: &[(&str, &str, &str)]) {
        let dimensions = Dimensions::new(&self.configs(dimensions));
        let (followed, stop) = (dimensions.clone(), self.stop.clone());
        self.follower = Some(std::thread::spawn(move || followed.follow(&stop).unwrap()));
        self.dimensions = Some(dimensions);
        self.until("everything is loaded", |rig| rig.dimensions().current().is_some());
    }

    /// Why a table is not loaded.
    pub(super) fn refusal(&mut self, table: &str, more: &str) -> String {
        let configs = self.configs(&[("d", table, more)]);
        let (loaded, probe) = self.runtime.block_on(async {
            let mut conn = load::connect(&configs[0].server).await.unwrap();
            let loaded = load::load(&mut conn, &configs).await;
            conn.disconnect().await.unwrap();
            (loaded, probe(&configs[0]).await.unwrap())
        });
        let refused = loaded.expect_err("a table that must be refused").to_string();
        let said = [probe.table.err(), probe.binlog.and_then(Result::err)];
        assert!(said.contains(&Some(refused.clone())), "`check --connect` says {said:?}, not {refused}");
        refused
    }

    fn dimensions(&self) -> &Dimensions {
        self.dimensions.as_ref().unwrap()
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.dimensions().current().unwrap()
    }

    pub(super) fn reloads(&self) -> Vec<&'static str> {
        self.dimensions().board.reloads()
    }

    /// Runs statements, and waits until the tables were loaded afresh because of them.
    pub(super) fn run_and_reload(&mut self, statements: &str, reason: &str) {
        let (reloads, loads) = (self.reloads().len(), self.dimensions().board.loads());
        self.run(statements);
        self.until("it is loaded afresh", |rig| rig.dimensions().board.loads() > loads);
        assert_eq!(self.reloads().get(reloads), Some(&reason), "{:?}", self.reloads());
    }

    pub(super) fn version(&self, dimension: &str) -> u64 {
        let versions: serde_json::Value = serde_json::from_slice(self.snapshot().versions()).unwrap();
        versions[dimension].as_u64().unwrap()
    }

    /// JSON of the row of a dimension.
    pub(super) fn row(&self, dimension: &str, key: &str) -> Option<String> {
        row_of(&self.snapshot(), dimension, key)
    }

    /// Waits for a row.
    pub(super) fn wait(&self, dimension: &str, key: &str, wanted: Option<&str>) {
        patiently(|| {
            let row = self.row(dimension, key);
            let is = row.as_deref() == wanted;
            is.then_some(())
                .ok_or_else(|| format!("{dimension} {key}: {row:?}, not {wanted:?}; {:?}", self.reloads()))
        });
    }

    /// Waits for anything.
    pub(super) fn until(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        patiently(|| is(self).then_some(()).ok_or_else(|| format!("in vain: {what}")));
    }

    /// The connection of the only follower of this server.
    pub(super) fn binlog_connection(&mut self) -> u64 {
        let list = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump'";
        // One that was left behind is noticed by the server with its next heartbeat.
        patiently(|| {
            let dumps: Vec<u64> = self.runtime.block_on(self.conn.query(list)).unwrap();
            let [one] = dumps[..] else { return Err(format!("{} read the binlog", dumps.len())) };
            Ok(one)
        })
    }
}

/// Looks until there is an answer; what it says instead, when there is none in time.
pub(super) fn patiently<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(!deadline.passed(), "{why}"),
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.trigger();
        if let Some(follower) = self.follower.take() {
            let ended = follower.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the follower panicked");
        }
    }
}

/// JSON of the row of a dimension; a composite key is written with a comma, as value `unit` and tag `site`.
pub(super) fn row_of(snapshot: &Snapshot, dimension: &str, key: &str) -> Option<String> {
    let (unit, site) = key.split_once(',').unwrap_or(("0", ""));
    let text =
        format!(r#"{{"device":"{key}","time":1,"values":{{"unit":{unit}}},"tags":{{"site":"{site}"}}}}"#);
    let mut reading = Reading::default();
    reading.parse(text.as_bytes()).unwrap();
    let (mut out, mut found) = (Vec::new(), Found::default());
    snapshot.join(&reading, &mut out, &mut found);
    let dims: std::collections::HashMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(&out).unwrap();
    dims.get(dimension).map(|row| row.get().to_owned())
}

/// Memory of this process.
pub(super) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
