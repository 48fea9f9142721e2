//! Dead letters listed, shown, and sent through again: each once, whatever is killed in the middle.
//!
//! The readings come straight into Kafka, under an edge of their own, so that nothing of the shared run is touched.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use weir_harness::oracle::{Oracle, Store};
use weir_harness::patience::holds_within;
use weir_harness::programs::{Program, Programs};
use weir_harness::stack::Stack;
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use crate::alone;
use crate::first_light::first_light;

/// More than a retry sends in one transaction, several times over.
const POISON: u64 = 3_000;
const KILLS: u32 = 4;
const EDGE: &str = "gw-dlq";
const BLOCKED: &str = "dlq-blocked";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Selects the poisoned readings.
const POISONED: [&str; 6] = ["--stage", "process", "--reason", "reserved_field", "--edge", EDGE];

/// A record as it stands in a topic.
struct Record {
    position: String,
    retried: bool,
    headers: BTreeMap<String, Vec<u8>>,
    value: Vec<u8>,
}

struct Scene<'a> {
    stack: &'a Stack,
    programs: Programs<'a>,
    oracle: Oracle,
}

#[test]
fn dead_letters_go_through_again_exactly_once() {
    let run = first_light();
    let _alone = alone();
    let programs = Programs::new(&run.stack).unwrap();
    let scene = Scene { stack: &run.stack, programs, oracle: Oracle::new(&run.stack.addresses()).unwrap() };
    scene.start().unwrap();
    let position = scene.a_store_takes_what_it_refused().unwrap();
    scene.refused_by_the_processor_and_retried_under_kills().unwrap();
    scene.is_already(&position).unwrap();
    assert_eq!(scene.programs.stop_one(Program::Cloud).unwrap(), Some(0));
}

impl Scene<'_> {
    fn start(&self) -> anyhow::Result<()> {
        self.programs.start(Program::Cloud)?;
        self.programs.wait_ready(Program::Cloud)
    }

    /// What MySQL refuses because of a constraint becomes a dead letter, and a row when that is gone.
    fn a_store_takes_what_it_refused(&self) -> anyhow::Result<String> {
        let stream = stream_id(1);
        let forbid = "ALTER TABLE weir_readings ADD CONSTRAINT no_dlq CHECK";
        self.oracle.in_mysql(&format!("{forbid} (device <> '{BLOCKED}')"))?;
        self.produce(&stream, 1, |_| {
            let device = BLOCKED;
            (
                device.to_owned(),
                format!(r#"{{"device":"{device}","time":{},"values":{{"t":1.50}}}}"#, clock::wall_ms()),
            )
        })?;
        let letters = self.wait_letters(&stream, 1)?;
        let (position, letter) = &letters[0];
        ensure!(
            (&letter["stage"], &letter["reason"]) == (&"sink.mysql".into(), &"row_refused".into()),
            "{letter}"
        );
        ensure!(self.rows_in_mysql()? == 0);
        // Not before its cause is gone: it is refused again, and that is another dead letter.
        self.ok(&["retry", position])?;
        let letters = self.wait_letters(&stream, 2)?;
        self.oracle.in_mysql("ALTER TABLE weir_readings DROP CONSTRAINT no_dlq")?;
        let position = &letters.iter().find(|(other, _)| other != position).context("a second letter")?.0;
        let told = self.ok(&["retry", position])?;
        ensure!(told.contains("1 sent again"), "{told}");
        let came = holds_within(PATIENCE, LOOK_EVERY, || Ok(self.rows_in_mysql()? > 0))?;
        ensure!(came, "the row did not come to MySQL");
        self.is_already(position)?;
        let enriched = self.read(wire::ENRICHED)?;
        let text = |record: &Record| String::from_utf8_lossy(&record.value).into_owned();
        let of_stream = enriched.iter().map(text).filter(|text| text.contains(&stream));
        let (again, first): (Vec<_>, Vec<_>) = of_stream.partition(|text| text.contains("\"stores\""));
        ensure!((first.len(), again.len()) == (1, 2), "{first:?} {again:?}");
        for text in again {
            ensure!(text.replace(",\"stores\":[\"mysql\"]", "") == first[0], "{text}\n{}", first[0]);
        }
        ensure!(self.rows_in_mysql()? == 1);
        self.other_stores_leave_it_out()?;
        Ok(position.clone())
    }

    /// One more reading of the device, behind the retries in its partition: who has it has passed them.
    fn other_stores_leave_it_out(&self) -> anyhow::Result<()> {
        let time = clock::wall_ms();
        let last = format!(r#"{{"device":"{BLOCKED}","time":{time},"values":{{"t":2}}}}"#);
        self.produce(&stream_id(3), 1, |_| (BLOCKED.to_owned(), last.clone()))?;
        let mut found = [0; 3];
        // The refused one and the last one; a third would have come between them.
        let there = holds_within(PATIENCE, LOOK_EVERY, || {
            let (mysql, [clickhouse, elasticsearch]) = (self.rows_in_mysql()?, self.rows_elsewhere()?);
            found = [mysql, clickhouse, elasticsearch];
            ensure!(
                found.iter().all(|rows| *rows <= 2),
                "doubled: {found:?} in MySQL, ClickHouse, Elasticsearch"
            );
            Ok(found == [2; 3])
        })?;
        ensure!(there, "not there: {found:?} in MySQL, ClickHouse, Elasticsearch");
        Ok(())
    }

    /// Readings of the device in ClickHouse and in Elasticsearch.
    fn rows_elsewhere(&self) -> anyhow::Result<[u64; 2]> {
        let select = format!("SELECT count() FROM weir_readings WHERE device = '{BLOCKED}'");
        let clickhouse = self.oracle.in_clickhouse(&select)?.trim().parse()?;
        self.oracle.rows_of(Store::Elasticsearch)?; // refreshes
        let query = json!({"track_total_hits": true, "query": {"term": {"device": BLOCKED}}});
        let answer = self.oracle.in_elasticsearch("weir-readings-*/_search", &query)?;
        let elasticsearch = answer["hits"]["total"]["value"].as_u64().context("hits")?;
        Ok([clickhouse, elasticsearch])
    }

    fn rows_in_mysql(&self) -> anyhow::Result<u64> {
        let select = format!("SELECT device FROM weir_readings WHERE device = '{BLOCKED}'");
        Ok(self.oracle.rows_in_mysql(&select)?.len() as u64)
    }

    /// The processor refuses them for ever, so each retry of a letter makes exactly one more.
    fn refused_by_the_processor_and_retried_under_kills(&self) -> anyhow::Result<()> {
        let stream = stream_id(2);
        let value = |n| format!(r#"{{"device":"dlq-{n}","time":5,"values":{{}},"weir":1}}"#);
        self.produce(&stream, POISON, |n| (format!("dlq-{n}"), value(n)))?;
        let letters = self.wait_letters(&stream, POISON)?;
        self.listed_and_shown(&letters[0], &value)?;
        // Without the processor, whose new letters would be found by the same words.
        ensure!(self.programs.stop_one(Program::Cloud)? == Some(0));
        let all = [&["retry"], &POISONED[..]].concat();
        let dry = self.ok(&[&all[..], &["--dry-run"]].concat())?;
        ensure!(dry.contains(&format!("{POISON} to be sent again, 0 were already")), "{dry}");
        let vague = self.dlq(&["retry", "--stage", "process"]).output()?;
        ensure!(vague.status.code() == Some(64) && text(&vague.stderr).contains("--reason"), "{vague:?}");
        let unsure = self.dlq(&all).output()?;
        ensure!(unsure.status.code() == Some(1) && text(&unsure.stderr).contains("--yes"), "{unsure:?}");
        let yes = [&all[..], &["--yes"]].concat();
        let mut killed = 0;
        for _ in 0..KILLS {
            killed += u32::from(self.kill_while_it_sends(&yes)?);
        }
        ensure!(killed >= 2, "killed {killed} times only");
        let twins = [self.dlq(&yes).spawn()?, self.dlq(&yes).spawn()?];
        for twin in twins {
            eprintln!("one of two at the same time: {:?}", twin.wait_with_output()?.status);
        }
        let last = self.ok(&yes)?;
        let again = self.ok(&yes)?;
        eprintln!("killed {killed} times; then: {last}");
        ensure!(again.contains(&format!("0 sent again, {POISON} were already, 0 cannot")), "{again}");
        let mut sent = BTreeMap::<u64, u64>::new();
        for record in self.read(wire::READINGS)? {
            if record.retried && record.headers.get(wire::STREAM).is_some_and(|s| *s == stream.as_bytes()) {
                let number = text(&record.headers[wire::NUMBER]).parse()?;
                ensure!(record.value == value(number).as_bytes(), "{number} was altered");
                *sent.entry(number).or_default() += 1;
            }
        }
        ensure!(
            sent.len() as u64 == POISON && sent.values().all(|n| *n == 1),
            "not each exactly once: {sent:?}"
        );
        self.start()?;
        let letters = self.wait_letters(&stream, POISON * 2)?;
        let mut of_each = BTreeMap::<u64, u64>::new();
        for (_, letter) in &letters {
            *of_each.entry(letter["weir"]["number"].as_u64().context("number")?).or_default() += 1;
        }
        ensure!(of_each.len() as u64 == POISON && of_each.values().all(|n| *n == 2), "{of_each:?}");
        self.books()
    }

    fn listed_and_shown(
        &self,
        (position, letter): &(String, Value),
        value: &impl Fn(u64) -> String,
    ) -> anyhow::Result<()> {
        let number = letter["weir"]["number"].as_u64().context("number")?;
        let listed: Value =
            serde_json::from_str(&self.ok(&["ls", "--since", "1h", "--edge", EDGE, "--json"])?)?;
        let groups = listed["groups"].as_array().context("groups")?;
        let poisoned = groups.iter().find(|g| g["reason"] == "reserved_field").context("the group")?;
        ensure!(
            (&poisoned["count"], &poisoned["stage"]) == (&POISON.into(), &"process".into()),
            "{poisoned}"
        );
        ensure!(listed["newest"].as_array().map(Vec::len) == Some(20), "{listed}");
        let none: Value = serde_json::from_str(&self.ok(&["ls", "--edge", "nobody", "--json"])?)?;
        ensure!(none["count"] == 0);
        let shown = self.ok(&["show", position])?;
        ensure!(
            shown.contains(&format!("device    dlq-{number}")) && shown.contains(&value(number)),
            "{shown}"
        );
        ensure!(self.ok(&["show", position, "--raw"])? == value(number));
        Ok(())
    }

    /// Kills a retry (SIGKILL) as soon as something of it stands in the log; false when it was done before.
    fn kill_while_it_sends(&self, arguments: &[&str]) -> anyhow::Result<bool> {
        let consumer = self.consumer("read_uncommitted")?;
        let end = || consumer.fetch_watermarks(wire::READINGS, 0, PATIENCE).map(|(_, high)| high);
        let before = end()?;
        let mut child = self.dlq(arguments).spawn()?;
        // The end of what its predecessor left open is one record, too.
        while end()? <= before + 1 {
            if child.try_wait()?.is_some() {
                return Ok(false);
            }
        }
        child.kill()?;
        Ok(child.wait()?.code().is_none())
    }

    fn is_already(&self, position: &str) -> anyhow::Result<()> {
        let told = self.ok(&["retry", position])?;
        ensure!(told.contains("0 sent again, 1 were already, 0 cannot"), "{told}");
        Ok(())
    }

    fn books(&self) -> anyhow::Result<()> {
        let metrics = self.programs.metrics(Program::Cloud).context("no metrics")?;
        let sum = |name: &str| metrics.sum(&format!("weir_cloud_process_{name}_total"), "").round() as u64;
        let went = ["enriched", "filtered", "rejected", "repeats", "controls"].map(sum).iter().sum::<u64>();
        ensure!((sum("received"), sum("retried"), sum("repeats")) == (went, POISON, 0), "{went} went");
        Ok(())
    }

    fn dlq(&self, arguments: &[&str]) -> Command {
        let mut command = self.programs.command(Program::Cloud, &["dlq"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What it says when all is well.
    fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self.dlq(arguments).output()?;
        ensure!(status.success(), "dlq {arguments:?}: {status}\n{}{}", text(&stdout), text(&stderr));
        Ok(text(&stdout))
    }

    /// Readings 0, 1, … of a stream into partition 0: their keys and values.
    fn produce(&self, stream: &str, count: u64, of: impl Fn(u64) -> (String, String)) -> anyhow::Result<()> {
        let brokers = self.stack.addresses().kafka;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true");
        let producer: BaseProducer = config.create()?;
        for number in 0..count {
            let ((key, value), digits) = (of(number), number.to_string());
            let headers = [(wire::EDGE, EDGE), (wire::STREAM, stream), (wire::NUMBER, &digits)];
            let headers = headers.into_iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: Some(value) })
            });
            let record =
                BaseRecord::to(wire::READINGS).partition(0).key(&key).payload(&value).headers(headers);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(PATIENCE)?)
    }

    /// The dead letters of a stream with their positions, when so many are there.
    fn wait_letters(&self, stream: &str, count: u64) -> anyhow::Result<Vec<(String, Value)>> {
        let mut letters = Vec::new();
        holds_within(PATIENCE, LOOK_EVERY, || {
            letters = self.letters(stream)?;
            Ok(letters.len() as u64 >= count)
        })?;
        ensure!(letters.len() as u64 == count, "{} dead letters of {stream}, not {count}", letters.len());
        Ok(letters)
    }

    fn letters(&self, stream: &str) -> anyhow::Result<Vec<(String, Value)>> {
        let mut letters = Vec::new();
        for record in self.read(wire::REJECTED)? {
            let letter: Value = serde_json::from_slice(&record.value)?;
            if letter["weir"]["stream"] == stream {
                letters.push((record.position, letter));
            }
        }
        Ok(letters)
    }

    fn consumer(&self, isolation: &str) -> anyhow::Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.stack.addresses().kafka)
            .set("group.id", "weir-test-dlq") // never joined
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        Ok(config.create()?)
    }

    /// All of a topic, read committed.
    fn read(&self, topic: &str) -> anyhow::Result<Vec<Record>> {
        let consumer = self.consumer("read_committed")?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let mut list = TopicPartitionList::new();
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        for partition in partitions {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut records, mut ended) = (Vec::new(), 0);
        let deadline = Deadline::after(PATIENCE);
        while ended < partitions.len() {
            match consumer.poll(LOOK_EVERY) {
                Some(Ok(message)) => {
                    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                    let headers: BTreeMap<_, _> =
                        headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect();
                    records.push(Record {
                        position: format!("{}:{}", message.partition(), message.offset()),
                        retried: headers.contains_key(wire::RETRY),
                        headers,
                        value: message.payload().unwrap_or_default().to_vec(),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => return Err(error.into()),
                None => ensure!(!deadline.passed(), "{topic} was not read to its end"),
            }
        }
        Ok(records)
    }
}

/// A stream of this run of the tests.
fn stream_id(n: u8) -> String {
    format!("{n:02x}{:030x}", clock::wall_ms())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
