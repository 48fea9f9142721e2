//! Everything that the edges' topics hold since a run began.
//!
//! Comes in: the brokers, where the topics ended at the start. Goes out: [`Seen`] records, in the order of their
//! partitions. Guarantees: read committed, no record left out; a lost connection to Kafka is waited out.
//! On failure: an error when the end was not reached within [`PATIENCE`].

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use weir_shared::clock::{self, Deadline};
use weir_shared::record::StreamId;
use weir_shared::wire;

use super::marks::Place;
use super::run::Run;

/// The topics that edges write.
pub const TOPICS: [&str; 5] = [wire::READINGS, wire::EDGE_REJECTED, wire::WINDOWS, wire::LATE, wire::GAPS];
/// How long Kafka may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one record.
const POLL: Duration = Duration::from_millis(100);

/// A position in each partition.
pub type Offsets = BTreeMap<(&'static str, i32), i64>;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its topic.
    pub topic: &'static str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Header `stream`.
    pub stream: StreamId,
    /// Header `number`.
    pub number: u64,
    /// Header `edge`.
    pub edge: String,
    /// When it was read here.
    pub at: Instant,
    /// What it says.
    pub what: What,
}

impl Seen {
    /// The number of the reading that it is.
    #[must_use]
    pub fn reading(&self) -> Option<u64> {
        if let What::Reading(number) = self.what { Some(number) } else { None }
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A reading of this run.
    Reading(u64),
    /// A dead letter.
    Rejection(Value),
    /// A window result, with its key and its value as they are.
    Window(Vec<u8>, Vec<u8>),
    /// A reading that came too late for a window.
    Late(Vec<u8>, Vec<u8>),
    /// Numbers that will not come.
    Gap(Gap),
    /// The newest part of a journal was lost; this excuses nothing that does not come.
    Unnumbered,
    /// No data, but a number like any other: a control record.
    Control,
    /// What no edge may write.
    Wrong(String),
}

/// Numbers that an edge said will not come, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub place: Place,
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Why.
    pub reason: String,
}

/// A reader that runs in the background from the beginning of a run.
#[derive(Debug)]
pub struct Tape {
    shared: Arc<Shared>,
    brokers: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
    stop: AtomicBool,
}

/// What was read so far.
#[derive(Debug, Default)]
pub struct State {
    /// All records.
    pub seen: Vec<Seen>,
    /// Numbers of the readings among them.
    pub readings: HashSet<u64>,
    next: Offsets,
    failed: Option<String>,
}

impl Tape {
    /// Starts to read at the present end of all topics.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn start(brokers: &str, run: &Arc<Run>) -> anyhow::Result<Self> {
        Self::start_at(brokers, run, ends(brokers)?)
    }

    /// Starts to read at these offsets.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn start_at(brokers: &str, run: &Arc<Run>, from: Offsets) -> anyhow::Result<Self> {
        let consumer = assigned(brokers, &from)?;
        let shared = Arc::new(Shared::default());
        shared.lock().next = from;
        let (theirs, run) = (Arc::clone(&shared), Arc::clone(run));
        let thread = std::thread::spawn(move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                match consumer.poll(POLL) {
                    Some(Ok(message)) => {
                        let seen = read(&run, &message);
                        let mut state = theirs.lock();
                        state.next.insert((topic_of(&message), message.partition()), message.offset() + 1);
                        if let Some(seen) = seen {
                            if let What::Reading(number) = seen.what {
                                state.readings.insert(number);
                            }
                            state.seen.push(seen);
                        }
                        theirs.news.notify_all();
                    }
                    // The broker may be away on purpose; what stays wrong shows as an end never reached.
                    Some(Err(error)) => theirs.lock().failed = Some(error.to_string()),
                    None => {}
                }
            }
        });
        Ok(Self { shared, brokers: brokers.to_owned(), thread: Some(thread) })
    }

    /// Waits until `done`, or until nothing new has come for `quiet`, or `most` has passed; whether it is done.
    pub fn wait(&self, quiet: Duration, most: Duration, mut done: impl FnMut(&State) -> bool) -> bool {
        let deadline = Deadline::after(most);
        let mut silent = Deadline::after(quiet);
        let mut state = self.shared.lock();
        let mut count = state.seen.len();
        loop {
            if done(&state) {
                return true;
            }
            if deadline.passed() || silent.passed() {
                return false;
            }
            let waited = self.shared.news.wait_timeout(state, POLL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.seen.len() > count {
                count = state.seen.len();
                silent = Deadline::after(quiet);
            }
        }
    }

    /// A look at what was read so far.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.lock())
    }

    /// Reads on to the present end of all topics, and gives everything.
    ///
    /// # Errors
    /// When the end is not reached.
    pub fn finish(mut self) -> anyhow::Result<Vec<Seen>> {
        let ends = ends(&self.brokers)?;
        let reached =
            |state: &State| ends.iter().all(|(at, end)| state.next.get(at).is_some_and(|n| n >= end));
        if !self.wait(PATIENCE, PATIENCE, reached) {
            let failed = self.shared.lock().failed.take();
            bail!("the end of the topics was not reached within {PATIENCE:?}: {failed:?}");
        }
        self.end()?;
        Ok(std::mem::take(&mut self.shared.lock().seen))
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |t| t.join().map_err(|_| anyhow!("the reader of Kafka panicked")))
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        let _panicked_already_told = self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where all topics end now.
///
/// # Errors
/// When Kafka does not answer, or lacks one.
pub fn ends(brokers: &str) -> anyhow::Result<Offsets> {
    let consumer = consumer(brokers)?;
    let mut offsets = Offsets::new();
    for topic in TOPICS {
        for partition in 0..partitions_of(&consumer, topic)? {
            let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
            offsets.insert((topic, partition), end);
        }
    }
    Ok(offsets)
}

/// How many partitions the readings have.
///
/// # Errors
/// When Kafka does not answer.
pub fn partitions(brokers: &str) -> anyhow::Result<i32> {
    partitions_of(&consumer(brokers)?, wire::READINGS)
}

pub(super) fn partitions_of(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().first().filter(|t| t.error().is_none() && !t.partitions().is_empty());
    let found = found.with_context(|| format!("Kafka has no topic {topic}"))?;
    Ok(i32::try_from(found.partitions().len())?)
}

pub(super) fn consumer(brokers: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "weir-chaos") // never joined: partitions are assigned by hand
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "500")
        .set("log_level", "0")
        .create()
        .context("Kafka consumer of the fault suite")
}

fn assigned(brokers: &str, from: &Offsets) -> anyhow::Result<BaseConsumer> {
    let consumer = consumer(brokers)?;
    let mut assignment = TopicPartitionList::new();
    for ((topic, partition), offset) in from {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn topic_of(message: &BorrowedMessage<'_>) -> &'static str {
    known(message.topic()).expect("only these are assigned")
}

fn known(topic: &str) -> Option<&'static str> {
    TOPICS.into_iter().find(|known| *known == topic)
}

/// `None`: of another run.
fn read(run: &Run, message: &BorrowedMessage<'_>) -> Option<Seen> {
    let (topic, value) = (topic_of(message), message.payload().unwrap_or_default());
    let header = |name: &str| {
        let found = message.headers()?.iter().find(|h| h.key == name)?;
        found.value
    };
    let edge = String::from_utf8_lossy(header(wire::EDGE).unwrap_or_default()).into_owned();
    // The edges of a run carry its name in theirs.
    if !edge.contains(run.name()) {
        return None;
    }
    let is_control = header(wire::CONTROL).is_some();
    let identity = wire::identity(
        header(wire::STREAM).unwrap_or_default(),
        header(wire::NUMBER).unwrap_or_default(),
        message.partition(),
    );
    let key = message.key().unwrap_or_default().to_vec();
    let what = match identity {
        None => What::Wrong(format!("{topic}: a record without stream or number")),
        Some(_) if is_control => What::Control,
        Some(_) => what(run, topic, key, value)?,
    };
    Some(Seen {
        topic,
        partition: message.partition(),
        offset: message.offset(),
        stream: identity.map_or(StreamId([0; 16]), |i| i.stream),
        number: identity.map_or(0, |i| i.number),
        edge,
        at: clock::instant(),
        what,
    })
}

fn what(run: &Run, topic: &'static str, key: Vec<u8>, value: &[u8]) -> Option<What> {
    let wrong = |why: &str| What::Wrong(format!("{topic}: {why}: {}", String::from_utf8_lossy(value)));
    Some(match topic {
        wire::READINGS => match run.number_of(value) {
            Ok(number) => What::Reading(number?),
            Err(why) => What::Wrong(why),
        },
        wire::EDGE_REJECTED => {
            serde_json::from_slice(value).map_or_else(|_| wrong("not JSON"), What::Rejection)
        }
        wire::WINDOWS => What::Window(key, value.to_vec()),
        wire::LATE => What::Late(key, value.to_vec()),
        _ if is_loss_without_numbers(value) => What::Unnumbered,
        _ => gap(value).map_or_else(|| wrong("not a gap"), What::Gap),
    })
}

/// Nobody knows which numbers were in what was lost, if any.
fn is_loss_without_numbers(value: &[u8]) -> bool {
    serde_json::from_slice::<Value>(value)
        .is_ok_and(|gap| gap["reason"] == "damaged" && gap["stream"].is_null())
}

fn gap(value: &[u8]) -> Option<Gap> {
    let json: Value = serde_json::from_slice(value).ok()?;
    let stream = StreamId::from_hex(json["stream"].as_str()?.as_bytes())?;
    let partition = i32::try_from(json["partition"].as_i64()?).ok()?;
    let (from, to) = (json["from"].as_u64()?, json["to"].as_u64()?);
    let place = (stream, known(json["topic"].as_str()?)?, partition);
    (from <= to).then_some(Gap { place, from, to, reason: json["reason"].as_str()?.to_owned() })
}
