//! When records can be read from the topics on their way, seen by a consumer on the same machine.
//!
//! Comes in: nothing but the brokers. Goes out: for each topic the quantiles of *receipt at the edge → committed and read*:
//! `weir.readings` and `weir.enriched` from one partition each, so that looking on costs little, `weir.alerts` (`received`
//! there is that of the reading that made the alert) from all.
//! Guarantees: only records that came after [`Hops::begin`] count. On failure: Kafka's error, when the figures are asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::{Value, json};
use weir_shared::clock;
use weir_shared::wire;

use crate::bench::arrivals::Arrivals;

const TOPICS: [&str; 3] = [wire::READINGS, wire::ENRICHED, wire::ALERTS];

/// Waits in ms, by topic.
type Waits = BTreeMap<String, Vec<i64>>;

/// A thread that looks on.
pub(super) struct Hops {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Waits>>,
}

#[derive(Deserialize)]
struct Received {
    received: i64,
}

impl Hops {
    /// Looks on from the ends of the topics.
    pub(super) fn begin(brokers: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "weir-bench") // never joined
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let mut from = TopicPartitionList::new();
        for topic in TOPICS {
            let ends = Arrivals::new(brokers, topic)?.ends()?;
            for (partition, end) in ends {
                if topic == wire::ALERTS || partition == 0 {
                    from.add_partition_offset(topic, partition, Offset::Offset(end))?;
                }
            }
        }
        consumer.assign(&from)?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("bench-hops".to_owned())
            .spawn(move || look_on(&consumer, &end))
            .context("a thread")?;
        Ok(Self { ended, thread })
    }

    /// What was seen, with how many records it was seen of.
    pub(super) fn end(self) -> anyhow::Result<BTreeMap<String, Value>> {
        self.ended.store(true, Ordering::Release);
        let mut waits = self.thread.join().map_err(|_| anyhow!("looking on panicked"))??;
        let figures = waits.iter_mut().map(|(topic, waits)| {
            waits.sort_unstable();
            let at = |per_mille: usize| waits[(waits.len() * per_mille / 1000).min(waits.len() - 1)];
            (topic.clone(), json!({"p50_ms": at(500), "p99_ms": at(990), "records": waits.len()}))
        });
        let figures: BTreeMap<_, _> = figures.collect();
        ensure!(figures.len() == TOPICS.len(), "nothing came in some topics: {figures:?}");
        Ok(figures)
    }
}

fn look_on(consumer: &BaseConsumer, ended: &AtomicBool) -> anyhow::Result<Waits> {
    let mut waits = Waits::new();
    while !ended.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let message = message.context("looking on")?;
        let now = clock::wall_ms();
        let record: Received = serde_json::from_slice(message.payload().unwrap_or_default())
            .with_context(|| format!("a record of {}", message.topic()))?;
        match waits.get_mut(message.topic()) {
            Some(waits) => waits.push(now - record.received),
            None => drop(waits.insert(message.topic().to_owned(), vec![now - record.received])),
        }
    }
    Ok(waits)
}
