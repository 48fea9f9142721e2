//! Days and months of the proleptic Gregorian calendar in UTC.
//!
//! Comes in: ms since 1970. Goes out: year, month, day, time of day.
//! Source of the formula: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.

/// A point in time, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) millis: u16,
}

const DAY_MS: i64 = 86_400_000;

/// Takes a time between the years 0 and 65535 apart; what lies outside wraps, so check before.
pub(super) fn civil(ms: i64) -> Civil {
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    Civil {
        year: year as u16,
        month: month as u8,
        day: (doy - (153 * mp + 2) / 5 + 1) as u8,
        hour: (of_day / 3_600_000) as u8,
        minute: (of_day / 60_000 % 60) as u8,
        second: (of_day / 1_000 % 60) as u8,
        millis: (of_day % 1_000) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let ymd = |ms| {
            let c = civil(ms);
            (c.year, c.month, c.day)
        };
        assert_eq!(ymd(0), (1970, 1, 1));
        assert_eq!(ymd(951_782_400_000), (2000, 2, 29));
        assert_eq!(ymd(951_868_800_000), (2000, 3, 1));
        assert_eq!(ymd(9_214_646_400_000), (2262, 1, 1));
        let c = civil(1_790_000_000_042);
        assert_eq!((c.year, c.month, c.day), (2026, 9, 21));
        assert_eq!((c.hour, c.minute, c.second, c.millis), (14, 13, 20, 42));
        assert_eq!(ymd(1_790_000_000_042 - 14 * 3_600_000), (2026, 9, 21));
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for day in 1..110_000_i64 {
            let c = civil(day * DAY_MS);
            let next_day = c.year == last.year && c.month == last.month && c.day == last.day + 1;
            let next_month = c.day == 1 && last.day >= 28 && (c.month == last.month + 1 || c.month == 1);
            assert!(next_day || next_month, "{last:?} {c:?}");
            last = c;
        }
    }
}
