//! Reading `weir.rejected`, read committed, from where it begins (or a time) up to where it ended when the reading began.
//!
//! Comes in: brokers. Goes out: each record once, those of a partition in their order.
//! Guarantees: joins no group and commits nothing; memory is bounded by the client's queue. A record that retention takes
//! away meanwhile is passed over.
//! On failure: an error when nothing comes for [`PATIENCE`]; what was read until then was read once.

use std::io::Write as _;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use weir_shared::clock::Deadline;
use weir_shared::supervise::Error;
use weir_shared::wire;

use super::letter::Counts;
use super::select::Position;
use crate::kafka::{ASK, KafkaConfig};
use crate::process::Input;

/// Longest wait for the next record.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one record that is known to be there.
const ONE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// How often a long reading says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Lets the commands speak for themselves: what the client library says goes to the log's details.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!("dlq: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("dlq: {error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

/// A consumer that is given its partitions by hand.
pub(super) fn consumer(kafka: &KafkaConfig, isolation: &str) -> Result<BaseConsumer<Quiet>, Error> {
    let mut config = kafka.client();
    config
        .set("group.id", "weir-dlq") // never joined
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "16384");
    Ok(config.create_with_context(Quiet)?)
}

/// How many partitions a topic has; 0: there is none.
pub(super) fn partitions(asker: &BaseConsumer<Quiet>, topic: &str) -> Result<i32, Error> {
    let metadata = asker.fetch_metadata(Some(topic), ASK).map_err(|e| format!("asking for {topic}: {e}"))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    Ok(i32::try_from(found.map_or(0, |t| t.partitions().len()))?)
}

/// What is to be read of a partition.
#[derive(Clone, Copy, Debug)]
struct Part {
    partition: i32,
    low: i64,
    from: i64,
    /// Behind the last record.
    end: i64,
    done: bool,
}

/// The dead letters that stand now.
pub(super) struct Log {
    consumer: BaseConsumer<Quiet>,
    parts: Vec<Part>,
}

impl Log {
    /// Those since a time (ms since 1970), or all.
    pub(super) fn open(kafka: &KafkaConfig, since: Option<i64>) -> Result<Self, Error> {
        let consumer = consumer(kafka, "read_committed")?;
        let count = partitions(&consumer, wire::REJECTED)?;
        if count == 0 {
            return Err(format!("there is no topic {}: run `weir-cloud init`", wire::REJECTED).into());
        }
        let mut parts = Vec::new();
        for partition in 0..count {
            let (low, end) = consumer.fetch_watermarks(wire::REJECTED, partition, ASK)?;
            parts.push(Part { partition, low, from: low, end, done: false });
        }
        if let Some(since) = since {
            let mut times = TopicPartitionList::new();
            for part in &parts {
                times.add_partition_offset(wire::REJECTED, part.partition, Offset::Offset(since.max(0)))?;
            }
            let found = consumer.offsets_for_times(times, ASK)?;
            for element in found.elements() {
                element.error()?;
                let part = parts.iter_mut().find(|part| part.partition == element.partition());
                if let Some(part) = part {
                    // No offset: everything is older.
                    part.from = match element.offset() {
                        Offset::Offset(from) => from.max(part.low),
                        _ => part.end,
                    };
                }
            }
        }
        Ok(Self { consumer, parts })
    }

    /// How many partitions the processor's inputs have.
    pub(super) fn counts(&self) -> Result<Counts, Error> {
        let count = |input: Input| Ok((input.topic(), partitions(&self.consumer, input.topic())?));
        Input::ALL.into_iter().map(count).collect()
    }

    /// Gives each record to `each`; may be called again, and then gives the same.
    pub(super) fn read(
        &mut self,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut list, mut paused) = (TopicPartitionList::new(), TopicPartitionList::new());
        for part in &mut self.parts {
            part.done = part.from >= part.end;
            if !part.done {
                list.add_partition_offset(wire::REJECTED, part.partition, Offset::Offset(part.from))?;
            }
        }
        self.consumer.assign(&list)?;
        let all: i64 = self.parts.iter().map(|part| part.end - part.from).sum();
        let (mut read, mut progress, mut patience) =
            (0_u64, Deadline::after(PROGRESS), Deadline::after(PATIENCE));
        while self.parts.iter().any(|part| !part.done) {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    patience = Deadline::after(PATIENCE);
                    let part = self.parts.iter_mut().find(|part| part.partition == message.partition());
                    let Some(part) = part.filter(|part| !part.done) else { continue };
                    if message.offset() < part.end {
                        each(&message)?;
                        read += 1;
                    }
                    if message.offset() + 1 >= part.end {
                        part.done = true;
                        let mut ended = TopicPartitionList::new();
                        ended.add_partition(wire::REJECTED, part.partition);
                        self.consumer.pause(&ended)?;
                        paused.add_partition(wire::REJECTED, part.partition);
                    }
                }
                // What follows the last record are only the ends of transactions.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.parts.iter_mut().filter(|p| p.partition == partition).for_each(|p| p.done = true);
                }
                Some(Err(error)) => tracing::debug!("dlq: {error}"),
                None => {}
            }
            if patience.passed() {
                let seconds = PATIENCE.as_secs();
                return Err(
                    format!("{} gave nothing for {seconds} s after {read} records", wire::REJECTED).into()
                );
            }
            if progress.passed() {
                progress = Deadline::after(PROGRESS);
                writeln!(std::io::stderr(), "{read} of at most {all} read")?;
            }
        }
        // Paused they would stay in the next reading. Not after its assignment: that could cost records that have come.
        self.consumer.resume(&paused)?;
        self.consumer.assign(&TopicPartitionList::new())?;
        Ok(())
    }

    /// Gives the one record at a position.
    pub(super) fn read_one<T>(
        &self,
        position: Position,
        take: impl FnOnce(&BorrowedMessage<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Position { partition, offset } = position;
        let Some(part) = self.parts.iter().find(|part| part.partition == partition) else {
            let count = self.parts.len();
            return Err(format!("{position}: {} has {count} partitions, from 0 on", wire::REJECTED).into());
        };
        let none = || {
            let (low, end) = (part.low, part.end);
            format!(
                "{position}: no dead letter stands there; {} [{partition}] holds {low} to {end}",
                wire::REJECTED
            )
        };
        if offset < part.low || offset >= part.end {
            return Err(none().into());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(wire::REJECTED, partition, Offset::Offset(offset))?;
        self.consumer.assign(&list)?;
        let deadline = Deadline::after(ONE);
        while !deadline.passed() {
            match self.consumer.poll(POLL) {
                // What an earlier position left in the queue.
                Some(Ok(message)) if message.partition() != partition || message.offset() < offset => {}
                Some(Ok(message)) if message.offset() == offset => return take(&message),
                Some(Ok(_)) => return Err(none().into()),
                Some(Err(KafkaError::PartitionEOF(ended))) if ended == partition => return Err(none().into()),
                Some(Err(error)) => tracing::debug!("dlq: {error}"),
                None => {}
            }
        }
        Err(format!("{position}: Kafka did not give it within {} s", ONE.as_secs()).into())
    }
}

/// Where a record stands.
pub(super) fn position(message: &BorrowedMessage<'_>) -> Position {
    Position { partition: message.partition(), offset: message.offset() }
}

/// Kafka's time of a record, ms since 1970.
pub(super) fn time(message: &BorrowedMessage<'_>) -> i64 {
    message.timestamp().to_millis().unwrap_or(0)
}
