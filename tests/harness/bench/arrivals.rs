//! How many records a topic has.
//!
//! Comes in: a topic. Goes out: the number of its records, from the ends of its partitions.
//! Guarantees: exact for producers without transactions and topics from which nothing was deleted yet; with transactions
//! it counts what is not committed yet, too, and one marker for each transaction and partition.
//! On failure: Kafka's error.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataPartition;
use rdkafka::types::RDKafkaErrorCode;

const PATIENCE: Duration = Duration::from_secs(30);

/// Counts one topic.
pub(super) struct Arrivals {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
}

impl Arrivals {
    /// Of a topic that stands.
    pub(super) fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("isolation.level", "read_uncommitted")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let found =
            metadata.topics().first().filter(|t| t.error().is_none()).with_context(|| topic.to_owned())?;
        let partitions = found.partitions().iter().map(MetadataPartition::id).collect();
        Ok(Self { consumer, topic: topic.to_owned(), partitions })
    }

    /// Of a topic that is created unless it stands.
    pub(super) fn create(brokers: &str, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for result in runtime.block_on(admin.create_topics([&wanted], &options))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(code).with_context(|| topic.to_owned()),
            }
        }
        Self::new(brokers, topic)
    }

    /// How many partitions it has.
    pub(super) fn partitions(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.partitions.len())?)
    }

    /// How many records it has.
    pub(super) fn count(&self) -> anyhow::Result<u64> {
        Ok(self.ends()?.values().sum::<i64>().cast_unsigned())
    }

    /// Where each partition ends.
    pub(super) fn ends(&self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let end = |&partition: &i32| {
            Ok((partition, self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE)?.1))
        };
        self.partitions.iter().map(end).collect()
    }
}
