//! The servers of the processor's suite, the fleet that sends without end, and the judge.
//!
//! Goes out: progress on standard output. Guarantees: the stack is taken down at the end, also after a failure.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Runtime;
use weir_harness::addresses::{BROKERS, CHAOS_CLOUD, HOST};
use weir_harness::faults::cloud::{Cloud, CloudSpec};
use weir_harness::faults::fleet::{Fleet, Size};
use weir_harness::faults::kafka_proxy::KafkaProxy;
use weir_harness::judge::processed::{Canary, Gone, History, Judge};
use weir_harness::patience::holds_within;
use weir_harness::places::last_lines;
use weir_harness::programs::Admin;
use weir_harness::stack::Stack;
use weir_shared::clock::{self, Deadline};

use super::database::{Columns, Database, rows};
use crate::controls::NO_CANARY;
use crate::lab::{Wanted, line, tidy_up_on_signals};
use crate::report::Report;
use crate::suite::{self, Lab as _, beside};

/// Readings a second.
const RATE: u64 = 2000;
/// Devices of the fleet: ten thousand have a row in the dimension table.
pub(super) const DEVICES: u64 = 11_000;
const EDGES: u64 = 4;
const PARTITIONS: i32 = 4;
/// Each processor has so many workers.
const WORKERS: u16 = 2;
/// Kafka acknowledges everything within this time after it is healed.
const QUIET: Duration = Duration::from_secs(60);
/// And the processors work it off within this time.
const DRAIN: Duration = Duration::from_secs(60);
/// The longest wait for a canary: what takes longer than it may is told, with how long it took.
const CANARY: Duration = Duration::from_secs(90);
const TOPICS_GONE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// The servers, the fleet, the judge, and what is wanted.
pub(super) struct Lab {
    pub(super) stack: Stack,
    pub(super) admin: Admin,
    pub(super) wanted: Wanted,
    /// The known-bad switch of this run.
    bad: Option<String>,
    pub(super) database: Database,
    pub(super) history: History,
    pub(super) judge: Judge,
    pub(super) brokers: String,
    /// Present but while topics are made anew.
    fleet: Option<Fleet>,
    proxy: Option<KafkaProxy>,
    runtime: Runtime,
    /// Topics were made so often: slots and group have names of their own each time.
    generation: u32,
    slots: HashMap<String, u16>,
    /// Whether the processor follows the binlog.
    pub(super) binlog: bool,
    /// How often every row of the dimension table was rewritten.
    rewrites: u64,
    /// How often the rules were changed.
    rule_changes: u64,
    started: Instant,
}

impl Lab {
    /// Brings everything up, fresh.
    pub(super) fn up(wanted: Wanted, bad: Option<String>) -> anyhow::Result<Self> {
        let started = clock::instant();
        let mut told = |words: &str| line(&format!("{:6.1} s  {words}", clock::since(started).as_secs_f64()));
        tidy_up_on_signals(|| vec![Stack::named(CHAOS_CLOUD).and_then(|stack| stack.down())])?;
        let stack = Stack::up(CHAOS_CLOUD, true, &mut told)?;
        let ports = stack.ports();
        let brokers: Vec<String> = (0..BROKERS).map(|n| format!("{HOST}:{}", ports.broker(n))).collect();
        let brokers = brokers.join(",");
        let database = Database::new(&stack.addresses().mysql_url)?;
        let mut lab = Self {
            admin: Admin::new()?,
            wanted,
            bad,
            database,
            history: History::default(),
            judge: Judge::new(&brokers, "none"),
            fleet: None,
            proxy: None,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            generation: 0,
            slots: HashMap::new(),
            binlog: false,
            rewrites: 0,
            rule_changes: 0,
            started,
            stack,
            brokers,
        };
        lab.binlog = lab.follows_the_binlog()?;
        lab.anew()?;
        Ok(lab)
    }

    /// Rewrites every row in one transaction.
    pub(super) fn rewrite(&mut self, columns: Columns) -> anyhow::Result<()> {
        self.rewrites += 1;
        self.database.rewrite(DEVICES, (self.rewrites, columns), &mut self.history)
    }

    /// New versions of all rules but the one that drops, in force as soon as the processors see them.
    pub(super) fn change_rules(&mut self) -> anyhow::Result<()> {
        self.rule_changes += 1;
        self.database.put_rules(self.rule_changes)
    }

    /// Changes the table's columns.
    pub(super) fn alter(&mut self, statement: &str, columns: Columns) -> anyhow::Result<()> {
        self.database.run(&[statement.to_owned()])?;
        self.history.put(self.database.version()?, rows(DEVICES, self.rewrites, columns));
        Ok(())
    }

    /// Makes the dimension table anew.
    pub(super) fn refill(&mut self) -> anyhow::Result<()> {
        self.history.clear();
        self.rewrites = 0;
        self.database.fill(DEVICES, &mut self.history)
    }

    /// Whether the configuration knows the mode.
    fn follows_the_binlog(&mut self) -> anyhow::Result<bool> {
        let mut spec = self.spec("asked")?;
        spec.sections.push_str("mode = \"binlog\"\n");
        spec.write()?;
        let mut command = Command::new(&spec.binary);
        Ok(command.args(["check", "--config"]).arg(spec.config()).output()?.status.success())
    }

    pub(super) fn fleet(&self) -> anyhow::Result<&Fleet> {
        self.fleet.as_ref().context("the fleet was stopped")
    }

    fn group(&self) -> String {
        format!("chaos-{}", self.generation)
    }

    /// How the processor with this slot is configured.
    pub(super) fn spec(&mut self, slot: &str) -> anyhow::Result<CloudSpec> {
        let free = u16::try_from(self.slots.len())?;
        let number = *self.slots.entry(slot.to_owned()).or_insert(free);
        let folder = self.stack.data_dir().join("clouds").join(format!("{}-{slot}", self.generation));
        Ok(CloudSpec {
            command: &["process"],
            replication: 3,
            slot: format!("{}-{slot}", self.group()),
            binary: beside("weir-cloud-chaos")?,
            folder,
            brokers: self.brokers.clone(),
            admin_port: self.stack.ports().first_free() + number,
            workers: WORKERS,
            process: format!("group = \"{}\"", self.group()),
            sections: format!(
                "[rules]\nurl = \"{url}\"\n[[dimension]]\nname = \"devices\"\nurl = \"{url}\"\n\
                 table = \"weir_devices\"\nkey = \"device\"\n",
                url = self.stack.addresses().mysql_url,
            ),
        })
    }

    /// Starts the processor with this slot, with these failpoints.
    pub(super) fn start(&mut self, slot: &str, failpoints: &str) -> anyhow::Result<Cloud> {
        let spec = self.spec(slot)?;
        self.start_as(&spec, failpoints)
    }

    /// The proxies before the brokers.
    pub(super) fn proxy(&mut self) -> anyhow::Result<&KafkaProxy> {
        if self.proxy.is_none() {
            self.proxy = Some(KafkaProxy::start(self.stack.ports())?);
        }
        self.proxy.as_ref().context("just started")
    }

    /// Sends a reading into each partition and waits until all were processed: how many seconds that took.
    pub(super) fn canary(&self) -> anyhow::Result<f64> {
        let begun = clock::instant();
        let deadline = Deadline::after(CANARY);
        let canary = loop {
            match Canary::watch(&self.brokers) {
                Ok(canary) => break canary,
                Err(error) if deadline.passed() => return Err(error),
                Err(_) => std::thread::park_timeout(LOOK),
            }
        };
        let ids = self.fleet()?.canaries()?;
        match canary.all(&ids, deadline.left()) {
            Some(_) => Ok(clock::since(begun).as_secs_f64()),
            None => bail!("{NO_CANARY} within {CANARY:?}"),
        }
    }

    /// Stops the fleet, lets the processors drain, judges, and goes on.
    pub(super) fn judge(&mut self, report: &mut Report, about: &str) -> anyhow::Result<()> {
        self.judge_and_stay(report, about, &[])?;
        self.fleet()?.resume();
        Ok(())
    }

    /// The same, but the fleet stays quiet; these ranges were deleted on purpose.
    pub(super) fn judge_and_stay(
        &mut self,
        report: &mut Report,
        about: &str,
        gone: &[Gone],
    ) -> anyhow::Result<()> {
        let Some(fleet) = &self.fleet else { bail!("the fleet was stopped") };
        fleet.pause(QUIET)?;
        let left = self.judge.drained(DRAIN)?;
        report
            .check(left.is_empty(), || format!("{about}: not drained within {DRAIN:?}: {}", left.join(", ")));
        let issued = fleet.take();
        self.database.read_rules(&mut self.history)?;
        let verdict = self.judge.judge(&issued, gone, &mut self.history)?;
        report.verdict(about, &verdict);
        Ok(())
    }

    /// What a processor counted must add up; call it when all is drained.
    pub(super) fn books(&self, report: &mut Report, cloud: &Cloud) {
        let Some(page) = cloud.metrics(&self.admin) else {
            return report.problem("a processor does not show its metrics");
        };
        let sum = |what: &str| page.sum(&format!("weir_cloud_process_{what}_total"), "");
        let parts = ["enriched", "rejected", "repeats", "controls", "filtered"];
        let (received, out) = (sum("received"), parts.iter().map(|part| sum(part)).sum::<f64>());
        report.check((received - out).abs() < 0.5, || format!("books: received {received}, accounted {out}"));
    }

    pub(super) fn admin_client(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("log_level", "0");
        config.create().context("admin client")
    }

    /// Deletes everything before these offsets.
    pub(super) fn delete_records(&self, before: &[(String, i32, i64)]) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in before {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let client = self.admin_client()?;
        let done = self.runtime.block_on(client.delete_records(&list, &AdminOptions::new()))?;
        for element in done.elements() {
            element.error().with_context(|| format!("deleting records of {}", element.topic()))?;
        }
        Ok(())
    }

    /// Deletes topics, and waits until they are gone.
    pub(super) fn delete(&self, topics: &[String]) -> anyhow::Result<()> {
        let client = self.admin_client()?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        if names.is_empty() {
            return Ok(());
        }
        for done in self.runtime.block_on(client.delete_topics(&names, &AdminOptions::new()))? {
            if let Err((topic, code)) = done {
                bail!("deleting {topic}: {code}");
            }
        }
        let gone = || Ok(!self.topics()?.iter().any(|topic| topics.contains(topic)));
        let gone = holds_within(TOPICS_GONE, LOOK, gone)?;
        ensure!(gone, "{topics:?} are not gone within {TOPICS_GONE:?}");
        Ok(())
    }

    /// Makes a topic as `init` does.
    pub(super) fn make(&self, topic: &str) -> anyhow::Result<()> {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(3));
        let client = self.admin_client()?;
        let new = new.set("message.timestamp.type", "LogAppendTime");
        for done in self.runtime.block_on(client.create_topics([&new], &AdminOptions::new()))? {
            if let Err((topic, code)) = done {
                bail!("making {topic}: {code}");
            }
        }
        Ok(())
    }

    /// Our topics that stand.
    fn topics(&self) -> anyhow::Result<Vec<String>> {
        let client = self.admin_client()?;
        let metadata = client.inner().fetch_metadata(None, Duration::from_secs(10))?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| name.starts_with("weir.")).collect())
    }

    /// `weir-cloud init` makes topics and first offsets.
    pub(super) fn init(&mut self) -> anyhow::Result<()> {
        let mut spec = self.spec("init")?;
        spec.binary = beside("weir-cloud")?;
        spec.write()?;
        let log = self.stack.log_of("weir-cloud-init");
        let out = fs::File::create(&log)?;
        let mut command = Command::new(&spec.binary);
        command.args(["init", "--config"]).arg(spec.config()).stdout(out.try_clone()?).stderr(out);
        let status = command.status().with_context(|| spec.binary.display().to_string())?;
        ensure!(status.success(), "weir-cloud init: {status}:\n{}", last_lines(&log, 10));
        Ok(())
    }
}

impl suite::Lab for Lab {
    fn seconds(&self) -> f64 {
        clock::since(self.started).as_secs_f64()
    }

    /// Makes topics and tables anew, with a group of its own and a fleet that begins.
    fn anew(&mut self) -> anyhow::Result<()> {
        self.fleet = None;
        self.refill()?;
        self.generation += 1;
        self.slots.clear();
        let old = self.topics()?;
        self.delete(&old)?;
        self.init()?;
        if self.rule_changes == 0 {
            self.change_rules()?;
        }
        self.judge = Judge::new(&self.brokers, &self.group());
        self.fleet = Some(Fleet::start(
            &self.brokers,
            Size { edges: EDGES, devices: DEVICES, rate: RATE, partitions: PARTITIONS },
        )?);
        Ok(())
    }

    fn down(&mut self) -> anyhow::Result<()> {
        self.fleet = None;
        self.stack.down()
    }

    fn bad(&mut self) -> &mut Option<String> {
        &mut self.bad
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _down_already_or_told = self.down();
    }
}
