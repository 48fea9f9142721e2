//! What a window rule says.
//!
//! Comes in: plain data, from the configuration or read back from the journal. Goes out: the same, checked.
//! Guarantees: two rules that are equal behave the same. On failure: [`Rule::check`] says what is wrong.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::calendar;

/// One local day, or one of UTC, in ms.
pub(super) const DAY_MS: u64 = 86_400_000;
/// The longest delay, lateness, gap or size: ten years.
const LONG_MS: u64 = 3_660 * DAY_MS;
/// Most panes in one window: size or n over their common divisor with the slide.
const PANES_MAX: u64 = 10_000;

/// How long something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Milliseconds.
    Ms(u64),
    /// Days of the rule's zone, each from midnight to midnight, be it 23 or 25 hours. Several days are counted from a
    /// Monday (1970-01-05): seven are a week.
    Days(u32),
}

/// How readings become windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One after the other, aligned.
    Tumbling {
        /// Length.
        size: Span,
    },
    /// A new one every `slide`, aligned.
    Sliding {
        /// Length.
        size: Span,
        /// From start to start.
        slide: Span,
    },
    /// Readings with less than `gap_ms` between them. Its end is the last of them + `gap_ms`.
    Session {
        /// So long nothing comes, then it ends.
        gap_ms: u64,
        /// It is never longer.
        length_ms_max: u64,
    },
    /// Every `n` readings in the order of the log. Start is the least time, end the greatest + 1 (moved on where
    /// the window before had the same start and no lesser end, so that no two look the same).
    Count {
        /// How many.
        n: u32,
    },
    /// The last `n` readings, every `slide` readings.
    SlidingCount {
        /// How many.
        n: u32,
        /// From result to result.
        slide: u32,
    },
}

/// Which time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The reading's own time; windows close by the device's watermark.
    #[default]
    Event,
    /// The time of arrival, without delay; windows close as the key goes on, or when it is idle.
    Ingestion,
    /// The time of arrival; windows close by the clock.
    Processing,
}

/// What is computed of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Aggregate {
    /// How many values, of whatever type.
    Count,
    /// Sum of the numbers (compensated, so exact but for one rounding).
    Sum,
    /// Least number.
    Min,
    /// Greatest number.
    Max,
    /// Arithmetic mean.
    Mean,
    /// Standard deviation of a sample (n − 1); none of one number.
    Stddev,
    /// Percentile in thousandths of a percent (`p99.9` is 99 900): the number of rank ⌊q·(n−1)⌋, ± 1 % of itself.
    Percentile(u32),
    /// How many different values: exact up to 500, then ± 1.6 % (standard error).
    Distinct,
    /// The number with the least time.
    First,
    /// The number with the greatest time.
    Last,
    /// (last − first) ÷ the seconds between them; none if they are of the same time.
    Rate,
}

impl FromStr for Aggregate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "mean" => Self::Mean,
            "stddev" => Self::Stddev,
            "distinct" => Self::Distinct,
            "first" => Self::First,
            "last" => Self::Last,
            "rate" => Self::Rate,
            other => {
                return other.strip_prefix('p').and_then(percentile).map(Self::Percentile).ok_or_else(|| {
                    format!(
                        "{other} is none of count, sum, min, max, mean, stddev, distinct, first, last, rate, \
                         nor a percentile like p99 or p99.9"
                    )
                });
            }
        })
    }
}

/// `99.9` as 99 900: between 0 and 100, both excluded, with at most three decimals.
fn percentile(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str, most| (1..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 2) || !digits(decimals, 3) {
        return None;
    }
    let thousandths = whole.parse::<u32>().ok()? * 1000 + format!("{decimals:0<3}").parse::<u32>().ok()?;
    (thousandths > 0).then_some(thousandths)
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Stddev => "stddev",
            Self::Distinct => "distinct",
            Self::First => "first",
            Self::Last => "last",
            Self::Rate => "rate",
            Self::Percentile(p) => {
                let text = format!("p{}.{:03}", p / 1000, p % 1000);
                return f.write_str(text.trim_end_matches('0').trim_end_matches('.'));
            }
        })
    }
}

impl TryFrom<String> for Aggregate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Aggregate> for String {
    fn from(aggregate: Aggregate) -> Self {
        aggregate.to_string()
    }
}

/// A window rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// How readings become windows.
    pub kind: Kind,
    /// IANA name of the zone whose midnight windows are aligned to; UTC without. Sizes up to an hour keep to the
    /// distance from midnight that they had on 2024-01-01; longer ones follow the wall clock, daylight saving included.
    #[serde(default)]
    pub zone: Option<String>,
    /// Which time counts.
    #[serde(default)]
    pub basis: Basis,
    /// What readings are grouped by: `device` or names of tags. A reading that lacks one is left out, counted.
    pub key: Vec<String>,
    /// How far a device's readings may be out of order.
    pub delay_ms: u64,
    /// A device that sends nothing for so long no longer holds its key back; its time then goes on with the clock.
    pub idle_ms: u64,
    /// So long after its end a closed window still takes late readings, and is sent again with a higher revision.
    pub lateness_ms: u64,
    /// Only readings for which this expression is true.
    #[serde(default)]
    pub filter: Option<String>,
    /// Names of values, in the order of the output; or only `*`: every number, ordered by name.
    pub fields: Vec<String>,
    /// What is computed of each field, in the order of the output.
    pub aggregates: Vec<Aggregate>,
    /// How often a key should have a reading: gives `completeness`.
    #[serde(default)]
    pub expected_interval_ms: Option<u64>,
}

impl Rule {
    /// A rule per device over all numbers, with a delay of 5 s, idle after a minute, without lateness.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            zone: None,
            basis: Basis::Event,
            key: vec!["device".to_owned()],
            delay_ms: 5_000,
            idle_ms: 60_000,
            lateness_ms: 0,
            filter: None,
            fields: vec!["*".to_owned()],
            aggregates: vec![Aggregate::Count, Aggregate::Mean],
            expected_interval_ms: None,
        }
    }

    /// Whether all numbers are wanted.
    #[must_use]
    pub fn all_fields(&self) -> bool {
        self.fields == ["*"]
    }

    /// Whether the engine can run it.
    ///
    /// # Errors
    /// What is wrong, and the way out.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > 255 {
            return Err("name: from 1 to 255 bytes".to_owned());
        }
        named("key", &self.key, 16)?;
        named("fields", &self.fields, crate::record::VALUES_MAX)?;
        if self.fields.is_empty() || (self.fields.len() > 1 && self.fields.iter().any(|f| f == "*")) {
            return Err("fields: names, or only *".to_owned());
        }
        let twice = |(i, a): (usize, &Aggregate)| self.aggregates[..i].contains(a);
        if self.aggregates.is_empty() || self.aggregates.len() > 64 {
            return Err("aggregates: from 1 to 64".to_owned());
        }
        if self.aggregates.iter().enumerate().any(twice) {
            return Err("aggregates: one stands twice".to_owned());
        }
        for (name, ms) in [("delay_ms", self.delay_ms), ("lateness_ms", self.lateness_ms)] {
            if ms > LONG_MS {
                return Err(format!("{name}: at most {LONG_MS} (ten years)"));
            }
        }
        if self.expected_interval_ms == Some(0) {
            return Err("expected_interval_ms: from 1 on".to_owned());
        }
        self.check_kind()
    }

    fn check_kind(&self) -> Result<(), String> {
        match self.kind {
            Kind::Tumbling { size } => self.check_spans(size, size),
            Kind::Sliding { size, slide } => self.check_spans(size, slide),
            Kind::Session { gap_ms, length_ms_max } => {
                if gap_ms == 0 || gap_ms > LONG_MS || !(gap_ms..=LONG_MS).contains(&length_ms_max) {
                    return Err(format!("kind: 1 ≤ gap_ms ≤ length_ms_max ≤ {LONG_MS}"));
                }
                self.no_zone()
            }
            Kind::Count { n } => {
                if n == 0 {
                    return Err("kind: n is from 1 on".to_owned());
                }
                self.no_zone()
            }
            Kind::SlidingCount { n, slide } => {
                if slide == 0 || slide > n {
                    return Err("kind: 1 ≤ slide ≤ n".to_owned());
                }
                panes(u64::from(n), u64::from(slide))?;
                self.no_zone()
            }
        }
    }

    fn no_zone(&self) -> Result<(), String> {
        if self.zone.is_none() { Ok(()) } else { Err("zone: only for windows that are aligned".to_owned()) }
    }

    fn check_spans(&self, size: Span, slide: Span) -> Result<(), String> {
        let (size, slide, days) = match (size, slide) {
            (Span::Ms(size), Span::Ms(slide)) => (size, slide, false),
            (Span::Days(size), Span::Days(slide)) => {
                (u64::from(size) * DAY_MS, u64::from(slide) * DAY_MS, true)
            }
            _ => return Err("kind: size and slide both in ms or both in days".to_owned()),
        };
        if slide == 0 || slide > size || size > LONG_MS {
            return Err(format!("kind: 0 < slide ≤ size ≤ {LONG_MS} ms"));
        }
        panes(size, slide)?;
        if let Some(zone) = &self.zone {
            calendar::zone(zone)?;
            if !days && !DAY_MS.is_multiple_of(slide) {
                return Err(
                    "zone: windows of ms must divide a day; give days, or leave the zone out".to_owned()
                );
            }
        }
        Ok(())
    }
}

fn panes(size: u64, slide: u64) -> Result<(), String> {
    let panes = size / divisor(size, slide);
    if panes > PANES_MAX {
        return Err(format!(
            "kind: size and slide have too small a common divisor, {panes} panes; at most {PANES_MAX}"
        ));
    }
    Ok(())
}

/// The greatest common divisor.
pub(super) const fn divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn named(what: &str, names: &[String], most: usize) -> Result<(), String> {
    if names.len() > most {
        return Err(format!("{what}: at most {most}"));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || names[..i].contains(name) {
            return Err(format!("{what}: {name:?} is empty or stands twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_keep_their_names() {
        for name in ["count", "stddev", "p50", "p99", "p99.9", "p0.001", "rate"] {
            assert_eq!(name.parse::<Aggregate>().unwrap().to_string(), name);
        }
        for name in ["p0", "p100", "p", "p9.", "p1.2345", "median", "p-1", "p+1"] {
            assert!(name.parse::<Aggregate>().is_err(), "{name}");
        }
    }

    #[test]
    fn rules_come_back_from_json_and_wrong_ones_are_refused() {
        let mut rule = Rule::new("r", Kind::Sliding { size: Span::Ms(60_000), slide: Span::Ms(7_000) });
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule);
        assert_eq!(rule.check(), Ok(()));
        rule.zone = Some("Europe/Vienna".to_owned());
        assert!(rule.check().unwrap_err().contains("divide a day"));
        rule.kind = Kind::Tumbling { size: Span::Days(1) };
        assert_eq!(rule.check(), Ok(()));
        rule.zone = Some("Europe/Viena".to_owned());
        assert!(rule.check().unwrap_err().contains("Viena"));
        rule.kind = Kind::Sliding { size: Span::Ms(86_400_000), slide: Span::Ms(1) };
        assert!(rule.check().unwrap_err().contains("panes"));
    }
}
