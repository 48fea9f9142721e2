//! One line of time out of a wall clock that may be wrong and a monotonic clock that is right but knows no date.
//!
//! Comes in: looks at both clocks, and whether the operating system says that the wall clock is synchronised. Goes out:
//! the time to write down, and whether it can be trusted; once per boot, how the untrusted ones are to be mended.
//! Guarantees: a wild wall clock is not believed at once: a step of more than `step_max` counts only when the clock is
//! synchronised or has shown the new time for `believe_after`; until then time goes on by the monotonic clock. A boot
//! without a clock goes on from the newest time that is known, untrusted. Pure.
//! On failure: without a clock for `wait`, what was untrusted stays so and is let go.

use std::time::Duration;

use crate::clock::Now;

/// Before this (2024-01-01) a wall clock is certainly not set: gateways boot in 1970 or at their build date.
pub const PLAUSIBLE_MS_MIN: i64 = 1_704_067_200_000;
/// How far a boot may lie before the newest time that is known: a clock set back a little by hand.
const BEFORE_NEWEST: Duration = Duration::from_hours(1);

/// What is believed, and when.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A larger step is not believed at once.
    pub step_max: Duration,
    /// But after this long.
    pub believe_after: Duration,
    /// How long untrusted times wait for a clock.
    pub wait: Duration,
    /// Only a synchronised clock is trusted.
    pub require_synchronized: bool,
}

/// How the untrusted times of this boot are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mending {
    /// Whether the right time became known.
    pub known: bool,
    /// Right time less monotonic time, in ms.
    pub offset_ms: i64,
}

/// The line of time of one process.
#[derive(Clone, Debug)]
pub struct Timeline {
    limits: Limits,
    /// Time less monotonic time, in ms.
    offset_ms: i64,
    trusted: bool,
    /// Whether untrusted times still wait.
    waiting: bool,
    begun_ms: i64,
    newest_ms: i64,
    /// A step that is not believed yet: where it leads, and since when.
    step: Option<(i64, i64)>,
    steps: u64,
}

const fn mono_ms(now: &Now) -> i64 {
    (now.mono_ns / 1_000_000).cast_signed()
}

impl Timeline {
    /// Begins with a look at the clocks; `newest_ms` is the newest trusted time that was ever written down, 0 for none.
    #[must_use]
    pub fn new(limits: Limits, now: &Now, synchronized: bool, newest_ms: i64) -> Self {
        let mut line = Self {
            limits,
            offset_ms: now.wall_ms - mono_ms(now),
            trusted: false,
            waiting: true,
            begun_ms: mono_ms(now),
            newest_ms,
            step: None,
            steps: 0,
        };
        line.trusted = line.plausible(now.wall_ms, synchronized);
        if !line.trusted {
            line.offset_ms = now.wall_ms.max(newest_ms) - mono_ms(now);
        }
        line
    }

    /// The time at this look, and from the first one that settles it how to read the untrusted times of this boot.
    pub fn stamp(&mut self, now: &Now, synchronized: bool) -> (Now, Option<Mending>) {
        let target = now.wall_ms - mono_ms(now);
        if self.trusted {
            self.follow(target, mono_ms(now), synchronized);
        } else if self.plausible(now.wall_ms, synchronized) {
            (self.offset_ms, self.trusted) = (target, true);
        }
        let waited = mono_ms(now) - self.begun_ms >= millis(self.limits.wait);
        if !self.trusted && waited && now.wall_ms >= PLAUSIBLE_MS_MIN && !self.limits.require_synchronized {
            // It lies before what was known, but it is all there is.
            (self.offset_ms, self.trusted) = (target, true);
        }
        let mending = (self.waiting && (self.trusted || waited))
            .then_some(Mending { known: self.trusted, offset_ms: self.offset_ms });
        self.waiting &= mending.is_none();
        let wall_ms = mono_ms(now) + self.offset_ms;
        (Now { wall_ms, mono_ns: now.mono_ns, trusted: self.trusted }, mending)
    }

    /// Whether its times can be trusted.
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Steps that were believed.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether a step of the wall clock is not believed (yet), in ms.
    #[must_use]
    pub fn disbelieved_ms(&self) -> Option<i64> {
        self.step.map(|(target, _)| target - self.offset_ms)
    }

    fn plausible(&self, wall_ms: i64, synchronized: bool) -> bool {
        let newest = self.newest_ms - millis(BEFORE_NEWEST);
        wall_ms >= PLAUSIBLE_MS_MIN
            && (synchronized || (wall_ms >= newest && !self.limits.require_synchronized))
    }

    fn follow(&mut self, target: i64, mono_ms: i64, synchronized: bool) {
        let step_max = millis(self.limits.step_max);
        if (target - self.offset_ms).abs() <= step_max {
            (self.offset_ms, self.step) = (target, None);
            return;
        }
        let since = match self.step {
            Some((to, since)) if (target - to).abs() <= step_max => since,
            _ => mono_ms,
        };
        self.step = Some((target, since));
        if synchronized || mono_ms - since >= millis(self.limits.believe_after) {
            (self.offset_ms, self.step) = (target, None);
            self.steps += 1;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        step_max: Duration::from_secs(300),
        believe_after: Duration::from_secs(600),
        wait: Duration::from_secs(600),
        require_synchronized: false,
    };
    const T: i64 = 1_790_000_000_000;

    const fn at(mono_s: u64, wall_ms: i64) -> Now {
        Now { wall_ms, mono_ns: mono_s * 1_000_000_000, trusted: false }
    }

    #[test]
    fn a_clock_that_is_right_is_followed() {
        let mut line = Timeline::new(LIMITS, &at(10, T), false, 0);
        let (now, mending) = line.stamp(&at(11, T + 1_003), false);
        assert_eq!((now.wall_ms, now.trusted), (T + 1_003, true));
        assert!(mending.unwrap().known);
        assert_eq!(line.stamp(&at(12, T + 1_900), false), (Now { trusted: true, ..at(12, T + 1_900) }, None));
    }

    #[test]
    fn a_wild_step_is_believed_only_when_it_stays_or_is_synchronised() {
        for step in [315_360_000_000, -864_000_000, 131_072_000] {
            let mut line = Timeline::new(LIMITS, &at(0, T), false, T - 5_000);
            assert_eq!(line.stamp(&at(1, T + 1_000 + step), false).0.wall_ms, T + 1_000);
            assert_eq!(line.disbelieved_ms(), Some(step));
            assert_eq!(line.stamp(&at(599, T + 599_000 + step), false).0.wall_ms, T + 599_000);
            assert_eq!(line.stamp(&at(600, T + 600_000), false).0.wall_ms, T + 600_000, "it came back");
            assert_eq!(line.stamp(&at(601, T + 601_000 + step), false).0.wall_ms, T + 601_000);
            assert_eq!(line.stamp(&at(1201, T + 1_201_000 + step), false).0.wall_ms, T + 1_201_000 + step);
            assert_eq!(line.steps(), 1);
            assert_eq!(line.stamp(&at(1202, T + 1_202_000), true).0.wall_ms, T + 1_202_000, "synchronised");
        }
    }

    #[test]
    fn a_boot_in_1970_goes_on_from_what_is_known_and_is_mended() {
        let mut line = Timeline::new(LIMITS, &at(5, 5_000), false, T);
        let (now, mending) = line.stamp(&at(6, 6_000), false);
        assert_eq!((now.wall_ms, now.trusted, mending), (T + 1_000, false, None));
        let (now, mending) = line.stamp(&at(7, T + 90_000), false);
        assert_eq!((now.wall_ms, now.trusted), (T + 90_000, true));
        assert_eq!(mending, Some(Mending { known: true, offset_ms: T + 90_000 - 7_000 }));
        assert_eq!(line.stamp(&at(8, T + 91_000), false).1, None, "once");
    }

    #[test]
    fn without_a_clock_what_waits_is_let_go() {
        let mut line = Timeline::new(LIMITS, &at(5, 5_000), false, 0);
        assert_eq!(line.stamp(&at(604, 604_000), false).1, None);
        let (now, mending) = line.stamp(&at(605, 605_000), false);
        assert!(!now.trusted && !mending.unwrap().known);
        let mut back = Timeline::new(LIMITS, &at(0, T - 864_000_000), false, T);
        assert!(!back.stamp(&at(1, T - 863_999_000), false).0.trusted, "ten days before what is known");
        let (now, mending) = back.stamp(&at(600, T - 863_400_000), false);
        assert_eq!((now.wall_ms, now.trusted), (T - 863_400_000, true));
        assert!(mending.unwrap().known);
    }

    #[test]
    fn only_a_synchronised_clock_when_that_is_asked_for() {
        let limits = Limits { require_synchronized: true, ..LIMITS };
        let mut line = Timeline::new(limits, &at(0, T), false, 0);
        assert!(!line.stamp(&at(700, T + 700_000), false).0.trusted);
        assert!(line.stamp(&at(701, T + 701_000), true).0.trusted);
    }
}
