//! Apache Flink's jobs into MySQL and Elasticsearch, from the records of `weir.enriched` that Weir's sinks took.
//!
//! Comes in: where those records begin. Goes out: they stand in a table and in an index of the peer's own, made anew
//! each time: `weir_readings` with the identity as its primary key, and what an index of readings would be by its template.
//! Guarantees: read committed, checkpoint every second; exactly once as these connectors can: both send again after a
//! failure, onto the row of the same primary key and the document of the same id. Set for throughput as their
//! documentation advises: 5,000 rows or actions, 8 MB, at most 1 s, `rewriteBatchedStatements`; the rest is [`Cluster`]'s.
//! [`Peer::check`] compares what stands in the stores with Weir's own rows.
//!
//! What SQL cannot say, and the nearest to it: the identity's stream is its 32 hex digits, where Weir's column has 16
//! bytes, and there is no number of the row beside the identity; times go to MySQL as texts; the columns of a primary key
//! are at the top of a document, not in `weir` (and mapped there); the shape of `values`, `tags` and `dims` is fixed for
//! Elasticsearch, while for MySQL they pass as text; `weir.stores` is not looked at; no row can be refused alone. The
//! connector for Elasticsearch writes a document with an own id as an update with upsert; a job in Java could index it.
//! On failure: an error; the process's log says why.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weir_shared::wire;

use crate::addresses::{MYSQL_PASSWORD, MYSQL_USER};
use crate::bench::backlog::Begin;
use crate::bench::flink::{Cluster, filled, offsets};
use crate::oracle::{Oracle, Store};

const MYSQL: &str = include_str!("flink/mysql.sql");
const ELASTICSEARCH: &str = include_str!("flink/elasticsearch.sql");
const OPTIONS: [&str; 1] = ["table.local-time-zone: UTC"];
const DRIVER: &str = "com.mysql.cj.jdbc.Driver";
const PARAMETERS: &str = "rewriteBatchedStatements=true";

/// Its table and its index.
const TABLE: &str = "flink_readings";
const INDEX: &str = "flink-readings";
/// The columns of a primary key are members of the document.
const IDENTITY: [&str; 3] = ["stream", "partition", "number"];

/// Flink and its jobs.
pub(super) struct Peer<'a> {
    pub(super) cluster: Cluster<'a>,
    pub(super) oracle: &'a Oracle,
}

impl Peer<'_> {
    /// Makes the table or index anew and starts the job; gives the process.
    pub(super) fn start(&self, store: Store, begin: &Begin) -> anyhow::Result<u32> {
        self.remove(store)?;
        let job = if store == Store::Mysql {
            self.make_table()?;
            MYSQL
        } else {
            self.make_index()?;
            ELASTICSEARCH
        };
        let addresses = self.cluster.stack().addresses();
        let job = filled(
            job,
            &[
                ("input", wire::ENRICHED),
                ("brokers", &addresses.kafka),
                ("offsets", &offsets(begin)),
                ("jdbc", &self.cluster.jdbc(PARAMETERS)),
                ("driver", DRIVER),
                ("user", MYSQL_USER),
                ("password", MYSQL_PASSWORD),
                ("table", TABLE),
                ("hosts", &addresses.elasticsearch_url),
                ("index", INDEX),
            ],
        );
        self.cluster.start(&job, &OPTIONS)
    }

    /// As [`Oracle::written`].
    pub(super) fn written(&self, store: Store) -> anyhow::Result<u64> {
        if store == Store::Mysql { self.oracle.written(store) } else { self.oracle.indexed(INDEX) }
    }

    /// How many it has.
    pub(super) fn rows(&self, store: Store) -> anyhow::Result<u64> {
        if store == Store::Mysql {
            return Ok(self.in_mysql(&format!("SELECT COUNT(*) FROM {TABLE}"))?.parse()?);
        }
        self.oracle.get_from_elasticsearch(&format!("{INDEX}/_refresh"))?;
        let count = self.oracle.get_from_elasticsearch(&format!("{INDEX}/_count"))?;
        count["count"].as_u64().with_context(|| format!("_count of {INDEX}: {count}"))
    }

    /// Compares what it stored with Weir's rows of the same stream: numbers, devices, times, and one of the values.
    pub(super) fn check(&self, store: Store) -> anyhow::Result<()> {
        let [flink, weir] = match store {
            Store::Mysql => self.sums_in_mysql()?,
            _ => self.sums_in_elasticsearch()?,
        };
        ensure!(flink == weir, "{}: Flink's rows come to {flink}, Weir's to {weir}", store.name());
        Ok(())
    }

    /// Removes the table or index, if it is there.
    pub(super) fn remove(&self, store: Store) -> anyhow::Result<()> {
        if store == Store::Mysql {
            return self.oracle.in_mysql(&format!("DROP TABLE IF EXISTS {TABLE}")).map(drop);
        }
        self.oracle.remove_in_elasticsearch(INDEX)
    }

    fn make_table(&self) -> anyhow::Result<()> {
        self.oracle.in_mysql(&format!("CREATE TABLE {TABLE} LIKE weir_readings"))?;
        self.oracle.in_mysql(&format!(
            "ALTER TABLE {TABLE} DROP COLUMN id, MODIFY stream CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
             DROP PRIMARY KEY, ADD PRIMARY KEY (stream, stream_partition, number)"
        ))?;
        Ok(())
    }

    /// As the template of Weir's indices of readings would make it.
    fn make_index(&self) -> anyhow::Result<()> {
        let mut found = self.oracle.get_from_elasticsearch("_index_template/weir-readings")?;
        let mut index = found["index_templates"][0]["index_template"]["template"].take();
        let mappings = &mut index["mappings"]["properties"];
        for name in IDENTITY {
            let mapping = mappings["weir"]["properties"][name].take();
            ensure!(mapping.is_object(), "weir.{name} is not mapped in {mappings}");
            mappings[name] = mapping;
        }
        let weir = mappings["weir"]["properties"].as_object_mut().context("weir is not mapped")?;
        weir.retain(|_, mapping| !mapping.is_null());
        self.oracle.put_in_elasticsearch(
            INDEX,
            &json!({"settings": index["settings"], "mappings": index["mappings"]}),
        )
    }

    fn in_mysql(&self, select: &str) -> anyhow::Result<String> {
        let mut rows = self.oracle.rows_in_mysql(select)?;
        rows.pop().with_context(|| format!("no row: {select}"))
    }

    fn sums_in_mysql(&self) -> anyhow::Result<[String; 2]> {
        let sums = "SELECT CONCAT_WS(' ', COUNT(*), SUM(number), SUM(CRC32(device)), MIN(`time`), MAX(received), \
                    SUM(JSON_VALUE(`values`, '$.rpm')), SUM(JSON_LENGTH(dims)), SUM(joined))";
        let stream = self.in_mysql(&format!("SELECT MAX(stream) FROM {TABLE}"))?;
        Ok([
            self.in_mysql(&format!("{sums} FROM {TABLE}"))?,
            self.in_mysql(&format!("{sums} FROM weir_readings WHERE stream = UNHEX('{stream}')"))?,
        ])
    }

    fn sums_in_elasticsearch(&self) -> anyhow::Result<[String; 2]> {
        let of = |index: &str, number: &str, stream: &str, only: Value| {
            let sums = json!({
                "documents": {"value_count": {"field": "device"}}, "numbers": {"sum": {"field": number}},
                "from": {"min": {"field": "time"}}, "to": {"max": {"field": "received"}},
                "rpm": {"sum": {"field": "values.rpm"}}, "devices": {"cardinality": {"field": "device"}},
                "stream": {"terms": {"field": stream}},
            });
            let query = json!({"size": 0, "track_total_hits": true, "query": only, "aggs": sums});
            let answer = self.oracle.in_elasticsearch(&format!("{index}/_search"), &query)?;
            ensure!(answer["aggregations"].is_object(), "_search of {index}: {answer}");
            anyhow::Ok(answer["aggregations"].clone())
        };
        let flink = of(INDEX, "number", "stream", json!({"match_all": {}}))?;
        let stream = &flink["stream"]["buckets"][0]["key"];
        let weir =
            of("weir-readings-*", "weir.number", "weir.stream", json!({"term": {"weir.stream": stream}}))?;
        Ok([flink.to_string(), weir.to_string()])
    }
}
