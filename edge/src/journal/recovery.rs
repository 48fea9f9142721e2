//! What a start finds in the journal.
//!
//! Comes in: the segments. Goes out: how things stood ([`Recovered`]). Guarantees: reads only as many of the newest
//! segments as it needs (the newest one, and as many more as hold messages that a source may send again); changes
//! nothing on disk.
//! What was written above the last durable position that a later batch or segment vouches for is given back as `tail`,
//! for the writer to write and fsync again: after a crash it may be in the page cache only.
//! On failure: damage below what later batches call durable is an error; a torn tail is left out and reported.

use std::fs;

use super::format::{BATCH_MAGIC, Batch, Cursor, FrameHead, Record, SEGMENT_HEADER};
use super::redelivery::MESSAGES_MAX;
use super::{Error, Segments};

/// How things stood.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Up to here all is surely durable.
    pub durable: u64,
    /// Whole batches from `durable` on.
    pub tail: Vec<u8>,
    /// Bytes behind the last whole batch that were not zero: a torn write, left out.
    pub torn_bytes: u64,
    /// The source's session and what was subscribed in it.
    pub session: Option<(u64, u64)>,
    /// Partition counts.
    pub topics: Option<[u32; 2]>,
    /// How far the forwarder was.
    pub cursor: Cursor,
    /// Below this position no source will send a message again.
    pub proven: u64,
    /// Heads of the messages of that session from there on, oldest first.
    pub messages: Vec<FrameHead>,
    /// Base position and number of messages of the segments that were read, oldest first.
    pub read: Vec<(u64, usize)>,
}

/// Reads the newest segments, until all messages that a source may send again were seen.
pub(crate) fn recover(segments: &Segments) -> Result<Recovered, Error> {
    let mut found = Recovered::default();
    let bases = segments.bases();
    let Some((&newest, older)) = bases.split_last() else { return Ok(found) };
    let bytes = read_file(segments, newest)?;
    let scan = scan(segments, newest, None, &bytes)?;
    let last = scan.batches.last();
    found.durable = last.map_or(newest, |batch| batch.durable.max(newest));
    found.torn_bytes = scan.torn_bytes;
    let tail = scan.batches.iter().find(|b| b.position >= found.durable).map_or(scan.end, |b| b.position);
    found.tail = bytes[offset(newest, tail)..offset(newest, scan.end)].to_vec();
    take_controls(&mut found, &scan.batches);
    let session = found.session.map(|(session, _)| session);
    let proven = found.proven;
    let mut heads = message_heads(&scan.batches, proven);
    found.read.push((newest, heads.len()));
    let mut end = newest;
    for &base in older.iter().rev() {
        if end <= proven || heads.len() >= MESSAGES_MAX {
            break;
        }
        let bytes = read_file(segments, base)?;
        let mut earlier = message_heads(&self::scan(segments, base, Some(end), &bytes)?.batches, proven);
        found.read.insert(0, (base, earlier.len()));
        earlier.append(&mut heads);
        heads = earlier;
        end = base;
    }
    heads.retain(|head| Some(head.session) == session);
    found.messages = heads;
    Ok(found)
}

struct Scan<'a> {
    batches: Vec<Batch<'a>>,
    end: u64,
    torn_bytes: u64,
}

/// All whole batches of a segment that ends at `end`, or, for the newest one, where its whole batches end.
fn scan<'a>(segments: &Segments, base: u64, end: Option<u64>, bytes: &'a [u8]) -> Result<Scan<'a>, Error> {
    let mut position = base;
    let mut batches = Vec::new();
    while end.is_none_or(|end| position < end) {
        let Some(batch) = bytes.get(offset(base, position)..).and_then(|b| Batch::read(b, position)) else {
            break;
        };
        position = batch.end();
        batches.push(batch);
    }
    let at = offset(base, position);
    let damaged = || Error::Damaged { path: segments.path(base), offset: at as u64, position };
    let rest = bytes.get(at..).unwrap_or(&[]);
    match end {
        Some(end) if position < end => return Err(damaged()),
        None if vouched_for(rest, position) => return Err(damaged()),
        _ => {}
    }
    let torn_bytes = rest.iter().rposition(|b| *b != 0).map_or(0, |last| last as u64 + 1);
    Ok(Scan { batches, end: position, torn_bytes: if end.is_none() { torn_bytes } else { 0 } })
}

/// Whether a whole batch further on says that `position` was durable when it was written.
fn vouched_for(rest: &[u8], position: u64) -> bool {
    (1..rest.len().saturating_sub(BATCH_MAGIC.len())).any(|at| {
        if rest[at..at + BATCH_MAGIC.len()] != *BATCH_MAGIC {
            return false;
        }
        let claimed = rest.get(at + 8..at + 16).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        claimed.and_then(|p| Batch::read(&rest[at..], p)).is_some_and(|batch| batch.durable > position)
    })
}

fn take_controls(found: &mut Recovered, batches: &[Batch<'_>]) {
    for record in batches.iter().flat_map(Batch::frames).flat_map(|frame| frame.records().collect::<Vec<_>>())
    {
        match record {
            Record::Session { session, subscriptions } => found.session = Some((session, subscriptions)),
            Record::Topics(topics) => found.topics = Some(topics),
            Record::Cursor(cursor) => found.cursor = cursor,
            Record::Proven(position) => found.proven = position,
            Record::Sent { .. } | Record::StreamOpened { .. } | Record::Unknown => {}
        }
    }
}

fn message_heads(batches: &[Batch<'_>], from: u64) -> Vec<FrameHead> {
    let batches = batches.iter().filter(|batch| batch.position >= from);
    batches.flat_map(Batch::frames).map(|frame| frame.head).filter(|head| head.packet != 0).collect()
}

const fn offset(base: u64, position: u64) -> usize {
    SEGMENT_HEADER + (position - base) as usize
}

fn read_file(segments: &Segments, base: u64) -> Result<Vec<u8>, Error> {
    let path = segments.path(base);
    fs::read(&path).map_err(Error::io(&path))
}
