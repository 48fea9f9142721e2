//! Recognising what a source sends again after a crash or a lost connection.
//!
//! Comes in: the messages appended, the redeliveries, and what is proven to be acknowledged. Goes out: whether a
//! redelivered message already stands in the journal. Guarantees: a message matches only under the same session,
//! packet identifier and digest of topic and payload; the last `messages_max` messages are remembered.
//!
//! An entry stays after a match, as the acknowledgement of the redelivery can be lost too. It goes when the packet
//! identifier is used for a new message, or when the broker has answered a ping that was sent after the
//! acknowledgement (a broker works through a connection in order): from then on an equal payload under the same
//! identifier is a new reading. Pure.

use std::collections::{HashMap, VecDeque};

/// What may still be unacknowledged at the source.
#[derive(Debug)]
pub(crate) struct Redelivery {
    session: u64,
    messages_max: usize,
    entries: HashMap<u16, Entry>,
    order: VecDeque<(u16, u64)>,
    appended: u64,
}

#[derive(Debug)]
struct Entry {
    digest: u128,
    /// Which append made it, to tell it from a later one under the same packet identifier.
    appended: u64,
    /// The receipt under which it was last to be acknowledged.
    receipt: u64,
}

impl Redelivery {
    /// Knows nothing yet and will know the last `messages_max` messages.
    pub(crate) fn new(messages_max: usize) -> Self {
        Self { session: 0, messages_max, entries: HashMap::new(), order: VecDeque::new(), appended: 0 }
    }

    /// The messages that follow belong to this session; another one than before forgets all.
    pub(crate) fn session(&mut self, session: u64) {
        if self.session != session {
            self.session = session;
            self.entries.clear();
            self.order.clear();
        }
    }

    /// A message was appended; `receipt` counts what the source received.
    pub(crate) fn appended(&mut self, packet: u16, digest: u128, receipt: u64) {
        self.appended += 1;
        self.entries.insert(packet, Entry { digest, appended: self.appended, receipt });
        self.order.push_back((packet, self.appended));
        if self.order.len() > self.messages_max
            && let Some((packet, appended)) = self.order.pop_front()
            && self.entries.get(&packet).is_some_and(|e| e.appended == appended)
        {
            self.entries.remove(&packet);
        }
    }

    /// Whether this redelivery already stands in the journal; it is to be acknowledged under its new receipt.
    pub(crate) fn stands(&mut self, packet: u16, digest: u128, receipt: u64) -> bool {
        match self.entries.get_mut(&packet) {
            Some(entry) if entry.digest == digest => {
                entry.receipt = receipt;
                true
            }
            _ => false,
        }
    }

    /// All acknowledgements up to this receipt have reached the source.
    pub(crate) fn proven(&mut self, receipt: u64) {
        self.entries.retain(|_, entry| entry.receipt > receipt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redelivery_stands_however_often_it_comes() {
        let mut r = Redelivery::new(10);
        r.session(7);
        r.appended(1, 100, 1);
        assert!(r.stands(1, 100, 2));
        assert!(r.stands(1, 100, 3), "the acknowledgement of the redelivery was lost too");
        assert!(!r.stands(1, 101, 4), "another payload");
        assert!(!r.stands(2, 100, 5), "another packet identifier");
    }

    #[test]
    fn proof_a_new_session_reuse_and_the_window_end_it() {
        let mut r = Redelivery::new(3);
        r.session(7);
        r.appended(1, 100, 1);
        r.appended(2, 200, 2);
        r.proven(1);
        assert!(!r.stands(1, 100, 3), "proven: an equal payload is a new reading");
        assert!(r.stands(2, 200, 4), "not proven yet");
        r.proven(3);
        assert!(r.stands(2, 200, 5), "its last acknowledgement is not proven");
        r.appended(2, 201, 6);
        assert!(!r.stands(2, 200, 7), "the identifier was used again");
        for packet in 3..6 {
            r.appended(packet, 0, 8);
        }
        assert!(!r.stands(2, 201, 9), "outside the window");
        r.session(7);
        assert!(r.stands(5, 0, 10));
        r.session(8);
        assert!(!r.stands(5, 0, 11));
    }
}
