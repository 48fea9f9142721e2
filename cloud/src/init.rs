//! `weir-cloud init`: what must stand before the first start.
//!
//! Comes in: the configuration. Goes out: topics, changelogs, first offsets of the groups, tables and templates.
//! Guarantees: may be repeated at any time; never changes what stands; a group's first offset is the start of the log
//! and is only committed where the group has none. With `--dry-run` only says what it would do.
//! On failure: servers that do not answer are tried again with growing waits for two minutes; what is contradictory
//! (another number of partitions) is an error with the way out.

use std::io::Write;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::backoff::Backoff;
use weir_shared::clock::Deadline;
use weir_shared::supervise::Error;
use weir_shared::wire;

use crate::config::Config;
use crate::database::Server;
use crate::kafka::{ASK, KafkaConfig};
use crate::process::Input;
use crate::rules::store::tables;
use crate::sinks::{self, SinkName};

/// How long servers may take to come up.
const SERVERS: Duration = Duration::from_secs(120);

/// Why a step was not done.
enum Failure {
    /// Ask again.
    Away(String),
    /// Only an operator can mend it.
    Wrong(String),
}

/// Makes everything that is missing.
///
/// # Errors
/// What is contradictory, or what did not answer for two minutes.
pub(crate) fn run(config: &Config, dry_run: bool) -> Result<(), Error> {
    let deadline = Deadline::after(SERVERS);
    let more = more_topics(config);
    patiently("kafka", deadline, || topics(&config.kafka, &more, dry_run))?;
    let inputs = Input::ALL.map(Input::topic);
    patiently("kafka", deadline, || offsets(&config.kafka, &config.process.group, &inputs, dry_run))?;
    for sink in SinkName::ALL {
        let topics = config.sinks.topics(sink);
        patiently("kafka", deadline, || offsets(&config.kafka, sink.group(), &topics, dry_run))?;
    }
    if let Some(server) = &config.rules.server {
        patiently("rules", deadline, || rule_tables(server, dry_run))?;
    }
    patiently("stores", deadline, || {
        sinks::init(&config.sinks, dry_run).map_err(|e| {
            let kind = if e.is::<sinks::Refused>() { Failure::Wrong } else { Failure::Away };
            kind(e.to_string())
        })
    })
}

fn patiently(what: &str, deadline: Deadline, step: impl Fn() -> Result<(), Failure>) -> Result<(), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match step() {
            Ok(()) => return Ok(()),
            Err(Failure::Wrong(why)) => return Err(why.into()),
            Err(Failure::Away(why)) if deadline.passed() => {
                return Err(format!("{why}; gave up after {} s", SERVERS.as_secs()).into());
            }
            Err(Failure::Away(why)) => {
                let wait = backoff.wait();
                tracing::warn!("init: {what}: {why}; again in {} ms", wait.as_millis());
                std::thread::sleep(wait);
            }
        }
    }
}

fn rule_tables(server: &Server, dry_run: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::Wrong(e.to_string()))?;
    runtime.block_on(tables::init(server, dry_run)).map_err(|e| Failure::Away(e.to_string()))
}

/// Topics that only this configuration wants: those of routes, and of alerts by severity.
pub(crate) fn more_topics(config: &Config) -> Vec<String> {
    let mut more = config.rules.topics.clone();
    if config.process.alerts_by_severity {
        more.extend([wire::ALERTS_HIGH, wire::ALERTS_MEDIUM, wire::ALERTS_LOW].map(str::to_owned));
    }
    more
}

/// A topic as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    partitions: i32,
    pub(crate) compacted: bool,
}

/// Whether a topic is one of Weir's own.
pub(crate) fn is_own(topic: &str) -> bool {
    let severities = [wire::ALERTS_HIGH, wire::ALERTS_MEDIUM, wire::ALERTS_LOW].map(str::to_owned);
    let own = missing(|_| None, 1, &severities);
    topic.starts_with(wire::STATE_PREFIX)
        || own.is_ok_and(|own| own.iter().any(|wanted| wanted.name == topic))
}

/// What to create, given the partitions of topics that stand; pure.
pub(crate) fn missing(
    stands: impl Fn(&str) -> Option<i32>,
    partitions: i32,
    more: &[String],
) -> Result<Vec<Wanted>, String> {
    let mut wanted = Vec::new();
    let mut want = |name: &str, partitions, compacted| {
        if stands(name).is_none() {
            wanted.push(Wanted { name: name.to_owned(), partitions, compacted });
        }
    };
    for input in Input::ALL {
        // A topic that stands keeps its partitions; its changelog has the same number, always.
        let count = stands(input.topic()).unwrap_or(partitions);
        let state = input.state_topic();
        if let Some(other) = stands(&state).filter(|other| *other != count) {
            return Err(format!(
                "{} has {count} partitions and {state} has {other}: they must be equal. The partitions of a topic \
                 must never change; use other topics or make both anew while the edges are stopped",
                input.topic()
            ));
        }
        want(input.topic(), count, false);
        want(&state, count, true);
    }
    for topic in [wire::LATE].into_iter().chain(sinks::topics()).chain(more.iter().map(String::as_str)) {
        want(topic, partitions, false);
    }
    want(wire::RETRIED, 1, true);
    Ok(wanted)
}

fn topics(kafka: &KafkaConfig, more: &[String], dry_run: bool) -> Result<(), Failure> {
    let away = |what: &str, e: KafkaError| Failure::Away(format!("{what}: {e}"));
    let admin: AdminClient<DefaultClientContext> =
        kafka.client().create().map_err(|e| Failure::Wrong(format!("client: {e}")))?;
    let metadata = admin.inner().fetch_metadata(None, ASK).map_err(|e| away("topics", e))?;
    let stands = |name: &str| {
        let found = metadata.topics().iter().find(|t| t.name() == name && t.error().is_none())?;
        i32::try_from(found.partitions().len()).ok().filter(|n| *n > 0)
    };
    let wanted = missing(stands, kafka.partitions, more).map_err(Failure::Wrong)?;
    for topic in &wanted {
        let kind = if topic.compacted { "compacted topic" } else { "topic" };
        say(&format!("{kind} {} with {} partitions", topic.name, topic.partitions), dry_run)?;
    }
    if dry_run || wanted.is_empty() {
        return Ok(());
    }
    let new: Vec<_> = wanted.iter().map(|topic| new_topic(topic, kafka.replication)).collect();
    let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK * 2));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Wrong(e.to_string()))?;
    let created =
        runtime.block_on(admin.create_topics(&new, &options)).map_err(|e| away("creating topics", e))?;
    for result in created {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(Failure::Away(format!("creating {name}: {code}"))),
        }
    }
    Ok(())
}

fn new_topic(topic: &Wanted, replication: i32) -> NewTopic<'_> {
    let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication));
    // With three replicas, an acknowledgement means two disks.
    let new = new.set("min.insync.replicas", if replication >= 3 { "2" } else { "1" });
    if !topic.compacted {
        // An edge's clock may be wrong for years: retention must not go by it.
        return new.set("message.timestamp.type", "LogAppendTime");
    }
    // Small segments and an eager cleaner keep a restore short: the last segment is read as it is, old values and all.
    new.set("cleanup.policy", "compact")
        .set("segment.bytes", "4194304")
        .set("min.cleanable.dirty.ratio", "0.1")
        .set("min.compaction.lag.ms", "0")
}

/// Commits the start of the log where `group` has no offset yet.
fn offsets(kafka: &KafkaConfig, group: &str, topics: &[&str], dry_run: bool) -> Result<(), Failure> {
    let away = |e: KafkaError| Failure::Away(format!("offsets of {group}: {e}"));
    let mut config = kafka.client();
    config.set("group.id", group).set("isolation.level", "read_committed").set("enable.auto.commit", "false");
    let client: BaseConsumer = config.create().map_err(|e| Failure::Wrong(format!("client: {e}")))?;
    let mut list = TopicPartitionList::new();
    for &topic in topics {
        let metadata = client.fetch_metadata(Some(topic), ASK).map_err(away)?;
        let count = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
        match i32::try_from(count) {
            Ok(0) | Err(_) if dry_run => {
                return say(&format!("first offsets of {group} on {}", topics.join(", ")), dry_run);
            }
            Ok(0) | Err(_) => return Err(Failure::Away(format!("{topic} is not there yet"))),
            Ok(n) => list.add_partition_range(topic, 0, n - 1),
        };
    }
    let committed = client.committed_offsets(list, ASK).map_err(away)?;
    let mut first = TopicPartitionList::new();
    for element in committed.elements() {
        element.error().map_err(away)?;
        if !matches!(element.offset(), Offset::Offset(_)) {
            let (topic, partition) = (element.topic(), element.partition());
            let (low, _) = client.fetch_watermarks(topic, partition, ASK).map_err(away)?;
            first.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(away)?;
            say(&format!("first offset {low} of {group} on {topic} [{partition}]"), dry_run)?;
        }
    }
    if dry_run || first.count() == 0 {
        return Ok(());
    }
    commit(kafka, &client, &first).map_err(away)
}

/// Commits in a transaction: brokers take a plain commit of a stranger only while the group has no members, and a sink
/// that waits for a first offset is one.
fn commit(kafka: &KafkaConfig, client: &BaseConsumer, first: &TopicPartitionList) -> Result<(), KafkaError> {
    let group = client.group_metadata().ok_or(KafkaError::Canceled)?;
    let producer: BaseProducer = kafka.transactional_producer("weir-init").create()?;
    producer.init_transactions(ASK)?;
    producer.begin_transaction()?;
    producer.send_offsets_to_transaction(first, &group, ASK)?;
    producer.commit_transaction(ASK)
}

fn say(what: &str, dry_run: bool) -> Result<(), Failure> {
    let would = if dry_run { "would make" } else { "making" };
    writeln!(std::io::stdout(), "{would} {what}").map_err(|e| Failure::Wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made() {
        let all = missing(|_| None, 4, &["extra".to_owned()]).unwrap();
        assert_eq!(all.len(), 16);
        let (retried, rest) = all.split_last().unwrap();
        assert_eq!((retried.name.as_str(), retried.partitions, retried.compacted), (wire::RETRIED, 1, true));
        assert!(rest.iter().all(|t| t.partitions == 4));
        let compacted: Vec<_> = rest.iter().filter(|t| t.compacted).map(|t| t.name.as_str()).collect();
        assert_eq!(compacted, Input::ALL.map(Input::state_topic));
        assert_eq!(missing(|_| Some(4), 4, &[]).unwrap(), []);
    }

    #[test]
    fn a_changelog_follows_its_input_that_stands() {
        let wanted = missing(|name| (name == wire::READINGS).then_some(7), 4, &[]).unwrap();
        let state = wanted.iter().find(|t| t.name == "weir.state.weir.readings").unwrap();
        assert_eq!(state.partitions, 7);
        let other = |name: &str| match name {
            wire::READINGS => Some(7),
            "weir.state.weir.readings" => Some(4),
            _ => None,
        };
        assert!(missing(other, 4, &[]).unwrap_err().contains("must be equal"));
    }
}
