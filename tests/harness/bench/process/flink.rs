//! Apache Flink as it is measured.
//!
//! Comes in: where the readings of a stage begin. Goes out: its SQL job runs on a cluster of its own in one process (one
//! task manager, two slots, 4 GiB heap), from those readings to a topic of its own.
//! Guarantees: exactly once (checkpoint every second, Kafka transactions, read committed); set for throughput as its
//! documentation advises: object reuse, state on the heap, parallelism as the cores, larger producer batches with lz4,
//! and a lookup cache that holds the whole dimension table and never expires, so that a reading costs one look into a
//! map. (A join with both sides in state would keep every reading.) No mini-batches: a lookup join has no state to spare.
//! Everything runs in one process, so nothing goes through a network but Kafka's and MySQL's answers.
//! On failure: an error with the end of its log.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use weir_shared::clock;

use super::rules;
use super::{Readings, Stage};
use crate::addresses::{HOST, MYSQL_DATABASE, MYSQL_PASSWORD, MYSQL_USER};
use crate::bench::arrivals::Arrivals;
use crate::bench::backlog::Begin;
use crate::install::{self, Flink};
use crate::programs::DEVICES_TABLE;
use crate::stack::Stack;

const NAME: &str = "flink";
/// Where it writes: this and the time, so that the topic is empty and no transaction of an earlier life is in the way.
const OUTPUT: &str = "flink.enriched";
const HEAP: [&str; 2] = ["-Xms4g", "-Xmx4g"];
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

const TABLES: &str = include_str!("tables.sql");
const FIRST: &str = include_str!("first.sql");
const JOIN: &str = include_str!("join.sql");
/// Every reading, without a look whether it came before; the offset stands in for the number.
const EVERY: &str = "CREATE VIEW accepted AS SELECT *, record_offset AS number FROM readings;\n\n";

/// What Flink's own start script opens for Java 17 (`env.java.opts.all` of its distribution).
const OPENED: [&str; 15] = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.text=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
];

/// Flink on a stack.
pub(super) struct Peer<'a> {
    stack: &'a Stack,
    jars: Flink,
    folder: PathBuf,
    partitions: i32,
}

/// One life of the job.
pub(super) struct Life {
    pub(super) pid: u32,
    pub(super) topic: String,
    pub(super) output: Arrivals,
}

impl<'a> Peer<'a> {
    /// Starts nothing.
    pub(super) fn new(stack: &'a Stack, jars: Flink, partitions: i32) -> anyhow::Result<Self> {
        let folder = stack.data_dir().join(NAME);
        fs::create_dir_all(&folder)?;
        Ok(Self { stack, jars, folder, partitions })
    }

    /// Creates its topic and starts the job.
    pub(super) fn start(&self, stage: Stage, readings: Readings, begin: &Begin) -> anyhow::Result<Life> {
        let topic = format!("{OUTPUT}-{}", clock::wall_ms());
        let output = Arrivals::create(&self.stack.addresses().kafka, &topic, self.partitions)?;
        let (options, job) = (self.folder.join("flink.properties"), self.folder.join("job.sql"));
        fs::write(&options, self.options())?;
        fs::write(&job, self.job(stage, readings, begin, &topic))?;
        let java = install::java_home().context("no JDK of version 17 or newer")?.join("bin/java");
        let [java, classes, options, job] = [
            java.display().to_string(),
            self.jars.classes(),
            options.display().to_string(),
            job.display().to_string(),
        ];
        let mut argv = vec![java.as_str()];
        argv.extend(HEAP);
        argv.extend(OPENED);
        argv.extend(["-cp", &classes, "FlinkJob", &options, &job]);
        let pid = self.stack.spawn(NAME, &argv, &[], false)?;
        Ok(Life { pid, topic, output })
    }

    /// Stops it.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        self.stack.stop_server(NAME)?;
        self.stack.wait_exit(NAME, STOP_TIME_MAX)?;
        Ok(())
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.stack.log_of(NAME)
    }

    fn options(&self) -> String {
        format!(
            "execution.target: local\n\
             execution.attached: true\n\
             parallelism.default: 2\n\
             taskmanager.numberOfTaskSlots: 2\n\
             rest.address: {HOST}\n\
             rest.bind-address: {HOST}\n\
             rest.bind-port: {port}\n\
             pipeline.object-reuse: true\n\
             restart-strategy.type: none\n\
             state.backend.type: hashmap\n\
             state.checkpoints.dir: file://{checkpoints}\n\
             execution.checkpointing.interval: 1 s\n\
             execution.checkpointing.mode: EXACTLY_ONCE\n\
             table.exec.state.ttl: 1 h\n",
            port = self.stack.ports().first_free() + 10,
            checkpoints = self.folder.join("checkpoints").display(),
        )
    }

    fn job(&self, stage: Stage, readings: Readings, begin: &Begin, topic: &str) -> String {
        let addresses = self.stack.addresses();
        let offsets: Vec<String> = begin
            .iter()
            .map(|(partition, offset)| format!("partition:{partition},offset:{offset}"))
            .collect();
        let jdbc =
            format!("jdbc:mysql://{HOST}:{}/{MYSQL_DATABASE}?permitMysqlScheme", self.stack.ports().mysql());
        // The connector reads all metadata that the table declares, used or not.
        let (accepted, headers) = match readings {
            Readings::First => (FIRST, "  headers MAP<STRING, BYTES> METADATA VIRTUAL,\n"),
            Readings::Every => (EVERY, ""),
        };
        let conditions = rules::in_sql(stage);
        let mut job = format!("{TABLES}{accepted}{JOIN}");
        for (name, value) in [
            ("{input}", weir_shared::wire::READINGS),
            ("{output}", topic),
            ("{brokers}", &addresses.kafka),
            ("{headers}", headers),
            ("{offsets}", &offsets.join(";")),
            ("{jdbc}", &jdbc),
            ("{user}", MYSQL_USER),
            ("{password}", MYSQL_PASSWORD),
            ("{table}", DEVICES_TABLE),
            ("{columns}", conditions.columns),
            ("{derived}", conditions.derived),
            ("{kept}", conditions.kept),
        ] {
            job = job.replace(name, value);
        }
        job
    }
}
