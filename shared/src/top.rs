//! `weir-edge top`, `weir-cloud top`: the running process in a terminal, once a second.
//!
//! Comes in: the metrics page and the answers of `/live` and `/ready`, through the admin port; which rows a program has. Goes
//! out: a screen of text; into a pipe one screen after the other, without control characters.
//! On failure: a port that does not answer is said, and asked again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::AdminConfig;
use crate::client::{Client, Settings};
use crate::clock;
use crate::metrics::page::samples;
use crate::supervise::Error;

/// Between two screens.
const EVERY: Duration = Duration::from_secs(1);

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A counter: shown by the second, and in all.
    PerSecond,
    /// A number as it is.
    Number,
    /// Bytes as they are.
    Bytes,
    /// Seconds as they are.
    Seconds,
}

/// One line, or one for each value of `by`.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What is said of it.
    pub title: &'static str,
    /// The metric; those that differ in other labels are added up.
    pub metric: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The label by which it is told apart; empty: none.
    pub by: &'static str,
}

/// A row.
#[must_use]
pub const fn row(title: &'static str, metric: &'static str, unit: Unit, by: &'static str) -> Row {
    Row { title, metric, unit, by }
}

/// How it is asked for.
#[derive(Clone, Debug, Args)]
pub struct Asked {
    /// Where the process is; default: admin.listen of the configuration
    #[arg(long, value_name = "URL")]
    pub address: Option<String>,
    /// How many screens; default: until interrupted
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Values by title and label.
type Seen = BTreeMap<(usize, String), f64>;

/// Shows it until interrupted.
///
/// # Errors
/// When there is no runtime, or nobody to show it to, or the last look found no process.
pub fn run(config: &AdminConfig, rows: &[Row], asked: &Asked) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::new(&Settings::of(config, asked.address.as_deref())?)?;
    runtime.block_on(async {
        let mut before: Option<(Instant, Seen)> = None;
        let mut left = asked.count;
        let mut found = Ok(());
        while left != Some(0) {
            left = left.map(|left| left - 1);
            let screen = match client.get("/metrics").await {
                Ok(page) => {
                    found = Ok(());
                    let ready = client.get("/ready").await;
                    let (at, seen) = (clock::instant(), seen(&page, rows));
                    let passed = before.as_ref().map(|(then, _)| at.duration_since(*then).as_secs_f64());
                    let screen = screen(rows, &seen, before.as_ref().map(|(_, seen)| seen).zip(passed));
                    before = Some((at, seen));
                    let state = ready.map_or_else(|why| format!("not ready: {why}"), |_| "ready".to_owned());
                    format!("{}   {}\n\n{screen}", client.base(), state.trim_end().replace('\n', "; "))
                }
                Err(why) => {
                    before = None;
                    found = Err(why.clone().into());
                    format!("{why}\n")
                }
            };
            let mut out = std::io::stdout().lock();
            let clear = if out.is_terminal() { "\x1b[H\x1b[J" } else { "" };
            write!(out, "{clear}{screen}")?;
            out.flush()?;
            drop(out);
            if left != Some(0) {
                tokio::time::sleep(EVERY).await;
            }
        }
        found
    })
}

fn seen(page: &str, rows: &[Row]) -> Seen {
    let mut seen = Seen::new();
    for sample in samples(page) {
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| row.metric == sample.name) {
            let by = if row.by.is_empty() { String::new() } else { sample.label(row.by).to_owned() };
            *seen.entry((at, by)).or_default() += sample.value;
        }
    }
    seen
}

/// The rows that are there; what is by the second needs an earlier look. Of counters that never counted, one line tells.
fn screen(rows: &[Row], seen: &Seen, before: Option<(&Seen, f64)>) -> String {
    let mut out = String::new();
    let counted = |at: usize| seen.iter().any(|((of, _), value)| *of == at && *value > 0.0);
    let mut last = None;
    for ((at, by), value) in seen {
        let row = rows[*at];
        let is_first = last.replace(*at) != Some(*at);
        let by = if row.unit == Unit::PerSecond && *value == 0.0 {
            if counted(*at) || !is_first {
                continue;
            }
            ""
        } else {
            by
        };
        let title = if by.is_empty() { row.title.to_owned() } else { format!("{} {by}", row.title) };
        let shown = match row.unit {
            Unit::PerSecond => {
                let then =
                    before.and_then(|(before, passed)| Some((before.get(&(*at, by.to_owned()))?, passed)));
                let rate =
                    then.filter(|(_, passed)| *passed > 0.0).map(|(then, passed)| (value - then) / passed);
                let rate = rate.map_or_else(|| "–".to_owned(), |rate| grouped(rate.max(0.0)));
                format!("{rate:>12} /s {:>18}", grouped(*value))
            }
            Unit::Number => format!("{:>12}", grouped(*value)),
            Unit::Bytes => format!("{:>12.1} MB", value / 1e6),
            Unit::Seconds if value.is_infinite() => format!("{:>12}", "never"),
            Unit::Seconds => format!("{value:>12.2} s"),
        };
        writeln!(out, "{title:<44} {shown}").expect("a String takes everything");
    }
    out
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [Row; 5] = [
        row("received", "in_total", Unit::PerSecond, ""),
        row("sink", "rows_total", Unit::PerSecond, "sink"),
        row("memory", "memory_bytes", Unit::Bytes, ""),
        row("full in", "full_seconds", Unit::Seconds, ""),
        row("rejected", "rejected_total", Unit::PerSecond, "reason"),
    ];

    #[test]
    fn rates_come_from_two_looks_and_labels_are_told_apart() {
        let page = "in_total{a=\"1\"} 1000\nin_total{a=\"2\"} 500\nrows_total{sink=\"x\",t=\"1\"} 7\nrows_total{sink=\"y\"} 0\n\
            memory_bytes 2500000\nfull_seconds +Inf\nrejected_total{reason=\"a\"} 0\nrejected_total{reason=\"b\"} 0\n";
        let first = seen(page, &ROWS);
        assert!(screen(&ROWS, &first, None).starts_with("received "));
        let second = seen(&page.replace("1000", "3500"), &ROWS);
        let shown = screen(&ROWS, &second, Some((&first, 2.0)));
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["received", "1,250", "/s", "4,000"]);
        assert_eq!(lines[1], ["sink", "x", "0", "/s", "7"]);
        assert_eq!(lines[2], ["memory", "2.5", "MB"]);
        assert_eq!(lines[3], ["full", "in", "never"]);
        assert_eq!(lines[4..], [["rejected", "–", "/s", "0"]]);
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0.0, 999.4, 1000.0, -1234567.0].map(grouped), ["0", "999", "1,000", "-1,234,567"]);
    }
}
