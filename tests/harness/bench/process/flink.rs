//! Apache Flink's job of a stage.
//!
//! Comes in: where the readings of a stage begin. Goes out: the job runs in SQL, from those readings to a topic of its own.
//! Guarantees: exactly once (Kafka transactions, read committed); beside what [`Cluster`] sets for throughput: larger
//! producer batches with lz4, and a lookup cache that holds the whole dimension table and never expires, so that a
//! reading costs one look into a map. (A join with both sides in state would keep every reading.) No mini-batches: a
//! lookup join has no state to spare.
//! On failure: an error with the end of its log.

use weir_shared::clock;

use super::rules;
use super::{Readings, Stage};
use crate::addresses::{MYSQL_PASSWORD, MYSQL_USER};
use crate::bench::arrivals::Arrivals;
use crate::bench::backlog::Begin;
use crate::bench::flink::{Cluster, filled, offsets};
use crate::programs::DEVICES_TABLE;

/// Where it writes: this and the time, so that the topic is empty and no transaction of an earlier life is in the way.
const OUTPUT: &str = "flink.enriched";
/// Numbers that were seen are forgotten after this long.
const OPTIONS: [&str; 1] = ["table.exec.state.ttl: 1 h"];

const TABLES: &str = include_str!("tables.sql");
const FIRST: &str = include_str!("first.sql");
const JOIN: &str = include_str!("join.sql");
/// Every reading, without a look whether it came before; the offset stands in for the number.
const EVERY: &str = "CREATE VIEW accepted AS SELECT *, record_offset AS number FROM readings;\n\n";

/// Flink and its jobs.
pub(super) struct Peer<'a> {
    pub(super) cluster: Cluster<'a>,
    /// Of the topics that it writes.
    pub(super) partitions: i32,
}

/// One life of the job.
pub(super) struct Life {
    pub(super) pid: u32,
    pub(super) topic: String,
    pub(super) output: Arrivals,
}

impl Peer<'_> {
    /// Creates its topic and starts the job.
    pub(super) fn start(&self, stage: Stage, readings: Readings, begin: &Begin) -> anyhow::Result<Life> {
        let topic = format!("{OUTPUT}-{}", clock::wall_ms());
        let brokers = self.cluster.stack().addresses().kafka;
        let output = Arrivals::create(&brokers, &topic, self.partitions)?;
        let pid = self.cluster.start(&self.job(stage, readings, begin, &topic), &OPTIONS)?;
        Ok(Life { pid, topic, output })
    }

    fn job(&self, stage: Stage, readings: Readings, begin: &Begin, topic: &str) -> String {
        // The connector reads all metadata that the table declares, used or not.
        let (accepted, headers) = match readings {
            Readings::First => (FIRST, "  headers MAP<STRING, BYTES> METADATA VIRTUAL,\n"),
            Readings::Every => (EVERY, ""),
        };
        let conditions = rules::in_sql(stage);
        filled(
            &format!("{TABLES}{accepted}{JOIN}"),
            &[
                ("input", weir_shared::wire::READINGS),
                ("output", topic),
                ("brokers", &self.cluster.stack().addresses().kafka),
                ("headers", headers),
                ("offsets", &offsets(begin)),
                ("jdbc", &self.cluster.jdbc("permitMysqlScheme")),
                ("user", MYSQL_USER),
                ("password", MYSQL_PASSWORD),
                ("table", DEVICES_TABLE),
                ("columns", conditions.columns),
                ("derived", conditions.derived),
                ("kept", conditions.kept),
            ],
        )
    }
}
