//! `weir-cloud rules …` against the MariaDB of the stack: what it says, and what then stands in the tables.
//!
//! Each test has a database of its own. `WEIR_RULES_MYSQL=host:port` names another server, on which root has no
//! password, so that these tests can be run without the whole stack.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use weir_harness::stack::Stack;
use weir_shared::clock::Deadline;

const TABLES: &str = include_str!("../../deploy/sql/rules.sql");
const APPLIES: usize = 8;
const LONGEST: Duration = Duration::from_secs(60);

const TWO: &str = "[[rule]]\nid = 'cold'\nkind = 'filter'\npriority = 5\nnote = 'of the file'\n\
    spec.drop = 'values.t < 0.0'\n[[rule]]\nid = 'tests'\nkind = 'filter'\nspec.drop = \"device == 'x'\"\n";

/// A database with the tables, and the program configured for it.
struct Rules {
    connection: Conn,
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
}

impl Rules {
    fn new(name: &str) -> Self {
        let server = std::env::var("WEIR_RULES_MYSQL").ok().map(|address| {
            let (host, port) = address.rsplit_once(':').unwrap();
            (host.to_owned(), port.parse().unwrap())
        });
        let (host, port) = server.unwrap_or_else(|| {
            let stack = Stack::up("test", false, &mut |line| eprintln!("{line}")).unwrap();
            (weir_harness::addresses::HOST.to_owned(), stack.ports().mysql())
        });
        let database = format!("weir_e2e_rules_{name}");
        let options = OptsBuilder::default().ip_or_hostname(host.as_str()).tcp_port(port).user(Some("root"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection = Conn::new(options.prefer_socket(false)).await.unwrap();
            for statement in [
                format!("DROP DATABASE IF EXISTS {database}"),
                format!("CREATE DATABASE {database} CHARACTER SET utf8mb4"),
                format!("USE {database}"),
            ] {
                connection.query_drop(statement).await.unwrap();
            }
            for statement in TABLES.split_inclusive(";\n").filter(|s| s.trim().ends_with(';')) {
                connection.query_drop(statement.trim().trim_end_matches(';')).await.unwrap();
            }
            connection
        });
        let folder = std::env::temp_dir().join(format!("{database}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!("[rules]\nurl = 'mysql://root@{host}:{port}/{database}'\n");
        std::fs::write(folder.join("cloud.toml"), config).unwrap();
        std::fs::write(folder.join("none.toml"), "").unwrap();
        Self { connection, runtime, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("cloud.toml", arguments)
    }

    fn command_of(&self, config: &str, arguments: &[&str]) -> Command {
        let own = std::env::current_exe().unwrap();
        let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("weir-cloud"));
        let program =
            found.into_iter().find(|path| path.is_file()).expect("weir-cloud is built: `make build`");
        let mut command = Command::new(program);
        command.arg("rules").args(arguments).arg("--config").arg(self.folder.join(config));
        command.env("USER", "tester");
        command
    }

    /// Runs it; what it said on standard output, when it ended with `code`.
    fn run(&self, code: i32, arguments: &[&str]) -> String {
        ended(code, &self.command(arguments).output().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn ask<T: FromRow + Send + 'static>(&mut self, query: &str) -> Vec<T> {
        self.runtime.block_on(self.connection.query(query)).unwrap()
    }

    fn sql(&mut self, statement: &str) {
        self.runtime.block_on(self.connection.query_drop(statement)).unwrap();
    }

    fn active(&mut self) -> Vec<(String, Option<u32>)> {
        self.ask("SELECT id, version FROM weir_rules_active ORDER BY id")
    }

    fn versions(&mut self, id: &str) -> Vec<u32> {
        self.ask(&format!("SELECT version FROM weir_rules WHERE id = '{id}' ORDER BY version"))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

/// Standard output and error together, when the program ended with `code`.
fn ended(code: i32, output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(code), "{}{}", text[0], text[1]);
    text.concat()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn from_the_first_version_to_a_rollback() {
    let mut rules = Rules::new("life");
    has(&rules.run(0, &["ls"]), &["no rules"]);
    let file = rules.file("two.toml", TWO);
    has(&rules.run(0, &["apply", &file, "--dry-run"]), &["cold: new, version 1", "2 of 2 would change"]);
    assert!(rules.versions("cold").is_empty(), "a dry run changes nothing");
    has(&rules.run(0, &["apply", &file, "--wait", "0", "--note", "first"]), &["2 of 2 changed"]);
    has(&rules.run(0, &["apply", &file, "--wait", "0"]), &["cold: version 1, unchanged", "0 of 2 changed"]);
    let stored: Vec<(String, u32, i32, String, String, String)> =
        rules.ask("SELECT id, version, priority, spec, author, note FROM weir_rules ORDER BY id");
    let row = |id: &str, priority, drop: &str, note: &str| {
        (id.to_owned(), 1, priority, format!("{{\"drop\":\"{drop}\"}}"), "tester".to_owned(), note.to_owned())
    };
    assert_eq!(
        stored,
        [row("cold", 5, "values.t < 0.0", "of the file"), row("tests", 0, "device == 'x'", "first")]
    );

    let file = rules.file("two.toml", &TWO.replace("t < 0.0", "t < -5.0"));
    let said = rules.run(0, &["apply", &file, "--wait", "0", "--author", "ann"]);
    has(&said, &["cold: version 1 → version 2", "-   \"drop\": \"values.t < 0.0\"", "1 of 2 changed"]);
    assert_eq!(rules.active(), [("cold".to_owned(), Some(2)), ("tests".to_owned(), Some(1))]);
    has(&rules.run(0, &["diff", "cold"]), &["version 1 → version 2", "+   \"drop\": \"values.t < -5.0\""]);

    has(&rules.run(0, &["rollback", "cold", "--note", "too few"]), &["cold: version 2 → version 1"]);
    has(&rules.run(0, &["disable", "tests"]), &["tests: version 1 → off"]);
    assert_eq!(rules.active(), [("cold".to_owned(), Some(1)), ("tests".to_owned(), None)]);
    let listed = rules.run(0, &["ls"]);
    has(
        &listed,
        &["cold   filter  1       2       5         unheard  tester  too few", "tests  filter  off"],
    );
    has(&rules.run(0, &["enable", "tests"]), &["tests: off → version 1"]);
    has(&rules.run(0, &["apply", &file, "--wait", "0"]), &["version 1 → version 2, which was there before"]);
    assert_eq!(rules.versions("cold"), [1, 2], "a content that was there before gets no new version");
    has(&rules.run(0, &["show", "cold", "--version", "1"]), &["version 1 of 2, version 2 is active"]);

    let history: serde_json::Value =
        serde_json::from_str(&rules.run(0, &["history", "cold", "--json"])).unwrap();
    let actions: Vec<&str> =
        history.as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["version", "apply", "version", "apply", "rollback", "apply"]);
    assert_eq!((&history[4]["before"], &history[4]["after"]), (&2.into(), &1.into()));
    assert_eq!((&history[3]["author"], &history[4]["note"]), (&"ann".into(), &"too few".into()));
}

#[test]
fn one_bad_rule_refuses_the_file() {
    let mut rules = Rules::new("bad");
    let bad = format!("{TWO}[[rule]]\nid = 'open'\nkind = 'filter'\nspec.drop = 'values.t <'\n");
    let file = rules.file("bad.toml", &bad);
    let said = rules.run(1, &["apply", &file, "--wait", "0"]);
    has(&said, &["nothing is changed", "bad.toml:14:13: rule[2].spec.drop: open: drop: ", "1 problem in"]);
    assert_eq!(rules.active(), []);
    assert!(rules.versions("cold").is_empty());
    // An analyst stored what no process can use: it cannot be made active from here.
    rules.sql(
        "INSERT INTO weir_rules (id, version, kind, spec) VALUES ('raw', 1, 'filter', '{\"drop\":\"(\"}')",
    );
    has(&rules.run(1, &["enable", "raw"]), &["raw version 1 cannot be used: drop: "]);
    assert_eq!(rules.active(), []);
}

#[test]
fn what_is_asked_for_wrongly_is_said() {
    let rules = Rules::new("usage");
    let file = rules.file("two.toml", TWO);
    let mut nobody = rules.command(&["apply", &file]);
    has(&ended(64, &nobody.env_remove("USER").output().unwrap()), &["--author NAME"]);
    ended(64, &rules.command(&["rename", "cold"]).output().unwrap());
    has(&ended(64, &rules.command_of("none.toml", &["ls"]).output().unwrap()), &["set rules.url"]);
    has(&rules.run(1, &["show", "cold"]), &["there is no rule \"cold\""]);
    rules.run(0, &["apply", &file, "--wait", "0"]);
    has(&rules.run(1, &["rollback", "cold"]), &["no version below 1"]);
    has(&rules.run(1, &["rollback", "cold", "--to", "7"]), &["cold has no version 7; there are 1"]);
    has(
        &rules.run(1, &["apply", &rules.file("other.toml", &TWO.replace("0.0", "1.0")), "--wait", "1"]),
        &["no process has said anything of it within 1 s"],
    );
}

#[test]
fn applies_at_the_same_time_make_different_versions() {
    let mut rules = Rules::new("race");
    let files: Vec<String> = (0..APPLIES)
        .map(|n| rules.file(&format!("{n}.toml"), &TWO.replace("0.0", &format!("{n}.0"))))
        .collect();
    let running: Vec<_> = files
        .iter()
        .map(|file| {
            let mut command = rules.command(&["apply", file, "--wait", "0"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in running {
        ended(0, &child.wait_with_output().unwrap());
    }
    let all = u32::try_from(APPLIES).unwrap();
    assert_eq!(rules.versions("cold"), (1..=all).collect::<Vec<_>>());
    assert_eq!(rules.versions("tests"), [1], "the same content from all of them is one version");
    let specs: Vec<String> = rules.ask("SELECT DISTINCT spec FROM weir_rules WHERE id = 'cold'");
    assert_eq!(specs.len(), APPLIES);
    // Each began where the one before it ended.
    let changes: Vec<(Option<u32>, u32)> = rules.ask(
        "SELECT version_before, version_after FROM weir_rules_changes WHERE id = 'cold' ORDER BY number",
    );
    let before = |n: usize| n.checked_sub(1).map(|n| changes[n].1);
    assert!(changes.iter().enumerate().all(|(n, change)| change.0 == before(n)), "{changes:?}");
    assert_eq!(rules.active()[0].1, changes.last().map(|change| change.1));
}

#[test]
fn apply_waits_for_what_the_processes_say() {
    let mut rules = Rules::new("wait");
    let file = rules.file("two.toml", TWO);
    for (state, code) in [("active", 0), ("refused", 1)] {
        for table in ["", "_active", "_status", "_processes"] {
            rules.sql(&format!("DELETE FROM weir_rules{table}"));
        }
        rules.sql("INSERT INTO weir_rules_processes (slot, number) VALUES ('p0', 1)");
        let mut command = rules.command(&["apply", &file, "--wait", "60"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        let deadline = Deadline::after(LONGEST);
        while rules.active().len() < 2 {
            assert!(!deadline.passed(), "apply made nothing active");
        }
        for (id, state) in [("cold", state), ("tests", "active")] {
            rules.sql(&format!(
                "INSERT INTO weir_rules_status (id, slot, version, state, reason) \
                 VALUES ('{id}', 'p0', 1, '{state}', 'as it is')"
            ));
        }
        let said = ended(code, &child.wait_with_output().unwrap());
        has(&said, &[&format!("cold version 1 in p0: {state}: as it is"), "tests version 1 in p0: active"]);
        has(&rules.run(0, &["ls"]), &[&format!("{state} ×1")]);
    }
}
