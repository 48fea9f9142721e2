//! Reading the state of newly assigned partitions back from their changelogs.
//!
//! Comes in: partitions. Goes out: for each its state and its committed offset, both of the same commit.
//! Guarantees: the order that makes them so: first the committed offset by a stable fetch (it waits for an open
//! transaction of the predecessor), then the end of the changelog as a read_uncommitted client sees it (a
//! read_committed one is told the last stable offset, which may lie before the predecessor's last commit), then
//! reading committed records until the end-of-partition event at or beyond that end. A mark is never skipped.
//! On failure: a broker that does not answer is asked again with the next step; what cannot be read is an error.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use weir_shared::clock;

use super::State;
use crate::faults;
use crate::kafka::KafkaConfig;
use crate::kafka::native::{Polled, poll_assigned};
use crate::process::assignment::{Place, Rebalances, list};

/// How long one step may read; between steps other partitions are processed.
const STEP: Duration = Duration::from_millis(20);
/// How long one question of a step may take.
const QUESTION: Duration = Duration::from_secs(2);

/// A partition whose state is complete.
#[derive(Debug)]
pub(in crate::process) struct Restored {
    pub(in crate::process) place: Place,
    pub(in crate::process) state: Box<State>,
    /// Committed offset of the group.
    pub(in crate::process) next: i64,
    /// How long it took.
    pub(in crate::process) took: Duration,
}

/// Some partitions that were assigned together.
pub(in crate::process) struct Restore {
    began: Instant,
    waiting: Vec<Waiting>,
    /// Present once committed offsets and ends are known.
    reader: Option<BaseConsumer<Reading>>,
}

/// Ends of partitions that come while the reader closes are no errors.
struct Reading;

impl ClientContext for Reading {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("process: reading the changelog: {error}: {reason}");
    }
}

impl ConsumerContext for Reading {}

struct Waiting {
    place: Place,
    state: Box<State>,
    next: i64,
    changelog: Changelog,
}

/// Where a changelog begins and ends.
#[derive(Clone, Copy, Debug, Default)]
struct Changelog {
    low: i64,
    high: i64,
}

impl Changelog {
    /// Whether all of it has been read; `end` is the offset of the last end-of-partition event.
    fn is_read(self, end: Option<i64>) -> bool {
        self.low >= self.high || end.is_some_and(|end| end >= self.high)
    }
}

impl Restore {
    /// Nothing is asked before the first step.
    pub(in crate::process) fn new(places: &[Place]) -> Self {
        let waiting = |place: &Place| Waiting {
            place: *place,
            state: Box::default(),
            next: 0,
            changelog: Changelog::default(),
        };
        Self { began: clock::instant(), waiting: places.iter().map(waiting).collect(), reader: None }
    }

    /// These are no longer ours.
    pub(in crate::process) fn drop_places(&mut self, places: &[Place]) {
        self.waiting.retain(|w| !places.contains(&w.place));
    }

    /// Whether nothing is left to do.
    pub(in crate::process) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Goes on for a short while; gives the partitions that are complete now.
    ///
    /// # Errors
    /// What only an operator or new clients can mend.
    pub(in crate::process) fn step(
        &mut self,
        group: &BaseConsumer<Rebalances>,
        kafka: &KafkaConfig,
        name: &str,
    ) -> Result<Vec<Restored>, String> {
        if self.reader.is_none() {
            if !self.ask(group, kafka)? {
                return Ok(Vec::new());
            }
            self.reader = Some(self.open(kafka, name)?);
            return Ok(take_read(&mut self.waiting, self.began, |w| w.changelog.is_read(None)));
        }
        self.read()
    }

    /// Asks for committed offsets, then for the ends; false when a broker did not answer.
    fn ask(&mut self, group: &BaseConsumer<Rebalances>, kafka: &KafkaConfig) -> Result<bool, String> {
        let places = list(self.waiting.iter().map(|w| w.place));
        let committed = match group.committed_offsets(places, QUESTION) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!("process: committed offsets: {error}");
                return Ok(false);
            }
        };
        let mut config = kafka.client();
        config.set("isolation.level", "read_uncommitted");
        let asker: BaseConsumer = config.create().map_err(|e| format!("client: {e}"))?;
        for waiting in &mut self.waiting {
            let (input, partition) = waiting.place;
            let found = committed.find_partition(input.topic(), partition).map(|e| (e.error(), e.offset()));
            match found {
                Some((Ok(()), Offset::Offset(next))) => waiting.next = next,
                Some((Err(error), _)) => {
                    tracing::debug!("process: committed offset: {error}");
                    return Ok(false);
                }
                _ => return Err(no_offset(input.topic(), partition)),
            }
            match asker.fetch_watermarks(&input.state_topic(), partition, QUESTION) {
                Ok((low, high)) => waiting.changelog = Changelog { low, high },
                Err(error) => {
                    tracing::debug!("process: end of {}: {error}", input.state_topic());
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn open(&self, kafka: &KafkaConfig, name: &str) -> Result<BaseConsumer<Reading>, String> {
        let mut config: ClientConfig = kafka.client();
        // The group is only a name here: it is never joined, nothing is committed to it.
        config
            .set("group.id", name)
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", "16384");
        let reader: BaseConsumer<Reading> =
            config.create_with_context(Reading).map_err(|e| format!("client: {e}"))?;
        let mut assigned = TopicPartitionList::new();
        for waiting in self.waiting.iter().filter(|w| !w.changelog.is_read(None)) {
            let (input, partition) = waiting.place;
            assigned
                .add_partition_offset(&input.state_topic(), partition, Offset::Beginning)
                .map_err(|e| format!("changelog: {e}"))?;
        }
        reader.assign(&assigned).map_err(|e| format!("changelog: {e}"))?;
        Ok(reader)
    }

    fn read(&mut self) -> Result<Vec<Restored>, String> {
        let Some(reader) = &self.reader else { return Ok(Vec::new()) };
        let deadline = clock::Deadline::after(STEP);
        loop {
            match poll_assigned(reader, deadline.left()) {
                Polled::Nothing => return Ok(Vec::new()),
                Polled::Record { topic, partition, key, value } => {
                    let found = self.waiting.iter_mut().find(|w| is_changelog(w.place, &topic, partition));
                    let found = found.filter(|_| !faults::is_broken("bad.skip_restore"));
                    if let Some(waiting) = found {
                        let restored = waiting.state.restore(&key, value.as_deref());
                        restored.map_err(|e| format!("{topic} [{partition}]: {e}"))?;
                    }
                    if deadline.passed() {
                        return Ok(Vec::new());
                    }
                }
                Polled::End(topic, partition, end) => {
                    let read = take_read(&mut self.waiting, self.began, |w| {
                        is_changelog(w.place, &topic, partition) && w.changelog.is_read(Some(end))
                    });
                    if !read.is_empty() {
                        return Ok(read);
                    }
                }
                Polled::Error(code) if is_lasting(code) => {
                    return Err(format!("reading the changelog: {code}"));
                }
                Polled::Error(code) => tracing::debug!("process: reading the changelog: {code}"),
            }
        }
    }
}

/// Takes out those that are complete.
fn take_read(
    waiting: &mut Vec<Waiting>,
    began: Instant,
    is_read: impl Fn(&Waiting) -> bool,
) -> Vec<Restored> {
    let took = clock::instant().saturating_duration_since(began);
    let restored = |w: Waiting| Restored { place: w.place, state: w.state, next: w.next, took };
    waiting.extract_if(.., |w| is_read(w)).map(restored).collect()
}

fn is_changelog((input, own): Place, topic: &str, partition: i32) -> bool {
    own == partition && topic == input.state_topic()
}

/// Errors that do not go away by asking again; the others are the client's own to mend.
fn is_lasting(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::TopicAuthorizationFailed
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::Fatal
    )
}

/// What to say when the group has no offset: guessing one would lose or repeat records.
pub(in crate::process) fn no_offset(topic: &str, partition: i32) -> String {
    format!(
        "the group has no committed offset for {topic} [{partition}]: run `weir-cloud init` before the first start"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Input;

    #[test]
    fn read_only_at_or_beyond_the_end_asked_before() {
        let log = Changelog { low: 3, high: 10 };
        assert!(!log.is_read(None));
        assert!(!log.is_read(Some(9)), "the end seen lies before a commit of the predecessor");
        assert!(log.is_read(Some(10)));
        assert!(log.is_read(Some(12)));
        let empty = Changelog { low: 10, high: 10 };
        assert!(empty.is_read(None), "no event is needed for an empty log");
    }

    #[test]
    fn revoked_partitions_leave_a_restore() {
        let places = [(Input::Readings, 0), (Input::EdgeRejected, 0)];
        let mut restore = Restore::new(&places);
        restore.drop_places(&places[..1]);
        assert!(!restore.is_done());
        assert!(is_changelog(places[1], "weir.state.weir.edge-rejected", 0));
        assert!(!is_changelog(places[1], "weir.state.weir.readings", 0));
        restore.drop_places(&places);
        assert!(restore.is_done());
    }
}
