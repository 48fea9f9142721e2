//! Sources: where messages come from.
//!
//! A source hands each message to the ingest stage with a receipt and acknowledges it to its peer only when that
//! stage gives the receipt back: then the message is on disk.

pub(crate) mod mqtt;

use weir_shared::clock::Now;

/// A message on its way to the journal.
#[derive(Debug)]
pub(crate) struct Message {
    /// What the source needs to acknowledge it.
    pub receipt: Receipt,
    /// The source says that it may have sent this before.
    pub again: bool,
    /// Session of the source.
    pub session: u64,
    /// Where it came in.
    pub topic: String,
    /// Its bytes.
    pub payload: bytes::Bytes,
    /// When it arrived.
    pub arrived: Now,
    /// Keeps the memory accounted for until the message is in the journal.
    pub memory: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// What a source needs to acknowledge a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The connection on which it came: an acknowledgement is only good there.
    pub connection: u64,
    /// Packet identifier; 0 where the source wants no acknowledgement.
    pub packet: u16,
    /// Counts the messages received by this process.
    pub count: u64,
}

/// What the ingest stage hears from the others.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message to journal.
    Message(Message),
    /// The source has this session from here on, with these subscriptions.
    Session {
        /// Its id.
        session: u64,
        /// Hash of the subscriptions.
        subscriptions: u64,
    },
    /// All acknowledgements up to this receipt have reached the source.
    Proven(u64),
    /// The acknowledgements of the last connection, up to this receipt, have reached the source; what earlier
    /// connections left open may still be sent again.
    Closed(u64),
    /// Kafka has this many partitions for each kind of record.
    Topics([u32; 2]),
    /// Kafka has acknowledged this much.
    Cursor(crate::journal::format::Cursor),
    /// Kafka refuses this reading for good.
    Refused {
        /// Its key.
        device: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// What Kafka said.
        why: String,
        /// When it was given up.
        now: Now,
    },
}
