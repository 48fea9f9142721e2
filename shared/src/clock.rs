//! The only place that reads the clock.
//!
//! Goes out: wall time in ms since 1970, monotonic time, and whether the wall clock can be trusted.
//! Guarantees: monotonic time never steps back. On failure: a wall clock before 1970 reads as 0.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Before this (2024-01-01) a wall clock is certainly not set: gateways boot in 1970 or at their build date.
const PLAUSIBLE_MS_MIN: i64 = 1_704_067_200_000;

/// One look at both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, ms since 1970.
    pub wall_ms: i64,
    /// Monotonic clock of this boot, ns.
    pub mono_ns: u64,
    /// Whether the wall clock shows a time that can be true.
    pub trusted: bool,
}

/// Reads wall and monotonic clock.
#[must_use]
pub fn now() -> Now {
    let wall_ms = wall_ms();
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let mono_ns = t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs();
    Now { wall_ms, mono_ns, trusted: wall_ms >= PLAUSIBLE_MS_MIN }
}

/// Wall clock, ms since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that may read it")]
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A monotonic instant, for measuring and deadlines.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that may read it")]
pub fn instant() -> Instant {
    Instant::now()
}

/// How long ago this was.
#[must_use]
pub fn since(instant: Instant) -> Duration {
    self::instant().saturating_duration_since(instant)
}

/// A point in time by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this long from now.
    #[must_use]
    pub fn after(wait: Duration) -> Self {
        Self(instant() + wait)
    }

    /// What is left; zero when it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(instant())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}
