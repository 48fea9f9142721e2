//! Every panel of every dashboard shows something: its queries are asked of a real Prometheus with the shipped rules, which
//! scrapes both programs while readings go through them; and so do their status pages ([`status_page`]).
//!
//! A comparison at the end of a query (`> 0`) is left out: it hides what is well. Time stands for little here: scrapes and
//! rules come every second.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rumqttc::{Client, MqttOptions, QoS};
use serde_json::{Value, json};
use weir_harness::addresses::HOST;
use weir_harness::install;
use weir_harness::patience::holds_within;
use weir_harness::places::Places;
use weir_harness::programs::{Admin, EDGE_NAME, Program, Programs};
use weir_harness::stack::Stack;
use weir_harness::stream::new_run_name;
use weir_shared::{clock, wire};

use crate::alone;
use crate::first_light::first_light;
use crate::status_page;

/// Until every query has an answer: rates take two scrapes, windows some seconds.
const SHOWN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two rounds of readings.
const ROUND: Duration = Duration::from_millis(50);
const KAFKA: Duration = Duration::from_secs(10);
/// After its id.
const RULE: &str = "kind = 'threshold'\n\
    spec = { value = 'values.n', above = 5, clear_below = 3, severity = 'low' }\n";
const PROMETHEUS: &str = "prometheus";
/// Shows alerts that fire: there are none while all is well.
const SHOWS_TROUBLE: &str = "Firing";

/// What runs for the test, and ends with it.
struct Scene<'a> {
    stack: &'a Stack,
    programs: Programs<'a>,
    run: String,
    folder: PathBuf,
    web: Admin,
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let stopped = [self.stack.stop_server(PROMETHEUS), self.programs.stop()];
        // Rules of the next test are its own.
        let disabled = self.command(&["rules", "disable", &self.run]).output();
        if std::thread::panicking() {
            eprintln!("after the failure: {stopped:?}, {disabled:?}");
        } else {
            stopped.into_iter().for_each(|done| done.unwrap());
            assert!(disabled.unwrap().status.success());
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

impl Scene<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.programs.command(Program::Cloud, words);
        command.env("USER", "tester");
        command
    }

    fn prometheus(&self) -> String {
        format!("{HOST}:{}", self.stack.ports().first_free())
    }

    /// Starts it with the shipped rules, for the programs of this stack.
    fn start_prometheus(&self) {
        let places = Places::find().unwrap();
        install::programs(&places, &[(PROMETHEUS, PROMETHEUS)], &mut |line| eprintln!("{line}")).unwrap();
        let shipped = places.root().join("deploy/prometheus");
        let text = std::fs::read_to_string(shipped.join("prometheus.yml")).unwrap();
        let mut config = text.replace("15s", "1s").replace("10s", "1s");
        for (target, program) in [("127.0.0.1:9187", Program::Edge), ("127.0.0.1:9188", Program::Cloud)] {
            assert!(config.contains(target), "{target} is not scraped");
            config = config.replace(target, &self.programs.address(program));
        }
        for rules in ["recording.yml", "alerts.yml"] {
            config = config.replace(rules, &shipped.join(rules).display().to_string());
        }
        let file = self.folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let words = [
            PROMETHEUS.to_owned(),
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", self.folder.join("data").display()),
            format!("--web.listen-address={}", self.prometheus()),
        ];
        self.stack.spawn(PROMETHEUS, &words.each_ref().map(String::as_str), &[], false).unwrap();
    }

    /// How many series answer.
    fn ask(&self, query: &str) -> anyhow::Result<usize> {
        let url = reqwest::Url::parse_with_params("http://p/api/v1/query", [("query", query)])?;
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let answer: Value = serde_json::from_str(&self.web.words(&self.prometheus(), &path))?;
        anyhow::ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"].as_array().map_or(0, Vec::len))
    }
}

/// Ends the stream.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A query of a panel.
struct Query {
    panel: String,
    text: String,
}

/// All queries of the shipped dashboards, for all programs.
fn queries() -> Vec<Query> {
    let folder = Places::find().unwrap().root().join("deploy/grafana/dashboards");
    let mut queries = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let board: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().unwrap();
                let text = text.replace("$instance", ".*").replace("$edge", ".*");
                let text = text.replace("$__rate_interval", "1m").replace(" < Inf", "");
                let text = text.trim_end_matches(" > 0").to_owned();
                assert!(!text.contains('$'), "{text}");
                queries.push(Query { panel: format!("{}: {title}", board["title"].as_str().unwrap()), text });
            }
        }
    }
    queries
}

/// An edge with a window and a file beside MQTT, and its own journal.
fn edge_config(programs: &Programs<'_>, run: &str, folder: &Path) {
    let path = programs.config(Program::Edge);
    let text = std::fs::read_to_string(&path).unwrap();
    let journal = text.lines().find(|line| line.starts_with("dir = ")).unwrap().to_owned();
    let text = text
        .replace(&journal, &format!("dir = \"{}\"", folder.join("journal").display()))
        .replace(EDGE_NAME, run)
        .replace("sensors/#", &format!("{run}/#"));
    let more = format!(
        "[[file]]\npath = \"{}/*.csv\"\nformat = \"csv\"\nmode = \"tail\"\n\
         [[window]]\nname = \"boards\"\nkind = \"tumbling\"\nsize = \"1s\"\n",
        folder.display()
    );
    std::fs::write(&path, text + &more).unwrap();
}

/// Readings of five devices in rounds until it is enough: good ones, one that is late, one that is no reading; and one
/// record that no edge made.
fn stream(stack: &Stack, run: &str, enough: &AtomicBool) {
    let (host, port) = stack.addresses().mqtt;
    let (client, mut connection) =
        Client::new(MqttOptions::new(format!("{run}-publisher"), host, port), 1000);
    std::thread::spawn(move || while connection.recv().is_ok_and(|event| event.is_ok()) {});
    let kafka: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", stack.addresses().kafka).create().unwrap();
    kafka.send(BaseRecord::to(wire::READINGS).key("k").payload("of no edge")).map_err(|(e, _)| e).unwrap();
    kafka.flush(KAFKA).unwrap();
    let publish = |text: String| client.publish(format!("{run}/x"), QoS::AtLeastOnce, false, text).unwrap();
    let mut n = 0_i64;
    while !enough.load(Ordering::Relaxed) {
        for device in 0..5 {
            n += 1;
            let late = if n % 50 == 0 { 3_600_000 } else { 0 };
            let (device, time) = (format!("{run}-{device}"), clock::wall_ms() - late);
            publish(json!({ "device": device, "ts": time, "values": { "n": n % 10 } }).to_string());
        }
        publish("no reading".to_owned());
        std::thread::park_timeout(ROUND);
    }
    client.disconnect().unwrap();
}

#[test]
fn every_panel_shows_something_while_readings_go_through() {
    let first = first_light();
    let _alone = alone();
    let run = format!("boards-{}", new_run_name());
    let folder = std::env::temp_dir().join(&run);
    std::fs::create_dir_all(&folder).unwrap();
    let (programs, web) = (Programs::new(&first.stack).unwrap(), Admin::new().unwrap());
    let scene = Scene { stack: &first.stack, programs, run, folder, web };
    let (run, folder) = (&scene.run, &scene.folder);
    edge_config(&scene.programs, run, folder);
    std::fs::write(folder.join("a.csv"), format!("device,time,n\n{run}-f,{},1\n", clock::wall_ms())).unwrap();
    let rules = folder.join("rules.toml");
    std::fs::write(&rules, format!("[[rule]]\nid = '{run}'\n{RULE}")).unwrap();
    let applied =
        scene.command(&["rules", "apply", rules.to_str().unwrap(), "--wait", "0"]).output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    for program in [Program::Cloud, Program::Edge] {
        scene.programs.start(program).unwrap();
        scene.programs.wait_ready(program).unwrap();
    }
    scene.start_prometheus();
    let mut left: Vec<Query> = queries();
    let asked = left.len();
    left.retain(|query| !query.panel.ends_with(SHOWS_TROUBLE));
    assert!(asked > 100 && asked - left.len() == 1, "{asked} queries");
    let enough = AtomicBool::new(false);
    let mut pages = Ok(());
    std::thread::scope(|scope| {
        // Also after a panic: the scope waits for the stream.
        let _ended = Enough(&enough);
        scope.spawn(|| stream(&first.stack, run, &enough));
        let _what_is_left_tells = holds_within(SHOWN, LOOK_EVERY, || {
            // It may not listen yet.
            left.retain(|query| !matches!(scene.ask(&query.text), Ok(series) if series > 0));
            Ok(left.is_empty())
        });
        pages = status_page::shows(&scene.programs, first.stack.ports().first_free() + 1);
    });
    pages.unwrap();
    let said: Vec<_> = left
        .iter()
        .map(|query| format!("{}: {}: {:?}", query.panel, query.text, scene.ask(&query.text)))
        .collect();
    assert!(left.is_empty(), "{} of {asked} queries show nothing:\n{}", left.len(), said.join("\n"));
}
