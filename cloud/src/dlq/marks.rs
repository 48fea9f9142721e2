//! Which dead letters were sent through again: the compacted topic `weir.state.dlq`.
//!
//! Comes in: brokers. Goes out: the marks (format: `weir_shared::wire`), and new ones as key and value.
//! Guarantees: after [`Until::Settled`] every mark of every retry that was ever committed is known, if the caller has
//! ended the transactions of all others before. A mark is for the dead letter at its position *and* time: of a topic that
//! was made anew, older marks say nothing.
//! On failure: a broker that does not answer, or a mark that cannot be read: nothing is sent again on a guess.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use weir_shared::clock::Deadline;
use weir_shared::supervise::Error;
use weir_shared::wire;

use super::log;
use super::select::Position;
use crate::kafka::native::{Polled, poll_assigned};
use crate::kafka::{ASK, KafkaConfig};

/// Longest wait for the next mark.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// That a dead letter was sent through again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// When, ms since 1970.
    pub(super) at: i64,
    /// By whom.
    pub(super) by: String,
    /// Kafka's time of the dead letter, ms since 1970.
    pub(super) of: i64,
}

/// How much must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// What is committed now; a retry that is at work may be marking more.
    Stable,
    /// All that stands in the log, open transactions too: waits for their end.
    Settled,
}

/// All marks.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(HashMap<Position, Mark>);

impl Marks {
    /// Reads the topic; `None` when there is none.
    pub(super) fn read(kafka: &KafkaConfig, until: Until) -> Result<Option<Self>, Error> {
        let isolation = match until {
            Until::Stable => "read_committed",
            Until::Settled => "read_uncommitted",
        };
        let asker = log::consumer(kafka, isolation)?;
        if log::partitions(&asker, wire::RETRIED)? == 0 {
            return Ok(None);
        }
        let (low, high) = asker.fetch_watermarks(wire::RETRIED, 0, ASK)?;
        let mut marks = Self::default();
        if low < high {
            marks.fill(&log::consumer(kafka, "read_committed")?, low, high)?;
        }
        Ok(Some(marks))
    }

    fn fill(&mut self, consumer: &BaseConsumer<log::Quiet>, low: i64, high: i64) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(wire::RETRIED, 0, Offset::Offset(low))?;
        consumer.assign(&list)?;
        let mut patience = Deadline::after(PATIENCE);
        while !patience.passed() {
            match poll_assigned(consumer, POLL) {
                Polled::Record { key, value, .. } => {
                    patience = Deadline::after(PATIENCE);
                    self.take(&key, value.as_deref())?;
                }
                Polled::End(_, _, offset) if offset >= high => return Ok(()),
                Polled::Error(
                    code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::OffsetOutOfRange),
                ) => {
                    return Err(format!("reading {}: {code}", wire::RETRIED).into());
                }
                Polled::Error(code) => tracing::debug!("dlq: reading {}: {code}", wire::RETRIED),
                Polled::End(..) | Polled::Nothing => {}
            }
        }
        Err(format!(
            "{} was not read to its end within {} s: Kafka is away, or another `weir-cloud dlq retry` is at work",
            wire::RETRIED,
            PATIENCE.as_secs()
        )
        .into())
    }

    fn take(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        let position = std::str::from_utf8(key).ok().and_then(|key| key.parse::<Position>().ok());
        let wrong = || {
            format!("{} holds a mark that this version cannot read: {}", wire::RETRIED, key.escape_ascii())
        };
        let position = position.ok_or_else(wrong)?;
        match value {
            Some(value) => {
                let mark = serde_json::from_slice(value).map_err(|_| wrong())?;
                self.0.insert(position, mark);
            }
            None => drop(self.0.remove(&position)),
        }
        Ok(())
    }

    /// The mark of the dead letter that stands at `position` since `time`.
    pub(super) fn of(&self, position: Position, time: i64) -> Option<&Mark> {
        self.0.get(&position).filter(|mark| mark.of == time)
    }

    /// Notes one that was committed.
    pub(super) fn note(&mut self, position: Position, mark: Mark) {
        self.0.insert(position, mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_letter_only() {
        let at = Position { partition: 1, offset: 2 };
        let mut marks = Marks::default();
        marks.take(b"1:2", Some(br#"{"at":9,"by":"anna","of":5}"#)).unwrap();
        assert_eq!(marks.of(at, 5).map(|mark| mark.by.as_str()), Some("anna"));
        assert_eq!(marks.of(at, 6), None, "a letter in a topic that was made anew");
        assert_eq!(marks.of(Position { partition: 2, offset: 1 }, 5), None);
        marks.take(b"1:2", None).unwrap();
        assert_eq!(marks.of(at, 5), None);
        for (key, value) in [(&b"x"[..], &b"{}"[..]), (b"1:2", b"{}"), (b"\xff", b"")] {
            assert!(marks.take(key, Some(value)).unwrap_err().to_string().contains("cannot read"));
        }
    }
}
