//! Which dead letters are meant: by position, or by what they say. Pure.
//!
//! Comes in: words of the command line. Goes out: [`Position`], [`Since`], [`Filter`].
//! On failure: what the word must look like.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use jiff::Timestamp;

use super::letter::Letter;

/// Where a dead letter stands in `weir.rejected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
        match parts {
            Some((partition, offset)) if partition >= 0 && offset >= 0 => Ok(Self { partition, offset }),
            _ => {
                Err("must be PARTITION:OFFSET as `weir-cloud dlq ls` shows them, for example 3:1042"
                    .to_owned())
            }
        }
    }
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So many ms before now.
    Ago(i64),
    /// Ms since 1970.
    At(i64),
}

impl Since {
    /// Ms since 1970.
    pub(crate) fn at(self, now_ms: i64) -> i64 {
        match self {
            Self::Ago(ms) => now_ms.saturating_sub(ms),
            Self::At(ms) => ms,
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        for (unit, ms) in units {
            let number = text.strip_suffix(unit).and_then(|n| n.parse::<u32>().ok());
            if let Some(number) = number {
                return Ok(Self::Ago(i64::from(number) * ms));
            }
        }
        let time: Timestamp = text
            .parse()
            .map_err(|_| "must be like 90s, 15m, 2h, 7d, or a time like 2026-11-21T06:00:00Z".to_owned())?;
        Ok(Self::At(time.as_millisecond()))
    }
}

/// What dead letters must say.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Only those that came to Kafka since then: 90s, 15m, 2h, 7d ago, or a time like 2026-11-21T06:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<Since>,
    /// Only those of this stage: process, sink.mysql, edge.decode, …
    #[arg(long)]
    pub(super) stage: Option<String>,
    /// Only those with this reason
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Only those of this edge
    #[arg(long)]
    pub(super) edge: Option<String>,
}

impl Filter {
    /// Whether a dead letter says it.
    pub(super) fn takes(&self, letter: &Letter<'_>) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.stage, &letter.stage)
            && is(&self.reason, &letter.reason)
            && is(&self.edge, &letter.weir.edge)
    }

    /// Whether anything but the time is asked for.
    pub(super) fn is_by_content(&self) -> bool {
        self.stage.is_some() || self.reason.is_some() || self.edge.is_some()
    }
}

/// A time for people, in UTC.
pub(super) fn shown(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_they_are_shown() {
        let position: Position = "3:1042".parse().unwrap();
        assert_eq!(
            (position.partition, position.offset, position.to_string()),
            (3, 1042, "3:1042".to_owned())
        );
        for wrong in ["", "3", "3:", ":1", "-1:5", "1:-5", "1:2:3", "a:b"] {
            assert!(wrong.parse::<Position>().unwrap_err().contains("PARTITION:OFFSET"), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_span_or_a_time() {
        assert_eq!("2h".parse(), Ok(Since::Ago(7_200_000)));
        assert_eq!("15m".parse::<Since>().unwrap().at(1_000_000), 100_000);
        assert_eq!("1970-01-01T01:00:00+01:00".parse(), Ok(Since::At(0)));
        assert_eq!("1970-01-01T00:00:01.5Z".parse::<Since>().unwrap().at(9), 1_500);
        for wrong in ["", "2", "h", "-2h", "2w", "yesterday", "2026-11-21"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
        assert_eq!(shown(1_500), "1970-01-01T00:00:01.500Z");
    }

    #[test]
    fn a_filter_takes_what_says_all_of_it() {
        let json = br#"{"weir":{"edge":"gw"},"stage":"process","reason":"not_json","detail":"","raw":""}"#;
        let letter = Letter::read(json).unwrap();
        let filter = |stage: Option<&str>, reason: Option<&str>, edge: Option<&str>| Filter {
            stage: stage.map(str::to_owned),
            reason: reason.map(str::to_owned),
            edge: edge.map(str::to_owned),
            since: None,
        };
        assert!(filter(None, None, None).takes(&letter));
        assert!(filter(Some("process"), Some("not_json"), Some("gw")).takes(&letter));
        assert!(!filter(Some("process"), Some("not_json"), Some("other")).takes(&letter));
        assert!(!filter(Some("process"), Some("empty"), None).takes(&letter));
        assert!(!filter(Some("edge.decode"), None, None).takes(&letter));
    }
}
