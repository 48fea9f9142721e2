//! The servers of the sinks' suite, the ways to them, the fleet and the processor that feed them, and the judge.
//!
//! Goes out: progress on standard output. Guarantees: sinks reach their stores only through relays that can be cut; the
//! stack is taken down at the end, also after a failure.

mod canary;

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_harness::addresses::{Addresses, CHAOS_SINKS, Ports};
use weir_harness::faults::cloud::{Cloud, CloudSpec};
use weir_harness::faults::fleet::{Fleet, Size};
use weir_harness::faults::relay::Relay;
use weir_harness::judge::Verdict;
use weir_harness::judge::processed::Judge;
use weir_harness::oracle::{Oracle, Store};
use weir_harness::places::last_lines;
use weir_harness::programs::Admin;
use weir_harness::stack::Stack;
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use crate::lab::{Wanted, line, tidy_up_on_signals};
use crate::process::database::Database;
use crate::report::Report;
use crate::suite::{self, Lab as _, beside};

/// Readings a second: two cores that carry all servers work off a minute of them in a few seconds.
const RATE: u64 = 400;
const DEVICES: u64 = 2000;
const EDGES: u64 = 4;
const PARTITIONS: i32 = 4;
/// Kafka acknowledges everything within this time, and the processor works it off.
const QUIET: Duration = Duration::from_secs(60);
/// And the sinks store it within this time.
const STORED: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);
/// How long a page may show a batch half counted.
const BOOKS: Duration = Duration::from_secs(3);
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
/// All sinks in one process.
pub(super) const ALL: &[&str] = &["sink", "mysql", "elasticsearch", "clickhouse"];
/// The stores.
pub(super) const STORES: [Store; 3] = [Store::Mysql, Store::Elasticsearch, Store::Clickhouse];

/// The ways to the stores.
pub(super) struct Relays {
    pub(super) mysql: Relay,
    pub(super) elasticsearch: Relay,
    pub(super) clickhouse: Relay,
}

impl Relays {
    fn start(ports: Ports) -> anyhow::Result<Self> {
        Ok(Self {
            mysql: Relay::start(ports.mysql())?,
            elasticsearch: Relay::start(ports.elasticsearch())?,
            clickhouse: Relay::start(ports.clickhouse())?,
        })
    }

    /// The way to a store.
    pub(super) fn to(&self, store: Store) -> &Relay {
        match store {
            Store::Mysql => &self.mysql,
            Store::Elasticsearch => &self.elasticsearch,
            Store::Clickhouse | Store::Kafka => &self.clickhouse,
        }
    }
}

/// The servers, what feeds the sinks, and what is wanted.
pub(super) struct Lab {
    pub(super) stack: Stack,
    pub(super) admin: Admin,
    pub(super) wanted: Wanted,
    /// The known-bad switch of this run.
    bad: Option<String>,
    pub(super) relays: Relays,
    pub(super) oracle: Oracle,
    pub(super) database: Database,
    /// Present but while everything is made anew.
    fleet: Option<Fleet>,
    processor: Option<Cloud>,
    judge: Judge,
    /// From when on the next judgement compares; `None`: from the beginning.
    judged: Option<Instant>,
    generation: u32,
    slots: HashMap<String, u16>,
    started: Instant,
}

impl Lab {
    /// Brings everything up, fresh.
    pub(super) fn up(wanted: Wanted, bad: Option<String>) -> anyhow::Result<Self> {
        let started = clock::instant();
        let mut told = |words: &str| line(&format!("{:6.1} s  {words}", clock::since(started).as_secs_f64()));
        tidy_up_on_signals(|| vec![Stack::named(CHAOS_SINKS).and_then(|stack| stack.down())])?;
        let stack = Stack::up(CHAOS_SINKS, true, &mut told)?;
        let addresses = stack.addresses();
        let mut lab = Self {
            admin: Admin::new()?,
            wanted,
            bad,
            relays: Relays::start(stack.ports())?,
            oracle: Oracle::new(&addresses)?,
            database: Database::new(&addresses.mysql_url)?,
            judge: Judge::new(&addresses.kafka, "weir-process"),
            fleet: None,
            processor: None,
            judged: None,
            generation: 0,
            slots: HashMap::new(),
            started,
            stack,
        };
        lab.begin()?;
        lab.tell("warmed up");
        Ok(lab)
    }

    /// Tables, topics, rules, the processor, the fleet, the first records.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.generation += 1;
        self.slots.clear();
        self.run(&["init"])?;
        self.database.put_rules(1)?;
        let mut spec = self.spec("processor", &["process"])?;
        spec.binary = beside("weir-cloud")?;
        // Fewer transactions than usual: the broker's cores are the stores' too.
        spec.process = "cycle_ms = 100\n".to_owned();
        self.processor = Some(spec.start(&[])?);
        let size = Size { edges: EDGES, devices: DEVICES, rate: RATE, partitions: PARTITIONS };
        self.fleet = Some(Fleet::start(&self.stack.addresses().kafka, size)?);
        // The first records make indices and let servers compile what they do: no part of any row.
        let mut sinks = self.start("first", "")?;
        self.canary()?;
        sinks.stop()?;
        Ok(())
    }

    pub(super) fn fleet(&self) -> anyhow::Result<&Fleet> {
        self.fleet.as_ref().context("the fleet was stopped")
    }

    /// From now on this is MySQL.
    pub(super) fn fail_over_to(&mut self, port: u16) -> anyhow::Result<()> {
        let addresses = Addresses { mysql_url: Ports::mysql_url(port), ..self.stack.addresses() };
        self.database = Database::new(&addresses.mysql_url)?;
        self.oracle = Oracle::new(&addresses)?;
        self.relays.mysql.lead_to(port);
        Ok(())
    }

    /// How the process with this slot is called and configured.
    pub(super) fn spec(&mut self, slot: &str, command: &'static [&'static str]) -> anyhow::Result<CloudSpec> {
        let free = u16::try_from(self.slots.len())?;
        let number = *self.slots.entry(slot.to_owned()).or_insert(free);
        let folder = self.stack.data_dir().join("clouds").join(format!("{}-{slot}", self.generation));
        let addresses = self.stack.addresses();
        let http = |relay: &Relay| format!("http://127.0.0.1:{}", relay.port());
        Ok(CloudSpec {
            command,
            replication: 1,
            slot: format!("chaos-{slot}"),
            binary: beside("weir-cloud-chaos")?,
            folder,
            brokers: addresses.kafka,
            admin_port: self.stack.ports().first_free() + number,
            workers: 1,
            process: String::new(),
            sections: format!(
                "[rules]\nurl = \"{rules}\"\n[sink.mysql]\nenabled = true\nurl = \"{mysql}\"\n\
                 [sink.elasticsearch]\nenabled = true\nurl = \"{elasticsearch}\"\n\
                 [sink.clickhouse]\nenabled = true\nurl = \"{clickhouse}\"\n",
                rules = addresses.mysql_url,
                mysql = Ports::mysql_url(self.relays.mysql.port()),
                elasticsearch = http(&self.relays.elasticsearch),
                clickhouse = http(&self.relays.clickhouse),
            ),
        })
    }

    /// Starts all sinks in one process with this slot, with these failpoints.
    pub(super) fn start(&mut self, slot: &str, failpoints: &str) -> anyhow::Result<Cloud> {
        let spec = self.spec(slot, ALL)?;
        self.start_as(&spec, failpoints)
    }

    /// A command of `weir-cloud`: what it says.
    fn run(&mut self, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        let spec = self.spec("command", ALL)?;
        spec.write()?;
        let log = self.stack.log_of("weir-cloud-command");
        let mut command = Command::new(beside("weir-cloud")?);
        command.args(words).arg("--config").arg(spec.config()).stderr(fs::File::create(&log)?);
        let output = command.output().with_context(|| format!("weir-cloud {}", words.join(" ")))?;
        // 1: it ran, and found something.
        let ran = output.status.success() || !output.stdout.is_empty();
        ensure!(ran, "weir-cloud {}: {}:\n{}", words.join(" "), output.status, last_lines(&log, 10));
        Ok(output.stdout)
    }

    /// Stops the fleet, lets everything drain, compares what came since the last time, and goes on.
    pub(super) fn judge(&mut self, report: &mut Report, about: &str) -> anyhow::Result<()> {
        self.fleet()?.pause(QUIET)?;
        let left = self.judge.drained(QUIET)?;
        report.check(left.is_empty(), || {
            format!("{about}: not processed within {QUIET:?}: {}", left.join(", "))
        });
        let (begun, deadline) = (clock::instant(), Deadline::after(STORED));
        let found = loop {
            let from = self.judged.map(|time| format!("{}s", clock::since(time).as_secs() + 1));
            let mut words = vec!["verify", "--deep", "--json"];
            if let Some(from) = &from {
                words.extend(["--from", from]);
            }
            let found: Value = serde_json::from_slice(&self.run(&words)?).context("verify --json")?;
            let behind: u64 =
                found["behind"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
            if behind == 0 {
                break found;
            }
            if deadline.passed() {
                report.problem(format!("{about}: not stored within {STORED:?}: {}", found["behind"]));
                break found;
            }
            std::thread::park_timeout(BETWEEN_TRIES);
        };
        report.verdict(about, &verdict(&found));
        self.judged = Some(begun);
        let _all_are_in_kafka = self.fleet()?.take();
        self.fleet()?.resume();
        Ok(())
    }

    /// Compares everything from the beginning, and the number of rows in each store.
    pub(super) fn judge_all(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.judged = None;
        self.judge(report, "everything")?;
        self.fleet()?.pause(QUIET)?;
        let found: Value = serde_json::from_slice(&self.run(&["verify", "--json"])?)?;
        for store in STORES {
            let of = |topic: &&Value| topic["store"] == store.name() && topic["topic"] == wire::ENRICHED;
            let topics = found["topics"].as_array().context("topics")?;
            let stored =
                topics.iter().find(of).and_then(|topic| topic["stored"].as_u64()).context("stored")?;
            let rows = self.oracle.rows_of(store)?;
            report.check(rows == stored, || {
                format!("{} has {rows} readings, of which {stored} stand in the log", store.name())
            });
        }
        Ok(())
    }

    /// What the sinks counted must add up.
    /// Counters of one batch are not raised at the same moment: a page between them is looked at again.
    pub(super) fn books(&self, report: &mut Report, cloud: &Cloud) {
        let deadline = Deadline::after(BOOKS);
        loop {
            let Some(page) = cloud.metrics(&self.admin) else {
                return report.problem("the sinks do not show their metrics");
            };
            let sum = |what: &str| page.sum(&format!("weir_cloud_sink_{what}_total"), "");
            let (received, out) = (sum("received"), sum("rows") + sum("dead_letters") + sum("skipped"));
            if (received - out).abs() < 0.5 {
                return;
            }
            if deadline.passed() {
                return report.problem(format!("books: received {received}, accounted {out}"));
            }
            std::thread::park_timeout(LOOK);
        }
    }
}

impl suite::Lab for Lab {
    fn seconds(&self) -> f64 {
        clock::since(self.started).as_secs_f64()
    }

    /// All servers and their data anew.
    fn anew(&mut self) -> anyhow::Result<()> {
        (self.processor, self.fleet) = (None, None);
        self.stack = Stack::up(CHAOS_SINKS, true, &mut |_words| {})?;
        for store in STORES {
            let relay = self.relays.to(store);
            relay.slow(0);
            relay.heal();
        }
        self.fail_over_to(self.stack.ports().mysql())?;
        self.judge = Judge::new(&self.stack.addresses().kafka, "weir-process");
        self.judged = None;
        self.begin()
    }

    fn down(&mut self) -> anyhow::Result<()> {
        (self.processor, self.fleet) = (None, None);
        self.stack.down()
    }

    fn bad(&mut self) -> &mut Option<String> {
        &mut self.bad
    }

    /// What each store says is in it, compared with the log.
    fn count(&mut self, report: &mut Report) -> anyhow::Result<bool> {
        let found: Value = serde_json::from_slice(&self.run(&["verify", "--deep", "--json"])?)?;
        report.verdict("without its canary", &verdict(&found));
        Ok(true)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _down_already_or_told = self.down();
    }
}

/// What `verify` said, as a verdict over all stores.
fn verdict(found: &Value) -> Verdict {
    let topics = found["topics"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |what: &str| -> usize {
        topics.iter().filter_map(|topic| topic[what].as_u64()).sum::<u64>().try_into().unwrap_or(usize::MAX)
    };
    let [lost, doubled, altered] = ["lost", "doubled", "altered"].map(sum);
    let good = ["stored", "elsewhere", "refused", "replaced"].map(sum).iter().sum::<usize>();
    let wrong = found["wrong"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |wrong: &Value| {
        let offsets = wrong["offsets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let first: Vec<String> = offsets.iter().take(5).map(Value::to_string).collect();
        format!(
            "{} in {}: {} of {} [{}], first at {}",
            wrong["what"],
            wrong["store"],
            offsets.len(),
            wrong["topic"],
            wrong["partition"],
            first.join(", ")
        )
    };
    Verdict {
        acknowledged: good + lost + doubled + altered,
        found: good,
        lost,
        doubled,
        wrong: altered,
        problems: wrong.iter().map(told).collect(),
        ..Verdict::default()
    }
}
