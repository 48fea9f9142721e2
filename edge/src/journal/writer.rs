//! The one writer of the journal.
//!
//! Comes in: frames, then the wish to commit. Goes out: the durable position. Guarantees: what [`Writer::commit`]
//! returned is on disk; the records of one process carry one stream id, drawn at its start and fsynced before its
//! first record. On failure: a failed write or fsync is final for this writer: the process must end, acknowledge
//! nothing of the batch, and the next start writes what may be in doubt again.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::format::{self, BATCH_HEADER, Cursor, FrameHead, Record, SEGMENT_HEADER};
use super::redelivery::MESSAGES_MAX;
use super::{Error, Recovered, Segments};

/// Who opens the stream, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// The new stream.
    pub stream: StreamId,
    /// Boot id of the machine.
    pub boot: [u8; 16],
    /// When.
    pub now: Now,
}

/// What the newest segment must always tell.
#[derive(Clone, Debug, Default)]
struct Controls {
    session: Option<(u64, u64)>,
    topics: Option<[u32; 2]>,
    cursor: Cursor,
    proven: u64,
}

/// Appends and commits.
#[derive(Debug)]
pub(crate) struct Writer {
    segments: Segments,
    segment_bytes: u64,
    opening: Opening,
    controls: Controls,
    file: File,
    base: u64,
    position: u64,
    durable: Arc<AtomicU64>,
    batch: Vec<u8>,
    frames: u32,
    messages: usize,
    messages_by_segment: VecDeque<(u64, usize)>,
}

impl Writer {
    /// Opens the stream in a new segment, behind the tail that was recovered.
    pub(crate) fn open(
        segments: Segments,
        segment_bytes: u64,
        opening: Opening,
        recovered: Recovered,
    ) -> Result<Self, Error> {
        let Recovered { durable: base, tail, session, topics, cursor, proven, .. } = recovered;
        let controls = Controls { session, topics, cursor, proven };
        let mut bytes = tail;
        let position = base + bytes.len() as u64;
        bytes.append(&mut snapshot(&opening, &controls, position, base));
        let position = base + bytes.len() as u64;
        let file = segments.create(base, &bytes, segment_bytes)?;
        let messages_by_segment = recovered.read.into_iter().filter(|(b, _)| *b != base).collect();
        let mut writer = Self {
            segments,
            segment_bytes,
            opening,
            controls,
            file,
            base,
            position,
            durable: Arc::new(AtomicU64::new(position)),
            batch: Vec::new(),
            frames: 0,
            messages: 0,
            messages_by_segment,
        };
        writer.messages_by_segment.push_back((base, 0));
        writer.begin_batch();
        Ok(writer)
    }

    /// Where the next batch will begin, once all before it is durable.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The stream of this process.
    pub(crate) const fn stream(&self) -> StreamId {
        self.opening.stream
    }

    /// The durable position, for readers.
    pub(crate) fn durable(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.durable)
    }

    /// Bytes that wait for the next commit.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.batch.len() - BATCH_HEADER
    }

    /// Appends the frame of one message with its records.
    pub(crate) fn message<'r>(&mut self, head: &FrameHead, records: impl Iterator<Item = Record<'r>>) {
        let start = format::begin_frame(&mut self.batch, head);
        let mut count = 0;
        for record in records {
            format::write_record(&mut self.batch, &record);
            count += 1;
        }
        format::end_frame(&mut self.batch, start, count, head.arrived.trusted);
        self.frames += 1;
        self.messages += usize::from(head.packet != 0);
    }

    /// Notes the source's session.
    pub(crate) fn session(&mut self, session: u64, subscriptions: u64, now: Now) {
        self.controls.session = Some((session, subscriptions));
        self.control(&Record::Session { session, subscriptions }, now);
    }

    /// Notes the partition counts.
    pub(crate) fn topics(&mut self, topics: [u32; 2], now: Now) {
        self.controls.topics = Some(topics);
        self.control(&Record::Topics(topics), now);
    }

    /// Notes how far the forwarder is.
    pub(crate) fn cursor(&mut self, cursor: Cursor, now: Now) {
        self.control(&Record::Cursor(cursor.clone()), now);
        self.controls.cursor = cursor;
    }

    /// Notes that no source will send again what stands below this position.
    pub(crate) fn proven(&mut self, position: u64, now: Now) {
        self.controls.proven = position;
        self.control(&Record::Proven(position), now);
    }

    /// The partition counts, once they are known.
    pub(crate) const fn topic_partitions(&self) -> Option<[u32; 2]> {
        self.controls.topics
    }

    /// Writes what was appended and fsyncs it; then removes the segments that nobody needs any more.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        if self.frames == 0 {
            return Ok(());
        }
        let end = self.position - self.base + (SEGMENT_HEADER + self.batch.len()) as u64;
        if end > self.segment_bytes && self.position > self.base {
            self.roll()?;
        }
        let path = || self.segments.path(self.base);
        let durable = self.durable.load(Ordering::Relaxed);
        format::seal_batch(&mut self.batch, self.frames, self.position, durable, self.opening.stream);
        let offset = SEGMENT_HEADER as u64 + (self.position - self.base);
        self.file.write_all_at(&self.batch, offset).map_err(|e| Error::io(&path())(e))?;
        self.file.sync_data().map_err(|e| Error::io(&path())(e))?;
        self.position += self.batch.len() as u64;
        self.durable.store(self.position, Ordering::Release);
        if let Some((_, messages)) = self.messages_by_segment.back_mut() {
            *messages += self.messages;
        }
        self.begin_batch();
        self.reclaim()
    }

    fn control(&mut self, record: &Record<'_>, now: Now) {
        let head = FrameHead { session: 0, packet: 0, digest: 0, arrived: now };
        self.message(&head, std::iter::once(record.clone()));
    }

    fn begin_batch(&mut self) {
        self.batch.clear();
        self.batch.resize(BATCH_HEADER, 0);
        self.frames = 0;
        self.messages = 0;
    }

    /// Everything before is durable, so the new segment begins where it ends.
    fn roll(&mut self) -> Result<(), Error> {
        let bytes = snapshot(&self.opening, &self.controls, self.position, self.position);
        self.file = self.segments.create(self.position, &bytes, self.segment_bytes)?;
        self.base = self.position;
        self.position += bytes.len() as u64;
        self.durable.store(self.position, Ordering::Release);
        self.messages_by_segment.push_back((self.base, 0));
        Ok(())
    }

    /// A segment goes when all of it is acknowledged by Kafka (as a durable cursor says), and nothing in it is needed
    /// to recognise redeliveries: because it is proven, or because as many came since as are remembered.
    fn reclaim(&mut self) -> Result<(), Error> {
        for pair in self.segments.bases().windows(2) {
            let (base, end) = (pair[0], pair[1]);
            let later: usize =
                self.messages_by_segment.iter().filter(|(b, _)| *b > base).map(|(_, n)| n).sum();
            let sent_again = end > self.controls.proven && later < MESSAGES_MAX;
            if end > self.controls.cursor.position || sent_again {
                break;
            }
            self.segments.remove(base)?;
            self.messages_by_segment.retain(|(b, _)| *b != base);
        }
        Ok(())
    }
}

/// A whole batch that tells how things stand.
fn snapshot(opening: &Opening, controls: &Controls, position: u64, durable: u64) -> Vec<u8> {
    let mut batch = vec![0; BATCH_HEADER];
    let head = FrameHead { session: 0, packet: 0, digest: 0, arrived: opening.now };
    let start = format::begin_frame(&mut batch, &head);
    let mut count = 0;
    let mut add = |record: &Record<'_>| {
        format::write_record(&mut batch, record);
        count += 1;
    };
    add(&Record::StreamOpened { boot: opening.boot, wall_ms: opening.now.wall_ms });
    if let Some((session, subscriptions)) = controls.session {
        add(&Record::Session { session, subscriptions });
    }
    if let Some(topics) = controls.topics {
        add(&Record::Topics(topics));
    }
    add(&Record::Cursor(controls.cursor.clone()));
    add(&Record::Proven(controls.proven));
    format::end_frame(&mut batch, start, count, opening.now.trusted);
    format::seal_batch(&mut batch, 1, position, durable, opening.stream);
    batch
}
