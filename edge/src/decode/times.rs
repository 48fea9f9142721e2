//! Event times: how they are written, and which are accepted.
//!
//! Comes in: what stands in the time field, and when the message arrived. Goes out: ms since 1970. Guarantees: a time
//! outside the accepted range is refused, or moved to the range's end, only while the clock of this machine can be
//! trusted; no time leaves 1970 to 2261, which all stores can hold. On failure: the reason and what was found.

use jiff::tz::TimeZone;
use weir_shared::clock::Now;
use weir_shared::config::Section;
use weir_shared::record;

use super::{Reason, Refused};

/// How times are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Numbers are seconds, not ms.
    pub seconds: bool,
    /// The zone of dates and times without an offset; without one, such are refused.
    pub zone: Option<TimeZone>,
}

/// Which event times are accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// How long before the arrival, in ms; without one, all that is past.
    pub past_ms: Option<i64>,
    /// How long after the arrival, in ms; without one, all that is to come.
    pub future_ms: Option<i64>,
    /// Times outside are moved to the end of the range, not refused.
    pub clamp: bool,
}

impl Written {
    /// Takes `time_unit` and `time_zone`.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let zone = section.string("time_zone");
        let zone = match zone.as_str() {
            "" => None,
            "UTC" => Some(TimeZone::UTC),
            name => TimeZone::get(name).map_or_else(
                |_| {
                    section.problem(
                        "time_zone",
                        "must be a zone of the IANA list, for example \"Europe/Vienna\"",
                    );
                    None
                },
                Some,
            ),
        };
        Self { seconds: section.choice("time_unit", &["ms", "s"]) == 1, zone }
    }

    pub(super) fn integer(&self, n: i64) -> i64 {
        if self.seconds { n.saturating_mul(1000) } else { n }
    }

    /// A number with a fraction can only be seconds.
    pub(super) fn float(&self, n: f64) -> Result<i64, Refused> {
        if self.seconds { Ok((n * 1000.0).round() as i64) } else { Err(self.invalid(&format!("{n}"))) }
    }

    /// RFC 3339, or, with a zone, a date and time without an offset. A time that the zone has twice is the first of
    /// them, one that it skips is as much later.
    pub(super) fn text(&self, text: &str) -> Result<i64, Refused> {
        let error = match text.parse::<jiff::Timestamp>() {
            Ok(time) => return Ok(time.as_millisecond()),
            Err(error) => error,
        };
        let Some(zone) = &self.zone else { return Err(self.invalid(&format!("{text:?}: {error}"))) };
        let local = text.parse::<jiff::civil::DateTime>().and_then(|local| local.to_zoned(zone.clone()));
        local
            .map(|time| time.timestamp().as_millisecond())
            .map_err(|e| self.invalid(&format!("{text:?}: {e}")))
    }

    pub(super) fn invalid(&self, what: &str) -> Refused {
        let unit = if self.seconds { "seconds" } else { "integer ms" };
        (Reason::TimeInvalid, format!("{what}, neither {unit} nor RFC 3339"))
    }
}

impl Times {
    /// Takes `time_past_max_s`, `time_future_max_s` and `time_out_of_range`; 0 is no limit.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let limit = |key| {
            let seconds = i64::try_from(section.integer(key, 0..=10_000_000_000)).unwrap_or(0);
            (seconds > 0).then_some(seconds * 1000)
        };
        Self {
            past_ms: limit("time_past_max_s"),
            future_ms: limit("time_future_max_s"),
            clamp: section.choice("time_out_of_range", &["reject", "clamp"]) == 1,
        }
    }

    /// The time that counts.
    pub(super) fn accept(&self, time: i64, arrived: &Now) -> Result<i64, Refused> {
        if !(record::TIME_MS_MIN..=record::TIME_MS_MAX).contains(&time) {
            return Err((Reason::TimeOutOfRange, format!("{time} ms is not from 1970 to 2261")));
        }
        if !arrived.trusted {
            return Ok(time);
        }
        let ahead = time - arrived.wall_ms;
        let outside = match (self.past_ms, self.future_ms) {
            (Some(max), _) if ahead < -max => Some((Reason::ClockPast, -max)),
            (_, Some(max)) if ahead > max => Some((Reason::ClockFuture, max)),
            _ => None,
        };
        match outside {
            None => Ok(time),
            Some((_, end)) if self.clamp => {
                Ok((arrived.wall_ms + end).clamp(record::TIME_MS_MIN, record::TIME_MS_MAX))
            }
            Some((reason, end)) => {
                let (by, of) = (ahead.unsigned_abs() / 1000, end.unsigned_abs() / 1000);
                let side = if ahead < 0 { "before" } else { "after" };
                Err((reason, format!("{time} ms is {by} s {side} its arrival, at most {of} s are taken")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let plain = Written::default();
        assert_eq!(plain.text("2026-09-21T14:13:20.5+02:00").unwrap(), 1_789_992_800_500);
        assert_eq!(plain.text("2026-09-21 14:13:20").unwrap_err().0, Reason::TimeInvalid);
        assert_eq!(plain.float(1.5).unwrap_err().0, Reason::TimeInvalid);
        let utc = Written { seconds: true, zone: Some(TimeZone::UTC) };
        assert_eq!(utc.text("2026-09-21 12:13:20").unwrap(), 1_789_992_800_000);
        assert_eq!(utc.text("2026-09-21T12:13:20.250").unwrap(), 1_789_992_800_250);
        assert_eq!(utc.text("2026-09-21").unwrap(), 1_789_948_800_000);
        assert_eq!((utc.integer(-3), utc.integer(i64::MAX)), (-3000, i64::MAX));
        assert_eq!(utc.float(1_789_992_800.25).unwrap(), 1_789_992_800_250);
        assert_eq!(utc.text("soon").unwrap_err().0, Reason::TimeInvalid);
    }

    #[test]
    fn the_range_counts_only_for_a_trusted_clock() {
        let arrived = Now { wall_ms: 1_790_000_000_000, mono_ns: 0, trusted: true };
        let times = Times { past_ms: Some(10_000), future_ms: Some(5_000), clamp: false };
        let reason =
            |times: Times, time, arrived: &Now| times.accept(time, arrived).map_err(|(reason, _)| reason);
        for (offset, want) in [
            (-10_001, Err(Reason::ClockPast)),
            (-10_000, Ok(-10_000)),
            (5_000, Ok(5_000)),
            (5_001, Err(Reason::ClockFuture)),
        ] {
            let want = want.map(|offset: i64| arrived.wall_ms + offset);
            assert_eq!(reason(times, arrived.wall_ms + offset, &arrived), want, "{offset}");
        }
        let clamp = Times { clamp: true, ..times };
        assert_eq!(reason(clamp, 0, &arrived), Ok(arrived.wall_ms - 10_000));
        assert_eq!(reason(clamp, record::TIME_MS_MAX, &arrived), Ok(arrived.wall_ms + 5_000));
        assert_eq!(reason(clamp, -1, &arrived), Err(Reason::TimeOutOfRange));
        assert_eq!(reason(times, 0, &Now { trusted: false, ..arrived }), Ok(0));
        assert_eq!(reason(Times::default(), 0, &arrived), Ok(0));
    }
}
