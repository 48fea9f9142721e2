//! ClickHouse 18.16, a server that knows neither deduplication tokens nor windows nor half of our column types: the sink is
//! killed again and again while it writes, and every row must be there once, unchanged.
//!
//! Its own stack: Kafka and that server. All five topics, some records for other stores only, some that no row can be made
//! of. Judged by `weir-cloud verify --deep` and row by row; that taking over ends what still runs is shown here, as the
//! engine of the other tests runs one query at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::{Value, json};
use weir_harness::addresses::OLD_CLICKHOUSE;
use weir_harness::faults::cloud::{Cloud, CloudSpec};
use weir_harness::oracle::{Oracle, Store};
use weir_harness::patience::holds_within;
use weir_harness::programs::{Admin, Program, Programs};
use weir_harness::stack::Stack;
use weir_harness::stream::new_run_name;
use weir_shared::clock::Deadline;
use weir_shared::wire;

use crate::mid_stream::MidStream;
use crate::outputs::records::{Records, Table};
use crate::outputs::{compare, send, stores};

mod running;
mod wire_form;

const TOPICS: [&str; 5] = [wire::ENRICHED, wire::REJECTED, wire::AGGREGATES, wire::LOSSES, wire::ALERTS];
const PARTITIONS: i32 = 4;
/// Runs of records that are in Kafka before the sink begins, so that it writes without a pause.
const RUNS: usize = 4;
/// Kills that must come in the middle of a batch, among how many.
const KILLS_IN_A_BATCH: u32 = 5;
const KILLS_MAX: u32 = 30;
const READY: Duration = Duration::from_secs(30);
const STORED: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

#[test]
fn an_old_server_has_every_row_once_although_its_sink_was_killed() {
    let scene = Scene::up().unwrap();
    let runs: Vec<Records> = (0..RUNS).map(|_| Records::new(&new_run_name())).collect();
    for records in &runs {
        send(&scene.brokers(), &records.all, &MidStream::undisturbed(Duration::ZERO));
    }
    wire_form::send(&scene).unwrap();

    scene.kill_in_batches().unwrap();
    let mut cloud = scene.take_over_waits_for_what_runs().unwrap();
    let found = scene.verified().unwrap();
    assert!(cloud.says("no deduplication tokens"), "{}", cloud.last_words());
    assert_eq!(cloud.stop().unwrap().code, Some(0));

    assert_eq!((&found["ok"], &found["deep"]), (&json!(true), &json!(true)), "{found}");
    for topic in found["topics"].as_array().unwrap() {
        let counts =
            ["stored", "elsewhere", "refused", "lost", "doubled", "altered"].map(|what| &topic[what]);
        assert_eq!(counts, wanted(topic["topic"].as_str().unwrap(), &runs).each_ref(), "{topic}");
    }
    for records in &runs {
        let mut rows = stores::clickhouse(&scene.oracle, &records.run, "").unwrap();
        rows.values_mut().for_each(|rows| rows.sort());
        for (table, mut wanted) in records.wanted(Store::Clickhouse) {
            // No other sink runs.
            wanted.retain(|row| table != Table::Letters || row.starts_with("sink.clickhouse"));
            compare(&format!("{table:?}"), &rows[&table], &wanted);
        }
    }
    wire_form::is_read_back(&scene.oracle).unwrap();
}

/// What `verify` must count: stored, elsewhere, refused, lost, doubled, altered.
fn wanted(topic: &str, runs: &[Records]) -> [Value; 6] {
    let rows = |table| {
        let of_run = |records: &Records| records.wanted(Store::Clickhouse)[&table].len() as u64;
        runs.iter().map(of_run).sum::<u64>()
    };
    let sent = |topic| runs.iter().flat_map(|r| &r.all).filter(|r| r.topic == topic).count() as u64;
    let letters = rows(Table::Letters) / 3; // those of one sink
    let (stored, elsewhere, refused) = match topic {
        wire::ENRICHED => (rows(Table::Readings), sent(topic) - rows(Table::Readings), 0),
        wire::REJECTED => (rows(Table::Rejected) + letters, 0, 0),
        wire::AGGREGATES => (rows(Table::Revisions), 0, letters),
        wire::LOSSES => (rows(Table::Losses), 0, 0),
        _ => (rows(Table::Alerts), 0, 0),
    };
    let more = wire_form::RECORDS.iter().filter(|(of, _)| *of == topic).count() as u64;
    [stored + more, elsewhere, refused, 0, 0, 0].map(Value::from)
}

/// The servers, and the sink as it is started again and again.
struct Scene {
    stack: Stack,
    oracle: Oracle,
    spec: CloudSpec,
    admin: Admin,
}

impl Scene {
    fn up() -> anyhow::Result<Self> {
        let stack = Stack::up(OLD_CLICKHOUSE, true, &mut |line| eprintln!("{line}"))?;
        let addresses = stack.addresses();
        let binary = PathBuf::from(Programs::new(&stack)?.command(Program::Cloud, &[]).get_program());
        let spec = CloudSpec {
            command: &["sink", "clickhouse"],
            slot: "old".to_owned(),
            binary,
            folder: stack.data_dir().join("cloud"),
            brokers: addresses.kafka.clone(),
            replication: 1,
            admin_port: stack.ports().cloud_admin(),
            workers: 1,
            process: String::new(),
            sections: format!(
                "[sink.clickhouse]\nenabled = true\nurl = \"{}\"\nrows_max = 300\nwait_ms = 20\n",
                addresses.clickhouse_url
            ),
        };
        spec.write()?;
        let scene = Self { oracle: Oracle::new(&addresses)?, admin: Admin::new()?, stack, spec };
        scene.run(&["init", "--dry-run"])?;
        scene.run(&["init"])?;
        scene.run(&["init"])?; // it may be run again at any time
        let told = scene.run(&["check", "--connect"])?;
        ensure!(told.contains("version 18.16") && told.contains("there, and fit"), "{told}");
        Ok(scene)
    }

    fn brokers(&self) -> String {
        self.stack.addresses().kafka
    }

    /// A command of `weir-cloud`, which must succeed: what it says.
    fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let done =
            Command::new(&self.spec.binary).args(words).arg("--config").arg(self.spec.config()).output()?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(done.status.success(), "{words:?}: {said}{}", String::from_utf8_lossy(&done.stderr));
        Ok(said)
    }

    /// Starts the sink; it is ready when it has taken over what was left open.
    fn start(&self) -> anyhow::Result<Cloud> {
        self.spec.start(&[])
    }

    fn wait_ready(&self, cloud: &Cloud) -> anyhow::Result<()> {
        let is_ready = holds_within(READY, LOOK, || Ok(cloud.is_ready(&self.admin)))?;
        ensure!(is_ready, "not ready within {READY:?}; {}", cloud.last_words());
        Ok(())
    }

    /// kill -9 at different times, until enough of them came between a plan and its end. The last one did.
    fn kill_in_batches(&self) -> anyhow::Result<()> {
        let mut hits = 0;
        for n in 0..KILLS_MAX {
            let mut cloud = self.start()?;
            self.wait_ready(&cloud)?;
            std::thread::park_timeout(Duration::from_millis(u64::from(50 + n * 37 % 150)));
            cloud.kill()?;
            hits += u32::from(!self.open_plans()?.is_empty());
            if hits == KILLS_IN_A_BATCH {
                eprintln!("{} kills, {hits} of them in a batch", n + 1);
                return Ok(());
            }
        }
        anyhow::bail!("of {KILLS_MAX} kills only {hits} came in a batch")
    }

    /// What the ids of the queries of each open plan begin with.
    fn open_plans(&self) -> anyhow::Result<Vec<String>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.brokers())
            .set("group.id", "weir-sink-clickhouse")
            .create()?;
        let mut all = TopicPartitionList::new();
        TOPICS.iter().for_each(|topic| all.add_partition_range(topic, 0, PARTITIONS - 1));
        let committed = consumer.committed_offsets(all, ASK)?;
        let mut open = Vec::new();
        for element in committed.elements().iter().filter(|e| !e.metadata().is_empty()) {
            let start = element.offset().to_raw().context("an offset")?;
            let end = element.metadata().split(' ').nth(1).context("the end of a plan")?;
            open.push(format!("weir|default|{}|{}|{start}|{end}|", element.topic(), element.partition()));
        }
        Ok(open)
    }

    /// What `verify --deep` finds, once the sink has stored everything.
    fn verified(&self) -> anyhow::Result<Value> {
        let deadline = Deadline::after(STORED);
        loop {
            let words = ["verify", "--deep", "--store", "clickhouse", "--json"];
            let found: Value = serde_json::from_str(&self.run(&words)?)?;
            let behind: BTreeMap<String, u64> = serde_json::from_value(found["behind"].clone())?;
            if behind.values().all(|n| *n == 0) {
                return Ok(found);
            }
            ensure!(!deadline.passed(), "not stored within {STORED:?}: {behind:?}");
            std::thread::park_timeout(LOOK * 10);
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _down_already = self.stack.down();
    }
}
