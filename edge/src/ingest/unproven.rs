//! Up to where the journal is not needed any more to recognise redeliveries.
//!
//! Comes in: receipts as they are committed and as they are proven. Goes out: the position to note in the journal.
//! Guarantees: the position never passes a message whose last acknowledgement is not proven. Pure.

use std::collections::VecDeque;

/// The commits that hold unproven messages.
#[derive(Debug)]
pub(super) struct Unproven {
    /// Last receipt of a commit, and where the commit ended; what earlier processes committed has receipt 0.
    commits: VecDeque<(u64, u64)>,
    /// Last receipt under which a message of an earlier commit is to be acknowledged again.
    again: u64,
}

impl Unproven {
    /// All that stands below `position` was committed by earlier processes.
    pub(super) fn new(position: u64) -> Self {
        Self { commits: VecDeque::from([(0, position)]), again: 0 }
    }

    /// A commit ended here, and its last receipt was this.
    pub(super) fn committed(&mut self, receipt: u64, end: u64) {
        self.commits.push_back((receipt, end));
    }

    /// A message that stands in an earlier commit is acknowledged again under this receipt.
    pub(super) const fn again(&mut self, receipt: u64) {
        self.again = receipt;
    }

    /// All acknowledgements up to this receipt have arrived; where what is proven ends, if that moved.
    pub(super) fn proven(&mut self, receipt: u64) -> Option<u64> {
        if receipt < self.again {
            return None;
        }
        let done = self.commits.partition_point(|(last, _)| *last <= receipt);
        self.commits.drain(..done).next_back().map(|(_, end)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_with_the_proofs_and_waits_for_what_is_sent_again() {
        let mut u = Unproven::new(100);
        u.committed(10, 200);
        u.committed(20, 300);
        assert_eq!(u.proven(0), Some(100));
        assert_eq!(u.proven(15), Some(200));
        assert_eq!(u.proven(15), None);
        u.again(25);
        u.committed(30, 400);
        assert_eq!(u.proven(24), None, "a message of an earlier commit is not proven");
        assert_eq!(u.proven(30), Some(400));
    }
}
