//! What the ingest stage hears from the others: it alone writes the journals.
//!
//! Sources speak of messages and acknowledgements; what works on one journal (a *lane*: its forwarder, its windows)
//! sends notes that are to be journaled there, in order.

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use crate::journal::format::{Acknowledged, Cursor, Partitions, Place, Sent};
use crate::sources::Message;

/// What the ingest stage hears.
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
    /// The acknowledgements of the last connection, up to this receipt, have reached the source; what earlier
    /// connections left open may still be sent again.
    Answered(u64),
    /// The source is connected again: silence from now on is silence of the devices.
    Resumed,
    /// From what works on one journal.
    Lane(usize, Note),
    /// Nothing: somebody wants to see that events are taken.
    Nudge,
}

/// To be journaled in one lane.
#[derive(Debug)]
pub(crate) enum Note {
    /// Kafka has this many partitions for each kind of record.
    Topics(Partitions),
    /// Kafka has acknowledged this much, and all of these streams.
    Cursor {
        /// How much.
        cursor: Cursor,
        /// Streams that get no more records, each line of them.
        done: Vec<Acknowledged>,
    },
    /// The journal does not hold these numbers any more, and nobody gave them up.
    Missing(Vec<Missing>),
    /// Kafka refuses this record for good.
    Refused {
        /// Whose number it had.
        stream: StreamId,
        /// Where it was to go.
        place: Place,
        /// If it is a reading: device and value.
        reading: Option<(Vec<u8>, Vec<u8>)>,
        /// What Kafka said.
        why: String,
        /// When it was given up.
        now: Now,
    },
    /// Live data is to go before what is held: the answer is where the new stream begins.
    OpenStream(flume::Sender<u64>),
    /// The results of the windows over all batches that end at or below this position.
    Results {
        /// In order: kind, key, value.
        outputs: Vec<(Sent, Vec<u8>, Vec<u8>)>,
        /// Where those batches end.
        position: u64,
    },
    /// The clock alone is to close windows.
    Tick,
    /// The end of the journal is lost, and with it what was held there.
    EndLost {
        /// From here.
        from: u64,
        /// To here or before.
        to: u64,
    },
    /// The state of the windows could not be computed again.
    StateLost {
        /// From here to where the journal begins, it does not hold what is needed.
        from: u64,
        /// Where it begins.
        to: u64,
    },
}

/// Numbers that the journal does not hold any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The stream.
    pub stream: StreamId,
    /// The first of them.
    pub first: Place,
    /// How many.
    pub count: u64,
}
