//! Panes: the pieces of time that windows are made of.
//!
//! Comes in: a time; the number of a pane. Goes out: the number of the pane it lies in; when a pane starts.
//! Guarantees: panes are numbered without a hole, follow one another without gap or overlap, and start at local midnight
//! and whole divisions of the local day. Where the clock is set forward a pane may be shorter, or empty; where
//! it is set back, longer. On failure: a zone that the bundled database does not know is refused by name.

use std::cell::Cell;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::rule::{DAY_MS, Span};

const HOUR_MS: i64 = 3_600_000;
const DAY: i64 = DAY_MS.cast_signed();
/// Days are counted from 1970-01-05, a Monday.
const MONDAY_MS: i64 = 4 * DAY;
/// Where the offset of a zone is looked up for windows of up to an hour.
const REFERENCE_MS: i64 = 1_704_067_200_000;
/// What the zone database can do with.
const TIME_MS: std::ops::RangeInclusive<i64> = -300_000_000_000_000..=250_000_000_000_000;

/// The zone with this name.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| format!("zone: {name} is no IANA time zone"))
}

/// How time is cut into panes.
#[derive(Debug)]
pub(super) struct Calendar {
    cut: Cut,
    /// The pane that was asked for last: number, start, end.
    last: Cell<(i64, i64, i64)>,
}

#[derive(Debug)]
enum Cut {
    /// All of the same width, pane 0 starting at `phase`.
    Even { width: i64, phase: i64 },
    /// Divisions of a local day.
    Hours { zone: TimeZone, per_day: i64 },
    /// Local days.
    Days { zone: TimeZone, days: i64 },
}

impl Calendar {
    /// Panes of this width; `None` for a zone means UTC.
    pub(super) fn new(width: Span, zone_name: Option<&str>) -> Result<Self, String> {
        let zone = zone_name.map(zone).transpose()?;
        let cut = match (width, zone) {
            (Span::Ms(ms), Some(zone)) if ms.cast_signed() > HOUR_MS => {
                Cut::Hours { zone, per_day: DAY / ms.cast_signed() }
            }
            (Span::Ms(ms), zone) => {
                let offset = zone.map_or(0, |zone| offset_ms(&zone, REFERENCE_MS));
                Cut::Even { width: ms.cast_signed().max(1), phase: -offset }
            }
            (Span::Days(days), Some(zone)) => Cut::Days { zone, days: i64::from(days.max(1)) },
            (Span::Days(days), None) => Cut::Even { width: i64::from(days.max(1)) * DAY, phase: MONDAY_MS },
        };
        Ok(Self { cut, last: Cell::new((0, 0, 0)) })
    }

    /// The number of the pane in which `time` lies.
    pub(super) fn pane(&self, time: i64) -> i64 {
        let (number, start, end) = self.last.get();
        if (start..end).contains(&time) {
            return number;
        }
        let mut pane = match &self.cut {
            Cut::Even { width, phase } => return (time - phase).div_euclid(*width),
            Cut::Hours { zone, per_day } => {
                let (day, in_day) = local(zone, time);
                day * per_day + in_day * per_day / DAY
            }
            Cut::Days { zone, days } => local(zone, time).0.div_euclid(*days),
        };
        // Where the wall clock was set back over midnight, its date is one too low.
        while self.start(pane + 1) <= time {
            pane += 1;
        }
        self.last.set((pane, self.start(pane), self.start(pane + 1)));
        pane
    }

    /// When a pane starts, which is when the one before ends.
    pub(super) fn start(&self, pane: i64) -> i64 {
        match &self.cut {
            Cut::Even { width, phase } => pane * width + phase,
            Cut::Hours { zone, per_day } => {
                instant(zone, pane.div_euclid(*per_day), pane.rem_euclid(*per_day) * (DAY / per_day))
            }
            Cut::Days { zone, days } => instant(zone, pane * days, 0),
        }
    }
}

fn timestamp(ms: i64) -> Timestamp {
    let ms = ms.clamp(*TIME_MS.start(), *TIME_MS.end());
    Timestamp::from_millisecond(ms).expect("the time is within the range of the database")
}

fn offset_ms(zone: &TimeZone, time: i64) -> i64 {
    i64::from(zone.to_offset(timestamp(time)).seconds()) * 1000
}

/// Days since [`MONDAY_MS`] and ms since midnight that a clock on the wall shows.
fn local(zone: &TimeZone, time: i64) -> (i64, i64) {
    let wall = time.clamp(*TIME_MS.start(), *TIME_MS.end()) + offset_ms(zone, time) - MONDAY_MS;
    (wall.div_euclid(DAY), wall.rem_euclid(DAY))
}

/// The first instant at which the clock on the wall shows this or more.
fn instant(zone: &TimeZone, day: i64, in_day: i64) -> i64 {
    let wall = (day * DAY + in_day + MONDAY_MS).clamp(*TIME_MS.start(), *TIME_MS.end());
    let civil: DateTime = TimeZone::UTC.to_datetime(timestamp(wall));
    let less = |offset: jiff::tz::Offset| wall - i64::from(offset.seconds()) * 1000;
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => less(offset),
        AmbiguousOffset::Fold { before, .. } => less(before),
        AmbiguousOffset::Gap { before, after } => {
            let first = zone.following(timestamp(less(after))).next();
            first.map_or_else(|| less(before), |t| t.timestamp().as_millisecond())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn panes(width: Span, zone: &str, from: &str, count: i64) -> Vec<String> {
        let calendar = Calendar::new(width, Some(zone)).unwrap();
        let first = calendar.pane(at(from));
        (0..count).map(|i| timestamp(calendar.start(first + i)).to_string()).collect()
    }

    #[test]
    fn local_days_have_23_24_and_25_hours() {
        let days = panes(Span::Days(1), "Europe/Vienna", "2026-03-28T12:00:00Z", 3);
        assert_eq!(days, ["2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"]);
        let days = panes(Span::Days(1), "Europe/Vienna", "2026-10-25T12:00:00Z", 2);
        assert_eq!(days, ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"]);
        let days = panes(Span::Days(1), "America/Havana", "2025-11-02T12:00:00Z", 1);
        assert_eq!(days, ["2025-11-02T04:00:00Z"], "the first of two midnights");
        let weeks = panes(Span::Days(7), "Europe/Vienna", "2026-11-21T12:00:00Z", 2);
        assert_eq!(weeks, ["2026-11-15T23:00:00Z", "2026-11-22T23:00:00Z"], "from Monday");
    }

    #[test]
    fn hours_follow_the_wall_clock_and_short_windows_the_phase_of_the_zone() {
        let six = panes(Span::Ms(21_600_000), "Europe/Vienna", "2026-03-28T23:30:00Z", 3);
        assert_eq!(six, ["2026-03-28T23:00:00Z", "2026-03-29T04:00:00Z", "2026-03-29T10:00:00Z"]);
        let hours = panes(Span::Ms(3_600_000), "Asia/Kolkata", "2026-03-28T23:00:00Z", 2);
        assert_eq!(hours, ["2026-03-28T22:30:00Z", "2026-03-28T23:30:00Z"]);
    }

    /// Clocks set back over midnight, a day that never was, a midnight that never was, half an hour of daylight saving.
    #[test]
    fn panes_are_without_gap_or_overlap_in_odd_zones() {
        let odd = [
            ("America/St_Johns", "2006-10-28T00:00:00Z"),
            ("Pacific/Apia", "2011-12-28T00:00:00Z"),
            ("America/Sao_Paulo", "2018-11-03T00:00:00Z"),
            ("America/Havana", "2025-11-01T00:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-03T00:00:00Z"),
            ("Europe/Vienna", "2026-10-24T00:00:00Z"),
        ];
        for (zone, from) in odd {
            for width in [Span::Days(1), Span::Ms(21_600_000), Span::Ms(7_200_000), Span::Ms(1_800_000)] {
                let calendar = Calendar::new(width, Some(zone)).unwrap();
                let from = at(from);
                let mut before = calendar.pane(from);
                for time in (from..from + 4 * DAY).step_by(600_000) {
                    let pane = calendar.pane(time);
                    assert!(pane >= before, "{zone} {width:?}");
                    assert!((before..=pane).all(|p| calendar.start(p) <= calendar.start(p + 1)), "{zone}");
                    calendar.last.set((0, 0, 0));
                    assert_eq!(
                        calendar.pane(time),
                        pane,
                        "{zone} {width:?}: what was asked before has no say"
                    );
                    assert!(
                        calendar.start(pane) <= time && time < calendar.start(pane + 1),
                        "{zone} {width:?}"
                    );
                    before = pane;
                }
            }
        }
    }
}
