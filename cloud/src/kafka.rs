//! What every Kafka client of this program has in common.
//!
//! Comes in: the `[kafka]` section. Goes out: client configurations for consumers, transactional producers, plain
//! producers and questions.
//! Guarantees: what correctness stands on (isolation, commits, fencing, acknowledgements, partitioner) is set here
//! and cannot be overridden by `kafka.options`; memory of queues is bounded.
//! On failure: a wrong option is a problem of the configuration; a missing broker is only seen by the roles, which
//! go on trying.

mod heard;
mod member;
pub(crate) mod native;
pub(crate) mod topic_ids;

use std::time::Duration;

pub(crate) use heard::{Heard, heard};
pub(crate) use member::Member;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{ClientConfig, ClientContext};
use weir_shared::clock::Deadline;
use weir_shared::config::Section;
use weir_shared::kafka_security::{Security, options, refused};

/// How long a question to a broker may take before it is asked again.
pub(crate) const ASK: Duration = Duration::from_secs(5);
/// Session time-out of group members: a dead one is replaced after this long.
const SESSION_MS: &str = "6000";
/// Members hear of a rebalance with their next heartbeat, and each step of it waits for the last of them.
const HEARTBEAT_MS: &str = "500";
/// Open transactions of a dead producer are aborted after this long.
const TRANSACTION_MS: &str = "6000";

/// Options that `kafka.options` may not change, because exactly-once stands on them.
const PINNED: [&str; 17] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "client.id",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "partition.assignment.strategy",
    "isolation.level",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "partitioner",
];

/// The `[kafka]` section.
#[derive(Clone, Debug)]
pub(crate) struct KafkaConfig {
    /// `host:port`, comma separated.
    pub(crate) brokers: String,
    /// TLS and login.
    pub(crate) security: Security,
    /// Passed on to librdkafka.
    pub(crate) options: Vec<(String, String)>,
    /// Partitions of the topics that `init` creates.
    pub(crate) partitions: i32,
    /// Replicas of the topics that `init` creates.
    pub(crate) replication: i32,
}

/// Of clients that read up to the end of a partition: the end is an event to them and no error to be logged.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("kafka: {error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

/// Puts a record into the producer's queue; while that is full, waits for room until the deadline.
pub(crate) fn queue<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
    producer: &BaseProducer,
    mut record: BaseRecord<'_, K, P>,
    deadline: Deadline,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if !deadline.passed() => {
                producer.poll(Duration::from_millis(1));
                record = back;
            }
            Err((error, _)) => return Err(error),
        }
    }
}

impl KafkaConfig {
    /// Reads `[kafka]` of the root section.
    pub(crate) fn read(root: &Section<'_>) -> Self {
        let kafka = root.section("kafka");
        let security = Security::read(&kafka);
        let options = options(&kafka, &security, &PINNED, "weir-cloud");
        let config = Self {
            brokers: kafka.required("brokers", "host:port of one or more brokers"),
            security,
            options,
            partitions: narrow(kafka.integer("partitions", 1..=10_000)),
            replication: narrow(kafka.integer("replication", 1..=32)),
        };
        // Only librdkafka knows its options: ask it, without opening anything.
        if let Err(error) = config.client().create_native_config() {
            let option = if let KafkaError::ClientConfig(_, _, option, _) = &error { option } else { "" };
            kafka.problem("options", &refused(option, &error));
        }
        config
    }

    /// A client that only asks and administers.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", "30000");
        for (name, value) in self.security.librdkafka() {
            config.set(name, value);
        }
        for (name, value) in &self.options {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers).set("client.id", "weir-cloud");
        config
    }

    /// A member of `group` whose name in it is `instance`; reads committed records only, commits nothing by itself
    /// and never guesses where to start.
    pub(crate) fn consumer(&self, group: &str, instance: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("group.instance.id", instance)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_MS)
            .set("heartbeat.interval.ms", HEARTBEAT_MS)
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false");
        self.prefer(
            &mut config,
            &[
                ("queued.max.messages.kbytes", "16384"),
                ("fetch.queue.backoff.ms", "5"),
                ("fetch.wait.max.ms", "10"),
            ],
        );
        config
    }

    /// A producer whose records become visible with its transaction, as `transactional_id`.
    pub(crate) fn transactional_producer(&self, transactional_id: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", transactional_id).set("transaction.timeout.ms", TRANSACTION_MS);
        config
    }

    /// An idempotent producer that puts a key where Kafka's Java client and `wire::partition_of` put it.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
        self.prefer(
            &mut config,
            &[
                ("compression.type", "lz4"),
                ("linger.ms", "1"),
                ("batch.size", "524288"),
                ("queue.buffering.max.kbytes", "131072"),
                ("queue.buffering.max.messages", "200000"),
            ],
        );
        config
    }

    /// Sets each of `defaults` that `kafka.options` does not set itself.
    pub(crate) fn prefer(&self, config: &mut ClientConfig, defaults: &[(&str, &str)]) {
        for (name, value) in defaults {
            if !self.options.iter().any(|(own, _)| own == name) {
                config.set(*name, *value);
            }
        }
    }
}

fn narrow(n: u64) -> i32 {
    i32::try_from(n).expect("the range checked by the caller fits")
}
