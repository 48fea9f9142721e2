//! Recognising what a source sends again after a crash or a lost connection.
//!
//! Comes in: the messages appended, the redeliveries, and what is proven to be acknowledged. Goes out: whether a
//! redelivered message already stands in the journal. Guarantees: a message matches only under the same session,
//! packet identifier and digest of topic and payload; the last [`MESSAGES_MAX`] unproven messages are remembered.
//!
//! An entry ends by proof alone: when the broker has answered a ping that was sent after the acknowledgement (a broker
//! works through a connection in order). From then on an equal payload under the same identifier is a new reading.
//! It does not end with a match, as the acknowledgement of the redelivery can be lost too. It does not end when its
//! packet identifier is used again, nor with the number of messages that the broker should have in flight: Mosquitto
//! 2.0.11 lets two messages out for each acknowledgement, far past its `max_inflight_messages` and even past the
//! 65,535 identifiers (176,000 were sent again after one stop). Pure.

use std::collections::{HashMap, VecDeque};

/// Most messages that are remembered: about 12 MB, when a broker answers no ping in that time.
pub(crate) const MESSAGES_MAX: usize = 1 << 18;

/// What may still be unacknowledged at the source.
#[derive(Debug, Default)]
pub(crate) struct Redelivery {
    session: u64,
    /// The receipt under which each message was last to be acknowledged.
    receipts: HashMap<u64, u64>,
    /// The same in the order of the receipts; an older one of the same message has no meaning any more.
    order: VecDeque<(u64, u64)>,
}

impl Redelivery {
    /// The messages that follow belong to this session; another one than before forgets all.
    pub(crate) fn session(&mut self, session: u64) {
        if self.session != session {
            *self = Self { session, ..Self::default() };
        }
    }

    /// A message was appended; `receipt` counts what the source received, and is 0 for what an earlier process did.
    pub(crate) fn appended(&mut self, packet: u16, digest: u128, receipt: u64) {
        self.note(key(packet, digest), receipt);
    }

    /// Whether this redelivery already stands in the journal; it is to be acknowledged under its new receipt.
    pub(crate) fn stands(&mut self, packet: u16, digest: u128, receipt: u64) -> bool {
        let key = key(packet, digest);
        let stands = self.receipts.contains_key(&key);
        if stands {
            self.note(key, receipt);
        }
        stands
    }

    /// All acknowledgements up to this receipt have reached the source.
    pub(crate) fn proven(&mut self, receipt: u64) {
        while self.order.front().is_some_and(|(_, first)| *first <= receipt) {
            self.forget_first();
        }
        if self.order.len() < self.order.capacity() / 4 {
            self.order.shrink_to(2 * self.order.len());
            self.receipts.shrink_to(2 * self.receipts.len());
        }
    }

    fn note(&mut self, key: u64, receipt: u64) {
        self.receipts.insert(key, receipt);
        self.order.push_back((key, receipt));
        while self.receipts.len() > MESSAGES_MAX {
            self.forget_first();
        }
        if self.order.len() > 2 * MESSAGES_MAX {
            let receipts = &self.receipts;
            self.order.retain(|(key, receipt)| receipts.get(key) == Some(receipt));
        }
    }

    fn forget_first(&mut self) {
        if let Some((key, receipt)) = self.order.pop_front()
            && self.receipts.get(&key) == Some(&receipt)
        {
            self.receipts.remove(&key);
        }
    }
}

/// The packet identifier and 48 bits of the digest.
pub(super) fn key(packet: u16, digest: u128) -> u64 {
    (digest as u64) << 16 | u64::from(packet)
}

/// What a key is made of: the rest of the digest is not known any more.
pub(super) fn parts(key: u64) -> (u16, u128) {
    (key as u16, u128::from(key >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redelivery_stands_however_often_it_comes() {
        let mut r = Redelivery::default();
        r.session(7);
        r.appended(1, 100, 0);
        assert!(r.stands(1, 100, 2));
        assert!(r.stands(1, 100, 3), "the acknowledgement of the redelivery was lost too");
        assert!(!r.stands(1, 101, 4), "another payload");
        assert!(!r.stands(2, 100, 5), "another packet identifier");
        r.appended(1, 101, 6);
        assert!(r.stands(1, 100, 7), "Mosquitto uses identifiers again while they are in flight");
    }

    #[test]
    fn proof_and_a_new_session_end_it() {
        let mut r = Redelivery::default();
        r.session(7);
        r.appended(3, 300, 0);
        r.appended(1, 100, 1);
        r.appended(2, 200, 2);
        r.proven(1);
        assert!(!r.stands(1, 100, 3), "proven: an equal payload is a new reading");
        assert!(!r.stands(3, 300, 3), "of an earlier process, so proven by any answer");
        assert!(r.stands(2, 200, 4), "not proven yet");
        r.proven(3);
        assert!(r.stands(2, 200, 5), "its last acknowledgement is not proven");
        r.session(7);
        assert!(r.stands(2, 200, 10));
        r.session(8);
        assert!(!r.stands(2, 200, 11));
    }

    #[test]
    fn memory_is_bounded() {
        let mut r = Redelivery::default();
        for n in 0..MESSAGES_MAX as u64 + 10 {
            r.appended(1, u128::from(n), n);
        }
        assert_eq!((r.order.len(), r.receipts.len()), (MESSAGES_MAX, MESSAGES_MAX));
        assert!(!r.stands(1, 9, 0));
        assert!(r.stands(1, 10, 0));
        for n in 0..3 * MESSAGES_MAX as u64 {
            assert!(r.stands(1, 10 + u128::from(n % 1000), n));
        }
        assert!(r.order.len() <= 2 * MESSAGES_MAX + 1, "a link may break among redeliveries for ever");
        assert!(r.stands(1, 10 + 1000, 0));
    }
}
