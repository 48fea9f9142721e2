//! `weir-chaos`: the fault suites on real servers, row by row of the fault matrix: of weir-edge, of `weir-cloud process`
//! ([`process`]) and of `weir-cloud sink` ([`sinks`]).
//!
//! The flow of the first: [`lab`] brings the servers up; each of the [`rows`] makes a [`scene`] (a publisher, a proxy that sees every
//! acknowledgement, an edge, a reader of Kafka), hurts the edge, heals it, and lets the judge decide; its [`report`] is
//! one line; the last line is one JSON object whose member `ok` decides the exit code.
//! Exit code: 0 everything held, 1 not, or something failed; 64 wrong command line.

mod controls;
mod lab;
mod process;
mod report;
mod rows;
mod scene;
mod sinks;
mod suite;

use std::process::ExitCode;

use clap::Parser;
use serde_json::{Map, json};
use weir_harness::figures;

use lab::{Lab, Wanted};
use report::Report;

/// Hurts weir-edge or weir-cloud in every way of the fault matrix and judges what came out of Kafka. Needs root.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// What is hurt: `edge`, `process` or `sinks`.
    #[arg(long, default_value = "edge", value_parser = ["edge", "process", "sinks"])]
    suite: String,
    /// Only these rows, for example `--row 5 --row controls`.
    #[arg(long)]
    row: Vec<String>,
    /// Seeds of each step that is killed at.
    #[arg(long)]
    seeds: Option<u64>,
    /// Photographs of a disk that loses its power.
    #[arg(long)]
    images: Option<u64>,
    /// Random kills.
    #[arg(long)]
    kills: Option<u64>,
    /// Twenty seeds, a thousand photographs, two hundred kills, two hundred edges.
    #[arg(long)]
    full: bool,
    /// Run the rows with this known-bad switch: they must turn red.
    #[arg(long)]
    bad: Option<String>,
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            let shown = error.print();
            return ExitCode::from(if error.use_stderr() || shown.is_err() { 64 } else { 0 });
        }
    };
    let wanted = Wanted {
        seeds: command_line.seeds.unwrap_or(if command_line.full { 20 } else { 3 }),
        images: command_line.images.unwrap_or(if command_line.full { 1000 } else { 100 }),
        kills: command_line.kills.unwrap_or(if command_line.full { 200 } else { 40 }),
        edges: if command_line.full { 200 } else { 10 },
    };
    let suite = match command_line.suite.as_str() {
        "process" => process::suite,
        "sinks" => sinks::suite,
        _ => edge,
    };
    let done = suite(&command_line.row, wanted, command_line.bad.clone());
    let (ok, mut figures) = match done {
        Ok((reports, seconds)) => summary(&reports, seconds),
        Err(error) => (false, Map::from_iter([("error".to_owned(), json!(format!("{error:#}")))])),
    };
    if let Some(bad) = command_line.bad {
        figures.insert("bad".to_owned(), json!(bad));
    }
    lab::line(&figures::line(&format!("chaos-{}", command_line.suite), ok, &figures));
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What each row found, and how many seconds all of it took.
type Done = (Vec<Report>, f64);

fn edge(rows: &[String], sizes: Wanted, bad: Option<String>) -> anyhow::Result<Done> {
    let rows = rows::chosen(rows)?;
    let lab = Lab::up(sizes, bad)?;
    let mut reports = Vec::new();
    for row in rows {
        let begun = lab.seconds();
        lab.tell(&format!("row {}: {}", row.name, row.about));
        let mut report = Report::new(row.name);
        if let Err(error) = (row.run)(&lab, &mut report) {
            report.problem(format!("could not be carried out: {error:#}"));
        }
        report.seconds = lab.seconds() - begun;
        lab::line(&report.to_string());
        reports.push(report);
    }
    lab.down()?;
    Ok((reports, lab.seconds()))
}

fn summary(reports: &[Report], seconds: f64) -> (bool, Map<String, serde_json::Value>) {
    let ok = reports.iter().all(Report::is_right);
    let rows = reports.iter().map(|r| (r.row.to_owned(), r.figures())).collect::<Map<_, _>>();
    let heal = reports.iter().filter_map(Report::heal_max).fold(0.0, f64::max);
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let figures = [
        ("seconds", json!(seconds.round())),
        ("acknowledged", json!(sum(|r| r.acknowledged))),
        ("lost", json!(sum(|r| r.lost))),
        ("doubled", json!(sum(|r| r.doubled))),
        ("heal_seconds_max", json!(report::tenth(heal))),
        ("rows", json!(rows)),
    ];
    (ok, figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
