//! The ingest stage: decode → journal → acknowledge.
//!
//! Comes in: messages of the sources and control events, in order. Goes out: receipts of messages that are on disk,
//! in the order received. Guarantees: a receipt is given back only after the fsync that covers its message (or the
//! one it repeats); every message becomes at least one record; numbers within (stream, topic, partition) have no gap.
//! Group commit: what arrives within `commit` or `commit_bytes_max` shares one fsync.
//! On failure: any error of the journal ends the process; nothing of the open batch is acknowledged.

use std::time::Duration;

use flume::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::watch;
use weir_shared::clock::{self, Deadline};
use weir_shared::pulse::Pulse;
use weir_shared::supervise::Error;
use weir_shared::wire;
use xxhash_rust::xxh3::Xxh3;

use crate::decode::{Decoded, Decoder, Input};
use crate::journal::format::{FrameHead, Place, Record, Sent};
use crate::journal::{Redelivery, Segments, Writer};
use crate::sources::{Event, Message, Receipt};

mod measures;
mod unproven;

use measures::Measures;
use unproven::Unproven;

/// Limits of journal and group commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IngestConfig {
    /// Preallocated size of a segment.
    pub segment_bytes: u64,
    /// How long a commit waits for company.
    pub commit: Duration,
    /// How many bytes are company enough.
    pub commit_bytes_max: usize,
}

/// What the stage is connected to.
pub(crate) struct Wiring {
    /// From sources and forwarder; ends when all of them have ended.
    pub events: Receiver<Event>,
    /// To the source.
    pub receipts: Sender<Vec<Receipt>>,
    /// To the forwarder: something new is durable. Holds one wake-up at most.
    pub wake: Sender<()>,
    /// To the source: readings can be numbered.
    pub open: watch::Sender<bool>,
    /// Beats with the commits.
    pub pulse: Pulse,
}

/// Decodes, journals and acknowledges.
pub(crate) struct Ingest {
    config: IngestConfig,
    decoder: Decoder,
    writer: Writer,
    redelivery: Redelivery,
    unproven: Unproven,
    segments: Segments,
    numbers: Option<Numbers>,
    wiring: Wiring,
    receipts: Vec<Receipt>,
    /// The connection of the last message, its receipt, and the last receipt before that connection.
    connection: u64,
    count: u64,
    count_before: u64,
    /// Whether this connection has sent again all that it will.
    settled: bool,
    decoded: Vec<Decoded>,
    measures: Measures,
}

impl Ingest {
    /// Goes on with a journal that was opened, and what it tells of redeliveries.
    pub(crate) fn new(
        config: IngestConfig,
        decoder: Decoder,
        writer: Writer,
        redelivery: Redelivery,
        segments: Segments,
        wiring: Wiring,
    ) -> Self {
        let numbers = writer.topic_partitions().map(Numbers::new);
        let unproven = Unproven::new(writer.position());
        wiring.open.send_replace(numbers.is_some());
        Self {
            config,
            decoder,
            writer,
            redelivery,
            unproven,
            segments,
            numbers,
            wiring,
            receipts: Vec::new(),
            connection: 0,
            count: 0,
            count_before: 0,
            settled: false,
            decoded: Vec::new(),
            measures: Measures::new(),
        }
    }

    /// Works until everybody who sends events has ended.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        while let Ok(event) = self.wiring.events.recv() {
            self.take(event)?;
            let deadline = Deadline::after(self.config.commit);
            while self.writer.waiting_bytes() < self.config.commit_bytes_max {
                match self.wiring.events.recv_timeout(deadline.left()) {
                    Ok(event) => self.take(event)?,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.commit()?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Message(message) => self.message(message)?,
            Event::Session { session, subscriptions } => {
                self.redelivery.session(session);
                self.writer.session(session, subscriptions, clock::now());
            }
            Event::Proven(receipt) => self.proven(receipt),
            Event::Closed(receipt) if self.settled => self.proven(receipt),
            Event::Closed(_) => {}
            Event::Topics(topics) => {
                self.writer.topics(topics, clock::now());
                self.numbers = Some(Numbers::new(topics));
                self.wiring.open.send_replace(true);
            }
            Event::Cursor(cursor) => self.writer.cursor(cursor, clock::now()),
            Event::Refused { device, value, why, now } => {
                let device = String::from_utf8_lossy(&device);
                let rejection = self.decoder.refused_by_kafka(&device, &value, &why, now);
                self.decoded.push(Decoded::Rejection(rejection));
                self.append(&FrameHead { session: 0, packet: 0, digest: 0, arrived: now })?;
            }
        }
        Ok(())
    }

    fn proven(&mut self, receipt: u64) {
        self.redelivery.proven(receipt);
        if let Some(position) = self.unproven.proven(receipt) {
            self.writer.proven(position, clock::now());
        }
    }

    /// A source sends again in the order in which it sent, and first of all. So with the first message of a
    /// connection that is not a redelivery, all that it did not send again by then is acknowledged.
    fn settle(&mut self) {
        if !self.settled {
            self.settled = true;
            self.proven(self.count_before);
        }
    }

    fn message(&mut self, message: Message) -> Result<(), Error> {
        let Message { receipt, again, session, topic, payload, arrived, memory } = message;
        self.measures.received.increment(1);
        self.measures.received_bytes.increment(payload.len() as u64);
        if receipt.packet != 0 {
            self.receipts.push(receipt);
        }
        if receipt.connection != self.connection {
            (self.connection, self.count_before, self.settled) = (receipt.connection, self.count, false);
        }
        self.count = receipt.count;
        let digest = digest(&topic, &payload);
        if again && self.redelivery.stands(receipt.packet, digest, receipt.count) {
            self.measures.redelivered.increment(1);
            self.unproven.again(receipt.count);
            return Ok(());
        }
        let decoded = &mut self.decoded;
        self.decoder.decode(&Input { topic: &topic, payload: &payload, arrived }, |d| decoded.push(d));
        self.append(&FrameHead { session, packet: receipt.packet, digest, arrived })?;
        if receipt.packet != 0 {
            self.settle();
            self.redelivery.appended(receipt.packet, digest, receipt.count);
        }
        drop(memory);
        Ok(())
    }

    /// Appends what was decoded as one frame.
    fn append(&mut self, head: &FrameHead) -> Result<(), Error> {
        let numbers = self.numbers.as_mut().ok_or("a record before the partition counts were known")?;
        let measures = &self.measures;
        let records = self.decoded.iter().map(|decoded| {
            let (kind, key, value) = match decoded {
                Decoded::Reading(r) => (Sent::Reading, &r.device, &r.value),
                Decoded::Rejection(r) => {
                    measures.rejected(r.reason);
                    (Sent::Rejection, &r.key, &r.value)
                }
            };
            measures.journaled(kind);
            Record::Sent { place: numbers.next(kind, key.as_bytes()), key: key.as_bytes(), value }
        });
        self.writer.message(head, records);
        self.decoded.clear();
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        let begun = clock::instant();
        self.wiring.pulse.working();
        self.writer.commit()?;
        self.wiring.pulse.idle();
        if let Some(last) = self.receipts.last() {
            self.unproven.committed(last.count, self.writer.position());
        }
        self.measures.commit_seconds.record(begun.elapsed().as_secs_f64());
        self.measures.journal_bytes.set(self.segments.bytes() as f64);
        self.measures.acknowledged.increment(self.receipts.len() as u64);
        if !self.receipts.is_empty() && self.wiring.receipts.send(std::mem::take(&mut self.receipts)).is_err()
        {
            tracing::debug!("the source has ended; it is sent again what it does not hear of");
        }
        match self.wiring.wake.try_send(()) {
            Ok(()) | Err(flume::TrySendError::Full(())) => {}
            Err(flume::TrySendError::Disconnected(())) => tracing::debug!("the forwarder has ended"),
        }
        Ok(())
    }
}

/// The next number of each topic and partition, of this stream.
#[derive(Debug)]
struct Numbers([Vec<u64>; 2]);

impl Numbers {
    fn new(partitions: [u32; 2]) -> Self {
        Self(partitions.map(|count| vec![0; count.max(1) as usize]))
    }

    fn next(&mut self, kind: Sent, key: &[u8]) -> Place {
        let numbers = match kind {
            Sent::Reading => &mut self.0[0],
            Sent::Rejection => &mut self.0[1],
        };
        let count = i32::try_from(numbers.len()).unwrap_or(i32::MAX);
        let partition = wire::partition_of(key, count).unsigned_abs();
        let number = &mut numbers[partition as usize];
        *number += 1;
        Place { kind, partition, number: *number - 1 }
    }
}

/// A topic never holds 0xFF, as it is UTF-8: so topic and payload cannot run into each other.
fn digest(topic: &str, payload: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(topic.as_bytes());
    hash.update(&[0xff]);
    hash.update(payload);
    hash.digest128()
}
