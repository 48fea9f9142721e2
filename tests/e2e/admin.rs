//! The admin port of the real program with TLS and tokens: who may look, who may change, what the audit log says of it, and
//! that the log shows when it was touched.
//!
//! The processor and the sinks run on the servers of the stack. A sink that is paused says so, and goes on; a rule is rolled
//! back through the port; somebody's own SQL is written down too.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::{Certificate, Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weir_harness::addresses::{HOST, MYSQL_PASSWORD};
use weir_harness::certificates::{Certificates, Identity};
use weir_harness::oracle::Oracle;
use weir_harness::patience::holds_within;
use weir_harness::programs::{Program, Programs};
use weir_harness::stream::new_run_name;
use weir_shared::metrics::page::samples;
use weir_shared::wire;

use crate::alone;
use crate::first_light::first_light;
use crate::mid_stream::MidStream;
use crate::own_tables::send;
use crate::started::{Started, entries};
use crate::status_page;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);
const VALID: (i64, i64) = (-1, 5);
const RULE: &str = "e2e-admin";
const RECORDS: u64 = 700;
const TIME: i64 = 1_790_000_000_000;

/// A token, longer than it must be.
fn token(name: &str) -> String {
    format!("{name}-of-the-end-to-end-test")
}

struct Scene {
    program: Command,
    port: String,
    oracle: Oracle,
    brokers: String,
    /// The device of its records: an earlier run may have left rows.
    run: String,
    folder: PathBuf,
    http: Client,
    runtime: Runtime,
}

impl Scene {
    /// The settings of the stack, with tokens, a certificate and an audit log.
    fn configure(&self, settings: &str, ca: &Path, Identity { certificate, key }: &Identity) {
        let tokens: String = ["viewer", "operator", "admin"]
            .map(|role| {
                format!(
                    "[[admin.token]]\nname = \"{role}-7\"\nrole = \"{role}\"\ntoken = \"{}\"\n",
                    token(role)
                )
            })
            .concat();
        let (ca, certificate, key) = (ca.display(), certificate.display(), key.display());
        let text = format!(
            "{settings}\n{tokens}[admin.tls]\nenabled = true\nca_file = \"{ca}\"\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n\
             [audit]\ndirectory = \"{}\"\n",
            self.audit().display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.join("cloud.toml")
    }

    fn audit(&self) -> PathBuf {
        self.folder.join("audit")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program.get_program());
        command.args(words).arg("--config").arg(self.config());
        command
    }

    fn start(&self) -> Started {
        let started = Started::new(&mut self.command(&["run"]), &self.folder.join("log"));
        let ready = || Ok(self.ask("/ready", "").0 == 200);
        assert!(holds_within(PATIENCE, LOOK_EVERY, ready).unwrap(), "{}", self.log());
        started
    }

    /// Status and text; 0 where nobody answers.
    fn send(&self, request: RequestBuilder) -> (u16, String) {
        self.runtime.block_on(async {
            let Ok(answer) = request.send().await else { return (0, String::new()) };
            (answer.status().as_u16(), answer.text().await.unwrap_or_default())
        })
    }

    fn ask(&self, path: &str, token: &str) -> (u16, String) {
        let mut request = self.http.get(format!("https://{}{path}", self.port));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        self.send(request)
    }

    fn change(&self, path: &str, as_whom: &str, said: &Value) -> (u16, String) {
        let url = format!("https://{}/api/{path}", self.port);
        self.send(self.http.post(url).bearer_auth(token(as_whom)).body(said.to_string()))
    }

    fn entries(&self) -> Vec<Value> {
        entries(&self.audit().join("weir-cloud-0.audit.jsonl"))
    }

    /// Records come that the sink of MySQL leaves where they are, while another stores them.
    fn others_go_on(&self) {
        let record = |n: u64| {
            let weir = json!({"stream": "0a".repeat(16), "partition": 0, "number": n, "edge": self.run});
            let record =
                json!({"weir": weir, "device": self.run, "time": TIME, "values": {"n": n}, "tags": {}});
            (wire::ENRICHED, record.to_string())
        };
        let records: Vec<_> = (0..RECORDS).map(record).collect();
        send(&self.brokers, &records, &MidStream::undisturbed(Duration::ZERO));
        let count = format!("SELECT count() FROM weir_readings WHERE device = '{}'", self.run);
        let stored = || Ok(self.oracle.in_clickhouse(&count)?.trim() == RECORDS.to_string());
        assert!(holds_within(PATIENCE, LOOK_EVERY, stored).unwrap(), "{}", self.log());
        assert_eq!(self.rows_in_mysql().unwrap(), 0);
    }

    fn rows_in_mysql(&self) -> anyhow::Result<u64> {
        let count = format!("SELECT COUNT(*) FROM weir_readings WHERE device = '{}'", self.run);
        Ok(self.oracle.rows_in_mysql(&count)?[0].parse()?)
    }

    /// An entry comes that says all of this.
    fn is_audited(&self, wanted: &[(&str, Value)]) {
        let fits = |entry: &Value| wanted.iter().all(|(name, value)| &entry[*name] == value);
        let came = holds_within(PATIENCE, LOOK_EVERY, || Ok(self.entries().iter().any(fits))).unwrap();
        assert!(came, "{wanted:?} is not in {:#?}", self.entries());
    }

    /// Exit code and words of `audit verify`.
    fn verify(&self) -> (Option<i32>, String) {
        let output = self.command(&["audit", "verify"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn value(&self, metric: &str, label: (&str, &str)) -> f64 {
        let page = self.ask("/metrics", &token("viewer")).1;
        let of = samples(&page)
            .filter(|s| s.name == metric && (label.0.is_empty() || s.label(label.0) == label.1));
        of.map(|sample| sample.value).sum()
    }
}

#[test]
fn each_role_may_what_it_may_and_every_change_is_written_down() {
    let first = first_light();
    let _alone = alone();
    let programs = Programs::new(&first.stack).unwrap();
    programs.stop_one(Program::Cloud).unwrap();
    let addresses = first.stack.addresses();
    let folder = std::env::temp_dir().join(format!("weir-e2e-admin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let certificates = Certificates::of(&first.stack.data_dir().join("data"));
    let shown = certificates.issue("e2e-admin", HOST, VALID).unwrap();
    let authority = Certificate::from_pem(&std::fs::read(certificates.ca()).unwrap()).unwrap();
    let http = Client::builder()
        .add_root_certificate(authority)
        .danger_accept_invalid_hostnames(true)
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let program = programs.command(Program::Cloud, &[]);
    let scene = Scene {
        program,
        port: programs.address(Program::Cloud),
        oracle: Oracle::new(&addresses).unwrap(),
        brokers: addresses.kafka,
        run: new_run_name(),
        folder: folder.clone(),
        http,
        runtime,
    };
    let settings = std::fs::read_to_string(programs.config(Program::Cloud)).unwrap();
    scene.configure(&settings, &certificates.ca(), &shown);
    let rules = |words: &[&str]| {
        let output = scene.command(&[&["rules"], words].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for limit in ["1000000.0", "2000000.0"] {
        let file = folder.join("rules.toml");
        let text =
            format!("[[rule]]\nid = '{RULE}'\nkind = 'filter'\nspec.drop = 'values.never > {limit}'\n");
        std::fs::write(&file, text).unwrap();
        rules(&["apply", file.to_str().unwrap(), "--wait", "0", "--author", "anna"]);
    }
    let active = || {
        scene
            .oracle
            .rows_in_mysql(&format!("SELECT version FROM weir_rules_active WHERE id = '{RULE}'"))
            .unwrap()
    };
    let started = scene.start();

    may_look(&scene);
    let url = format!("https://{}/", scene.port);
    status_page::opens_with(&token("viewer"), &url, first.stack.ports().first_free() + 1).unwrap();
    may_run(&scene);
    may_rule(&scene, &active, &rules);
    is_bound(&scene);
    drop(started);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn may_look(scene: &Scene) {
    let status = |path: &str, token: &str| scene.ask(path, token).0;
    for path in ["/live", "/ready", "/"] {
        assert_eq!(status(path, ""), 200, "{path}");
    }
    for path in ["/metrics", "/api/status"] {
        assert_eq!(
            [status(path, ""), status(path, "guessed-0123456789"), status(path, &token("viewer"))],
            [401, 401, 200]
        );
    }
    let said = scene.ask("/metrics", "").1;
    assert!(said.starts_with("a token is needed: send the header"), "{said}");
    let plain = scene.http.get(format!("http://{}/metrics", scene.port));
    assert_eq!(scene.send(plain).0, 0, "not without TLS");
    scene.is_audited(&[
        ("action", json!("request")),
        ("who", json!("")),
        ("subject", json!("metrics from 127.0.0.1")),
        ("result", json!(format!("refused: {}", said.trim_end()))),
    ]);
}

/// Who may change how it runs.
fn may_run(scene: &Scene) {
    let (code, said) = scene.change("sinks/pause", "viewer", &json!({"sink": "mysql"}));
    assert_eq!(
        (code, said.as_str()),
        (
            403,
            "viewer-7 is viewer, and this needs operator: use another token, or change its role in [[admin.token]] and restart\n"
        )
    );
    assert_eq!(scene.change("sinks/pause", "operator", &json!({"sink": "mysql"})).0, 200);
    let words = || scene.ask("/ready", "").1;
    let paused = holds_within(PATIENCE, LOOK_EVERY, || {
        Ok(words().contains("sink.mysql: paused through the admin port"))
    });
    assert!(paused.unwrap(), "{}", words());
    assert_eq!(scene.value("weir_cloud_sink_paused", ("sink", "mysql")), 1.0);
    scene.others_go_on();
    assert_eq!(scene.change("sinks/resume", "operator", &json!({"sink": "mysql"})).0, 200);
    assert!(holds_within(PATIENCE, LOOK_EVERY, || Ok(words() == "ok\n")).unwrap(), "{}", words());
    let caught_up = || Ok(scene.rows_in_mysql()? == RECORDS);
    assert!(holds_within(PATIENCE, LOOK_EVERY, caught_up).unwrap(), "{}", scene.log());
    scene.is_audited(&[
        ("action", json!("sinks.pause")),
        ("who", json!("operator-7")),
        ("role", json!("operator")),
        ("before", json!({"mysql": "running"})),
        ("after", json!({"mysql": "paused"})),
        ("result", json!("done")),
    ]);
    assert!(scene.change("log", "operator", &json!({"filter": "debug"})).1.contains("\"after\":\"debug\""));
    let quiet = scene.change("log", "operator", &json!({"filter": "off"})).1;
    assert!(quiet.contains("debug\"") && quiet.contains("\"after\":\"off\""), "{quiet}");
    // Nothing else is said any more, but the audit log's entries are: they may stand nowhere else.
    let (code, said) = scene.change("log", "operator", &json!({"filter": "info"}));
    assert!(code == 200 && said.contains("\"before\":\"off\""), "{said}");
    assert!(
        scene.log().contains("operator-7 log from 127.0.0.1, null → {\"filter\":\"info\"}: begun"),
        "{}",
        scene.log()
    );
    assert_eq!(scene.change("log", "operator", &json!({"filter": "a=b=c"})).0, 422);
    assert!(scene.change("sink/pause", "operator", &json!({})).1.contains("did you mean \"sinks/pause\"?"));
}

/// Who may change what it computes.
fn may_rule(scene: &Scene, active: &dyn Fn() -> Vec<String>, rules: &dyn Fn(&[&str])) {
    let newest: u64 = active()[0].parse().unwrap();
    let rollback = json!({"id": RULE, "note": "e2e"});
    assert_eq!(scene.change("rules/rollback", "operator", &rollback).0, 403);
    assert_eq!(active(), [newest.to_string()]);
    let (code, said) = scene.change("rules/rollback", "admin", &rollback);
    assert_eq!(
        (code, said.as_str()),
        (200, json!({"after": {RULE: newest - 1}, "before": {RULE: newest}}).to_string().as_str())
    );
    assert_eq!(active(), [(newest - 1).to_string()]);
    let in_force = |who: &str, before: Value, after: Value| {
        let (action, subject) = (json!("rules.version"), json!(RULE));
        scene.is_audited(&[
            ("action", action),
            ("subject", subject),
            ("who", json!(who)),
            ("before", before),
            ("after", after),
        ]);
    };
    in_force("admin-7", json!(newest), json!(newest - 1));
    rules(&["disable", RULE, "--author", "otto"]);
    in_force("otto", json!(newest - 1), Value::Null);
    assert_eq!(scene.value("weir_admin_refused_total", ("reason", "role")), 2.0);
    assert!(scene.value("weir_audit_entries_total", ("", "")) >= 9.0);
}

/// The log, as it is and touched.
fn is_bound(scene: &Scene) {
    let (code, right) = scene.verify();
    assert_eq!(code, Some(0), "{right}");
    assert!(right.contains("each bound to the one before; head "), "{right}");
    let path = scene.audit().join("weir-cloud-0.audit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("admin-7", "nobody-7", 1)).unwrap();
    let (code, wrong) = scene.verify();
    assert!(code == Some(1) && wrong.contains("was altered: its hash is not that of its content"), "{wrong}");
    for text in [text, scene.log()] {
        assert!(!text.contains("of-the-end-to-end-test"), "a token was said:\n{text}");
    }
    let bundle = scene.folder.join("support.tar.gz");
    let doctor = scene.command(&["doctor", "--bundle", bundle.to_str().unwrap()]).output().unwrap();
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let parts = [
        "ok    settings",
        "ok    running process /ready",
        "warn  audit log",
        "was altered",
        "is written: look through it",
    ];
    for part in parts {
        assert!(found.contains(part), "{part:?} is not in\n{found}");
    }
    let whole = Command::new("tar").args(["-xzOf", bundle.to_str().unwrap()]).output().unwrap();
    let whole = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(whole.contains("weir_cloud_sink_rows_total") && whole.contains("token = \"***\""), "{whole}");
    assert!(!whole.contains("of-the-end-to-end-test") && !whole.contains(MYSQL_PASSWORD), "{whole}");
    let top = scene.command(&["top", "--count", "2"]).output().unwrap();
    let shown = String::from_utf8_lossy(&top.stdout).into_owned();
    assert!(top.status.success() && shown.contains("stored in mysql") && shown.contains("ready"), "{shown}");
}
