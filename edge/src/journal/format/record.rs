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
use super::codec::u64_at;

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

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
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
