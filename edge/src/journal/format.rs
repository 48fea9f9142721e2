//! The bytes of the journal, version 1. All integers are little-endian.
//!
//! **Position**: bytes of batches (with their headers) since the journal began. A segment file holds the batches from
//! its base position on; it ends where the next segment begins, so a later segment that starts earlier replaces what
//! an older one held from there on (a later copy wins).
//!
//! **Segment** `<base, 20 digits>.wj`: header of 24 bytes, then batches, then zeros (preallocated).
//! ```text
//! 0  8  magic "WEIRJRNL"      8  4  version = 1      12  8  base position      20  4  CRC-32C of bytes 0..20
//! ```
//! **Batch** (what one fdatasync made durable): header of 52 bytes, then the frames.
//! ```text
//!  0  4  magic "WBCH"          4  4  length of the frames     8  8  position of this batch
//! 16  8  durable position when it was written                24 16  stream id
//! 40  4  number of frames     44  4  zero                    48  4  CRC-32C of bytes 0..48 and of the frames
//! ```
//! **Frame** (one message of a source, or control records of the edge itself): header of 48 bytes, then records.
//! ```text
//!  0  4  length of the records 4  4  number of records        8  8  session of the source, 0 for none
//! 16 16  xxh3-128 of topic, 0xFF, payload                    32  8  wall clock, ms since 1970
//! 40  6  monotonic clock, units of 65,536 ns                 46  2  packet identifier, 0 for none
//! ```
//! The highest bit of the records' number says that the wall clock was trusted.
//!
//! **Record**: 1 byte kind, 4 bytes length, body. Kinds: 1 reading, 2 rejection (sent: see below), 6 control;
//! 3 window result, 4 tick and 5 gap are reserved. Readers skip kinds that they do not know.
//! - A record to be **sent**: 4 partition, 8 number, 2 length of the key, key, value. The topic follows from the kind.
//! - **Control**: 1 byte what, then: 1 *stream opened*: 16 boot id, 8 wall clock ms. 2 *session*: 8 session, 8 hash
//!   of the subscriptions. 3 *topics*: per sent kind 1 kind, 4 partitions. 4 *cursor*: 8 position below which all is
//!   acknowledged, then per stream, kind and partition 16 stream, 1 kind, 4 partition, 8 next number (all lower
//!   numbers are acknowledged). 5 *proven*: 8 position below which no source will send a message again.
//!
//! Invariants: each segment holds *stream opened*, *session* and *topics* (once they are known), *cursor* and *proven*
//! before its first new message, so the newest segment alone tells how things stand. A batch whose CRC, position or lengths are wrong is
//! damage, and so is all behind it in that segment.

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

pub(crate) const SEGMENT_HEADER: usize = 24;
pub(crate) const BATCH_HEADER: usize = 52;
pub(crate) const FRAME_HEADER: usize = 48;
pub(crate) const VERSION: u32 = 1;
/// Largest batch that a reader believes: a longer length is damage.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 30;

const SEGMENT_MAGIC: &[u8; 8] = b"WEIRJRNL";
pub(super) const BATCH_MAGIC: &[u8; 4] = b"WBCH";
const TRUSTED: u32 = 1 << 31;
const CONTROL: u8 = 6;

/// What is sent, and where: the kind of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Sent {
    /// A reading, to `weir.readings`.
    Reading = 1,
    /// A dead letter, to `weir.edge-rejected`.
    Rejection = 2,
}

impl Sent {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Reading, Self::Rejection];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The topic.
    pub(crate) const fn topic(self) -> &'static str {
        match self {
            Self::Reading => weir_shared::wire::READINGS,
            Self::Rejection => weir_shared::wire::EDGE_REJECTED,
        }
    }
}

/// Head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Session of the source, 0 for the edge's own frames.
    pub session: u64,
    /// Packet identifier, 0 for none.
    pub packet: u16,
    /// Digest of topic and payload.
    pub digest: u128,
    /// When it arrived.
    pub arrived: Now,
}

/// Where a record goes, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which topic.
    pub kind: Sent,
    /// Which partition.
    pub partition: u32,
    /// Which number within (stream, topic, partition).
    pub number: u64,
}

/// One acknowledged prefix: all numbers below `next` are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The stream.
    pub stream: StreamId,
    /// Topic, partition and the first number that is not acknowledged.
    pub next: Place,
}

/// How far the forwarder is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// All records below this position are acknowledged.
    pub position: u64,
    /// Prefixes of the streams that have records at or above it.
    pub prefixes: Vec<Acknowledged>,
}

/// One record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// To be sent to Kafka.
    Sent {
        /// Where to.
        place: Place,
        /// Kafka key.
        key: &'a [u8],
        /// Kafka value.
        value: &'a [u8],
    },
    /// A stream was opened: by which boot, and when.
    StreamOpened {
        /// Boot id of the machine.
        boot: [u8; 16],
        /// Wall clock.
        wall_ms: i64,
    },
    /// The source's session from here on.
    Session {
        /// Its id.
        session: u64,
        /// What was subscribed in it.
        subscriptions: u64,
    },
    /// Partition counts by [`Sent::ALL`]'s order.
    Topics([u32; 2]),
    /// How far the forwarder is.
    Cursor(Cursor),
    /// Below this position no source will send a message again.
    Proven(u64),
    /// A kind that this version does not know.
    Unknown,
}

pub(crate) fn segment_header(base: u64) -> [u8; SEGMENT_HEADER] {
    let mut h = [0; SEGMENT_HEADER];
    h[..8].copy_from_slice(SEGMENT_MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_le_bytes());
    h[12..20].copy_from_slice(&base.to_le_bytes());
    let crc = crc32c::crc32c(&h[..20]);
    h[20..].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Base position and version of a segment; `None` when the header is damaged.
pub(crate) fn read_segment_header(h: &[u8]) -> Option<(u64, u32)> {
    let whole = h.len() >= SEGMENT_HEADER && h[..8] == *SEGMENT_MAGIC;
    (whole && crc32c::crc32c(&h[..20]) == u32_at(h, 20)).then(|| (u64_at(h, 12), u32_at(h, 8)))
}

/// Fills the first [`BATCH_HEADER`] bytes of `batch`, whose frames follow them already.
pub(crate) fn seal_batch(batch: &mut [u8], frames: u32, position: u64, durable: u64, stream: StreamId) {
    let length = u32::try_from(batch.len() - BATCH_HEADER).expect("a batch is far below 4 GiB");
    let (h, body) = batch.split_at_mut(BATCH_HEADER);
    h[..4].copy_from_slice(BATCH_MAGIC);
    h[4..8].copy_from_slice(&length.to_le_bytes());
    h[8..16].copy_from_slice(&position.to_le_bytes());
    h[16..24].copy_from_slice(&durable.to_le_bytes());
    h[24..40].copy_from_slice(&stream.0);
    h[40..44].copy_from_slice(&frames.to_le_bytes());
    h[44..48].fill(0);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&h[..48]), body);
    h[48..].copy_from_slice(&crc.to_le_bytes());
}

/// A batch that was read and is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    /// Where it stands.
    pub position: u64,
    /// What was durable when it was written.
    pub durable: u64,
    /// Whose numbers its records carry.
    pub stream: StreamId,
    frames: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the start of `bytes`, if it is whole and says `position`.
    pub(crate) fn read(bytes: &'a [u8], position: u64) -> Option<Self> {
        if bytes.len() < BATCH_HEADER || bytes[..4] != *BATCH_MAGIC || u64_at(bytes, 8) != position {
            return None;
        }
        let length = u32_at(bytes, 4) as usize;
        let frames = bytes.get(BATCH_HEADER..BATCH_HEADER.checked_add(length)?)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..48]), frames);
        if length > BATCH_BYTES_MAX || crc != u32_at(bytes, 48) {
            return None;
        }
        let stream = StreamId(bytes[24..40].try_into().ok()?);
        let batch = Self { position, durable: u64_at(bytes, 16), stream, frames };
        let mut cursor = frames;
        for _ in 0..u32_at(bytes, 40) {
            next_frame(&mut cursor)?;
        }
        cursor.is_empty().then_some(batch)
    }

    /// Length of the frames that the header at the start of `bytes` claims.
    pub(crate) fn claimed_length(bytes: &[u8]) -> Option<usize> {
        let length = u32_at(bytes.get(..BATCH_HEADER)?, 4) as usize;
        (bytes[..4] == *BATCH_MAGIC && length <= BATCH_BYTES_MAX).then_some(length)
    }

    /// Bytes of the batch with its header.
    pub(crate) const fn len(&self) -> usize {
        BATCH_HEADER + self.frames.len()
    }

    /// Where the next batch begins.
    pub(crate) const fn end(&self) -> u64 {
        self.position + self.len() as u64
    }

    /// Its frames, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'a>> {
        let mut rest = self.frames;
        std::iter::from_fn(move || next_frame(&mut rest))
    }
}

/// One frame as read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Its head.
    pub head: FrameHead,
    records: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Its records, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'a>> {
        let mut rest = self.records;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_at_checked(5)?;
            let (body, tail) = tail.split_at_checked(u32_at(head, 1) as usize)?;
            rest = tail;
            Some(read_record(head[0], body).unwrap_or(Record::Unknown))
        })
    }
}

fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<Frame<'a>> {
    let (h, tail) = rest.split_at_checked(FRAME_HEADER)?;
    let (records, tail) = tail.split_at_checked(u32_at(h, 0) as usize)?;
    *rest = tail;
    let mut mono = [0; 8];
    mono[..6].copy_from_slice(&h[40..46]);
    let arrived = Now {
        wall_ms: u64_at(h, 32).cast_signed(),
        mono_ns: u64::from_le_bytes(mono) << 16,
        trusted: u32_at(h, 4) & TRUSTED != 0,
    };
    let digest = u128::from_le_bytes(h[16..32].try_into().ok()?);
    let packet = u16::from_le_bytes([h[46], h[47]]);
    Some(Frame { head: FrameHead { session: u64_at(h, 8), packet, digest, arrived }, records })
}

fn read_record(kind: u8, body: &[u8]) -> Option<Record<'_>> {
    if let Some(kind) = Sent::from_byte(kind) {
        let (head, rest) = body.split_at_checked(14)?;
        let place = Place { kind, partition: u32_at(head, 0), number: u64_at(head, 4) };
        let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[12], head[13]])))?;
        return Some(Record::Sent { place, key, value });
    }
    if kind != CONTROL {
        return None;
    }
    let (what, body) = body.split_first()?;
    match (what, body.len()) {
        (1, 24) => Some(Record::StreamOpened {
            boot: body[..16].try_into().ok()?,
            wall_ms: u64_at(body, 16).cast_signed(),
        }),
        (2, 16) => Some(Record::Session { session: u64_at(body, 0), subscriptions: u64_at(body, 8) }),
        (3, 10) => Some(Record::Topics([u32_at(body, 1), u32_at(body, 6)])),
        (5, 8) => Some(Record::Proven(u64_at(body, 0))),
        (4, 8..) => {
            let prefixes = body[8..].chunks_exact(29).map(read_prefix).collect::<Option<_>>()?;
            Some(Record::Cursor(Cursor { position: u64_at(body, 0), prefixes }))
        }
        _ => None,
    }
}

fn read_prefix(b: &[u8]) -> Option<Acknowledged> {
    let stream = StreamId(b[..16].try_into().ok()?);
    let next = Place { kind: Sent::from_byte(b[16])?, partition: u32_at(b, 17), number: u64_at(b, 21) };
    Some(Acknowledged { stream, next })
}

/// Appends the head of a frame to `out`; [`end_frame`] completes it with what was appended since.
pub(crate) fn begin_frame(out: &mut Vec<u8>, head: &FrameHead) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&head.session.to_le_bytes());
    out.extend_from_slice(&head.digest.to_le_bytes());
    out.extend_from_slice(&head.arrived.wall_ms.to_le_bytes());
    out.extend_from_slice(&(head.arrived.mono_ns >> 16).to_le_bytes()[..6]);
    out.extend_from_slice(&head.packet.to_le_bytes());
    start
}

/// Completes the frame that began at `start`.
pub(crate) fn end_frame(out: &mut [u8], start: usize, records: u32, trusted: bool) {
    let length = u32::try_from(out.len() - start - FRAME_HEADER).expect("a frame is far below 4 GiB");
    let records = records | if trusted { TRUSTED } else { 0 };
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&records.to_le_bytes());
}

/// Appends a record; keys are at most 65,535 bytes (devices and topics are cut to 255).
pub(crate) fn write_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend_from_slice(&[CONTROL, 0, 0, 0, 0]);
    match record {
        Record::Sent { place, key, value } => {
            out[start] = place.kind as u8;
            out.extend_from_slice(&place.partition.to_le_bytes());
            out.extend_from_slice(&place.number.to_le_bytes());
            let key_len = u16::try_from(key.len()).expect("keys are cut to 255 bytes");
            out.extend_from_slice(&key_len.to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        Record::StreamOpened { boot, wall_ms } => {
            out.push(1);
            out.extend_from_slice(boot);
            out.extend_from_slice(&wall_ms.to_le_bytes());
        }
        Record::Session { session, subscriptions } => {
            out.push(2);
            out.extend_from_slice(&session.to_le_bytes());
            out.extend_from_slice(&subscriptions.to_le_bytes());
        }
        Record::Topics(partitions) => {
            out.push(3);
            for (kind, count) in Sent::ALL.iter().zip(partitions) {
                out.push(*kind as u8);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        Record::Cursor(cursor) => {
            out.push(4);
            out.extend_from_slice(&cursor.position.to_le_bytes());
            for prefix in &cursor.prefixes {
                out.extend_from_slice(&prefix.stream.0);
                out.push(prefix.next.kind as u8);
                out.extend_from_slice(&prefix.next.partition.to_le_bytes());
                out.extend_from_slice(&prefix.next.number.to_le_bytes());
            }
        }
        Record::Proven(position) => {
            out.push(5);
            out.extend_from_slice(&position.to_le_bytes());
        }
        Record::Unknown => {}
    }
    let length = u32::try_from(out.len() - start - 5).expect("a record is far below 4 GiB");
    out[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
