//! The idempotent producer of one incarnation.
//!
//! Comes in: records with their place. Goes out: one delivery per record, by ticket. Guarantees: acks=all, idempotent
//! and gapless, no time-out of its own (the disk owns retention). On failure: [`Trouble`]; dropping the producer throws
//! away what it still holds, which the next one sends again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use weir_shared::kafka_security::explained;
use weir_shared::record::StreamId;
use weir_shared::supervise::Error;
use weir_shared::wire;

use super::KafkaConfig;
use crate::journal::format::{Partitions, Place, Sent};

/// Where librdkafka's own lines are filtered by.
const LIBRDKAFKA: &str = "librdkafka";
/// Reading what was said of a connection, after it failed.
const REASONS: Duration = Duration::from_millis(50);
/// How long metadata may take.
const METADATA: Duration = Duration::from_secs(3);

/// A record as it is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    /// Whose number it carries.
    pub(super) stream: StreamId,
    /// Where to.
    pub(super) place: Place,
    /// Whether it tells that a stream is closed.
    pub(super) closing: bool,
    /// Whether newer records were sent before it.
    pub(super) backlog: bool,
    /// Kafka key.
    pub(super) key: &'a [u8],
    /// Kafka value.
    pub(super) value: &'a [u8],
}

/// Why a producer cannot go on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A new one should try.
    Retry(String),
    /// The process must end.
    Fatal(Error),
}

impl Trouble {
    /// A new one should try.
    pub(super) fn retry(why: impl Into<String>) -> Self {
        Self::Retry(why.into())
    }
}

/// What became of a record.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Which.
    pub(super) ticket: usize,
    /// Acknowledged, or why not.
    pub(super) result: Result<(), KafkaError>,
}

#[derive(Default)]
struct Deliveries {
    list: Mutex<Vec<Delivery>>,
    /// Why a connection failed last.
    heard: Mutex<String>,
    brokers_down: AtomicBool,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.brokers_down.store(true, Ordering::Relaxed);
        } else {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = explained(reason);
        }
        tracing::debug!(%error, reason, "kafka");
    }

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        match level {
            _ if is_expected(message) => tracing::debug!(target: LIBRDKAFKA, fac, "{message}"),
            // Told as an error too, which the lane tells now and then.
            _ if ["FAIL", "ERROR"].contains(&fac) => tracing::debug!(target: LIBRDKAFKA, fac, "{message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(target: LIBRDKAFKA, fac, "{message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!(target: LIBRDKAFKA, fac, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: LIBRDKAFKA, fac, "{message}"),
            _ => tracing::error!(target: LIBRDKAFKA, fac, "{message}"),
        }
    }
}

/// Said at every start of a setting that this program wants, and nobody can do anything about.
fn is_expected(message: &str) -> bool {
    message.contains("property enable.gapless.guarantee is experimental")
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(Delivery { ticket, result });
    }
}

/// Sends records.
pub(super) struct Producer {
    client: BaseProducer<Deliveries>,
    edge: String,
}

impl Producer {
    /// A new producer; connects in the background.
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, Trouble> {
        let client = config
            .client()
            .create_with_context(Deliveries::default())
            // The settings were tried when they were read: a certificate has gone since.
            .map_err(|e| Trouble::retry(format!("kafka settings: {e}")))?;
        Ok(Self { client, edge: config.edge.clone() })
    }

    /// How many partitions the topics have.
    pub(super) fn partitions(&self) -> Result<Partitions, Trouble> {
        let mut counts = Partitions::default();
        for (kind, count) in Sent::ALL.iter().zip(&mut counts) {
            let metadata = self
                .client
                .client()
                .fetch_metadata(Some(kind.topic()), METADATA)
                .map_err(|e| Trouble::retry(format!("no answer from kafka: {}", self.explained(&e))))?;
            let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            *count = u32::try_from(found).unwrap_or(0);
            if found == 0 {
                let topic = kind.topic();
                return Err(Trouble::retry(format!(
                    "topic {topic} does not exist; `weir-cloud init` makes it"
                )));
            }
        }
        Ok(counts)
    }

    /// The reason that the client library gave last says more than its error.
    fn explained(&self, error: &KafkaError) -> String {
        self.client.poll(REASONS);
        let heard = self.client.context().heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_empty() { error.to_string() } else { heard.clone() }
    }

    /// Hands a record over; `false` when the queue is full.
    pub(super) fn send(&self, ticket: usize, record: &Outgoing<'_>) -> Result<bool, KafkaError> {
        let Outgoing { stream, place, closing, backlog, key, value } = *record;
        let (stream, mut number) = (stream.to_hex(), itoa::Buffer::new());
        let number = number.format(place.number).as_bytes();
        let mut headers = OwnedHeaders::new_with_capacity(5)
            .insert(Header { key: wire::EDGE, value: Some(self.edge.as_bytes()) })
            .insert(Header { key: wire::STREAM, value: Some(&stream) })
            .insert(Header { key: wire::NUMBER, value: Some(number) });
        if closing {
            headers = headers.insert(Header { key: wire::CONTROL, value: Some(wire::CLOSED) });
        }
        if backlog {
            headers = headers.insert(Header { key: wire::BACKLOG, value: Some("1") });
        }
        let record = BaseRecord::with_opaque_to(place.kind.topic(), ticket)
            .partition(i32::try_from(place.partition).unwrap_or(i32::MAX))
            .key(key)
            .payload(value)
            .headers(headers);
        match self.client.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(error),
        }
    }

    /// Whether no broker could be reached since one last acknowledged something.
    pub(super) fn brokers_are_down(&self) -> bool {
        self.client.context().brokers_down.load(Ordering::Relaxed)
    }

    /// A broker has acknowledged something.
    pub(super) fn brokers_are_up(&self) {
        self.client.context().brokers_down.store(false, Ordering::Relaxed);
    }

    /// Lets librdkafka report what it knows.
    pub(super) fn poll(&self) {
        self.client.poll(Duration::ZERO);
    }

    /// What became known since this was last asked, in the order of the reports.
    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.client.context().list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::config::FromClientConfigAndContext;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl ClientContext for Lines {
        fn log(&self, _: RDKafkaLogLevel, _: &str, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    impl ProducerContext for Lines {
        type DeliveryOpaque = usize;

        fn delivery(&self, _: &DeliveryResult<'_>, _: usize) {}
    }

    /// What librdkafka itself says of our settings, before any broker was asked.
    #[test]
    fn of_our_settings_it_says_nothing_that_is_not_expected() {
        let config = crate::config::check("e", "name = 'gw'\n[kafka]\nbrokers = '127.0.0.1:1'").unwrap();
        let lines = Lines::default();
        let mut client = config.kafka.client();
        client.set_log_level(RDKafkaLogLevel::Warning);
        let producer = BaseProducer::from_config_and_context(&client, lines.clone()).unwrap();
        // It is handed over by the poll.
        let deadline = weir_shared::clock::Deadline::after(Duration::from_secs(10));
        while !lines.0.lock().unwrap().iter().any(|line| line.contains("property")) && !deadline.passed() {
            producer.poll(Duration::from_millis(10));
        }
        let said = lines.0.lock().unwrap().clone();
        let settings: Vec<_> = said.iter().filter(|line| line.contains("property")).collect();
        assert!(!settings.is_empty(), "it says nothing any more: then nothing needs to be filtered");
        assert!(settings.iter().all(|line| is_expected(line)), "{settings:?}");
        assert!(!is_expected("Configuration property enable.idempotence is experimental"));
    }
}
