//! `weir-bench`: the figures of weir-edge and weir-cloud on this machine, which also runs the servers and the load.
//!
//! In: which figures. Out: what happens on standard error, one JSON object of figures on standard output.
//! Exit code: 0 when every wanted figure was met, 1 when not or when something failed, 64 wrong command line.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};
use weir_harness::bench;
use weir_harness::devices;
use weir_harness::figures;
use weir_harness::install;
use weir_harness::oracle::Oracle;
use weir_harness::places::Places;
use weir_harness::programs::{DEVICES_TABLE, Programs};
use weir_harness::stack::Stack;

/// Measures the programs on a stack that is up.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// Which stack; its programs are stopped and started.
    #[arg(long, default_value = "test", value_parser = ["demo", "test"])]
    name: String,
    /// With `process`: also where the CPU time of weir-cloud goes, by `perf`.
    #[arg(long)]
    profile: bool,
    /// Which figures.
    #[arg(value_enum)]
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// All of them.
    All,
    /// What the edge takes from MQTT, with what CPU and memory, beside Telegraf.
    Edge,
    /// The same without Telegraf.
    EdgeAlone,
    /// Events per second that the cloud drains from a backlog.
    Cloud,
    /// The processor beside Apache Flink.
    Process,
    /// The same without Flink.
    ProcessAlone,
    /// How soon the processor has a million keys again, and ten.
    Restore,
    /// Rows per second into each store alone, beside Apache Flink, and into all three.
    Sinks,
    /// The same without Flink.
    SinksAlone,
    /// From publishing to each store, at 10,000 readings/s and less.
    Latency,
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            let shown = error.print();
            return ExitCode::from(if error.use_stderr() || shown.is_err() { 64 } else { 0 });
        }
    };
    let name = match command_line.what {
        What::All => "bench-first-light",
        What::Edge | What::EdgeAlone => "bench-edge",
        What::Cloud => "bench-cloud",
        What::Process | What::ProcessAlone => "bench-process",
        What::Restore => "bench-restore",
        What::Sinks | What::SinksAlone => "bench-sinks",
        What::Latency => "bench-latency",
    };
    let (ok, figures) = match measure(&command_line) {
        Ok(measured) => (measured.values().all(|part| part["ok"] == true), measured),
        Err(error) => (false, Map::from_iter([("error".to_owned(), json!(format!("{error:#}")))])),
    };
    let shown = writeln!(io::stdout(), "{}", figures::line(name, ok, &figures));
    if ok && shown.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(wanted: &CommandLine) -> anyhow::Result<Map<String, Value>> {
    let stack = Stack::connect(&wanted.name)?;
    let oracle = Oracle::new(&stack.addresses())?;
    let programs = Programs::new(&stack)?;
    programs.stop()?;
    oracle.in_mysql(&devices::create(DEVICES_TABLE))?;
    oracle.in_mysql(&devices::fill(DEVICES_TABLE))?;
    programs.init()?;
    let mut told = Ok(());
    let mut tell = |line: &str| {
        let written = writeln!(io::stderr(), "{line}");
        if told.is_ok() {
            told = written;
        }
    };
    let mut figures = Map::new();
    // The edge comes last: what it sends stays in Kafka as a backlog that would fall into the other figures.
    if matches!(wanted.what, What::All | What::Cloud) {
        figures.insert("cloud".to_owned(), bench::cloud::measure(&stack, &programs, &oracle, &mut tell)?);
    }
    if matches!(wanted.what, What::Process | What::ProcessAlone) {
        let compare = wanted.what == What::Process;
        let jars = compare.then(|| install::flink(&Places::find()?, &mut tell)).transpose()?;
        let measured = bench::process::measure(&stack, &programs, &oracle, jars, wanted.profile, &mut tell)?;
        figures.insert("process".to_owned(), measured);
    }
    if wanted.what == What::Restore {
        let measured = bench::process::restore(&stack, &programs, &oracle, &mut tell)?;
        figures.insert("restore".to_owned(), measured);
    }
    if matches!(wanted.what, What::Sinks | What::SinksAlone) {
        let compare = wanted.what == What::Sinks;
        let jars = compare.then(|| install::flink(&Places::find()?, &mut tell)).transpose()?;
        let measured = bench::sinks::measure(&stack, &programs, &oracle, jars, &mut tell)?;
        figures.insert("sinks".to_owned(), measured);
    }
    if matches!(wanted.what, What::All | What::Latency) {
        figures.insert("latency".to_owned(), bench::latency::measure(&stack, &programs, &oracle, &mut tell)?);
        programs.stop()?;
    }
    if matches!(wanted.what, What::All | What::Edge | What::EdgeAlone) {
        let compare = wanted.what == What::Edge;
        let peer = compare.then(|| install::telegraf(&Places::find()?, &mut tell)).transpose()?;
        let measured = bench::edge::measure(&stack, &programs, peer.as_deref(), &mut tell)?;
        figures.insert("edge".to_owned(), measured);
    }
    told?;
    Ok(figures)
}
