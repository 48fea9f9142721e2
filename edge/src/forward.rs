//! The forwarder: from the journal to Kafka, in order.
//!
//! Comes in: batches of the journal below its durable position. Goes out: records with headers `edge`, `stream` and
//! `number`, each into the partition it was numbered for; and the acknowledged prefix, back to the journal.
//! Guarantees: a record counts as sent only after Kafka has acknowledged it (acks=all, idempotent producer); memory is
//! bounded by the records in flight; what a crash makes it send again carries the same identity, so the cloud drops it.
//! Live first (where that is configured): what is held when a connection begins waits behind the newest stream, and
//! is marked. Numbers that are missing in the journal are told.
//! On failure: any delivery error ends this producer, and a new one sends everything unacknowledged again, in order,
//! after a jittered backoff. A reading that Kafka refuses three times on its own becomes a dead letter. A topic whose
//! partition count changed is refused with the way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, Sender};
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::kafka_security::RENEWED;
use weir_shared::pulse::Pulse;
use weir_shared::record::StreamId;
use weir_shared::supervise::{Error, Stop};
use weir_shared::tls::Renewals;

use crate::clocks::Clocks;
use crate::events::{Event, Note};
use crate::faults;
use crate::journal::format::{Acknowledged, Cursor, Frame, Partitions, Record, Sent};
use crate::journal::reader::Step;
use crate::journal::{Reader, Segments};

mod bandwidth;
mod measures;
mod producer;
mod progress;
mod ranges;
mod refusals;
mod send;
pub(crate) mod settings;

use bandwidth::Bandwidth;
use measures::Measures;
use producer::{Producer, Trouble};
use ranges::{Bounds, RANGES_MAX, Ranges};
use refusals::Refusals;
pub(crate) use settings::KafkaConfig;

/// Without an acknowledgement for this long, while records wait for one, Kafka counts as away.
const SILENCE: Duration = Duration::from_secs(5);
/// After so much silence a new producer tries, whatever this one believes of its brokers.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a stop waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(3);
/// Between two looks at librdkafka's reports while records are in flight. (Its own poll counts in whole milliseconds and
/// spins through the rest.)
const REPORTS: Duration = Duration::from_millis(1);
/// The longest wait for news when nothing is in flight: bounds how long a stop goes unnoticed.
const IDLE: Duration = Duration::from_millis(250);
/// Between two looks at the age of what is held.
const AGE: Duration = Duration::from_secs(5);
/// Most batches without a record that is sent, of such a look.
const AGE_BATCHES_MAX: usize = 1_000;
/// Held bytes from which on live data goes first.
const BACKLOG_BYTES: u64 = 1 << 20;
/// How long the ingest stage may take to open a stream.
const OPENING: Duration = Duration::from_secs(10);

/// Asks Kafka how many partitions each of our topics has.
///
/// # Errors
/// Why it does not say.
pub(crate) fn partitions(config: &KafkaConfig) -> Result<Partitions, String> {
    Producer::new(config).and_then(|producer| producer.partitions()).map_err(|trouble| match trouble {
        Trouble::Retry(why) => why,
        Trouble::Fatal(error) => error.to_string(),
    })
}

/// What the stage is connected to.
pub(crate) struct Wiring {
    /// Which lane this is, and how it complains.
    pub lane: usize,
    /// Name of its flow.
    pub flow: String,
    /// Name under which it complains.
    pub who: String,
    /// To the ingest stage.
    pub events: Sender<Event>,
    /// From the ingest stage: something new is durable.
    pub wake: Receiver<()>,
    /// The journal's durable position.
    pub durable: Arc<AtomicU64>,
    /// The journal's files.
    pub segments: Segments,
    /// How untrusted times are to be read.
    pub clocks: Clocks,
    /// Where to complain.
    pub ready: Health,
    /// Beats with each round of sending.
    pub pulse: Pulse,
}

/// What the journal says when the process starts.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// The stream of this process.
    pub stream: StreamId,
    /// Where it begins.
    pub position: u64,
    /// The partition counts that the journal was numbered for.
    pub topics: Option<Partitions>,
    /// What is acknowledged.
    pub cursor: Cursor,
    /// Whether what is held waits behind what is new.
    pub live_first: bool,
}

/// Sends what stands in the journal.
pub(crate) struct Forwarder {
    config: KafkaConfig,
    wiring: Wiring,
    stream: StreamId,
    topics: Option<Partitions>,
    live_first: bool,
    bounds: Vec<Bounds>,
    prefixes: Vec<Acknowledged>,
    refusals: Refusals,
    bandwidth: Bandwidth,
    /// When Kafka last acknowledged something, or had nothing to acknowledge.
    heard: Instant,
    age_due: Deadline,
    measures: Measures,
}

impl Forwarder {
    /// Goes on where the cursor says.
    pub(crate) fn new(config: KafkaConfig, wiring: Wiring, start: Start) -> Self {
        let Start { stream, position, topics, cursor, live_first } = start;
        let mut bounds = vec![Bounds { position: cursor.position, end: u64::MAX }];
        if live_first && cursor.position < position {
            bounds =
                vec![Bounds { position: cursor.position, end: position }, Bounds { position, end: u64::MAX }];
        }
        let (now, measures) = (clock::instant(), Measures::new(&wiring.flow));
        Self {
            bandwidth: Bandwidth::new(config.bytes_per_s_max, now),
            config,
            wiring,
            stream,
            topics,
            live_first,
            bounds,
            prefixes: cursor.prefixes,
            refusals: Refusals::default(),
            heard: now,
            age_due: Deadline::after(Duration::ZERO),
            measures,
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, stop: &Stop) -> Result<(), Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while !stop.is_stopped() {
            self.wiring.pulse.beat();
            // Also while Kafka was never there.
            self.note_held();
            let before = (self.bounds.clone(), self.prefixes.clone());
            match self.incarnation(stop) {
                Ok(()) => break,
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Retry(why)) => {
                    if (&self.bounds, &self.prefixes) != (&before.0, &before.1) {
                        backoff.reset();
                    }
                    let wait =
                        if faults::is_broken("bad.no_backoff") { Duration::ZERO } else { backoff.wait() };
                    if let Some(more) = backoff.tells(&why) {
                        tracing::warn!(why, "kafka: will send again from the cursor{more}");
                    }
                    self.wiring.ready.bad(&self.wiring.who, why);
                    self.measures.connected(false);
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
        let mut renewals = self.config.security.renewals();
        let producer = Producer::new(&self.config)?;
        self.measures.new_producer();
        self.heard = clock::instant();
        self.check_topics(&producer)?;
        self.wiring.ready.good(&self.wiring.who);
        self.measures.connected(true);
        tracing::info!(lane = self.wiring.who, "kafka: connected");
        self.split()?;
        let mut ranges = Ranges::new(&self.wiring.segments, &self.bounds, &self.prefixes);
        let mut cursor_due = clock::instant() + self.config.cursor;
        while !stop.is_stopped() {
            self.wiring.pulse.beat();
            let sent = self.fill(&producer, &mut ranges, stop)?;
            producer.poll();
            self.acknowledge(&producer, &mut ranges)?;
            let wait = if ranges.in_flight() > 0 { REPORTS } else { IDLE };
            if !sent && self.wiring.wake.recv_timeout(wait) == Err(flume::RecvTimeoutError::Disconnected) {
                return Ok(());
            }
            self.note_silence(&producer, &ranges)?;
            self.note_cursor(&mut ranges, &mut cursor_due)?;
            if renewals.as_mut().is_some_and(Renewals::came) {
                return Err(Trouble::retry(RENEWED));
            }
        }
        let deadline = Deadline::after(DRAIN);
        while ranges.in_flight() > 0 && !deadline.passed() {
            std::thread::sleep(REPORTS);
            producer.poll();
            self.acknowledge(&producer, &mut ranges)?;
        }
        self.note_cursor(&mut ranges, &mut clock::instant())
    }

    fn check_topics(&mut self, producer: &Producer) -> Result<(), Trouble> {
        let found = producer.partitions()?;
        let known = match self.topics {
            Some(known) if !known.contains(&0) => known,
            // Topics that this version added to a journal get their counts now.
            known => {
                let known = known.unwrap_or_default();
                let counts = std::array::from_fn(|i| if known[i] == 0 { found[i] } else { known[i] });
                self.note(Note::Topics(counts))?;
                self.topics = Some(counts);
                counts
            }
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

    /// Live first: with much held back, what comes from now on is a stream of its own and does not wait for it.
    fn split(&mut self) -> Result<(), Trouble> {
        let Some(newest) = self.bounds.last_mut() else { return Ok(()) };
        let held = self.wiring.durable.load(Ordering::Acquire).saturating_sub(newest.position);
        if !self.live_first || held < BACKLOG_BYTES || self.bounds.len() >= RANGES_MAX {
            return Ok(());
        }
        let (answer, opened) = flume::bounded(1);
        self.note(Note::OpenStream(answer))?;
        let position =
            opened.recv_timeout(OPENING).map_err(|_| Trouble::retry("no new stream was opened"))?;
        if let Some(newest) = self.bounds.last_mut() {
            newest.end = position;
        }
        self.bounds.push(Bounds { position, end: u64::MAX });
        tracing::info!(held_bytes = held, position, "live data goes first; what is held follows behind it");
        Ok(())
    }

    fn acknowledge(&mut self, producer: &Producer, ranges: &mut Ranges) -> Result<(), Trouble> {
        for delivery in producer.deliveries() {
            match delivery.result {
                Ok(()) => {
                    if clock::since(self.heard) >= SILENCE {
                        tracing::info!(lane = self.wiring.who, "kafka: acknowledges again");
                        self.wiring.ready.good(&self.wiring.who);
                        self.measures.connected(true);
                    }
                    self.measures.acknowledged(delivery.ticket);
                    self.heard = clock::instant();
                    producer.brokers_are_up();
                    faults::kill_at("edge.e7");
                    let closing = ranges.is_closing(delivery.ticket);
                    match ranges.acknowledged(delivery.ticket) {
                        Some(_) if closing => self.measures.closed.increment(1),
                        Some((stream, place)) => self.measures.forwarded(place.kind, stream == self.stream),
                        None => {}
                    }
                }
                Err(error) => {
                    if let Some((stream, place)) = ranges.place(delivery.ticket) {
                        self.refusals.note(stream, place, &error);
                    }
                    return Err(Trouble::retry(format!("kafka did not take a record: {error}")));
                }
            }
        }
        Ok(())
    }

    /// librdkafka goes on trying by itself; people must hear of it.
    /// With all brokers down it does so busily (librdkafka #3692): then a new producer, which has nothing in its hands,
    /// waits for them better.
    fn note_silence(&mut self, producer: &Producer, ranges: &Ranges) -> Result<(), Trouble> {
        if ranges.in_flight() == 0 {
            self.heard = clock::instant();
        } else if clock::since(self.heard) >= SILENCE {
            let seconds = clock::since(self.heard).as_secs();
            let records = ranges.in_flight();
            let why = format!("no acknowledgement for {seconds} s, {records} records wait");
            if producer.brokers_are_down() || clock::since(self.heard) >= SILENCE_MAX {
                return Err(Trouble::retry(why));
            }
            self.wiring.ready.bad(&self.wiring.who, why);
            self.measures.connected(false);
        }
        Ok(())
    }

    fn note_cursor(&mut self, ranges: &mut Ranges, due: &mut Instant) -> Result<(), Trouble> {
        if clock::instant() < *due {
            return Ok(());
        }
        *due = clock::instant() + self.config.cursor;
        self.measures.in_flight.set(ranges.in_flight() as f64);
        let missing = ranges.take_missing();
        let (cursor, bounds, done) = ranges.cursor();
        self.measures.held_bytes.set(self.held(&bounds) as f64);
        self.note_age(&bounds);
        if !missing.is_empty() {
            self.note(Note::Missing(missing))?;
        }
        // A journaled cursor makes a batch of its own, which moves the position: only records count as news.
        if ranges.take_news() || !done.is_empty() {
            (self.bounds, self.prefixes) = (bounds, cursor.prefixes.clone());
            self.note(Note::Cursor { cursor, done })?;
        }
        Ok(())
    }

    fn note_held(&mut self) {
        let bounds = self.bounds.clone();
        self.measures.held_bytes.set(self.held(&bounds) as f64);
        self.note_age(&bounds);
    }

    /// Now and then looks into the journal for the oldest record that is not acknowledged.
    fn note_age(&mut self, bounds: &[Bounds]) {
        if !self.age_due.passed() {
            return;
        }
        self.age_due = Deadline::after(AGE);
        if let Some(received) = oldest_held(&self.wiring, bounds) {
            let age = received.map_or(0, |received| clock::wall_ms().saturating_sub(received).max(0));
            self.measures.held_seconds.set(age as f64 / 1000.0);
        }
    }

    /// Bytes that are durable and not acknowledged.
    fn held(&self, bounds: &[Bounds]) -> u64 {
        let durable = self.wiring.durable.load(Ordering::Acquire);
        bounds.iter().map(|b| b.end.min(durable).saturating_sub(b.position)).sum()
    }

    /// In order with all other notes of this lane.
    fn note(&self, note: Note) -> Result<(), Trouble> {
        let event = Event::Lane(self.wiring.lane, note);
        self.wiring.events.send(event).map_err(|_| Trouble::retry("the ingest stage has ended"))
    }
}

/// When the oldest record was received that is durable and not acknowledged, ms since 1970, or that there is none; nothing
/// where the journal cannot be read, its clock is not known yet, or the look took too long.
fn oldest_held(wiring: &Wiring, bounds: &[Bounds]) -> Option<Option<i64>> {
    let durable = wiring.durable.load(Ordering::Acquire);
    let mut batches = 0;
    for range in bounds {
        let mut reader = Reader::new(wiring.segments.clone(), range.position);
        while let Some(step) = reader.next(range.end.min(durable)).ok()? {
            let Step::Batch(batch) = step else { continue };
            let is_sent =
                |frame: &Frame<'_>| frame.records().any(|record| matches!(record, Record::Sent { .. }));
            if let Some(frame) = batch.frames().find(is_sent) {
                return Some(Some(wiring.clocks.read(batch.boot, &frame.head.arrived)?.wall_ms));
            }
            batches += 1;
            if batches == AGE_BATCHES_MAX {
                return None;
            }
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests;
