//! The bytes of a record: 1 byte kind, 4 bytes length, body. Readers skip kinds that they do not know.
//!
//! - To be **sent**, kinds 1 reading, 2 rejection, 3 window result, 5 gap, 7 late reading: 4 partition, 8 number,
//!   2 length of the key, key, value. The topic follows from the kind. Kind + 16: a control record for the cloud in the
//!   same topic, which says in its value that a stream is closed.
//! - 8 **kept** reading, for windows alone: 2 length of the key, key, value. 4 **tick**, empty: only the clock of its
//!   frame counts.
//! - 6 **control**: 1 byte what, then: 1 *stream opened*: 16 boot id, 8 wall clock ms. 2 *session*: 8 session, 8 hash
//!   of the subscriptions. 3 *topics*: per sent kind 1 kind, 4 partitions. 4 *cursor*: 8 position below which all is
//!   acknowledged, then per stream, kind and partition 16 stream, 1 kind, 4 partition, 8 next number (all lower
//!   numbers are acknowledged). 5 *proven*: 8 position below which no source will send a message again. 6 *results*:
//!   8 position; the results of the window rules over all batches that end at or below it stand. 7 *numbers*:
//!   16 stream, then per kind and partition 1 kind, 4 partition, 8 next number. 8 *rules*: the window rules from here
//!   on, as text. 9 *resumed*: a source is there again. 10 *clock*: 4 boot (as in batches), 1 known, 8 right time less
//!   monotonic time in ms, for that boot's untrusted frames. 11 *file*: 8 file, 8 bytes of it that are journaled, 8 rows of it. 12 *given up*: 8 from and
//!   8 to position: removed by policy before it was sent; gaps say what it held. 13 *seen*: 8 position, 8 session, then
//!   8 per message: 2 packet identifier, 6 lowest of its digest. Messages below that position which a source may send
//!   again; the segments they stood in may go.

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::super::redelivery;
use super::FrameHead;

const TICK: u8 = 4;
const CONTROL: u8 = 6;
const KEPT: u8 = 8;
/// Added to the kind of a sent record: it is a control record for the cloud.
const CLOSING: u8 = 16;
/// Bytes of kind and length.
pub(super) const HEAD: usize = 5;
/// Bytes of kind, partition and number.
const PLACE: usize = 13;

/// What is sent, and where: the kind of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Sent {
    /// A reading, to `weir.readings`.
    Reading = 1,
    /// A dead letter, to `weir.edge-rejected`.
    Rejection = 2,
    /// A window's result, to `weir.windows`.
    Window = 3,
    /// What was given up or lost, to `weir.gaps`.
    Gap = 5,
    /// A reading beyond the allowed lateness of a window, to `weir.late`.
    Late = 7,
}

/// Partition counts by [`Sent::ALL`]'s order.
pub(crate) type Partitions = [u32; Sent::ALL.len()];

impl Sent {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Reading, Self::Rejection, Self::Window, Self::Gap, Self::Late];

    /// Its place in [`Sent::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Reading => 0,
            Self::Rejection => 1,
            Self::Window => 2,
            Self::Gap => 3,
            Self::Late => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The topic.
    pub(crate) const fn topic(self) -> &'static str {
        match self {
            Self::Reading => weir_shared::wire::READINGS,
            Self::Rejection => weir_shared::wire::EDGE_REJECTED,
            Self::Window => weir_shared::wire::WINDOWS,
            Self::Gap => weir_shared::wire::GAPS,
            Self::Late => weir_shared::wire::LATE,
        }
    }
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

/// How the untrusted wall clocks of one boot are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Correction {
    /// Which boot of the machine: see [`super::boot_of`].
    pub boot: u32,
    /// Whether the right time became known; otherwise the frames stay untrusted.
    pub known: bool,
    /// Right time less monotonic time, ms.
    pub offset_ms: i64,
}

/// How much of a file is journaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FileMark {
    /// Which file.
    pub file: u64,
    /// Bytes of it.
    pub offset: u64,
    /// Rows of it.
    pub rows: u64,
}

/// The next numbers of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The stream.
    pub stream: StreamId,
    /// Per topic and partition, only those that have any.
    pub next: Vec<Place>,
}

/// Messages that stood below a position, by what a redelivery is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    /// All segments that end at or below it are not needed to recognise redeliveries any more.
    pub below: u64,
    /// The session in which they came.
    pub session: u64,
    /// One [`redelivery::key`] after the other, oldest first.
    pub keys: &'a [u8],
}

impl Seen<'_> {
    /// The messages, as far as they are known.
    pub(crate) fn heads(self, arrived: Now) -> impl Iterator<Item = FrameHead> {
        self.keys.chunks_exact(8).map(move |key| {
            let (packet, digest) = redelivery::parts(u64_at(key, 0));
            FrameHead { session: self.session, packet, digest, arrived }
        })
    }
}

/// One record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// To be sent to Kafka.
    Sent {
        /// Where to.
        place: Place,
        /// Whether it is a control record for the cloud: a stream is closed.
        closing: bool,
        /// Kafka key.
        key: &'a [u8],
        /// Kafka value.
        value: &'a [u8],
    },
    /// A reading for windows alone.
    Kept {
        /// Its device.
        key: &'a [u8],
        /// Its JSON.
        value: &'a [u8],
    },
    /// Only the clock of the frame counts.
    Tick,
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
    /// Partition counts; 0 where they are not known.
    Topics(Partitions),
    /// How far the forwarder is.
    Cursor(Cursor),
    /// Below this position no source will send a message again.
    Proven(u64),
    /// The results over all batches that end at or below this position stand.
    Results(u64),
    /// The next numbers of a stream.
    Numbers(Numbers),
    /// The window rules from here on.
    Rules(&'a str),
    /// A source is there again.
    Resumed,
    /// How the untrusted wall clocks of a boot are to be read.
    Clock(Correction),
    /// How much of a file is journaled.
    File(FileMark),
    /// These positions were removed by policy before they were sent.
    GivenUp {
        /// The first.
        from: u64,
        /// Behind the last.
        to: u64,
    },
    /// Messages that a source may send again, of segments that may go.
    Seen(Seen<'a>),
    /// A kind that this version does not know.
    Unknown,
}

pub(super) fn read_record(kind: u8, body: &[u8]) -> Option<Record<'_>> {
    if let Some(sent) = Sent::from_byte(kind & !CLOSING) {
        let (head, rest) = body.split_at_checked(12)?;
        let place = Place { kind: sent, partition: u32_at(head, 0), number: u64_at(head, 4) };
        let (key, value) = split_key(rest)?;
        return Some(Record::Sent { place, closing: kind & CLOSING != 0, key, value });
    }
    match kind {
        TICK => Some(Record::Tick),
        KEPT => split_key(body).map(|(key, value)| Record::Kept { key, value }),
        CONTROL => read_control(body),
        _ => None,
    }
}

fn split_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_le_bytes([length[0], length[1]])))
}

fn read_control(body: &[u8]) -> Option<Record<'_>> {
    let (what, body) = body.split_first()?;
    match (what, body.len()) {
        (1, 24) => Some(Record::StreamOpened {
            boot: body[..16].try_into().ok()?,
            wall_ms: u64_at(body, 16).cast_signed(),
        }),
        (2, 16) => Some(Record::Session { session: u64_at(body, 0), subscriptions: u64_at(body, 8) }),
        (3, _) => {
            let mut topics = Partitions::default();
            for entry in body.chunks_exact(5) {
                if let Some(kind) = Sent::from_byte(entry[0]) {
                    topics[kind.index()] = u32_at(entry, 1);
                }
            }
            Some(Record::Topics(topics))
        }
        (5, 8) => Some(Record::Proven(u64_at(body, 0))),
        (6, 8) => Some(Record::Results(u64_at(body, 0))),
        (7, 16..) => {
            let next = body[16..].chunks_exact(PLACE).map(read_place).collect::<Option<_>>()?;
            Some(Record::Numbers(Numbers { stream: StreamId(body[..16].try_into().ok()?), next }))
        }
        (8, _) => std::str::from_utf8(body).ok().map(Record::Rules),
        (9, 0) => Some(Record::Resumed),
        (10, 13) => Some(Record::Clock(Correction {
            boot: u32_at(body, 0),
            known: body[4] != 0,
            offset_ms: u64_at(body, 5).cast_signed(),
        })),
        (11, 24) => Some(Record::File(FileMark {
            file: u64_at(body, 0),
            offset: u64_at(body, 8),
            rows: u64_at(body, 16),
        })),
        (12, 16) => Some(Record::GivenUp { from: u64_at(body, 0), to: u64_at(body, 8) }),
        (13, 16..) => {
            Some(Record::Seen(Seen { below: u64_at(body, 0), session: u64_at(body, 8), keys: &body[16..] }))
        }
        (4, 8..) => {
            let prefixes = body[8..].chunks_exact(16 + PLACE).map(read_prefix).collect::<Option<_>>()?;
            Some(Record::Cursor(Cursor { position: u64_at(body, 0), prefixes }))
        }
        _ => None,
    }
}

fn read_prefix(b: &[u8]) -> Option<Acknowledged> {
    let stream = StreamId(b[..16].try_into().ok()?);
    Some(Acknowledged { stream, next: read_place(&b[16..])? })
}

fn read_place(b: &[u8]) -> Option<Place> {
    Some(Place { kind: Sent::from_byte(b[0])?, partition: u32_at(b, 1), number: u64_at(b, 5) })
}

fn write_place(out: &mut Vec<u8>, place: &Place) {
    out.push(place.kind as u8);
    out.extend_from_slice(&place.partition.to_le_bytes());
    out.extend_from_slice(&place.number.to_le_bytes());
}

/// Appends a record; keys are at most 65,535 bytes (devices and topics are cut to 255).
pub(crate) fn write_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend_from_slice(&[CONTROL, 0, 0, 0, 0]);
    match record {
        Record::Sent { place, closing, key, value } => {
            out[start] = place.kind as u8 | if *closing { CLOSING } else { 0 };
            out.extend_from_slice(&place.partition.to_le_bytes());
            out.extend_from_slice(&place.number.to_le_bytes());
            write_key(out, key, value);
        }
        Record::Kept { key, value } => {
            out[start] = KEPT;
            write_key(out, key, value);
        }
        Record::Tick => out[start] = TICK,
        control => write_control(out, control),
    }
    let length = u32::try_from(out.len() - start - HEAD).expect("a record is far below 4 GiB");
    out[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
}

fn write_key(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let length = u16::try_from(key.len()).expect("keys are cut to 255 bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

fn write_control(out: &mut Vec<u8>, record: &Record<'_>) {
    match record {
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
                write_place(out, &prefix.next);
            }
        }
        Record::Proven(position) => {
            out.push(5);
            out.extend_from_slice(&position.to_le_bytes());
        }
        Record::Results(position) => {
            out.push(6);
            out.extend_from_slice(&position.to_le_bytes());
        }
        Record::Numbers(numbers) => {
            out.push(7);
            out.extend_from_slice(&numbers.stream.0);
            numbers.next.iter().for_each(|place| write_place(out, place));
        }
        Record::Rules(text) => {
            out.push(8);
            out.extend_from_slice(text.as_bytes());
        }
        Record::Resumed => out.push(9),
        Record::Clock(correction) => {
            out.push(10);
            out.extend_from_slice(&correction.boot.to_le_bytes());
            out.push(u8::from(correction.known));
            out.extend_from_slice(&correction.offset_ms.to_le_bytes());
        }
        Record::File(mark) => {
            out.push(11);
            [mark.file, mark.offset, mark.rows].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        }
        Record::GivenUp { from, to } => {
            out.push(12);
            [from, to].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        }
        Record::Seen(seen) => {
            out.push(13);
            out.extend_from_slice(&seen.below.to_le_bytes());
            out.extend_from_slice(&seen.session.to_le_bytes());
            out.extend_from_slice(seen.keys);
        }
        Record::Sent { .. } | Record::Kept { .. } | Record::Tick | Record::Unknown => {}
    }
}

/// Gives a record that is to be sent another number.
pub(super) fn renumber(record: &mut [u8], next: &mut impl FnMut(Sent, u32) -> u64) {
    if let Some(sent) = Sent::from_byte(record[0] & !CLOSING) {
        let number = next(sent, u32_at(record, HEAD));
        record[HEAD + 4..HEAD + 12].copy_from_slice(&number.to_le_bytes());
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
