//! Telegraf as it is measured.
//!
//! Comes in: its program. Goes out: it runs with a configuration that does the edge's job: a persistent MQTT session,
//! the same fields and tags as JSON to Kafka by an idempotent producer, and aggregates every ten seconds. It
//! acknowledges a message when Kafka has it; between the two it is in memory only.
//! Guarantees: it is given room (undelivered messages, buffer) so that its limits do not slow it down; larger batches
//! than its default and lz4 were tried and made it no faster.
//! On failure: an error with the end of its log.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::Contender;
use super::load::Load;
use super::session;
use crate::addresses::Addresses;
use crate::bench::arrivals::Arrivals;
use crate::bench::{LOOK_EVERY, watch};
use crate::places::last_lines;
use crate::stack::Stack;

const NAME: &str = "telegraf";
/// As long as the edge's.
const ROOT: &str = "devices";
const READINGS: &str = "peer.reading";
const WINDOWS: &str = "peer.window";
const FIRST_WITHIN: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

pub(super) struct Telegraf<'a> {
    stack: &'a Stack,
    program: PathBuf,
    config: PathBuf,
    pid: Cell<Option<u32>>,
    readings: Arrivals,
    windows: Arrivals,
}

impl<'a> Telegraf<'a> {
    /// Writes its configuration and creates its topics.
    pub(super) fn new(stack: &'a Stack, program: &Path) -> anyhow::Result<Self> {
        let addresses = stack.addresses();
        let config = stack.data_dir().join("config/telegraf.conf");
        fs::write(&config, configuration(&addresses))?;
        let partitions = Arrivals::new(&addresses.kafka, weir_shared::wire::READINGS)?.partitions()?;
        let topic = |name| Arrivals::create(&addresses.kafka, name, partitions);
        let (readings, windows) = (topic(READINGS)?, topic(WINDOWS)?);
        Ok(Self { stack, program: program.to_owned(), config, pid: Cell::new(None), readings, windows })
    }
}

impl Contender for Telegraf<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    /// It is ready when its first message is in Kafka.
    fn start(&self) -> anyhow::Result<()> {
        let mqtt = self.stack.addresses().mqtt;
        session::renew(&mqtt, NAME, &format!("{ROOT}/#"))?;
        let (program, config) = (self.program.display().to_string(), self.config.display().to_string());
        self.pid.set(Some(self.stack.spawn(NAME, &[&program, "--config", &config], &[], false)?));
        let before = self.readings.count()?;
        Load { messages: 1, connections: 1, per_second: 0 }.publish(&mqtt, ROOT)?;
        watch(1, FIRST_WITHIN, LOOK_EVERY, || Ok(Some(self.readings.count()? - before)))
            .with_context(|| format!("the first message:\n{}", last_lines(&self.stack.log_of(NAME), 20)))?;
        Ok(())
    }

    fn stop(&self) -> anyhow::Result<()> {
        self.stack.stop_server(NAME)?;
        self.stack.wait_exit(NAME, STOP_TIME_MAX)?;
        self.pid.set(None);
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.pid.get().context("telegraf does not run")
    }

    fn topic_root(&self) -> &'static str {
        ROOT
    }

    fn taken(&self) -> anyhow::Result<Option<u64>> {
        self.readings.count().map(Some)
    }

    fn delivered(&self) -> anyhow::Result<u64> {
        self.readings.count()
    }

    fn windows(&self) -> anyhow::Result<Option<u64>> {
        self.windows.count().map(Some)
    }
}

/// `grace`: an aggregate takes in what waited in the broker past its end, too.
fn configuration(addresses: &Addresses) -> String {
    format!(
        r#"[agent]
omit_hostname = true
flush_interval = "1s"
metric_buffer_limit = 200000

[[inputs.mqtt_consumer]]
servers = ["tcp://{host}:{port}"]
topics = ["{ROOT}/#"]
topic_tag = ""
qos = 1
client_id = "{NAME}"
persistent_session = true
max_undelivered_messages = 10000
data_format = "json_v2"
[[inputs.mqtt_consumer.json_v2]]
measurement_name = "reading"
timestamp_path = "ts"
timestamp_format = "unix_ms"
[[inputs.mqtt_consumer.json_v2.tag]]
path = "device"
[[inputs.mqtt_consumer.json_v2.tag]]
path = "tags.line"
[[inputs.mqtt_consumer.json_v2.object]]
path = "values"
disable_prepend_keys = true

[[aggregators.basicstats]]
period = "10s"
grace = "60s"
drop_original = false
name_override = "window"
tagexclude = ["line"]
stats = ["count", "mean", "min", "max", "stdev"]

[[outputs.kafka]]
brokers = ["{kafka}"]
topic = "peer"
topic_suffix = {{ method = "measurement", separator = "." }}
routing_tag = "device"
required_acks = -1
idempotent_writes = true
data_format = "json"
json_timestamp_units = "1ms"
"#,
        host = addresses.mqtt.0,
        port = addresses.mqtt.1,
        kafka = addresses.kafka,
    )
}
