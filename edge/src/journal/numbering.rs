//! The numbers of one stream: 0, 1, 2 … within topic and partition.
//!
//! Comes in: kinds and keys of records, in the order in which they are appended. Goes out: their places. Guarantees:
//! no number twice and none left out, in the order of the journal, even when what was appended later is written first.
//! Pure.

use weir_shared::record::StreamId;
use weir_shared::wire;

use super::format::{Numbers, Partitions, Place, Sent, renumber};

/// The next number per kind and partition.
type Lines = [Vec<u64>; Sent::ALL.len()];

/// Numbers what is appended.
#[derive(Debug)]
pub(super) struct Numbering {
    stream: StreamId,
    next: Lines,
    written: Lines,
}

impl Numbering {
    pub(super) fn new(stream: StreamId, topics: Option<Partitions>) -> Self {
        let mut numbering = Self { stream, next: Lines::default(), written: Lines::default() };
        numbering.topics(topics.unwrap_or_default());
        numbering
    }

    /// The partition counts; 0 where they are not known.
    pub(super) fn topics(&mut self, topics: Partitions) {
        for lines in [&mut self.next, &mut self.written] {
            for (line, count) in lines.iter_mut().zip(topics) {
                line.resize((count as usize).max(line.len()), 0);
            }
        }
    }

    /// The place of the next record; `None` while the partition count is not known.
    pub(super) fn place(&mut self, kind: Sent, key: &[u8]) -> Option<Place> {
        let count = i32::try_from(self.next[kind.index()].len()).ok().filter(|count| *count > 0)?;
        self.place_in(kind, wire::partition_of(key, count).unsigned_abs())
    }

    /// The same in a partition that the caller knows.
    pub(super) fn place_in(&mut self, kind: Sent, partition: u32) -> Option<Place> {
        let number = self.next[kind.index()].get_mut(partition as usize)?;
        *number += 1;
        Some(Place { kind, partition, number: *number - 1 })
    }

    /// All that was appended is written.
    pub(super) fn wrote_all(&mut self) {
        for (written, next) in self.written.iter_mut().zip(&self.next) {
            written.clear();
            written.extend_from_slice(next);
        }
    }

    /// Numbers what waits anew: `first` will be written before `then`. What follows `first` when that is written.
    pub(super) fn reorder(&mut self, first: &mut [u8], then: &mut [u8]) -> Written {
        let mut lines = self.written.clone();
        renumber(first, |kind, partition| count(&mut lines, kind, partition));
        let after = lines.clone();
        renumber(then, |kind, partition| count(&mut lines, kind, partition));
        Written(after)
    }

    /// The first part of what was reordered is written.
    pub(super) fn wrote(&mut self, written: Written) {
        self.written = written.0;
    }

    /// The next numbers as of what is written, where there are any.
    pub(super) fn written(&self) -> Numbers {
        let mut next = Vec::new();
        for (kind, line) in Sent::ALL.into_iter().zip(&self.written) {
            let some = (0..).zip(line).filter(|(_, number)| **number > 0);
            next.extend(some.map(|(partition, number)| Place { kind, partition, number: *number }));
        }
        Numbers { stream: self.stream, next }
    }
}

/// Numbers as of a part of what waits.
#[derive(Debug)]
pub(super) struct Written(Lines);

/// The next number; a record may carry a place that was not given out here, so its line grows with it.
fn count(lines: &mut Lines, kind: Sent, partition: u32) -> u64 {
    let line = &mut lines[kind.index()];
    let partition = partition as usize;
    line.resize(line.len().max(partition + 1), 0);
    line[partition] += 1;
    line[partition] - 1
}
