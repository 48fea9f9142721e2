//! Which record Kafka refuses on its own, and how often.
//!
//! Comes in: delivery errors. Goes out: a count for the one record that was refused last. Guarantees: only errors
//! that speak of the record itself count; an error of the broker or the network never gives a record up. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use weir_shared::record::StreamId;

use crate::journal::format::Place;

/// How often a record is tried.
pub(super) const TRIES_MAX: u32 = 3;

/// Counts the refusals of one record; as records are sent in order, it is always the first that holds up the rest.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    record: Option<(StreamId, Place)>,
    count: u32,
    why: String,
}

impl Refusals {
    /// Notes an error for a record.
    pub(super) fn note(&mut self, stream: StreamId, place: Place, error: &KafkaError) {
        if !speaks_of_the_record(error) {
            return;
        }
        if self.record != Some((stream, place)) {
            *self = Self { record: Some((stream, place)), count: 0, why: String::new() };
        }
        self.count += 1;
        self.why = error.to_string();
    }

    /// How often this record was refused.
    pub(super) fn count(&self, stream: StreamId, place: Place) -> u32 {
        if self.record == Some((stream, place)) { self.count } else { 0 }
    }

    /// The last refusal.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// The record was given up.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn speaks_of_the_record(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::format::Sent;

    #[test]
    fn only_errors_of_one_record_count() {
        let (stream, place) = (StreamId([1; 16]), Place { kind: Sent::Reading, partition: 0, number: 5 });
        let other = Place { number: 6, ..place };
        let large = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        let network = KafkaError::MessageProduction(RDKafkaErrorCode::BrokerTransportFailure);
        let mut r = Refusals::default();
        r.note(stream, place, &large);
        r.note(stream, place, &network);
        r.note(stream, place, &large);
        assert_eq!((r.count(stream, place), r.count(stream, other)), (2, 0));
        r.note(stream, other, &large);
        assert_eq!((r.count(stream, place), r.count(stream, other)), (0, 1));
    }
}
