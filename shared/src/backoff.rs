//! Waiting longer after each failure, with jitter, so that two hundred edges do not return in the same second.
//!
//! Comes in: the number of failures and random bits. Goes out: how long to wait.
//! Guarantees: every wait lies between half and the whole of min(first · 2ⁿ, max).

use std::time::Duration;

/// A backoff that doubles from `first` to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `first`, never waits longer than `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        self.wait_with(random())
    }

    /// The wait after one more failure, with the random bits given.
    pub fn wait_with(&mut self, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        half + half.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// 64 random bits from the operating system; 0 where it has none (jitter only, never identity).
fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_resets() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(b.wait_with(0), Duration::from_millis(50));
        assert_eq!(b.wait_with(0), Duration::from_millis(100));
        for _ in 0..70 {
            assert!(b.wait_with(u64::MAX) <= Duration::from_secs(1));
        }
        assert_eq!(b.wait_with(0), Duration::from_millis(500));
        b.reset();
        assert_eq!(b.wait_with(0), Duration::from_millis(50));
    }
}
