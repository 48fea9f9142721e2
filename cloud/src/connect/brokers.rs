//! Kafka: brokers, their settings, our topics, and the offsets of our groups.
//!
//! On failure: brokers that do not answer are one finding; what they do not show (no rights to describe) warns.

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::Offset;
use weir_shared::wire;

use weir_shared::doctor::Finding;

use super::{ASK, answered, settings, stores};
use crate::config::Config;
use crate::init;
use crate::kafka::{KafkaConfig, topic_ids};
use crate::process::Input;

const INIT: &str = "run `weir-cloud init`";

/// All of Kafka.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let kafka = &config.kafka;
    let away = |why: String| {
        let way_out = "start Kafka, or mend kafka.brokers and kafka.options";
        vec![Finding::fail("kafka", format!("{}: {why}", kafka.brokers), way_out)]
    };
    let admin: AdminClient<DefaultClientContext> = match kafka.client().create() {
        Ok(admin) => admin,
        Err(error) => return away(error.to_string()),
    };
    let metadata = match admin.inner().fetch_metadata(None, ASK) {
        Ok(metadata) => metadata,
        Err(error) => return away(error.to_string()),
    };
    let mut found = vec![reached(kafka, &metadata)];
    found.extend(broker_settings(&admin, &metadata));
    found.extend(topics(kafka, &init::more_topics(config), &admin, &metadata));
    let inputs = Input::ALL.map(Input::topic);
    found.push(group(kafka, &metadata, &config.process.group, &inputs));
    for which in stores::enabled(&config.sinks) {
        found.push(group(kafka, &metadata, which.group(), &config.sinks.topics(which)));
    }
    found
}

/// That brokers answer, how many, and whether they are new enough to know topic ids.
fn reached(kafka: &KafkaConfig, metadata: &Metadata) -> Finding {
    let brokers: Vec<_> = metadata.brokers().iter().map(|b| format!("{}:{}", b.host(), b.port())).collect();
    let (count, list) = (brokers.len(), brokers.join(" "));
    if metadata.topics().iter().all(|topic| topic.name() != wire::READINGS) {
        return Finding::ok("kafka", format!("{count} brokers: {list}"));
    }
    let asked = asker(kafka, "weir-check").and_then(|asker| topic_ids::ask(&asker, &[wire::READINGS], ASK));
    match asked {
        Ok(ids) if ids.iter().all(String::is_empty) => {
            let detail = format!("{count} brokers: {list}; older than 2.8: a topic made anew is not noticed");
            Finding::warn("kafka", detail, "use Kafka 2.8 or later")
        }
        Ok(_) => Finding::ok("kafka", format!("{count} brokers, 2.8 or later: {list}")),
        Err(why) => {
            Finding::warn("kafka", format!("{count} brokers: {list}; topic ids: {why}"), "allow Describe")
        }
    }
}

/// Settings of brokers or topics, in the order asked.
fn described(
    admin: &AdminClient<DefaultClientContext>,
    asked: &[ResourceSpecifier<'_>],
) -> Result<Vec<Result<ConfigResource, RDKafkaErrorCode>>, String> {
    let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(answered(admin.describe_configs(asked, &options)))
}

fn lookup(resource: &ConfigResource) -> impl Fn(&str) -> Option<String> {
    |name| resource.get(name).and_then(|entry| entry.value.clone())
}

fn hidden(what: &str, why: &str, over: &str) -> Finding {
    let way_out = format!("allow DescribeConfigs on {over} to have them checked");
    Finding::warn(what, format!("not shown: {why}"), way_out)
}

fn broker_settings(admin: &AdminClient<DefaultClientContext>, metadata: &Metadata) -> Vec<Finding> {
    let count = metadata.brokers().len();
    let mut found = Vec::new();
    // Each must be asked by itself, as only a broker knows its own.
    for broker in metadata.brokers() {
        let (id, what) = (broker.id(), format!("broker {} settings", broker.id()));
        match described(admin, &[ResourceSpecifier::Broker(id)]) {
            Ok(shown) => {
                for resource in shown {
                    match resource {
                        Ok(resource) => found.extend(settings::broker(id, count, &lookup(&resource))),
                        Err(code) => found.push(hidden(&what, &code.to_string(), "the cluster")),
                    }
                }
            }
            Err(why) => found.push(hidden(&what, &why, "the cluster")),
        }
    }
    found
}

fn topics(
    kafka: &KafkaConfig,
    more: &[String],
    admin: &AdminClient<DefaultClientContext>,
    metadata: &Metadata,
) -> Vec<Finding> {
    let mut found = Vec::new();
    match init::missing(|name| stands(metadata, name), kafka.partitions, more) {
        Ok(missing) => {
            let absent = |name| Finding::fail(format!("topic {name}"), "there is none", INIT);
            found.extend(missing.into_iter().map(|wanted| absent(wanted.name)));
        }
        // The way out is part of it.
        Err(why) => found.push(Finding::fail("topics", why, "")),
    }
    // What `init` would make if there were nothing: all of ours.
    let ours = init::missing(|_| None, kafka.partitions, more).unwrap_or_default();
    let ours: Vec<_> = ours.into_iter().filter(|topic| stands(metadata, &topic.name).is_some()).collect();
    let asked: Vec<_> = ours.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    if asked.is_empty() {
        return found;
    }
    let shown = match described(admin, &asked) {
        Ok(shown) => shown,
        Err(why) => {
            found.push(hidden("settings of topics", &why, "the topics"));
            return found;
        }
    };
    for resource in shown {
        match resource {
            Err(code) => found.push(hidden("settings of topics", &code.to_string(), "the topics")),
            Ok(resource) => {
                let OwnedResourceSpecifier::Topic(name) = &resource.specifier else { continue };
                let wanted = ours.iter().find(|topic| topic.name == *name);
                let seen = metadata.topics().iter().find(|topic| topic.name() == name);
                let (Some(wanted), Some(seen)) = (wanted, seen) else { continue };
                let replicas = seen.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
                let leaderless = seen.partitions().iter().filter(|p| p.leader() < 0).count();
                if leaderless > 0 {
                    let detail = format!("{leaderless} of its partitions have no leader");
                    found.push(Finding::fail(
                        format!("topic {name}"),
                        detail,
                        "start the brokers that hold them",
                    ));
                }
                let partitions = seen.partitions().len();
                found.extend(settings::topic(
                    name,
                    partitions,
                    replicas,
                    wanted.compacted,
                    &lookup(&resource),
                ));
            }
        }
    }
    found
}

/// Partitions of a topic, if it stands.
fn stands(metadata: &Metadata, name: &str) -> Option<i32> {
    let found = metadata.topics().iter().find(|t| t.name() == name && t.error().is_none())?;
    i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)
}

/// A consumer that only asks for a group.
fn asker(kafka: &KafkaConfig, group: &str) -> Result<BaseConsumer, String> {
    let mut config = kafka.client();
    config
        .set("group.id", group)
        .set("isolation.level", "read_uncommitted")
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false");
    config.create().map_err(|e| e.to_string())
}

/// Whether the group has an offset for each partition, within the log.
fn group(kafka: &KafkaConfig, metadata: &Metadata, group: &str, topics: &[&str]) -> Finding {
    let what = format!("group {group}");
    let mut list = TopicPartitionList::new();
    for (topic, count) in topics.iter().filter_map(|topic| Some((*topic, stands(metadata, topic)?))) {
        list.add_partition_range(topic, 0, count - 1);
    }
    if list.count() == 0 {
        return Finding::fail(what, "its topics are missing", INIT);
    }
    let count = list.count();
    let asked = asker(kafka, group).and_then(|asker| {
        let committed = asker.committed_offsets(list, ASK).map_err(|e| e.to_string())?;
        Ok((asker, committed))
    });
    let (asker, committed) = match asked {
        Ok(both) => both,
        Err(why) => return Finding::fail(what, why, "allow Read on the group and Describe on its topics"),
    };
    for element in committed.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        let Offset::Offset(offset) = element.offset() else {
            return Finding::fail(what, format!("no offset for {topic} [{partition}]"), INIT);
        };
        let (low, high) = match asker.fetch_watermarks(topic, partition, ASK) {
            Ok(both) => both,
            Err(error) => return Finding::warn(what, format!("{topic} [{partition}]: {error}"), "try again"),
        };
        if offset < low {
            let detail =
                format!("{topic} [{partition}]: {} records are gone that it did not read", low - offset);
            return Finding::warn(what, detail, "raise retention.ms; what is lost is told when it goes on");
        }
        if offset > high {
            let detail =
                format!("{topic} [{partition}]: at {offset}, but the log ends at {high}: made anew?");
            return Finding::fail(
                what,
                detail,
                "set its offsets, or make its state anew: the log of its role says how",
            );
        }
    }
    Finding::ok(what, format!("has offsets for {count} partitions"))
}

/// Says in the log when brokers look too seldom for transactions that timed out; silent when they do not tell.
pub(crate) fn warn_of_slow_scan(kafka: &KafkaConfig) {
    let Ok(admin) = kafka.client().create::<AdminClient<DefaultClientContext>>() else { return };
    let Ok(metadata) = admin.inner().fetch_metadata(Some(wire::READINGS), ASK) else { return };
    for broker in metadata.brokers() {
        let shown = described(&admin, &[ResourceSpecifier::Broker(broker.id())]).unwrap_or_default();
        for resource in shown.into_iter().flatten() {
            if let Some(ms) = settings::slow_scan(&lookup(&resource)) {
                tracing::warn!(
                    "process: broker {} looks for transactions that timed out only every {ms} ms: what a worker that \
                     died had open holds readers up for so long; set {} to 1000 there",
                    broker.id(),
                    settings::SCAN
                );
                return;
            }
        }
    }
}
