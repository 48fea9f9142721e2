//! `weir-stack up|down|status`: the five real servers on this machine.
//!
//! In: a command line. Out: progress on standard error, the result on standard output.
//! Exit code: 0 done, 1 failed (the reason and what to do stand on standard error), 64 wrong command
//! line; `status` gives 3 when the stack is not up or not ready.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use weir_harness::addresses::Addresses;
use weir_harness::stack::{Stack, describe};
use weir_harness::supervisor;
use weir_shared::clock;

/// Mosquitto, Kafka, MariaDB, Elasticsearch and the ClickHouse engine, as real servers on loopback ports.
///
/// Data and logs are in target/stack/<name>/, downloads in target/stack/dist/.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, start all servers, wait until they answer, print their addresses.
    ///
    /// A stack that is up already is left as it is. Data of an earlier run is kept.
    Up {
        #[command(flatten)]
        name: Name,
        /// Stop the stack first if it is up, and remove all its data and logs.
        #[arg(long)]
        fresh: bool,
    },
    /// Stop all servers and programs of the stack. Data stays. Fine when nothing is up.
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Show every server and program.
    Status {
        #[command(flatten)]
        name: Name,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// What `up` starts in the background.
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        name: Name,
    },
}

#[derive(Args)]
struct Name {
    /// Which stack: each has its own ports and data, and both can be up at the same time.
    #[arg(long, default_value = "demo", value_parser = ["demo", "test", "chaos", "chaos-cloud", "chaos-sinks", "old-clickhouse", "search"])]
    name: String,
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            let _nobody_reads = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(command_line.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weir-stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let mut out = io::stdout();
    let started = clock::instant();
    match command {
        Command::Up { name: Name { name }, fresh } => {
            let mut progress =
                |line: &str| eprintln!("{:6.1} s  {line}", clock::since(started).as_secs_f64());
            let stack = Stack::up(&name, fresh, &mut progress)?;
            let seconds = clock::since(started).as_secs_f64();
            writeln!(out, "stack {name} is up ({seconds:.1} s)\n{}", table(&stack.addresses()))?;
        }
        Command::Down { name: Name { name } } => {
            Stack::named(&name)?.down()?;
            writeln!(out, "stack {name} is down ({:.1} s)", clock::since(started).as_secs_f64())?;
        }
        Command::Status { name: Name { name }, json } => return status(&name, json, &mut out),
        Command::Supervise { name: Name { name } } => {
            // Away from the terminal and its signals; fails only where that is the case already.
            let _leader_already = rustix::process::setsid();
            supervisor::run(&name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(name: &str, json: bool, out: &mut impl Write) -> Result<ExitCode> {
    let stack = Stack::named(name)?;
    let status = stack.status_if_up()?;
    let ready = status.as_ref().is_some_and(|status| status.ready);
    if json {
        let value = serde_json::json!({"name": name, "ready": ready, "status": status, "addresses": stack.addresses()});
        writeln!(out, "{value}")?;
    } else if let Some(status) = status {
        let word = if status.ready { "ready" } else { "not ready" };
        writeln!(out, "stack {name} is {word} (supervisor pid {})", status.supervisor_pid)?;
        for unit in &status.units {
            writeln!(out, "  {}", describe(unit))?;
        }
        writeln!(out, "{}", table(&stack.addresses()))?;
    } else {
        writeln!(out, "stack {name} is down")?;
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

fn table(addresses: &Addresses) -> String {
    format!(
        "  mqtt           mqtt://{}:{}\n  kafka          {}\n  mysql          {}\n  elasticsearch  {}\n  clickhouse     {}",
        addresses.mqtt.0,
        addresses.mqtt.1,
        addresses.kafka,
        addresses.mysql_url,
        addresses.elasticsearch_url,
        addresses.clickhouse_url
    )
}
