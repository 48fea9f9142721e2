//! `weir-demo`: the main job, shown on real servers.
//!
//! In: a command line. Out: live progress, the oracle's table, and as the last line one JSON object of figures.
//! Leaves the stack and both programs running. Works the same when they run already: the programs are started anew,
//! the run has a new name.
//! Exit code: 0 when the oracle found everything right, 1 when not or when something failed, 64 wrong command line.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::{Map, json};
use weir_harness::oracle::{Found, Oracle, Rows, Verdict};
use weir_harness::programs::{DEVICES_TABLE, Program, Programs};
use weir_harness::simulator::Plan;
use weir_harness::simulator::ledger::{Counts, Issued};
use weir_harness::simulator::message::Shapes;
use weir_harness::stack::Stack;
use weir_harness::stream::{self, Kill, Outcome};
use weir_harness::{devices, figures, stack::describe};
use weir_shared::clock::{self, Deadline};

/// Real series from simulated devices over MQTT, through weir-edge, Kafka and weir-cloud, into MySQL, Elasticsearch
/// and ClickHouse; then counted by an oracle.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    /// Which stack.
    #[arg(long, default_value = "demo", value_parser = ["demo", "test"])]
    name: String,
    /// Readings per second; 0: as fast as it goes.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// How long to publish (at rate 0: how many thousand readings).
    #[arg(long, default_value_t = 55)]
    seconds: u64,
    /// Kill -9 the edge twice and the cloud twice in mid-stream.
    #[arg(long)]
    kill: bool,
    /// Begin with both programs of an earlier version, from this folder; each kill then starts the other version: an upgrade, and
    /// the way back.
    #[arg(long, value_name = "FOLDER", requires = "kill", conflicts_with = "edge")]
    before: Option<PathBuf>,
    /// The edge to run in place of the one that was built for this machine: a program, and its words before `run`.
    #[arg(long, value_name = "WORDS", value_delimiter = ' ')]
    edge: Vec<String>,
    /// Judge an earlier run again, by its name, instead of making one.
    #[arg(long, value_name = "RUN")]
    judge: Option<String>,
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            let shown = error.print();
            return ExitCode::from(if error.use_stderr() || shown.is_err() { 64 } else { 0 });
        }
    };
    let done = match &command_line.judge {
        Some(run) => judge_again(&command_line.name, run),
        None => demo(&command_line),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let words = format!("weir-demo: {error:#}\n");
            let told = io::stderr().write_all(words.as_bytes());
            let figures =
                format!("{}\n", json!({"name": "demo", "ok": false, "error": format!("{error:#}")}));
            let shown = told.and_then(|()| io::stdout().write_all(figures.as_bytes()));
            ExitCode::from(if shown.is_ok() { 1 } else { 2 })
        }
    }
}

fn demo(wanted: &CommandLine) -> anyhow::Result<bool> {
    let mut screen = Screen::new();
    let stack = Stack::up(&wanted.name, false, &mut |line| screen.line(line))?;
    let oracle = Oracle::new(&stack.addresses())?;
    let mut programs = Programs::new(&stack)?;
    if !wanted.edge.is_empty() {
        programs = programs.with_edge(&wanted.edge);
    }
    if let Some(before) = &wanted.before {
        programs = programs.with_before(before)?;
    }
    start(&mut screen, &programs, &oracle)?;
    let before = oracle.rows()?;
    let plan = plan(wanted);
    let kills = if wanted.kill { kills(plan.readings) } else { Vec::new() };
    let outcome = {
        let mut last = Live { oracle: &oracle, screen: &mut screen, before, next: None, acked: 0, at: None };
        stream::run(&stack, &programs, &oracle, &plan, &kills, |counts, event| last.show(counts, event))?
    };
    let run = &outcome.issued.run;
    screen.line(&format!(
        "run {run}: published in {:.1} s; the oracle waits for the stores",
        outcome.took.as_secs_f64()
    ));
    let verdict = oracle.wait_and_judge(&outcome.issued, |found| screen.update(&waiting(found)))?;
    screen.line(&verdict.to_string());
    screen.line(&addresses(&stack)?);
    let idle = programs.metrics(Program::Edge).map(|page| page.sum("process_resident_memory_bytes", ""));
    let (ok, line) = last_line(wanted, &outcome, &verdict, idle);
    screen.line(&line);
    screen.finish()?;
    Ok(ok)
}

fn judge_again(name: &str, run: &str) -> anyhow::Result<bool> {
    let stack = Stack::connect(name)?;
    let issued = Issued::read(&stream::log_path(&stack, run))?;
    let verdict = Oracle::new(&stack.addresses())?.judge(&issued)?;
    let figures = [("run".to_owned(), json!(run)), ("stores".to_owned(), json!(verdict.figures()))];
    let line = figures::line("judge", verdict.is_right(), &Map::from_iter(figures));
    writeln!(io::stdout(), "{verdict}{line}")?;
    Ok(verdict.is_right())
}

fn start(screen: &mut Screen, programs: &Programs<'_>, oracle: &Oracle) -> anyhow::Result<()> {
    screen.line("stopping what runs of weir-edge and weir-cloud");
    programs.stop()?;
    oracle.in_mysql(&devices::create(DEVICES_TABLE))?;
    oracle.in_mysql(&devices::fill(DEVICES_TABLE))?;
    screen.line("weir-cloud init: topics, tables, templates");
    programs.init()?;
    for program in [Program::Cloud, Program::Edge] {
        screen.line(&format!("{} starts", program.name()));
        programs.start(program)?;
    }
    for program in [Program::Cloud, Program::Edge] {
        programs.wait_ready(program)?;
        screen.line(&format!("{} is ready", program.name()));
    }
    Ok(())
}

fn plan(wanted: &CommandLine) -> Plan {
    let readings = if wanted.rate == 0 { wanted.seconds * 1000 } else { wanted.rate * wanted.seconds };
    Plan {
        readings,
        rate: wanted.rate,
        connections: 2,
        in_flight: 500,
        shapes: Shapes { broken: 4, arrays: 100 },
    }
}

/// Edge, cloud, edge, cloud: at a fifth, two fifths, three fifths and four fifths of the stream.
fn kills(readings: u64) -> Vec<Kill> {
    let programs = [Program::Edge, Program::Cloud, Program::Edge, Program::Cloud];
    programs
        .into_iter()
        .zip(1..)
        .map(|(program, n)| Kill { program, at_readings: readings * n / 5 })
        .collect()
}

fn waiting(found: &[Found; 3]) -> String {
    let [mysql, elasticsearch, clickhouse] = found.map(|f| f.readings);
    format!("waiting: mysql {mysql}  elasticsearch {elasticsearch}  clickhouse {clickhouse}")
}

/// Whether all went well, and the figures.
fn last_line(
    wanted: &CommandLine,
    outcome: &Outcome,
    verdict: &Verdict,
    edge_idle_bytes: Option<f64>,
) -> (bool, String) {
    let issued = &outcome.issued;
    let counts = &outcome.counts;
    let seconds = outcome.took.as_secs_f64();
    let kinds: BTreeSet<_> = issued.broken.iter().filter(|b| b.acked).map(|b| b.broken.kind.name()).collect();
    let kills: Vec<_> = outcome.kills.iter().map(|k| k.program.name()).collect();
    let all_kills = !wanted.kill || kills.len() == 4;
    let ok = verdict.is_right() && all_kills && counts.acked == counts.issued;
    let figures = [
        ("run", json!(issued.run)),
        ("readings", json!(counts.acked)),
        ("broken", json!(counts.broken_acked)),
        ("broken_kinds", json!(kinds)),
        ("seconds", json!((seconds * 10.0).round() / 10.0)),
        ("readings_per_second", json!((counts.acked as f64 / seconds).round() as u64)),
        ("kills", json!(kills)),
        // Under qemu without a machine around it, qemu's.
        ("edge_idle_bytes", json!(edge_idle_bytes.map(|bytes| bytes.round() as u64))),
        ("upgraded_and_back", json!(wanted.before.is_some())),
        ("stores", json!(verdict.figures())),
    ];
    let figures = figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    (ok, figures::line("demo", ok, &figures))
}

fn addresses(stack: &Stack) -> anyhow::Result<String> {
    let a = stack.addresses();
    let status = stack.status_if_up()?.context("the stack went down")?;
    let running = status.units.iter().filter(|unit| unit.pid.is_some()).count();
    ensure!(
        running >= 7,
        "not everything runs any more:\n{}",
        status.units.iter().map(describe).collect::<Vec<_>>().join("\n")
    );
    let lines = [
        format!("stack {} stays up; `make down` stops it all:", stack.name()),
        format!("  mqtt           mqtt://{}:{}", a.mqtt.0, a.mqtt.1),
        format!("  kafka          {}", a.kafka),
        format!("  mysql          {}", a.mysql_url),
        format!("  elasticsearch  {}", a.elasticsearch_url),
        format!("  clickhouse     {}", a.clickhouse_url),
        format!("  weir-edge      http://{}/metrics  /live  /ready", a.edge_admin),
        format!("  weir-cloud     http://{}/metrics  /live  /ready", a.cloud_admin),
        format!("  data, logs     {}", stack.data_dir().display()),
    ];
    Ok(lines.join("\n"))
}

/// What is shown while the stream runs.
struct Live<'a> {
    oracle: &'a Oracle,
    screen: &'a mut Screen,
    before: Rows,
    next: Option<Deadline>,
    acked: u64,
    at: Option<std::time::Instant>,
}

impl Live<'_> {
    fn show(&mut self, counts: Counts, event: Option<&str>) {
        if let Some(event) = event {
            self.screen.line(event);
        }
        if self.next.is_some_and(|next| !next.passed()) {
            return;
        }
        let now = clock::instant();
        let rate = self.at.map_or(0.0, |at| (counts.acked - self.acked) as f64 / (now - at).as_secs_f64());
        (self.at, self.acked) = (Some(now), counts.acked);
        let stores = match self.oracle.rows() {
            Ok(rows) => {
                let b = &self.before;
                format!(
                    "mysql {:>6}  elasticsearch {:>6}  clickhouse {:>6}",
                    rows.mysql.saturating_sub(b.mysql),
                    rows.elasticsearch.saturating_sub(b.elasticsearch),
                    rows.clickhouse.saturating_sub(b.clickhouse)
                )
            }
            Err(error) => format!("rows unknown: {error:#}"),
        };
        let (acked, broken) = (counts.acked, counts.broken_acked);
        self.screen.update(&format!("acked {acked:>6} ({rate:>5.0}/s)  broken {broken:>4}  {stores}"));
        let every = if self.screen.is_terminal { Duration::from_secs(1) } else { Duration::from_secs(5) };
        self.next = Some(Deadline::after(every));
    }
}

/// Standard output: a line that is written over on a terminal, plain lines elsewhere.
struct Screen {
    is_terminal: bool,
    /// A line that may be written over stands there.
    pending: bool,
    shown: Option<Deadline>,
    started: std::time::Instant,
    result: io::Result<()>,
}

impl Screen {
    fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self { is_terminal, pending: false, shown: None, started: clock::instant(), result: Ok(()) }
    }

    /// A line that stays.
    fn line(&mut self, line: &str) {
        let clear = if self.pending { "\r\x1b[K" } else { "" };
        self.pending = false;
        self.write(&format!("{clear}{line}\n"));
    }

    /// A line that the next one replaces; where that cannot be, at most one every five seconds.
    fn update(&mut self, line: &str) {
        let seconds = clock::since(self.started).as_secs();
        if self.is_terminal {
            self.pending = true;
            self.write(&format!("\r\x1b[K{seconds:>4} s  {line}"));
        } else if self.shown.is_none_or(|shown| shown.passed()) {
            self.shown = Some(Deadline::after(Duration::from_millis(4900)));
            self.write(&format!("{seconds:>4} s  {line}\n"));
        }
    }

    /// The first failure is kept: a demo whose output goes nowhere has failed, but only at its end.
    fn write(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if self.result.is_ok() {
            self.result = written;
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        self.result.context("standard output")
    }
}
