//! What must stand before a worker may start, and who else is in the group.
//!
//! Comes in: brokers. Goes out: nothing, or the first thing that is missing and the way out.
//! Guarantees: asks only; a topic is never made by asking for it (a broker that creates topics by itself would give
//! it a wrong number of partitions).

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::wire;

use crate::kafka::{ASK, Heard, KafkaConfig, heard, topic_ids};
use crate::process::state::restore::no_offset;
use crate::process::{INPUTS, Input};

/// Topics that results go to.
const OUTPUTS: [&str; 5] = [wire::ENRICHED, wire::AGGREGATES, wire::LOSSES, wire::ALERTS, wire::REJECTED];

/// What is known of the input topics.
pub(in crate::process) struct Topics {
    ids: [String; INPUTS],
}

impl Topics {
    /// Kafka's id; empty when the broker does not know ids.
    pub(super) fn id(&self, input: Input) -> &str {
        &self.ids[input.index()]
    }
}

/// What to say when an input topic is another one than when its state was written.
pub(super) fn made_anew(input: Input, group: &str) -> String {
    let (topic, state) = (input.topic(), input.state_topic());
    format!(
        "{topic} was deleted and made again: its records have the offsets of others that were processed already. If \
         that is meant, stop all processors, delete {state} and the offsets of the group {group} for {topic} with \
         Kafka's tools, and run `weir-cloud init`"
    )
}

/// Checks that all topics stand, that each changelog has the partitions of its input, and that the group has offsets.
pub(in crate::process) fn topics(
    kafka: &KafkaConfig,
    group: &str,
    more: &[String],
) -> Result<Topics, String> {
    let mut config = kafka.client();
    // Whether there are offsets, not which: a stable fetch would wait here for the predecessor's open transaction,
    // which only the producer made after this check can end.
    config
        .set("group.id", group)
        .set("isolation.level", "read_uncommitted")
        .set("enable.auto.commit", "false");
    let asker: BaseConsumer<Heard> =
        config.create_with_context(Heard::default()).map_err(|e| format!("client: {e}"))?;
    for topic in OUTPUTS.into_iter().chain(more.iter().map(String::as_str)) {
        partitions(&asker, topic)?;
    }
    let mut list = TopicPartitionList::new();
    for input in Input::ALL {
        let (count, state) = (partitions(&asker, input.topic())?, partitions(&asker, &input.state_topic())?);
        if count != state {
            return Err(format!(
                "{} has {count} partitions and {} has {state}: they must be equal; the number of partitions of a \
                 topic must never change",
                input.topic(),
                input.state_topic()
            ));
        }
        list.add_partition_range(input.topic(), 0, count - 1);
    }
    let committed = asker.committed_offsets(list, ASK).map_err(|e| format!("offsets of {group}: {e}"))?;
    if let Some(missing) = committed.elements().iter().find(|e| !matches!(e.offset(), Offset::Offset(_))) {
        return Err(no_offset(missing.topic(), missing.partition()));
    }
    let ids = topic_ids::ask(&asker, &Input::ALL.map(Input::topic), ASK);
    let ids = ids.map_err(|e| format!("asking for the ids of the topics: {e}"))?;
    let ids = ids.try_into().map_err(|_| "asking for the ids of the topics: not all are there".to_owned())?;
    Ok(Topics { ids })
}

fn partitions(asker: &BaseConsumer<Heard>, topic: &str) -> Result<i32, String> {
    let metadata = asker
        .fetch_metadata(Some(topic), ASK)
        .map_err(|e| format!("asking for {topic}: {}", heard(asker, &e)))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    match found.map_or(0, |t| t.partitions().len()) {
        0 => Err(format!("there is no topic {topic}: run `weir-cloud init`")),
        n => i32::try_from(n).map_err(|e| format!("partitions of {topic}: {e}")),
    }
}

/// Whether another member of the group than `own` has this slot's name. One that nobody is any more, as its client was
/// thrown out or never heard the broker's answer, counts until its session is over.
pub(in crate::process) fn slot_is_taken(
    kafka: &KafkaConfig,
    group: &str,
    slot: &str,
    own: &str,
) -> Result<bool, String> {
    let asker: BaseConsumer = kafka.client().create().map_err(|e| format!("client: {e}"))?;
    let groups = asker.fetch_group_list(Some(group), ASK).map_err(|e| e.to_string())?;
    let mut members = groups.groups().iter().flat_map(|group| group.members());
    Ok(members.any(|member| is_static_member(member.id(), slot) && member.id() != own))
}

/// The broker makes the id of a static member from its instance's name and a UUID.
fn is_static_member(id: &str, slot: &str) -> bool {
    const UUID_LEN: usize = 36;
    id.strip_prefix(slot).and_then(|rest| rest.strip_prefix('-')).is_some_and(|uuid| uuid.len() == UUID_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_known_by_its_slot() {
        let id = "weir-cloud-1-5e1b6c9e-4b53-4f0f-9a80-5d7c4be5a1ff";
        assert!(is_static_member(id, "weir-cloud-1"));
        assert!(!is_static_member(id, "weir-cloud"));
        assert!(!is_static_member("rdkafka-5e1b6c9e-4b53-4f0f-9a80-5d7c4be5a1ff", "weir-cloud-1"));
    }
}
