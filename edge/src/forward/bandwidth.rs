//! The bandwidth cap: so many bytes a second on average, with one second's worth at once.
//!
//! Comes in: bytes sent. Goes out: whether more may be sent now. Pure; time is an argument.

use std::time::Instant;

/// Counts what may be sent.
#[derive(Debug)]
pub(super) struct Bandwidth {
    /// 0 for no cap.
    bytes_per_s: f64,
    left: f64,
    looked: Instant,
}

impl Bandwidth {
    /// A cap in bytes per second, 0 for none.
    pub(super) const fn new(bytes_per_s: u64, now: Instant) -> Self {
        Self { bytes_per_s: bytes_per_s as f64, left: bytes_per_s as f64, looked: now }
    }

    /// Whether something may be sent; it may be larger than what is left, and is paid back.
    pub(super) fn open(&mut self, now: Instant) -> bool {
        if self.bytes_per_s == 0.0 {
            return true;
        }
        let earned = now.saturating_duration_since(self.looked).as_secs_f64() * self.bytes_per_s;
        (self.left, self.looked) = ((self.left + earned).min(self.bytes_per_s), now);
        self.left > 0.0
    }

    /// So many bytes were sent.
    pub(super) const fn sent(&mut self, bytes: usize) {
        self.left -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_average_holds_and_large_records_are_paid_back() {
        let start = weir_shared::clock::instant();
        let mut bandwidth = Bandwidth::new(1000, start);
        let mut sent = 0;
        for ms in 0..10_000 {
            while bandwidth.open(start + Duration::from_millis(ms)) {
                bandwidth.sent(300);
                sent += 300;
            }
        }
        assert!((10_700..=11_300).contains(&sent), "{sent}");
        let mut free = Bandwidth::new(0, start);
        free.sent(1 << 40);
        assert!(free.open(start));
    }
}
