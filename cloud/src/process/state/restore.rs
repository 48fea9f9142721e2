//! Reading the state of newly assigned partitions back from their changelogs, on a thread beside the worker.
//!
//! Comes in: partitions. Goes out: for each its state and its committed offset, both of the same commit.
//! Guarantees: the order that makes them so: first the committed offset by a stable fetch (it waits for an open
//! transaction of the predecessor), then the end of the changelog as a read_uncommitted client sees it (a
//! read_committed one is told the last stable offset, which may lie before the predecessor's last commit), then
//! reading committed records until the end-of-partition event at or beyond that end. A mark is never skipped. The worker goes
//! on with its other partitions meanwhile, and never waits here.
//! On failure: a broker that does not answer is asked again; what cannot be read is an error. The thread ends with the
//! worker, or when all of its partitions are taken away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use weir_shared::clock;

use super::State;
use crate::faults;
use crate::kafka::native::{Polled, poll_assigned};
use crate::kafka::{KafkaConfig, Quiet};
use crate::process::assignment::{Place, list};

/// How often it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How long one question may take.
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
    waiting: Vec<Place>,
    restored: Receiver<Result<Restored, String>>,
    unwanted: Arc<AtomicBool>,
}

impl Restore {
    /// Begins.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(in crate::process) fn begin(
        places: &[Place],
        kafka: &KafkaConfig,
        group: &str,
    ) -> Result<Self, String> {
        let (sender, restored) = channel();
        let unwanted = Arc::new(AtomicBool::new(false));
        let reading = Reading {
            began: clock::instant(),
            waiting: places.iter().map(|place| Waiting::new(*place)).collect(),
            kafka: kafka.clone(),
            group: group.to_owned(),
            unwanted: Arc::clone(&unwanted),
        };
        let thread = std::thread::Builder::new().name("restore".to_owned());
        thread.spawn(move || reading.run(&sender)).map_err(|e| format!("restore: no thread: {e}"))?;
        Ok(Self { waiting: places.to_vec(), restored, unwanted })
    }

    /// These are no longer ours.
    pub(in crate::process) fn drop_places(&mut self, places: &[Place]) {
        self.waiting.retain(|place| !places.contains(place));
    }

    /// Whether nothing is left to do.
    pub(in crate::process) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The partitions that are complete now.
    ///
    /// # Errors
    /// What only an operator or new clients can mend.
    pub(in crate::process) fn take(&mut self) -> Result<Vec<Restored>, String> {
        let mut complete = Vec::new();
        while !self.is_done() {
            match self.restored.try_recv() {
                Ok(restored) => {
                    let restored = restored?;
                    if let Some(at) = self.waiting.iter().position(|place| *place == restored.place) {
                        self.waiting.swap_remove(at);
                        complete.push(restored);
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err("reading states back ended early".to_owned()),
            }
        }
        Ok(complete)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.unwanted.store(true, Ordering::Relaxed);
    }
}

/// The thread's own.
struct Reading {
    began: Instant,
    waiting: Vec<Waiting>,
    kafka: KafkaConfig,
    group: String,
    unwanted: Arc<AtomicBool>,
}

struct Waiting {
    place: Place,
    state: Box<State>,
    next: i64,
    changelog: Changelog,
}

impl Waiting {
    fn new(place: Place) -> Self {
        Self { place, state: Box::default(), next: 0, changelog: Changelog::default() }
    }
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

impl Reading {
    fn run(mut self, sender: &Sender<Result<Restored, String>>) {
        if let Err(why) = self.work(sender) {
            let _nobody_wants_it_any_more = sender.send(Err(why));
        }
    }

    fn is_wanted(&self) -> bool {
        !self.unwanted.load(Ordering::Relaxed)
    }

    fn work(&mut self, sender: &Sender<Result<Restored, String>>) -> Result<(), String> {
        // Read committed makes the fetch of offsets a stable one.
        let (stable, asker) = (self.client("read_committed")?, self.client("read_uncommitted")?);
        while !self.ask(&stable, &asker)? {
            std::thread::sleep(LOOK);
            if !self.is_wanted() {
                return Ok(());
            }
        }
        let reader = self.open()?;
        self.hand_over(sender, |waiting| waiting.changelog.is_read(None));
        while self.is_wanted() && !self.waiting.is_empty() {
            match poll_assigned(&reader, LOOK) {
                Polled::Nothing => {}
                Polled::Record { topic, partition, key, value } => {
                    let found = self.waiting.iter_mut().find(|w| is_changelog(w.place, &topic, partition));
                    let found = found.filter(|_| !faults::is_broken("bad.skip_restore"));
                    if let Some(waiting) = found {
                        let restored = waiting.state.restore(&key, value.as_deref());
                        restored.map_err(|e| format!("{topic} [{partition}]: {e}"))?;
                    }
                }
                Polled::End(topic, partition, end) => self.hand_over(sender, |waiting| {
                    is_changelog(waiting.place, &topic, partition) && waiting.changelog.is_read(Some(end))
                }),
                Polled::Error(code) if is_lasting(code) => {
                    return Err(format!("reading the changelog: {code}"));
                }
                Polled::Error(code) => tracing::debug!("process: reading the changelog: {code}"),
            }
        }
        Ok(())
    }

    /// Hands over those that are complete.
    fn hand_over(&mut self, sender: &Sender<Result<Restored, String>>, is_read: impl Fn(&Waiting) -> bool) {
        let took = clock::instant().saturating_duration_since(self.began);
        for Waiting { place, state, next, .. } in self.waiting.extract_if(.., |waiting| is_read(waiting)) {
            let _nobody_wants_it_any_more = sender.send(Ok(Restored { place, state, next, took }));
        }
    }

    /// One that asks. The group is only a name here: it is never joined.
    fn client(&self, isolation: &str) -> Result<BaseConsumer, String> {
        let mut config = self.kafka.client();
        config
            .set("group.id", &self.group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false");
        config.create().map_err(|e| format!("client: {e}"))
    }

    /// Asks for committed offsets, then for the ends; false when a broker did not answer.
    fn ask(&mut self, stable: &BaseConsumer, asker: &BaseConsumer) -> Result<bool, String> {
        let places = list(self.waiting.iter().map(|w| w.place));
        let committed = match stable.committed_offsets(places, QUESTION) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::debug!("process: committed offsets: {error}");
                return Ok(false);
            }
        };
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

    fn open(&self) -> Result<BaseConsumer<Quiet>, String> {
        let mut config: ClientConfig = self.kafka.client();
        config
            .set("group.id", &self.group)
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", "16384");
        let reader: BaseConsumer<Quiet> =
            config.create_with_context(Quiet).map_err(|e| format!("client: {e}"))?;
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
    fn a_thread_that_ended_early_is_an_error() {
        let (sender, restored) = channel();
        let mut restore = Restore { waiting: vec![(Input::Readings, 0)], restored, unwanted: Arc::default() };
        assert!(restore.take().unwrap().is_empty());
        sender.send(Err("no topic".to_owned())).unwrap();
        assert_eq!(restore.take().unwrap_err(), "no topic");
        drop(sender);
        assert!(restore.take().unwrap_err().contains("ended early"));
    }

    #[test]
    fn a_changelog_is_that_of_its_partition() {
        let place = (Input::EdgeRejected, 0);
        assert!(is_changelog(place, "weir.state.weir.edge-rejected", 0));
        assert!(!is_changelog(place, "weir.state.weir.edge-rejected", 1));
        assert!(!is_changelog(place, "weir.state.weir.readings", 0));
    }

    #[test]
    fn revoked_partitions_leave_a_restore() {
        let places = [(Input::Readings, 0), (Input::EdgeRejected, 0)];
        let (sender, restored) = channel();
        let unwanted = Arc::new(AtomicBool::new(false));
        let mut restore = Restore { waiting: places.to_vec(), restored, unwanted: Arc::clone(&unwanted) };
        restore.drop_places(&places[..1]);
        let complete = |place| Restored { place, state: Box::default(), next: 0, took: Duration::ZERO };
        for place in places {
            sender.send(Ok(complete(place))).unwrap();
        }
        let taken: Vec<_> = restore.take().unwrap().into_iter().map(|restored| restored.place).collect();
        assert_eq!(taken, [places[1]], "the other was revoked before it was complete");
        assert!(restore.is_done());
        drop(restore);
        assert!(unwanted.load(Ordering::Relaxed), "the thread hears of it");
    }
}
