//! One transaction: results, marks and offsets, all or nothing.
//!
//! Comes in: records to produce, the offsets they stand for. Goes out: committed, or why not.
//! Guarantees: it is committed only after every record was delivered and the group's generation was accepted; a commit
//! without an answer is asked again as the same commit.
//! On failure: [`Failure`] says what to do next. Never waits longer than [`COMMIT`] plus the broker's answers: where librdkafka
//! itself would, it is left waiting on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use weir_shared::clock::Deadline;

use crate::faults;
use crate::kafka::{ASK, native};

/// How long records may take to be delivered; the broker aborts the transaction after the same time.
const DELIVER: Duration = Duration::from_secs(6);
/// How long adding offsets may take.
const OFFSETS: Duration = Duration::from_secs(5);
/// How long a commit or abort without an answer is repeated.
const COMMIT: Duration = Duration::from_secs(30);
/// Between two looks at the number of undelivered records. rdkafka's own waits are 100 ms long.
const STEP: Duration = Duration::from_micros(200);

/// What to do after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Abort, and process the same records again.
    Abort(String),
    /// Nobody knows how the transaction ended: new producer, state read back.
    Broken(String),
    /// The producer was fenced: by a twin, or by the broker because the transaction took too long.
    ProducerFenced(String),
    /// Another consumer has our name.
    Twin(String),
    /// The next record of some partition is no longer in the log.
    OutOfRange(String),
}

impl Failure {
    /// What happened, in words.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Abort(why)
            | Self::Broken(why)
            | Self::ProducerFenced(why)
            | Self::Twin(why)
            | Self::OutOfRange(why) => why,
        }
    }
}

/// Notes failed deliveries; only those are reported.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    failed: AtomicBool,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("process: a record was not delivered: {error}");
        }
    }
}

/// A producer of transactions.
pub(super) type Client = Arc<BaseProducer<Deliveries>>;

/// An open transaction.
pub(super) struct Transaction<'p> {
    producer: &'p Client,
    deliver: Deadline,
}

impl<'p> Transaction<'p> {
    /// Opens one.
    pub(super) fn begin(producer: &'p Client) -> Result<Self, Failure> {
        producer.context().failed.store(false, Ordering::Relaxed);
        producer.begin_transaction().map_err(|e| classify("begin", &e))?;
        Ok(Self { producer, deliver: Deadline::after(DELIVER) })
    }

    /// Adds a record; waits while the queue is full.
    pub(super) fn send<K: ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, K, [u8]>,
    ) -> Result<(), Failure> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.step("the queue of the producer stays full")?;
                }
                Err((error, record)) => {
                    return Err(self.refused(&format!("a record for {}: {error}", record.topic)));
                }
            }
        }
    }

    /// Sends the offsets, waits for all deliveries and commits. After an error the outcome is as [`Failure`] says.
    pub(super) fn commit<C: ConsumerContext>(
        self,
        consumer: &BaseConsumer<C>,
        offsets: &TopicPartitionList,
    ) -> Result<(), Failure> {
        // Without a generation the broker could not fence us from an empty group.
        if !faults::is_broken("bad.ignore_fence")
            && native::generation(consumer).is_none_or(|generation| generation < 0)
        {
            return Err(Failure::Abort("not a member of the group now".to_owned()));
        }
        let metadata = consumer
            .group_metadata()
            .ok_or_else(|| Failure::Broken("the consumer has no group metadata".to_owned()))?;
        if faults::is_broken("bad.commit_first") {
            consumer.commit(offsets, CommitMode::Sync).map_err(|e| classify("offsets", &e))?;
        } else if !outside() {
            add_offsets(self.producer, offsets.clone(), metadata)?;
        }
        faults::kill_at("cloud.s3");
        if faults::is_broken("cloud.abort") {
            return Err(Failure::Abort("a fault point".to_owned()));
        }
        while self.producer.in_flight_count() > 0 {
            self.step("records are not delivered")?;
        }
        self.producer.poll(Duration::ZERO);
        if self.producer.context().failed.load(Ordering::Relaxed) {
            return Err(self.refused("a record was not delivered"));
        }
        faults::kill_during("cloud.s4");
        repeat("commit", COMMIT, || self.producer.commit_transaction(ASK))
    }

    fn step(&self, what: &str) -> Result<(), Failure> {
        self.producer.poll(Duration::ZERO);
        if self.producer.context().failed.load(Ordering::Relaxed) {
            return Err(self.refused("a record was not delivered"));
        }
        if self.deliver.passed() {
            return Err(Failure::Abort(format!("{what} for {} s", DELIVER.as_secs())));
        }
        std::thread::sleep(STEP);
        Ok(())
    }

    /// A producer that is fenced says so only in its fatal error; deliveries and sends then fail with other words.
    fn refused(&self, what: &str) -> Failure {
        match self.producer.client().fatal_error() {
            Some((code, text)) if is_fence(code) => Failure::ProducerFenced(text),
            Some((_, text)) => Failure::Broken(text),
            None => Failure::Abort(what.to_owned()),
        }
    }
}

/// Adds the offsets, on a thread of its own: librdkafka waits without limit for a coordinator of the group that it knows and
/// cannot reach, although the group has another one by now. When that thread goes on at last, the next producer of the slot
/// has fenced it.
fn add_offsets(
    producer: &Client,
    offsets: TopicPartitionList,
    metadata: ConsumerGroupMetadata,
) -> Result<(), Failure> {
    let (answer, answered) = mpsc::sync_channel(1);
    let client = Arc::clone(producer);
    let add = move || {
        let add = || client.send_offsets_to_transaction(&offsets, &metadata, ASK);
        let _nobody_waits_any_more = answer.send(repeat("offsets", DELIVER, add));
    };
    let thread = std::thread::Builder::new().name("offsets".to_owned()).spawn(add);
    thread.map_err(|e| Failure::Broken(format!("offsets: no thread: {e}")))?;
    answered.recv_timeout(OFFSETS).unwrap_or_else(|_| {
        let words = format!("offsets: no answer of the group's coordinator for {} s", OFFSETS.as_secs());
        Err(Failure::Broken(words))
    })
}

/// Whether offsets stay out of the transaction: only to see that a test notices.
pub(super) fn outside() -> bool {
    faults::is_broken("bad.no_transaction_offsets") || faults::is_broken("bad.ignore_fence")
}

/// Takes back the open transaction.
pub(super) fn abort(producer: &Client) -> Result<(), Failure> {
    producer.purge(PurgeConfig::default().queue());
    // What is on its way is answered or times out; the abort itself would wait without serving the answers.
    let deadline = Deadline::after(DELIVER * 2);
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        if deadline.passed() {
            return Err(Failure::Broken("records neither delivered nor given up".to_owned()));
        }
        std::thread::sleep(STEP);
    }
    match repeat("abort", COMMIT, || producer.abort_transaction(ASK)) {
        Err(Failure::Abort(why)) => Err(Failure::Broken(why)),
        done => done,
    }
}

/// Calls again what says that it may be called again, as the same call.
fn repeat(what: &str, limit: Duration, call: impl Fn() -> KafkaResult<()>) -> Result<(), Failure> {
    let deadline = Deadline::after(limit);
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !deadline.passed() => {
                tracing::debug!("process: {what} again: {error}");
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(classify(what, &error)),
        }
    }
}

/// What to do after an error of a transactional call.
pub(super) fn classify(what: &str, error: &KafkaError) -> Failure {
    let text = format!("{what}: {error}");
    let KafkaError::Transaction(inner) = error else { return Failure::Broken(text) };
    match inner.code() {
        RDKafkaErrorCode::FencedInstanceId => Failure::Twin(text),
        code if is_fence(code) => Failure::ProducerFenced(text),
        _ if inner.txn_requires_abort() => Failure::Abort(text),
        _ => Failure::Broken(text),
    }
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId)
}
