//! Following the tables of a real server, in a database of their own, so that no other program follows them: that of the
//! stack `test`, unless `WEIR_RULES_MYSQL=host:port` names another on which root has no password.

use std::sync::MutexGuard;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use weir_shared::clock::{self, Deadline};

use super::*;
use crate::database::Server;

// Not with "weir" in its name: making it would look as if the dimensions of other tests were made anew.
const DATABASE: &str = "rules_of_tests";
const LONGEST: Duration = Duration::from_secs(20);

/// A database of our own for the time of a test, and processes that follow it.
struct Bench {
    server: Server,
    runtime: tokio::runtime::Runtime,
    connection: Conn,
    processes: Vec<(Rules, Stop, std::thread::JoinHandle<()>)>,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = || {
            let port = weir_harness::addresses::Ports::of("test").unwrap().mysql();
            format!("{}:{port}", weir_harness::addresses::HOST)
        };
        let server = std::env::var("WEIR_RULES_MYSQL").unwrap_or_else(|_| stack());
        let all = mysql_async::Opts::from_url(&format!("mysql://root@{server}/")).unwrap();
        let server = Server::plain(&format!("mysql://root@{server}/{DATABASE}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection = Conn::new(all).await.unwrap();
            connection.query_drop(format!("DROP DATABASE IF EXISTS {DATABASE}")).await.unwrap();
            connection.query_drop(format!("CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")).await.unwrap();
            connection.disconnect().await.unwrap();
            tables::init(&server, false).await.unwrap();
            tables::init(&server, false).await.unwrap(); // may be repeated
            tables::connect(&server).await.unwrap()
        });
        Self { server, runtime, connection, processes: Vec::new(), _alone: alone }
    }

    fn sql(&mut self, statement: &str) {
        self.runtime.block_on(self.connection.query_drop(statement)).unwrap();
    }

    fn ask<T: mysql_async::prelude::FromRow + Send + 'static>(&mut self, query: &str) -> Vec<T> {
        self.runtime.block_on(self.connection.query(query)).unwrap()
    }

    fn add(&mut self, id: &str, version: u32, drop: &str, effective_at: &str) {
        self.sql(&format!(
            "INSERT INTO weir_rules (id, version, kind, spec, effective_at) \
             VALUES ('{id}', {version}, 'filter', '{{\"drop\": \"{drop}\"}}', {effective_at})"
        ));
    }

    /// As an analyst does: no time, no author.
    fn activate(&mut self, id: &str, version: &str) {
        self.sql(&format!(
            "INSERT INTO weir_rules_active (id, version) VALUES ('{id}', {version}) \
             ON DUPLICATE KEY UPDATE version = {version}"
        ));
    }

    fn start(&mut self, slot: &str) -> Rules {
        let config = RulesConfig {
            server: Some(self.server.clone()),
            poll: Duration::from_millis(200),
            status: Duration::from_secs(5),
            topics: Vec::new(),
            mask_key: None,
        };
        let (rules, stop) = (Rules::new(&config, slot), Stop::new());
        rules.set_schema(config.schema(Vec::new()));
        let (followed, stopped) = (rules.clone(), stop.clone());
        let thread = std::thread::spawn(move || followed.follow(&stopped).unwrap());
        self.processes.push((rules.clone(), stop, thread));
        rules
    }

    fn until(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let deadline = Deadline::after(LONGEST);
        while !done(self) {
            assert!(!deadline.passed(), "not within {LONGEST:?}: {what}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Waits until all processes have the same set, of these rules, and gives its number.
    fn agreed(&mut self, force: &[(&str, u32)]) -> u64 {
        let want: Vec<(String, u32)> = force.iter().map(|(id, v)| ((*id).to_owned(), *v)).collect();
        self.until(&format!("{force:?} in force everywhere"), |bench| {
            let all = bench.processes.iter().map(|(rules, ..)| rules.current());
            let all: Vec<_> = all.map(|loaded| loaded.map(|l| (l.number, in_force(&l)))).collect();
            all.iter().all(|one| *one == all[0] && one.as_ref().is_some_and(|(_, rules)| *rules == want))
        });
        self.processes[0].0.current().unwrap().number
    }

    fn state(&mut self, id: &str, version: u32) -> Vec<(String, String)> {
        self.ask(&format!(
            "SELECT state, reason FROM weir_rules_status WHERE id = '{id}' AND version = {version} ORDER BY slot"
        ))
    }

    fn stop_all(&mut self) {
        for (_, stop, thread) in self.processes.drain(..) {
            stop.trigger();
            thread.join().unwrap();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.processes.iter().for_each(|(_, stop, _)| stop.trigger());
    }
}

/// The compiled rules, in the order of ids.
fn in_force(loaded: &Loaded) -> Vec<(String, u32)> {
    let mut rules: Vec<_> = loaded.set.rules().iter().map(|r| (r.id.to_string(), r.version)).collect();
    rules.sort();
    rules
}

#[test]
fn many_processes_agree_on_one_number_for_every_change() {
    let mut bench = Bench::new();
    for slot in ["p0", "p1", "p2"] {
        bench.start(slot);
    }
    assert_eq!(bench.agreed(&[]), 0);
    bench.add("a", 1, "true", "NULL");
    bench.activate("a", "1");
    let first = bench.agreed(&[("a", 1)]);
    // Refused: the version before stays, every process says why, and the number does not move.
    bench.add("a", 2, "tru(", "NULL");
    bench.activate("a", "2");
    bench.until("refused by all", |b| b.state("a", 2).iter().filter(|(s, _)| s == "refused").count() == 3);
    let reason = bench.state("a", 2)[0].1.clone();
    assert!(reason.contains("drop: column") && reason.ends_with("version 1 stays in force"), "{reason}");
    assert_eq!(bench.agreed(&[("a", 1)]), first);
    // A process that starts now knows what is in force, though version 1 is not the active one.
    bench.start("p3");
    assert_eq!(bench.agreed(&[("a", 1)]), first);
    // Later: waits, then comes by itself.
    bench.add("a", 3, "false", "UTC_TIMESTAMP(3) + INTERVAL 2 SECOND");
    bench.activate("a", "3");
    bench.until("waiting", |b| b.state("a", 3).iter().filter(|(s, _)| s == "waiting").count() == 4);
    assert_eq!(bench.agreed(&[("a", 1)]), first);
    let second = bench.agreed(&[("a", 3)]);
    // Off, and back to an older one; a change in place of what is stored is seen too.
    bench.activate("a", "NULL");
    let third = bench.agreed(&[]);
    bench.activate("a", "1");
    let fourth = bench.agreed(&[("a", 1)]);
    bench.sql("UPDATE weir_rules SET spec = '{\"drop\": \"1 < 2\"}' WHERE id = 'a' AND version = 1");
    bench.until("a number of its own", |b| b.processes[0].0.current().unwrap().number > fourth);
    let fifth = bench.agreed(&[("a", 1)]);
    assert!(first < second && second < third && third < fourth && fourth < fifth);
    let sets: Vec<(u64, String)> = bench.ask("SELECT number, rules FROM weir_rules_sets ORDER BY number");
    let want = [(first, "[[\"a\",1]]"), (second, "[[\"a\",3]]"), (third, "[]"), (fourth, "[[\"a\",1]]")];
    assert_eq!(sets.len(), 5, "one row per change: {sets:?}");
    assert!(sets.iter().zip(want).all(|(row, want)| row.0 == want.0 && row.1 == want.1), "{sets:?}");
    bench.stop_all();
    let left: Vec<String> = bench.ask("SELECT slot FROM weir_rules_processes");
    assert!(left.is_empty(), "{left:?} said no good-bye");
}

#[test]
fn a_tripped_rule_leaves_one_process_until_it_is_activated_again() {
    let mut bench = Bench::new();
    let (one, other) = (bench.start("p0"), bench.start("p1"));
    bench.add("a", 1, "true", "NULL");
    bench.activate("a", "1");
    let number = bench.agreed(&[("a", 1)]);
    one.tripped("a", 1, "100 failures in a row");
    one.tripped("a", 7, "a version that is not in force");
    let rules_of = |rules: &Rules| in_force(&rules.current().unwrap()).len();
    bench.until("out of one", |_| rules_of(&one) == 0);
    bench.until("said so", |b| b.state("a", 1)[0] == ("tripped".into(), "100 failures in a row".into()));
    assert_eq!((rules_of(&other), one.current().unwrap().number), (1, number));
    assert_eq!(bench.state("a", 1)[1].0, "active");
    // It stays out when the process is started again.
    bench.stop_all();
    let one = bench.start("p0");
    bench.until("loaded", |_| one.current().is_some());
    assert_eq!(rules_of(&one), 0);
    bench.sql("UPDATE weir_rules_active SET changed_at = CURRENT_TIMESTAMP(3)");
    assert_eq!(bench.agreed(&[("a", 1)]), number);
    bench.until("active again", |b| b.state("a", 1)[0].0 == "active");
    bench.stop_all();
}

#[test]
fn from_commit_to_published() {
    const CHANGES: usize = 100;
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.add(&format!("stands-{n}"), 1, "values.t < 0.0", "NULL");
        bench.activate(&format!("stands-{n}"), "1");
    }
    let rules = bench.start("p0");
    bench.start("p1");
    bench.until("loaded", |_| rules.current().is_some_and(|l| in_force(&l).len() == 20));
    let mut took = Vec::new();
    for n in 0..CHANGES {
        let version = u32::try_from(n).unwrap() + 1;
        bench.add("a", version, "values.t > 1.0", "NULL");
        // At every phase of the poll.
        std::thread::park_timeout(Duration::from_millis(37 * (n as u64 % 11)));
        bench.activate("a", &version.to_string());
        let committed = clock::instant();
        let key = ("a".to_owned(), version);
        bench.until("published", |_| in_force(&rules.current().unwrap()).contains(&key));
        took.push(clock::since(committed));
    }
    took.sort();
    let at = |q: usize| took[(took.len() * q).div_ceil(100) - 1].as_millis();
    eprintln!("commit → published: p50 {} ms, p99 {} ms, max {} ms", at(50), at(99), at(100));
    // Alone on two cores it is 300; other tests run beside it.
    assert!(at(99) < 1_000, "p99 {} ms", at(99));
    let sets: Vec<u64> = bench.ask("SELECT COUNT(*) FROM weir_rules_sets");
    assert_eq!(sets, [CHANGES as u64 + 1]);
    bench.stop_all();
}
