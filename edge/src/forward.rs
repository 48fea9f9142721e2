//! The forwarder: from the journal to Kafka, in order.
//!
//! Comes in: batches of the journal below its durable position. Goes out: records with headers `edge`, `stream` and
//! `number`, each into the partition it was numbered for; and the acknowledged prefix, back to the journal.
//! Guarantees: a record counts as sent only after Kafka has acknowledged it (acks=all, idempotent producer); memory is
//! bounded by the records in flight; what a crash makes it send again carries the same identity, so the cloud drops it.
//! On failure: any delivery error ends this producer, and a new one sends everything unacknowledged again, in order,
//! after a jittered backoff. A reading that Kafka refuses three times on its own becomes a dead letter. A topic whose
//! partition count changed is refused with the way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, Sender};
use rdkafka::config::ClientConfig;
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::record::StreamId;
use weir_shared::supervise::{Error, Stop};

use crate::journal::format::{Cursor, Record, Sent};
use crate::journal::{Reader, Segments};
use crate::sources::Event;

mod measures;
mod producer;
mod progress;
mod refusals;

use measures::Measures;
use producer::{Producer, Trouble};
use progress::Progress;
use refusals::Refusals;

/// Name under which this stage complains.
const WHO: &str = "kafka";
/// Options that `kafka.options` may not change: the guarantees stand on them, or they have keys of their own.
pub(crate) const PINNED: [&str; 16] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "client.id",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.send.max.retries",
    "retries",
    "message.max.bytes",
    "linger.ms",
    "compression.codec",
    "compression.type",
];
/// Bytes that librdkafka may hold: an edge has little memory.
const QUEUE_KBYTES: &str = "16384";
/// Without an acknowledgement for this long, while records wait for one, Kafka counts as away.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(3);
/// Between two looks at librdkafka's reports while records are in flight. (Its own poll counts in whole milliseconds and
/// spins through the rest.)
const REPORTS: Duration = Duration::from_millis(1);
/// The longest wait for news when nothing is in flight: bounds how long a stop goes unnoticed.
const IDLE: Duration = Duration::from_millis(100);

/// Where and how to send.
#[derive(Clone, Debug)]
pub(crate) struct KafkaConfig {
    /// Name of this edge.
    pub edge: String,
    /// Bootstrap servers.
    pub brokers: String,
    /// Partition count of the topics; 0 to ask.
    pub partitions: u32,
    /// How long a batch waits for company, in ms.
    pub linger_ms: u64,
    /// Codec.
    pub compression: &'static str,
    /// Most records in flight.
    pub in_flight_records_max: usize,
    /// Largest record in bytes.
    pub record_bytes_max: usize,
    /// How often the cursor is written.
    pub cursor: Duration,
    /// Further settings of librdkafka.
    pub options: Vec<(String, String)>,
}

impl KafkaConfig {
    /// The settings of a producer. `options` may add to them, but nothing of [`PINNED`]: the configuration's check
    /// sees to that.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("weir-edge-{}", self.edge))
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", (self.record_bytes_max + 4096).to_string())
            .set("linger.ms", self.linger_ms.to_string())
            .set("compression.codec", self.compression)
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES)
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "5000");
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }
}

/// What the stage is connected to.
pub(crate) struct Wiring {
    /// To the ingest stage.
    pub events: Sender<Event>,
    /// From the ingest stage: something new is durable.
    pub wake: Receiver<()>,
    /// The journal's durable position.
    pub durable: Arc<AtomicU64>,
    /// The journal's files.
    pub segments: Segments,
    /// Where to complain.
    pub ready: Health,
}

/// Sends what stands in the journal.
pub(crate) struct Forwarder {
    config: KafkaConfig,
    wiring: Wiring,
    stream: StreamId,
    topics: Option<[u32; 2]>,
    cursor: Cursor,
    refusals: Refusals,
    /// When Kafka last acknowledged something, or had nothing to acknowledge.
    heard: Instant,
    measures: Measures,
}

impl Forwarder {
    /// Goes on where the cursor says; `topics` are the partition counts that the journal was numbered for.
    pub(crate) fn new(
        config: KafkaConfig,
        wiring: Wiring,
        stream: StreamId,
        topics: Option<[u32; 2]>,
        cursor: Cursor,
    ) -> Self {
        let (refusals, heard) = (Refusals::default(), clock::instant());
        Self { config, wiring, stream, topics, cursor, refusals, heard, measures: Measures::new() }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, stop: &Stop) -> Result<(), Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        while !stop.is_stopped() {
            let before = self.cursor.clone();
            match self.incarnation(stop) {
                Ok(()) => break,
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Retry(why)) => {
                    if self.cursor != before {
                        backoff.reset();
                    }
                    let wait = backoff.wait();
                    tracing::warn!(why, wait_ms = wait.as_millis(), "kafka: will send again from the cursor");
                    self.wiring.ready.bad(WHO, why);
                    self.measures.restarts.increment(1);
                    if stop.wait_for(wait) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// One producer, from its start to its first error.
    fn incarnation(&mut self, stop: &Stop) -> Result<(), Trouble> {
        let producer = Producer::new(&self.config)?;
        self.check_topics(&producer)?;
        self.wiring.ready.good(WHO);
        let mut reader = Reader::new(self.wiring.segments.clone(), self.cursor.position);
        let mut progress = Progress::new(&self.cursor);
        let mut cursor_due = clock::instant() + self.config.cursor;
        while !stop.is_stopped() {
            let sent = self.send(&producer, &mut reader, &mut progress)?;
            producer.poll();
            self.acknowledge(&producer, &mut progress)?;
            let wait = if progress.in_flight() > 0 { REPORTS } else { IDLE };
            if !sent && self.wiring.wake.recv_timeout(wait) == Err(flume::RecvTimeoutError::Disconnected) {
                return Ok(());
            }
            self.note_silence(&progress);
            self.note_cursor(&mut progress, &mut cursor_due)?;
        }
        let deadline = Deadline::after(DRAIN);
        while progress.in_flight() > 0 && !deadline.passed() {
            std::thread::sleep(REPORTS);
            producer.poll();
            self.acknowledge(&producer, &mut progress)?;
        }
        self.note_cursor(&mut progress, &mut clock::instant())
    }

    fn check_topics(&mut self, producer: &Producer) -> Result<(), Trouble> {
        let found = producer.partitions()?;
        let Some(known) = self.topics else {
            self.wiring.events.send(Event::Topics(found)).map_err(|_| Trouble::retry("ingest has ended"))?;
            self.topics = Some(found);
            return Ok(());
        };
        for ((kind, known), found) in Sent::ALL.iter().zip(known).zip(found) {
            if known != found {
                return Err(Trouble::retry(format!(
                    "topic {} has {found} partitions, but this journal was numbered for {known}. Nothing is sent. \
                     Give the topic {known} partitions again, or let the edge drain to a topic that has them and \
                     then start with an empty journal folder",
                    kind.topic()
                )));
            }
        }
        Ok(())
    }

    /// Sends batches until enough is in flight or all that is durable was sent; whether it sent any.
    fn send(
        &mut self,
        producer: &Producer,
        reader: &mut Reader,
        progress: &mut Progress,
    ) -> Result<bool, Trouble> {
        let durable = self.wiring.durable.load(Ordering::Acquire);
        let mut any = false;
        while progress.in_flight() < self.config.in_flight_records_max {
            let Some(batch) = reader.next(durable).map_err(|e| Trouble::Fatal(e.into()))? else { break };
            any = true;
            progress.batch(batch.end(), batch.stream);
            for frame in batch.frames() {
                for record in frame.records() {
                    let Record::Sent { place, key, value } = record else { continue };
                    if let Some(ticket) = progress.sending(place) {
                        let refused = self.refusals.count(batch.stream, place) >= refusals::TRIES_MAX;
                        if refused && place.kind == Sent::Reading {
                            self.give_up(key, value)?;
                            self.refusals.clear();
                            progress.acknowledged(ticket);
                        } else {
                            producer.send(ticket, batch.stream, place, key, value)?;
                        }
                    }
                }
            }
        }
        Ok(any)
    }

    /// The dead letter is journaled before any cursor that counts the reading as done, as events are in order.
    fn give_up(&self, device: &[u8], value: &[u8]) -> Result<(), Trouble> {
        tracing::error!(device = %String::from_utf8_lossy(device), "kafka refused a reading three times");
        let event = Event::Refused {
            device: device.to_vec(),
            value: value.to_vec(),
            why: self.refusals.why().to_owned(),
            now: clock::now(),
        };
        self.wiring.events.send(event).map_err(|_| Trouble::retry("ingest has ended"))
    }

    fn acknowledge(&mut self, producer: &Producer, progress: &mut Progress) -> Result<(), Trouble> {
        for delivery in producer.deliveries() {
            match delivery.result {
                Ok(()) => {
                    if self.heard.elapsed() >= SILENCE {
                        self.wiring.ready.good(WHO);
                    }
                    self.heard = clock::instant();
                    if let Some((stream, place)) = progress.acknowledged(delivery.ticket) {
                        self.measures.forwarded(place.kind, stream == self.stream);
                    }
                }
                Err(error) => {
                    if let Some((stream, place)) = progress.place(delivery.ticket) {
                        self.refusals.note(stream, place, &error);
                    }
                    return Err(Trouble::retry(format!("kafka did not take a record: {error}")));
                }
            }
        }
        Ok(())
    }

    /// librdkafka goes on trying by itself; people must hear of it.
    fn note_silence(&mut self, progress: &Progress) {
        if progress.in_flight() == 0 {
            self.heard = clock::instant();
        } else if self.heard.elapsed() >= SILENCE {
            let seconds = self.heard.elapsed().as_secs();
            let records = progress.in_flight();
            self.wiring.ready.bad(WHO, format!("no acknowledgement for {seconds} s, {records} records wait"));
        }
    }

    fn note_cursor(&mut self, progress: &mut Progress, due: &mut Instant) -> Result<(), Trouble> {
        self.measures.in_flight.set(progress.in_flight() as f64);
        if clock::instant() < *due {
            return Ok(());
        }
        *due = clock::instant() + self.config.cursor;
        let cursor = progress.cursor();
        let durable = self.wiring.durable.load(Ordering::Acquire);
        self.measures.held_bytes.set(durable.saturating_sub(cursor.position) as f64);
        // A journaled cursor makes a batch of its own, which moves the position: only records count as news.
        if progress.take_news() {
            self.cursor = cursor.clone();
            self.wiring.events.send(Event::Cursor(cursor)).map_err(|_| Trouble::retry("ingest has ended"))?;
        }
        Ok(())
    }
}
