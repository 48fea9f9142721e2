//! Every output topic in every store, once: records of all five are put into Kafka, the cloud is killed in mid-stream.
//!
//! What every store must hold is made together with the records and compared row by row: nothing lost, doubled or
//! altered; of a window result the highest revision (and in ClickHouse all of them); a reading that names its stores
//! only there; what no store can hold as a dead letter of each sink. And the sinks' books balance.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use weir_harness::oracle::{Oracle, Store};
use weir_harness::patience::holds_within;
use weir_harness::programs::{Program, Programs, Samples};
use weir_harness::stream::new_run_name;
use weir_shared::wire;

use crate::alone;
use crate::first_light::first_light;
use crate::mid_stream::MidStream;
use crate::outputs::records::{Records, Table};

pub(crate) mod records;
mod search;
pub(crate) mod stores;

/// Records that become visible together, and how often.
const TRANSACTION_RECORDS: usize = 200;
const TRANSACTION_EVERY: Duration = Duration::from_millis(100);
/// Readings in MySQL at which the cloud is killed.
const KILL_AT: usize = 300;
const KAFKA: Duration = Duration::from_secs(10);
/// How long the stores may take after the last record.
const STORED: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a store holds, by table: its rows in words, sorted.
pub(crate) type Rows = BTreeMap<Table, Vec<String>>;

#[test]
fn every_topic_is_in_every_store_once_although_the_cloud_was_killed() {
    let run = first_light();
    let _alone = alone();
    let oracle = Oracle::new(&run.stack.addresses()).unwrap();
    let programs = Programs::new(&run.stack).unwrap();
    let records = Records::new(&new_run_name());
    programs.start(Program::Cloud).unwrap();
    programs.wait_ready(Program::Cloud).unwrap();
    let stream = MidStream::new(TRANSACTION_EVERY);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&run.stack.addresses().kafka, &records.all, &stream));
        let found = || stores::rows(&oracle, Store::Mysql, &records.run).unwrap()[&Table::Readings].len();
        stream.kill_when(|| found() >= KILL_AT, || programs.kill(Program::Cloud).unwrap());
        sender.join().unwrap();
    });

    let wanted = Store::ALL[1..].iter().map(|store| (*store, records.wanted(*store))).collect::<Vec<_>>();
    // What is missing is said below.
    let _all = holds_within(STORED, LOOK_EVERY, || Ok(rows(&oracle, &records) == wanted)).unwrap();
    let balance = programs.metrics(Program::Cloud);
    assert_eq!(programs.stop_one(Program::Cloud).unwrap(), Some(0));
    for ((store, found), (_, wanted)) in rows(&oracle, &records).into_iter().zip(wanted) {
        for (table, wanted) in wanted {
            compare(&format!("{table:?} in {}", store.name()), &found[&table], &wanted);
        }
    }
    books_balance(&balance.unwrap());
}

fn rows(oracle: &Oracle, records: &Records) -> Vec<(Store, Rows)> {
    let read = |store: &Store| (*store, stores::rows(oracle, *store, &records.run).unwrap());
    Store::ALL[1..].iter().map(read).collect()
}

/// Says which rows are missing or too many, and not all of both.
pub(crate) fn compare(what: &str, found: &[String], wanted: &[String]) {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    found.iter().for_each(|row| *counts.entry(row).or_default() += 1);
    wanted.iter().for_each(|row| *counts.entry(row).or_default() -= 1);
    let wrong: Vec<_> = counts.iter().filter(|(_, n)| **n != 0).take(5).collect();
    assert!(
        wrong.is_empty(),
        "{what}: {} rows, wanted {}; too many or missing: {wrong:?}",
        found.len(),
        wanted.len()
    );
}

/// Every record that a sink took became a row, a dead letter, or was for other stores.
fn books_balance(cloud: &Samples) {
    for sink in ["mysql", "elasticsearch", "clickhouse"] {
        for topic in [wire::ENRICHED, wire::REJECTED, wire::AGGREGATES, wire::LOSSES, wire::ALERTS] {
            let count = |name: &str| {
                let name = format!("weir_cloud_sink_{name}_total");
                let of_sink = cloud.named(&name).filter(|s| s.labels.contains(&format!("sink=\"{sink}\"")));
                let of_topic = of_sink.filter(|s| s.labels.contains(&format!("topic=\"{topic}\"")));
                of_topic.map(|s| s.value).sum::<f64>().round() as u64
            };
            let [received, rows, letters, skipped] =
                ["received", "rows", "dead_letters", "skipped"].map(count);
            assert!(received > 0, "{sink} {topic}");
            assert_eq!(received, rows + letters + skipped, "{sink} {topic}: rows, dead letters, skipped");
            assert_eq!(skipped > 0, topic == wire::ENRICHED, "{sink} {topic}: skipped {skipped}");
            assert_eq!(letters > 0, topic == wire::AGGREGATES, "{sink} {topic}: dead letters {letters}");
        }
    }
}

/// Puts the records into Kafka in transactions, at an even pace.
pub(crate) fn send(brokers: &str, records: &[records::Record], stream: &MidStream) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", "weir-e2e-outputs")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    producer.init_transactions(KAFKA).unwrap();
    stream.send(records, TRANSACTION_RECORDS, |transaction| {
        producer.begin_transaction().unwrap();
        for record in transaction {
            let sent = producer.send(BaseRecord::to(record.topic).key(&record.key).payload(&record.json));
            sent.map_err(|(error, _)| error).unwrap();
        }
        producer.commit_transaction(KAFKA).unwrap();
    });
}
