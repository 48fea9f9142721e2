//! Waiting longer after each failure, with jitter, so that two hundred edges do not return in the same second; and not telling
//! each of them, so that a server that is away for a month fills no gateway's log.
//!
//! Comes in: failures and random bits. Goes out: how long to wait, and whether to tell the failure.
//! Guarantees: every wait lies between half and the whole of min(first · 2ⁿ, max). What is new is told at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::clock;

/// The same failure is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// So many different failures are known; then they are new again.
const KNOWN_MAX: usize = 32;

/// A backoff that doubles from `first` to `max`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
    /// By its words: when it was told, and how often it came since.
    told: HashMap<String, (Instant, u64)>,
}

impl Backoff {
    /// Starts at `first`, never waits longer than `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0, told: HashMap::new() }
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.told.clear();
    }

    /// `Some` when this failure is to be told: words to put behind it, which say how often it came untold. Figures in its
    /// own words (a port, a time) do not make it another one.
    pub fn tells(&mut self, why: &str) -> Option<String> {
        let untold = self.tells_at(why, clock::instant())?;
        Some(if untold == 0 { String::new() } else { format!(" ({untold} more since this was told)") })
    }

    fn tells_at(&mut self, why: &str, now: Instant) -> Option<u64> {
        let words: String = why.chars().filter(|c| !c.is_ascii_digit()).collect();
        match self.told.get_mut(&words) {
            Some((at, untold)) if now.saturating_duration_since(*at) < TOLD_EVERY => {
                *untold += 1;
                None
            }
            known => {
                let untold = known.map_or(0, |(_, untold)| *untold);
                if self.told.len() >= KNOWN_MAX {
                    self.told.clear();
                }
                self.told.insert(words, (now, 0));
                Some(untold)
            }
        }
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

    #[test]
    fn tells_what_is_new_at_once_and_the_same_once_a_minute() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let begin = clock::instant();
        let mut tells = |why: &str, seconds| b.tells_at(why, begin + Duration::from_secs(seconds));
        assert_eq!(tells("refused (after 3 ms)", 0), Some(0));
        assert_eq!(tells("refused (after 17 ms)", 5), None);
        assert_eq!(tells("timed out", 5), Some(0));
        assert_eq!(tells("refused (after 9 ms)", 59), None);
        assert_eq!(tells("refused (after 9 ms)", 60), Some(2));
        assert_eq!(tells("refused (after 9 ms)", 61), None);
        for length in 1..=2 * KNOWN_MAX {
            assert_eq!(tells(&"x".repeat(length), 62), Some(0));
        }
        assert!(b.told.len() <= KNOWN_MAX);
        b.reset();
        assert_eq!(b.tells_at("refused (after 9 ms)", begin), Some(0));
    }
}
