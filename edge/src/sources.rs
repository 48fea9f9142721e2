//! Sources: where messages come from.
//!
//! A source hands each message to the ingest stage with a receipt and acknowledges it to its peer only when that
//! stage gives the receipt back: then the message is on disk.

pub(crate) mod file;
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
    /// What sort of source it came from.
    pub origin: Origin,
    /// Keeps the memory accounted for until the message is in the journal.
    pub memory: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// What sort of source a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// MQTT.
    Mqtt,
    /// A file: the topic is its path.
    File {
        /// Index of its section in the configuration.
        format: usize,
        /// The row of the first line in the file, from 1.
        first_row: u64,
        /// How far the file is read with this message.
        mark: file::Mark,
    },
}

impl Origin {
    /// The word for it in dead letters.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::File { .. } => "file",
        }
    }
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
