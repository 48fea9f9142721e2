//! A fleet of edges, played straight into Kafka: what their forwarders would send, at a steady rate.
//!
//! Comes in: brokers, how fast. Goes out: records in the input topics, and what was acknowledged of them.
//! Guarantees: a record stands among what was acknowledged exactly when Kafka has acknowledged it; numbers per (stream,
//! topic, partition) without holes, but for those that a gap announces. Payloads are computed from a unique id.
//! As forwarders do, an edge sends a tail again now and then, and starts again with a new stream, closing the old one.
//! On failure: the producer goes on for as long as Kafka is away; an error that it does not mend is told by `pause`.

mod content;
mod played;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use weir_shared::clock::{self, Deadline};
use weir_shared::record::StreamId;

pub use content::{Shape, device, is_routed, rules, time_of};
use played::{Fleets, Letter};

const TICK: Duration = Duration::from_millis(10);
const TICKS_PER_SECOND: u64 = 100;
/// The thread answers within this time, unless Kafka is away.
const ANSWER: Duration = Duration::from_secs(30);

/// What a record is, and so what must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To `weir.enriched`.
    Reading,
    /// To `weir.enriched`, with one value more by the rule `three`.
    Changed,
    /// A reading that the rule `six` drops.
    Filtered,
    /// A reading that cannot be read: a dead letter with its identity.
    Poison,
    /// Without identity: a dead letter that is known by its offset.
    Nameless,
    /// A dead letter of the edge: to `weir.rejected`.
    Rejection,
    /// To `weir.aggregates`.
    Window,
    /// To `weir.losses`.
    Gap,
    /// Nothing becomes of it.
    Control,
}

/// A record that Kafka has acknowledged. What was sent again does not count again.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What it is.
    pub kind: Kind,
    /// Where it was sent.
    pub topic: &'static str,
    /// Its partition.
    pub partition: i32,
    /// Where it stands; below 0 when the broker did not say.
    pub offset: i64,
    /// Its stream.
    pub stream: StreamId,
    /// Its number.
    pub number: u64,
    /// Whether numbers were passed over before it.
    pub shows_gap: bool,
    /// Length and hash of the end of its value, all behind the first byte.
    pub tail: (usize, u64),
}

/// What is wanted of the thread.
#[derive(Debug, Default)]
struct Wish {
    paused: bool,
    ended: bool,
    shape: Shape,
    canaries: bool,
}

#[derive(Debug, Default)]
struct Shared {
    wish: Mutex<Wish>,
    acknowledged: Mutex<Vec<Issued>>,
    /// Since the beginning, repeats too.
    count: std::sync::atomic::AtomicU64,
    quiet: std::sync::atomic::AtomicBool,
    canaries: Mutex<Option<Vec<u64>>>,
    problem: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running fleet.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How it is made up.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Edges.
    pub edges: u64,
    /// Devices of all of them.
    pub devices: u64,
    /// Readings a second, of all of them.
    pub rate: u64,
    /// Partitions of the topics.
    pub partitions: i32,
}

impl Fleet {
    /// Begins to send.
    ///
    /// # Errors
    /// When the client refuses its configuration.
    pub fn start(brokers: &str, size: Size) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let producer: BaseProducer<Acks> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "50000")
            .set("reconnect.backoff.max.ms", "500")
            .set("log_level", "0")
            .create_with_context(Acks(Arc::clone(&shared)))
            .context("producer of the fleet")?;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || play(&theirs, &producer, size));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Stops sending, and waits until all is acknowledged.
    ///
    /// # Errors
    /// When Kafka does not acknowledge in time, or an error could not be mended.
    pub fn pause(&self, patience: Duration) -> anyhow::Result<()> {
        self.shared.quiet.store(false, std::sync::atomic::Ordering::SeqCst);
        lock(&self.shared.wish).paused = true;
        let deadline = Deadline::after(patience);
        while !self.shared.quiet.load(std::sync::atomic::Ordering::SeqCst) {
            ensure!(!deadline.passed(), "Kafka has not acknowledged everything within {patience:?}");
            std::thread::park_timeout(TICK);
        }
        lock(&self.shared.problem).take().map_or(Ok(()), |problem| Err(anyhow!("the fleet: {problem}")))
    }

    /// Sends again.
    pub fn resume(&self) {
        lock(&self.shared.wish).paused = false;
    }

    /// What readings look like from now on.
    pub fn shape(&self, shape: Shape) {
        lock(&self.shared.wish).shape = shape;
    }

    /// A reading for each partition, at once, also while paused: their ids.
    ///
    /// # Errors
    /// When the thread does not answer.
    pub fn canaries(&self) -> anyhow::Result<Vec<u64>> {
        lock(&self.shared.wish).canaries = true;
        let deadline = Deadline::after(ANSWER);
        loop {
            if let Some(ids) = lock(&self.shared.canaries).take() {
                return Ok(ids);
            }
            if deadline.passed() {
                bail!("the fleet sent no canaries within {ANSWER:?}: Kafka takes nothing");
            }
            std::thread::park_timeout(TICK);
        }
    }

    /// What was acknowledged since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Issued> {
        std::mem::take(&mut *lock(&self.shared.acknowledged))
    }

    /// How many records were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared.count.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        lock(&self.shared.wish).ended = true;
        if let Some(thread) = self.thread.take() {
            let _panicked_already_told = thread.join();
        }
    }
}

struct Acks(Arc<Shared>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = Box<Option<Issued>>;

    fn delivery(&self, result: &DeliveryResult<'_>, issued: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                self.0.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if let Some(mut issued) = *issued {
                    issued.offset = message.offset();
                    lock(&self.0.acknowledged).push(issued);
                }
            }
            Err((error, _)) => *lock(&self.0.problem) = Some(error.to_string()),
        }
    }
}

fn play(shared: &Shared, producer: &BaseProducer<Acks>, size: Size) {
    let mut fleets = Fleets::new(size, clock::wall_ms().unsigned_abs());
    let mut next = clock::instant();
    loop {
        let (paused, shape, canaries) = {
            let mut wish = lock(&shared.wish);
            if wish.ended {
                return;
            }
            (wish.paused, wish.shape, std::mem::take(&mut wish.canaries))
        };
        let mut letters = Vec::new();
        if canaries {
            let ids = fleets.canaries(&mut letters);
            *lock(&shared.canaries) = Some(ids);
        }
        if paused {
            if producer.in_flight_count() == 0 && letters.is_empty() {
                shared.quiet.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        } else {
            fleets.tick(size.rate / TICKS_PER_SECOND, shape, &mut letters);
        }
        for letter in letters {
            if !send(shared, producer, letter) {
                return;
            }
        }
        let now = clock::instant();
        // Kafka was away: what was not sent then is not made up for.
        next = if now > next + 20 * TICK { now } else { next + TICK };
        producer.poll(next.saturating_duration_since(now).max(Duration::from_millis(1)));
    }
}

/// Hands it to the client, as long as it takes; false when the fleet is to end.
fn send(shared: &Shared, producer: &BaseProducer<Acks>, letter: Letter) -> bool {
    let Letter { place: (topic, partition), key, value, headers, issued } = letter;
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(issued)).partition(partition).payload(&value);
    if let Some(key) = &key {
        record = record.key(key.as_slice());
    }
    let mut record = record.headers(headers);
    loop {
        match producer.send(record) {
            Ok(()) => return true,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(TICK);
                if lock(&shared.wish).ended {
                    return false;
                }
            }
            Err((error, _)) => {
                *lock(&shared.problem) = Some(error.to_string());
                return true;
            }
        }
    }
}
