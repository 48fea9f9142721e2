//! Up to which receipt acknowledgements have surely reached the source.
//!
//! Comes in: the receipts received, which of them are new messages, and what the broker has answered. Goes out: the
//! receipt up to which nothing will be sent again. Guarantees: an answer on a connection proves nothing of earlier
//! connections before this one has sent again all that it will. It sends that first of all, in the order in which it
//! sent it first: so the first message that does not stand yet says that this is over, and all earlier receipts which
//! were not renewed are acknowledged. Pure.

use crate::sources::Receipt;

/// What is proven.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// The connection of the last message, its receipt, and the last receipt before that connection.
    connection: u64,
    count: u64,
    count_before: u64,
    /// Whether this connection has sent again all that it will.
    settled: bool,
    /// What was answered meanwhile.
    answered: u64,
}

impl Proofs {
    /// A message came.
    pub(super) const fn received(&mut self, receipt: Receipt) {
        if receipt.connection != self.connection {
            (self.connection, self.count_before, self.settled) = (receipt.connection, self.count, false);
        }
        self.count = receipt.count;
    }

    /// The message that came last does not stand yet: what that proves, once for each connection.
    pub(super) fn new_message(&mut self) -> Option<u64> {
        let first = !std::mem::replace(&mut self.settled, true);
        first.then(|| self.count_before.max(self.answered))
    }

    /// All acknowledgements up to this receipt that were written on its connection have arrived: what that proves.
    pub(super) const fn answered(&mut self, receipt: u64) -> Option<u64> {
        self.answered = receipt;
        if self.settled { Some(receipt) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(p: &mut Proofs, connection: u64, counts: std::ops::RangeInclusive<u64>) {
        counts.for_each(|count| p.received(Receipt { connection, packet: 1, count }));
    }

    #[test]
    fn an_answer_counts_once_nothing_is_sent_again_any_more() {
        let mut p = Proofs::default();
        receive(&mut p, 0, 1..=10);
        assert_eq!(p.new_message(), Some(0), "of earlier processes");
        assert_eq!(p.new_message(), None);
        assert_eq!(p.answered(4), Some(4));
        receive(&mut p, 1, 11..=12);
        assert_eq!(p.answered(12), None, "10 may follow, and is not proven");
        receive(&mut p, 1, 13..=20);
        assert_eq!(
            p.new_message(),
            Some(12),
            "19 was not sent again before 20 came: all are acknowledged up to 10"
        );
        assert_eq!(p.answered(20), Some(20));
        receive(&mut p, 2, 21..=21);
        assert_eq!(p.new_message(), Some(20));
    }

    #[test]
    fn a_connection_that_ends_among_redeliveries_proves_nothing() {
        let mut p = Proofs::default();
        receive(&mut p, 0, 1..=10);
        p.new_message();
        receive(&mut p, 1, 11..=13);
        assert_eq!(p.answered(13), None);
        receive(&mut p, 2, 14..=15);
        assert_eq!(p.answered(14), None);
        assert_eq!(p.new_message(), Some(14));
    }
}
