//! How many bulk requests are on their way at a time.
//!
//! Comes in: what became of each request, and how many were allowed when it was sent. Goes out: how many are allowed now.
//! Guarantees: between one and the most that is configured. A refusal (429) or silence halves what was allowed when that
//! request was sent, so that all refusals of one moment count as one; each [`RAISE_AFTER`] that are taken allow one more.
//! Pure.

/// Requests taken in a row after which one more is allowed.
const RAISE_AFTER: u32 = 16;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    allowed: usize,
    max: usize,
    taken: u32,
}

impl Pace {
    /// Begins with the most.
    pub(super) fn new(max: usize) -> Self {
        Self { allowed: max.max(1), max: max.max(1), taken: 0 }
    }

    /// Requests that may be on their way at a time.
    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// A request was taken whole.
    pub(super) fn taken(&mut self) {
        self.taken += 1;
        if self.taken >= RAISE_AFTER {
            self.taken = 0;
            self.allowed = (self.allowed + 1).min(self.max);
        }
    }

    /// The server had no room for all of a request, or did not answer it in time; so many were allowed when it was sent.
    pub(super) fn refused(&mut self, allowed_then: usize) {
        self.taken = 0;
        self.allowed = self.allowed.min(allowed_then / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_one_moment_halve_once_and_success_raises_slowly() {
        let mut pace = Pace::new(8);
        (0..8).for_each(|_| pace.refused(8));
        assert_eq!(pace.allowed(), 4);
        (0..2).for_each(|_| pace.refused(4));
        assert_eq!(pace.allowed(), 2);
        (1..RAISE_AFTER).for_each(|_| pace.taken());
        assert_eq!(pace.allowed(), 2);
        pace.taken();
        assert_eq!(pace.allowed(), 3);
        // A refusal begins the count anew.
        (1..RAISE_AFTER).for_each(|_| pace.taken());
        pace.refused(3);
        pace.taken();
        assert_eq!(pace.allowed(), 1);
        pace.refused(1);
        assert_eq!(pace.allowed(), 1);
        (0..RAISE_AFTER * 20).for_each(|_| pace.taken());
        assert_eq!(pace.allowed(), 8);
    }
}
