//! When a rule fails so often that it is to be switched off.
//!
//! Comes in: how often it was evaluated and failed, and the wall time. Goes out: whether to switch it off.
//! Guarantees: pure; a few failures never trip a rule, nor do many among far more that went well.

/// How far back it looks, in s.
const WINDOW_S: usize = 10;
/// Fewer failures than this within the window never trip.
const FAILURES_MIN: u64 = 100;

/// What happened to one rule within the last [`WINDOW_S`] seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trip {
    /// Second, evaluated, failed; a second's place is its remainder.
    seconds: [(i64, u64, u64); WINDOW_S],
}

impl Trip {
    /// Adds what happened until `now` (ms of wall time); true when the rule is to be switched off: at least
    /// [`FAILURES_MIN`] failures, and at least half of the evaluations.
    pub(crate) fn add(&mut self, now: i64, evaluated: u64, failed: u64) -> bool {
        let second = now.div_euclid(1_000);
        let place = usize::try_from(second.rem_euclid(WINDOW_S as i64)).unwrap_or_default();
        if self.seconds[place].0 != second {
            self.seconds[place] = (second, 0, 0);
        }
        self.seconds[place].1 += evaluated;
        self.seconds[place].2 += failed;
        let within = self.seconds.iter().filter(|(s, ..)| (second - WINDOW_S as i64..=second).contains(s));
        let (evaluated, failed) = within.fold((0, 0), |(e, f), (_, e2, f2)| (e + e2, f + f2));
        failed >= FAILURES_MIN && failed * 2 >= evaluated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_on_many_failures_that_are_half_of_all() {
        let mut trip = Trip::default();
        assert!(!trip.add(1_000, 99, 99));
        assert!(trip.add(1_500, 101, 1), "100 of 200");
        assert!(!trip.add(1_600, 1, 0), "100 of 201");
        assert!(trip.add(10_999, 1, 1), "101 of 202, the first second is still within");
        assert!(!trip.add(11_000, 1, 1), "only 2 are left");
    }

    #[test]
    fn clocks_that_jump_do_no_harm() {
        let mut trip = Trip::default();
        assert!(!trip.add(50_000, 99, 99));
        assert!(!trip.add(3_000, 5, 5));
        assert!(!trip.add(i64::from(i32::MAX), 5, 5));
        assert!(trip.add(i64::from(i32::MAX), 95, 95));
    }
}
