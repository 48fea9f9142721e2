//! How things stand, as the control records of the journal say.
//!
//! Comes in: records in the order of the journal. Goes out: what the newest ones say, and a batch that says all of it
//! at once, which each segment begins with. Guarantees: bounded: [`FILES_MAX`] files (the oldest mark goes, counted)
//! and [`CORRECTIONS_MAX`] boots. Pure but for that counter.

use std::collections::HashMap;

use super::format::{
    self, BATCH_HEADER, Correction, Cursor, FileMark, FrameHead, Numbers, Partitions, Record, Seal,
};
use super::measures;
use super::writer::Opening;

const FILES_MAX: usize = 10_000;
const CORRECTIONS_MAX: usize = 8;

/// What the newest segment must always tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controls {
    /// The source's session and what was subscribed in it.
    pub session: Option<(u64, u64)>,
    /// Partition counts.
    pub topics: Option<Partitions>,
    /// How far the forwarder is.
    pub cursor: Cursor,
    /// Below this position no source will send a message again.
    pub proven: u64,
    /// The results over all batches that end at or below this position stand.
    pub results: u64,
    /// The window rules.
    pub rules: Option<String>,
    /// How the untrusted times of the last boots are to be read, oldest first.
    pub corrections: Vec<Correction>,
    /// How much of each file is journaled.
    pub files: Files,
}

impl Controls {
    /// Takes in what a record says.
    pub(super) fn take(&mut self, record: Record<'_>) {
        match record {
            Record::Session { session, subscriptions } => self.session = Some((session, subscriptions)),
            Record::Topics(topics) => self.topics = Some(topics),
            Record::Cursor(cursor) => self.cursor = cursor,
            Record::Proven(position) => self.proven = position,
            Record::Results(position) => self.results = position,
            Record::Rules(text) => self.rules = Some(text.to_owned()),
            Record::Clock(correction) => {
                self.corrections.retain(|c| c.boot != correction.boot);
                self.corrections.push(correction);
                let over = self.corrections.len().saturating_sub(CORRECTIONS_MAX);
                self.corrections.drain(..over);
            }
            Record::File(mark) => self.files.note(mark),
            _ => {}
        }
    }

    /// All of it as one batch at `position`, with the numbers of streams and what was given up among the segments.
    pub(super) fn snapshot(
        &self,
        opening: &Opening,
        numbers: &[Numbers],
        given_up: &[(u64, u64)],
        position: u64,
        durable: u64,
    ) -> Vec<u8> {
        let mut batch = vec![0; BATCH_HEADER];
        let head = FrameHead { session: 0, packet: 0, digest: 0, arrived: opening.now };
        let start = format::begin_frame(&mut batch, &head);
        let mut count = 0;
        let mut add = |record: &Record<'_>| {
            format::write_record(&mut batch, record);
            count += 1;
        };
        add(&Record::StreamOpened { boot: opening.boot, wall_ms: opening.now.wall_ms });
        if let Some((session, subscriptions)) = self.session {
            add(&Record::Session { session, subscriptions });
        }
        if let Some(topics) = self.topics {
            add(&Record::Topics(topics));
        }
        if let Some(rules) = &self.rules {
            add(&Record::Rules(rules));
        }
        add(&Record::Cursor(self.cursor.clone()));
        add(&Record::Proven(self.proven));
        add(&Record::Results(self.results));
        numbers.iter().filter(|n| !n.next.is_empty()).for_each(|n| add(&Record::Numbers(n.clone())));
        given_up.iter().for_each(|&(from, to)| add(&Record::GivenUp { from, to }));
        self.corrections.iter().for_each(|c| add(&Record::Clock(*c)));
        self.files.oldest_first().into_iter().for_each(|mark| add(&Record::File(mark)));
        format::end_frame(&mut batch, start, count, opening.now.trusted);
        let boot = format::boot_of(&opening.boot);
        let seal = Seal { position, durable, stream: opening.stream, boot, frames: 1 };
        format::seal_batch(&mut batch, &seal);
        batch
    }
}

/// Whether a batch says all: whatever came before it does not matter for how things stand.
pub(super) fn is_snapshot(batch: &format::Batch<'_>) -> bool {
    let first = batch.frames().next().and_then(|frame| frame.records().next());
    matches!(first, Some(Record::StreamOpened { .. }))
}

/// Whether the stream of a batch begins with it: it says all, and nothing of that stream was numbered before.
pub(crate) fn opens_stream(batch: &format::Batch<'_>) -> bool {
    let numbered = |record: Record<'_>| matches!(record, Record::Numbers(n) if n.stream == batch.stream);
    is_snapshot(batch) && !batch.frames().next().is_some_and(|frame| frame.records().any(numbered))
}

/// How much of each file is journaled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// With the order in which they were noted.
    marks: HashMap<u64, (u64, FileMark)>,
    noted: u64,
}

impl Files {
    /// The mark of this file.
    #[cfg(test)]
    pub(crate) fn get(&self, file: u64) -> Option<FileMark> {
        self.marks.get(&file).map(|(_, mark)| *mark)
    }

    /// The last noted comes last.
    pub(crate) fn oldest_first(&self) -> Vec<FileMark> {
        let mut marks: Vec<_> = self.marks.values().copied().collect();
        marks.sort_unstable_by_key(|(noted, _)| *noted);
        marks.into_iter().map(|(_, mark)| mark).collect()
    }

    fn note(&mut self, mark: FileMark) {
        self.noted += 1;
        self.marks.insert(mark.file, (self.noted, mark));
        if self.marks.len() > FILES_MAX
            && let Some(oldest) = self.marks.iter().min_by_key(|(_, (noted, _))| noted).map(|(file, _)| *file)
        {
            self.marks.remove(&oldest);
            measures::count(measures::FILE_MARKS_DROPPED, 1);
        }
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        self.oldest_first() == other.oldest_first()
    }
}

impl Eq for Files {}
