//! What was collected from Kafka and not stored yet.
//!
//! Comes in: records in the order of their offsets within each partition. Goes out: the same, by index, and one
//! range of offsets per partition.
//! Guarantees: a partition that is taken away leaves no record behind. Pure: memory only, one buffer that is
//! reused.

use std::fmt;
use std::time::{Duration, Instant};

use weir_shared::clock;
use weir_shared::wire;

use super::config::Limits;

/// The topics that sinks read. The order is that in which partitions are claimed: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Topic {
    /// `weir.enriched`
    Enriched,
    /// `weir.rejected`
    Rejected,
    /// `weir.aggregates`
    Aggregates,
    /// `weir.losses`
    Losses,
    /// `weir.alerts`
    Alerts,
    /// A topic of `rules.topics` that has a table of the user's own: readings as in `weir.enriched`.
    Routed(&'static Routed),
}

/// A topic that only this configuration has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Routed {
    /// Its place among its like.
    pub(super) index: usize,
    pub(super) name: String,
}

impl Topic {
    /// Those that have a table of their own in every store.
    pub(super) const ALL: [Self; 5] =
        [Self::Enriched, Self::Rejected, Self::Aggregates, Self::Losses, Self::Alerts];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Enriched => wire::ENRICHED,
            Self::Rejected => wire::REJECTED,
            Self::Aggregates => wire::AGGREGATES,
            Self::Losses => wire::LOSSES,
            Self::Alerts => wire::ALERTS,
            Self::Routed(routed) => routed.name.as_str(),
        }
    }

    /// Its place among all topics of a configuration.
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Enriched => 0,
            Self::Rejected => 1,
            Self::Aggregates => 2,
            Self::Losses => 3,
            Self::Alerts => 4,
            Self::Routed(routed) => Self::ALL.len() + routed.index,
        }
    }

    /// Whether its records are readings.
    pub(super) const fn has_readings(self) -> bool {
        matches!(self, Self::Enriched | Self::Routed(_))
    }
}

/// A partition of one of the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) topic: Topic,
    pub(super) partition: i32,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.topic.name(), self.partition)
    }
}

/// One record: where it stands, and where its value stands in the batch's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) part: Part,
    pub(super) offset: i64,
    /// Kafka's timestamp, ms since 1970.
    pub(super) timestamp: i64,
    start: usize,
    end: usize,
}

/// The offsets of one partition that a batch covers: `start` is where the partition stood before it (there may be
/// offsets without a record, transaction markers), `end` is one past its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) part: Part,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The records of one batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// When the first record came.
    begun: Option<Instant>,
}

impl Batch {
    pub(super) fn push(&mut self, part: Part, offset: i64, timestamp: i64, value: &[u8]) {
        self.begun.get_or_insert_with(clock::instant);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.records.push(Record { part, offset, timestamp, start, end: self.bytes.len() });
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn value(&self, record: &Record) -> &[u8] {
        &self.bytes[record.start..record.end]
    }

    /// How many bytes the values have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How much of this time is left since its first record came.
    pub(super) fn left_of(&self, wait: Duration) -> Duration {
        self.begun.map_or(wait, |begun| wait.saturating_sub(clock::since(begun)))
    }

    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.records.len() >= limits.rows_max || self.bytes.len() >= limits.bytes_max
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.begun = None;
    }

    /// Forgets what came from these partitions.
    pub(super) fn drop_parts(&mut self, parts: &[Part]) {
        self.records.retain(|r| !parts.contains(&r.part));
        if self.records.is_empty() {
            self.clear();
        }
    }

    /// One range per partition, in the order of the partitions; `start` says where a partition stands.
    pub(super) fn ranges(&self, start: impl Fn(Part) -> i64) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for r in &self.records {
            match ranges.iter_mut().find(|range| range.part == r.part) {
                Some(range) => range.end = r.offset + 1,
                None => ranges.push(Range { part: r.part, start: start(r.part), end: r.offset + 1 }),
            }
        }
        ranges.sort_by_key(|r| r.part);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: Part = Part { topic: Topic::Enriched, partition: 1 };
    const B: Part = Part { topic: Topic::Rejected, partition: 0 };

    #[test]
    fn ranges_cover_holes_and_a_revoked_partition_leaves_nothing() {
        let mut batch = Batch::default();
        batch.push(B, 7, 0, b"b");
        batch.push(A, 3, 0, b"one");
        batch.push(A, 9, 0, b"two");
        let start = |p| if p == A { 2 } else { 7 };
        assert_eq!(
            batch.ranges(start),
            [Range { part: A, start: 2, end: 10 }, Range { part: B, start: 7, end: 8 }]
        );
        batch.drop_parts(&[A]);
        assert_eq!(batch.records().len(), 1);
        assert_eq!(batch.value(&batch.records()[0]), b"b");
        batch.drop_parts(&[B]);
        assert!(batch.is_empty() && batch.ranges(start).is_empty());
    }

    #[test]
    fn a_batch_that_was_too_large_is_halved_and_grows_again() {
        let configured = Limits { rows_max: 5000, bytes_max: 1 << 20, wait: Duration::ZERO };
        let mut batch = Batch::default();
        (0..1000).for_each(|offset| batch.push(A, offset, 0, &[b'x'; 100]));
        let smaller = configured.smaller(&batch);
        assert_eq!((smaller.rows_max, smaller.bytes_max), (500, 50_000));
        let least = smaller.smaller(&Batch::default());
        assert_eq!((least.rows_max, least.bytes_max), (100, 16 << 10));
        let larger = smaller.larger(&configured);
        assert_eq!((larger.rows_max, larger.bytes_max), (1000, 100_000));
        assert_eq!(larger.larger(&configured).larger(&configured).larger(&configured).rows_max, 5000);
    }

    #[test]
    fn full_by_rows_or_bytes() {
        let limits = |rows_max, bytes_max| Limits { rows_max, bytes_max, wait: Duration::ZERO };
        let mut batch = Batch::default();
        assert!(!batch.is_full(&limits(1, 1)));
        batch.push(A, 0, 0, b"four");
        assert!(batch.is_full(&limits(1, 9)));
        assert!(batch.is_full(&limits(9, 4)));
        assert!(!batch.is_full(&limits(2, 5)));
    }
}
