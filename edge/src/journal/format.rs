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
//! 40  4  number of frames     44  4  boot, 0 for unknown     48  4  CRC-32C of bytes 0..48 and of the frames
//! ```
//! The boot is the CRC-32C of the boot id: it says which monotonic clock the frames were stamped by.
//! **Frame** (one message of a source, or control records of the edge itself): header of 48 bytes, then records.
//! ```text
//!  0  4  length of the records 4  4  number of records        8  8  session of the source, 0 for none
//! 16 16  xxh3-128 of topic, 0xFF, payload                    32  8  wall clock, ms since 1970
//! 40  6  monotonic clock, units of 65,536 ns                 46  2  packet identifier, 0 for none
//! ```
//! The highest bit of the records' number says that the wall clock was trusted.
//!
//! **Record**: see [`record`].
//!
//! Invariants: each segment holds, before its first new message, a batch that begins with *stream opened* and holds
//! *session*, *topics*, *rules* (once they are known), *cursor*, *proven*, *results*, *numbers*, and every *given up*,
//! *clock* and *file* that counts: the newest segment alone tells how things stand. Bytes whose CRC, position or lengths are wrong
//! are damage when a whole batch follows anywhere behind them (it was written only after they were durable), and a torn
//! write otherwise.

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

mod codec;
pub(crate) mod record;

pub(crate) use codec::write_record;
use codec::{read_record, u32_at, u64_at};
pub(crate) use record::{
    Acknowledged, Correction, Cursor, FileMark, Numbers, Partitions, Place, Record, Seen, Sent,
};

pub(crate) const SEGMENT_HEADER: usize = 24;
pub(crate) const BATCH_HEADER: usize = 52;
pub(crate) const FRAME_HEADER: usize = 48;
pub(crate) const VERSION: u32 = 1;
/// Largest batch that a reader believes: a longer length is damage.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 30;

const SEGMENT_MAGIC: &[u8; 8] = b"WEIRJRNL";
pub(super) const BATCH_MAGIC: &[u8; 4] = b"WBCH";
const TRUSTED: u32 = 1 << 31;

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

/// What the header of a batch says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    /// Where the batch stands.
    pub position: u64,
    /// What is durable now.
    pub durable: u64,
    /// Whose numbers its records carry.
    pub stream: StreamId,
    /// Whose monotonic clock stamped it: see [`boot_of`].
    pub boot: u32,
    /// How many frames it has.
    pub frames: u32,
}

/// How a batch names a boot of the machine; 0 for an unknown one.
pub(crate) fn boot_of(id: &[u8; 16]) -> u32 {
    if *id == [0; 16] { 0 } else { crc32c::crc32c(id) }
}

/// Fills the first [`BATCH_HEADER`] bytes of `batch`, whose frames follow them already.
pub(crate) fn seal_batch(batch: &mut [u8], seal: &Seal) {
    let length = u32::try_from(batch.len() - BATCH_HEADER).expect("a batch is far below 4 GiB");
    let (h, body) = batch.split_at_mut(BATCH_HEADER);
    h[..4].copy_from_slice(BATCH_MAGIC);
    h[4..8].copy_from_slice(&length.to_le_bytes());
    h[8..16].copy_from_slice(&seal.position.to_le_bytes());
    h[16..24].copy_from_slice(&seal.durable.to_le_bytes());
    h[24..40].copy_from_slice(&seal.stream.0);
    h[40..44].copy_from_slice(&seal.frames.to_le_bytes());
    h[44..48].copy_from_slice(&seal.boot.to_le_bytes());
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
    /// Whose monotonic clock stamped it, 0 for unknown.
    pub boot: u32,
    frames: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Whether `bytes` are one whole batch that says `position`.
    pub(crate) fn is_whole(bytes: &[u8], position: u64) -> bool {
        if Self::claimed(bytes, position) != Some(bytes.len()) {
            return false;
        }
        let (h, mut frames) = bytes.split_at(BATCH_HEADER);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&h[..48]), frames);
        crc == u32_at(h, 48)
            && (0..u32_at(h, 40)).all(|_| next_frame(&mut frames).is_some())
            && frames.is_empty()
    }

    /// The batch that `bytes` are, which [`Batch::is_whole`].
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let (h, frames) = bytes.split_at(BATCH_HEADER);
        let stream = StreamId(h[24..40].try_into().expect("sixteen bytes"));
        Self { position: u64_at(h, 8), durable: u64_at(h, 16), stream, boot: u32_at(h, 44), frames }
    }

    /// Bytes of the batch, with its header, that the header at the start of `bytes` claims.
    pub(crate) fn claimed(bytes: &[u8], position: u64) -> Option<usize> {
        let h = bytes.get(..BATCH_HEADER)?;
        let length = u32_at(h, 4) as usize;
        let believed = h[..4] == *BATCH_MAGIC && u64_at(h, 8) == position && length <= BATCH_BYTES_MAX;
        believed.then_some(BATCH_HEADER + length)
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
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'a>> + use<'a> {
        frames(self.frames)
    }
}

/// The frames that `bytes` are.
pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || next_frame(&mut bytes))
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
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut rest = self.records;
        std::iter::from_fn(move || {
            let (head, tail) = rest.split_at_checked(codec::HEAD)?;
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

/// Gives the records to be sent in these frames the numbers that `next` says for kind and partition.
pub(crate) fn renumber(frames: &mut [u8], mut next: impl FnMut(Sent, u32) -> u64) {
    let mut at = 0;
    while at + FRAME_HEADER <= frames.len() {
        let end = at + FRAME_HEADER + u32_at(frames, at) as usize;
        at += FRAME_HEADER;
        while at + codec::HEAD <= end {
            let length = u32_at(frames, at + 1) as usize;
            codec::renumber(&mut frames[at..at + codec::HEAD + length], &mut next);
            at += codec::HEAD + length;
        }
        at = end;
    }
}
