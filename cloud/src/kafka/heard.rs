//! What librdkafka says of the connections of a client.
//!
//! Comes in: its errors and log lines. Goes out: why a connection failed, with what to do, for whoever asks and, now and then,
//! for the log. Guarantees: a client that cannot connect (it tries many times a second) does not fill the log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use weir_shared::clock::{self, Deadline};
use weir_shared::kafka_security::explained;

/// How long is waited for what was said of a question's connection.
const TOLD: Duration = Duration::from_millis(50);
/// What was said longer ago is the reason of nothing.
const OF_LATE: Duration = Duration::from_secs(30);
/// Between two lines in the log.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// The other words for an error that was told with its reason come within this time.
const SAME: Duration = Duration::from_secs(1);

/// Keeps why a connection failed, which says more than the error of a question.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    why: Option<(String, Instant)>,
    /// When to log again; `None`: whoever asks says it.
    log: Option<Deadline>,
}

impl Last {
    fn since(&self, time: Duration) -> Option<&String> {
        self.why.as_ref().filter(|(_, at)| clock::since(*at) < time).map(|(why, _)| why)
    }

    fn keep(&mut self, why: String) {
        if let Some(log) = self.log.as_mut().filter(|log| log.passed()) {
            tracing::warn!("kafka: {why}");
            *log = Deadline::after(LOG_EVERY);
        }
        self.why = Some((why, clock::instant()));
    }
}

impl Heard {
    /// Of a client that nobody asks.
    pub(crate) fn logging() -> Self {
        Self(Mutex::new(Last { why: None, log: Some(Deadline::after(Duration::ZERO)) }))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a connection failed, unless that is long ago.
    pub(crate) fn why(&self) -> Option<String> {
        self.last().since(OF_LATE).cloned()
    }

    /// An error that may have been told with its reason a moment ago.
    pub(crate) fn also(&self, error: &str) {
        let mut last = self.last();
        if last.since(SAME).is_none() {
            last.keep(error.to_owned());
        }
    }
}

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("kafka: {error}: {reason}");
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.last().keep(explained(reason));
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!("librdkafka: {facility} {message}"),
            // Told as an error too.
            _ if ["FAIL", "ERROR"].contains(&facility) => tracing::debug!("librdkafka: {facility} {message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!("librdkafka: {facility} {message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!("librdkafka: {facility} {message}"),
            _ => tracing::error!("librdkafka: {facility} {message}"),
        }
    }
}

impl ConsumerContext for Heard {}

/// Why a question of this client was not answered.
pub(crate) fn heard(asker: &BaseConsumer<Heard>, error: &KafkaError) -> String {
    // What the client was told of its connections comes as events.
    let told = Deadline::after(TOLD);
    while !told.passed() {
        drop(asker.poll(told.left()));
    }
    asker.context().why().unwrap_or_else(|| error.to_string())
}
