//! Recognising what a source sends again after a crash or a lost connection.
//!
//! Comes in: the messages appended, the redeliveries, and what is proven to be acknowledged. Goes out: whether a
//! redelivered message already stands in the journal. Guarantees: a message matches only under the same session,
//! packet identifier and digest of topic and payload; memory is 1 MiB.
//!
//! Every packet identifier is remembered, not only as many as the broker should have in flight: Mosquitto 2.0.11 goes
//! past its `max_inflight_messages` after a reconnect. An entry stays after a match, as the acknowledgement of the
//! redelivery can be lost too. It goes when the identifier is used for a new message, or when the broker has answered
//! a ping that was sent after the acknowledgement (a broker works through a connection in order): from then on an
//! equal payload under the same identifier is a new reading. Pure.

/// As many packet identifiers as there are, with 0, which is none.
pub(crate) const PACKETS: usize = 1 << 16;

/// What may still be unacknowledged at the source.
#[derive(Debug)]
pub(crate) struct Redelivery {
    session: u64,
    entries: Vec<Entry>,
    /// Entries with a receipt below this are proven.
    alive_from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The lower half of the message's digest.
    digest: u64,
    /// One more than the receipt under which it was last to be acknowledged; 0 for no entry.
    receipt: u64,
}

const NONE: Entry = Entry { digest: 0, receipt: 0 };

impl Redelivery {
    /// Knows nothing yet.
    pub(crate) fn new() -> Self {
        Self { session: 0, entries: vec![NONE; PACKETS], alive_from: 1 }
    }

    /// The messages that follow belong to this session; another one than before forgets all.
    pub(crate) fn session(&mut self, session: u64) {
        if self.session != session {
            self.session = session;
            self.entries.fill(NONE);
        }
    }

    /// A message was appended; `receipt` counts what the source received, and is 0 for what an earlier process did.
    pub(crate) fn appended(&mut self, packet: u16, digest: u128, receipt: u64) {
        self.entries[usize::from(packet)] = Entry { digest: digest as u64, receipt: receipt + 1 };
    }

    /// Whether this redelivery already stands in the journal; it is to be acknowledged under its new receipt.
    pub(crate) fn stands(&mut self, packet: u16, digest: u128, receipt: u64) -> bool {
        let entry = &mut self.entries[usize::from(packet)];
        let stands = entry.receipt >= self.alive_from && entry.digest == digest as u64;
        if stands {
            entry.receipt = receipt + 1;
        }
        stands
    }

    /// All acknowledgements up to this receipt have reached the source.
    pub(crate) fn proven(&mut self, receipt: u64) {
        self.alive_from = self.alive_from.max(receipt + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redelivery_stands_however_often_it_comes() {
        let mut r = Redelivery::new();
        r.session(7);
        r.appended(1, 100, 0);
        assert!(r.stands(1, 100, 2));
        assert!(r.stands(1, 100, 3), "the acknowledgement of the redelivery was lost too");
        assert!(!r.stands(1, 101, 4), "another payload");
        assert!(!r.stands(2, 0, 5), "another packet identifier");
    }

    #[test]
    fn proof_a_new_session_and_reuse_end_it() {
        let mut r = Redelivery::new();
        r.session(7);
        r.appended(1, 100, 1);
        r.appended(2, 200, 2);
        r.appended(3, 300, 0);
        r.proven(1);
        assert!(!r.stands(1, 100, 3), "proven: an equal payload is a new reading");
        assert!(!r.stands(3, 300, 3), "of an earlier process, so proven by any answer");
        assert!(r.stands(2, 200, 4), "not proven yet");
        r.proven(3);
        assert!(r.stands(2, 200, 5), "its last acknowledgement is not proven");
        r.appended(2, 201, 6);
        assert!(!r.stands(2, 200, 7), "the identifier was used again");
        r.session(7);
        assert!(r.stands(2, 201, 10));
        r.session(8);
        assert!(!r.stands(2, 201, 11));
    }
}
