//! Collecting: the only place where the group's consumer is polled.
//!
//! Comes in: records and rebalances. Goes out: a batch of records of partitions that are ready.
//! Guarantees: a batch ends by time, number or bytes; it holds nothing of a partition that was revoked while it was
//! collected. Errors that librdkafka mends by itself are only logged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use weir_shared::clock::Deadline;
use weir_shared::wire;

use crate::kafka::KafkaConfig;
use crate::process::assignment::{Change, Partition, Partitions, Place, Rebalances};
use crate::process::engine::{Headers, Incoming};
use crate::process::state::restore::{Restore, Restored};
use crate::process::transaction::Failure;
use crate::process::{Input, ProcessConfig};

/// Longest wait for the first record.
const FIRST: Duration = Duration::from_millis(100);
/// The same while new partitions wait for their state.
const FIRST_COMING: Duration = Duration::from_millis(5);
/// A wait shorter than this is none: librdkafka counts in milliseconds.
const TICK: Duration = Duration::from_millis(1);
/// How many records are taken between two looks at the clock.
const LOOK_EVERY: usize = 64;
/// Most bytes of one cycle, but for one record that is larger.
const CYCLE_BYTES_MAX: usize = 16 << 20;

/// New partitions on their way.
#[derive(Default)]
pub(super) struct Coming {
    /// Their state is being read back.
    pub(super) restores: Vec<Restore>,
    /// Their state is there, but it has seen newer rules or tables than we have.
    pub(super) behind: Vec<(Restored, Deadline)>,
}

impl Coming {
    fn is_empty(&self) -> bool {
        self.restores.is_empty() && self.behind.is_empty()
    }
}

/// Collects one batch, and takes note of partitions that come and go.
pub(super) fn collect<'c>(
    consumer: &'c BaseConsumer<Rebalances>,
    (kafka, config): (&KafkaConfig, &ProcessConfig),
    partitions: &mut Partitions,
    coming: &mut Coming,
) -> Result<Vec<BorrowedMessage<'c>>, Failure> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut deadline = Deadline::after(if coming.is_empty() { FIRST } else { FIRST_COMING });
    let mut wait = deadline.left();
    loop {
        let polled = consumer.poll(wait);
        let assigned = apply(consumer.context().take(), &mut batch, partitions, coming);
        // A rebalance that changes nothing for us assigns nothing.
        for places in assigned.into_iter().filter(|places| !places.is_empty()) {
            let restore = Restore::begin(&places, kafka, &config.group).map_err(Failure::Broken)?;
            coming.restores.push(restore);
        }
        // What is there already is taken without looking at the clock each time.
        let mut look = true;
        match polled {
            Some(Ok(message)) if is_ready(&message, partitions) => {
                if batch.is_empty() {
                    deadline = Deadline::after(config.cycle);
                }
                bytes += message.payload_len();
                batch.push(message);
                look = batch.len() % LOOK_EVERY == 0;
            }
            Some(Err(error)) => {
                if let Some(failure) = judge(&error) {
                    return Err(failure);
                }
            }
            Some(Ok(_)) | None => {}
        }
        if batch.len() >= config.cycle_records_max || bytes >= CYCLE_BYTES_MAX {
            return Ok(batch);
        }
        wait = Duration::ZERO;
        if look {
            wait = deadline.left();
            if wait < TICK {
                return Ok(batch);
            }
        }
    }
}

/// Gives the partitions that are new, as they came together.
fn apply(
    changes: Vec<Change>,
    batch: &mut Vec<BorrowedMessage<'_>>,
    partitions: &mut Partitions,
    coming: &mut Coming,
) -> Vec<Vec<Place>> {
    let mut assigned = Vec::new();
    for change in changes {
        match change {
            Change::Assigned(places) => {
                tracing::info!("process: assigned {} partitions", places.len());
                for place in &places {
                    partitions.put(*place, Partition::Restoring { skipped: false });
                }
                assigned.push(places);
            }
            Change::Revoked(places) => {
                tracing::info!("process: revoked {} partitions", places.len());
                batch.retain(|m| {
                    Input::from_topic(m.topic())
                        .is_some_and(|input| !places.contains(&(input, m.partition())))
                });
                for restore in &mut coming.restores {
                    restore.drop_places(&places);
                }
                coming.behind.retain(|(restored, _)| !places.contains(&restored.place));
                for place in &places {
                    partitions.remove(*place);
                }
                assigned
                    .iter_mut()
                    .for_each(|new: &mut Vec<Place>| new.retain(|place| !places.contains(place)));
            }
        }
    }
    assigned
}

fn is_ready(message: &BorrowedMessage<'_>, partitions: &mut Partitions) -> bool {
    let Some(input) = Input::from_topic(message.topic()) else { return false };
    match partitions.get((input, message.partition())) {
        Some(Partition::Ready { .. }) => true,
        Some(Partition::Restoring { skipped }) => {
            *skipped = true;
            false
        }
        None => false,
    }
}

/// What an error of the consumer means; `None` when the client goes on by itself.
pub(super) fn judge(error: &KafkaError) -> Option<Failure> {
    use RDKafkaErrorCode as Code;
    let (KafkaError::MessageConsumption(code) | KafkaError::MessageConsumptionFatal(code)) = error else {
        return Some(Failure::Broken(format!("consumer: {error}")));
    };
    match code {
        Code::FencedInstanceId => Some(Failure::Twin(format!("consumer: {error}"))),
        Code::AutoOffsetReset | Code::OffsetOutOfRange => Some(Failure::OutOfRange(error.to_string())),
        _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
            Some(Failure::Broken(format!("consumer: {error}")))
        }
        _ => {
            tracing::warn!("process: consumer: {error}");
            None
        }
    }
}

/// A record with its headers. Of a header that is there twice the last counts, as in Kafka's own clients.
pub(super) fn incoming<'m>(input: Input, message: &'m BorrowedMessage<'_>) -> Incoming<'m> {
    Incoming {
        input,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0).max(0),
        key: message.key(),
        value: message.payload(),
        // rdkafka 0.39 panics on a header name that is not UTF-8: such a record has no identity.
        headers: catch_unwind(AssertUnwindSafe(|| headers(message))).unwrap_or_default(),
    }
}

fn headers<'m>(message: &'m BorrowedMessage<'_>) -> Headers<'m> {
    let mut found = Headers::default();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        match header.key {
            wire::EDGE => found.edge = header.value,
            wire::STREAM => found.stream = header.value,
            wire::NUMBER => found.number = header.value,
            wire::CONTROL => found.control = header.value,
            wire::BACKLOG => found.backlog = true,
            wire::RETRY => found.retry = true,
            _ => {}
        }
    }
    found
}
