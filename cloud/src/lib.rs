//! `weir-cloud`: from the edges' topics to the stores.
//!
//! The flow: [`config`] is read, [`pipeline`] wires the roles; [`process`] turns `weir.readings` into
//! `weir.enriched`, exactly once, by the [`rules`]; the [`sinks`] write that to the stores. [`init`] makes topics and
//! tables, [`dlq`] shows and mends what was rejected, [`connect`] checks the servers.
//! Exit codes: 0 drained and stopped, 1 failed, 64 bad configuration or command line, 66 a file that it names cannot be used.

mod actions;
mod config;
mod connect;
mod database;
mod dlq;
mod faults;
mod init;
mod kafka;
mod pipeline;
mod process;
mod proposed;
mod rules;
mod sinks;

/// For the judge of the fault suite.
#[doc(hidden)]
pub mod reference {
    pub use crate::process::reference::{Output, Record, Reference, Rules, Tables, Version};
}

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use weir_shared::audit::{self, cli::AuditCommand};
use weir_shared::doctor::{self, Doctor};
use weir_shared::top::{self, Row, Unit, row};

use crate::pipeline::Roles;
use crate::rules::cli::{Dims, Failed, RulesCommand};

const BAD_CONFIG: u8 = 64;
/// Of the admin port, where nothing else is said.
const PORT: u16 = 9188;
/// A certificate or a secret may still come: worth another try.
const MISSING_FILE: u8 = 66;

/// What `top` shows.
const ROWS: [Row; 20] = [
    row("received", "weir_cloud_process_received_total", Unit::PerSecond, "topic"),
    row("behind, records", "weir_cloud_process_lag_records", Unit::Number, "topic"),
    row("sent on", "weir_cloud_process_enriched_total", Unit::PerSecond, "topic"),
    row("repeats", "weir_cloud_process_repeats_total", Unit::PerSecond, ""),
    row("filtered", "weir_cloud_process_filtered_total", Unit::PerSecond, ""),
    row("rejected", "weir_cloud_process_rejected_total", Unit::PerSecond, "reason"),
    row("waiting for a row", "weir_cloud_process_held_records", Unit::Number, ""),
    row("alerts", "weir_cloud_process_alerts_total", Unit::PerSecond, ""),
    row("dimension rows", "weir_cloud_dimension_rows", Unit::Number, "dimension"),
    row("dimension age", "weir_cloud_dimension_age_seconds", Unit::Seconds, "dimension"),
    row("rules in force", "weir_cloud_rules_active", Unit::Number, ""),
    row("rules refused", "weir_cloud_rules_refused", Unit::Number, ""),
    row("rule matched", "weir_cloud_rule_matched_total", Unit::PerSecond, "rule"),
    row("stored in", "weir_cloud_sink_rows_total", Unit::PerSecond, "sink"),
    row("behind, records, of", "weir_cloud_sink_lag_records", Unit::Number, "sink"),
    row("retries of", "weir_cloud_sink_retries_total", Unit::PerSecond, "sink"),
    row("dead letters of", "weir_cloud_sink_dead_letters_total", Unit::PerSecond, "sink"),
    row("CPU seconds", "process_cpu_seconds_total", Unit::PerSecond, ""),
    row("memory", "process_resident_memory_bytes", Unit::Bytes, ""),
    row("open files", "process_open_fds", Unit::Number, ""),
];

#[derive(Parser)]
#[command(name = "weir-cloud", version, about = "Edge-to-cloud sensor ingestion: the cloud's side")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Configuration; `weir-cloud reference` shows every key
    #[arg(long, short, global = true, default_value = "/etc/weir/weir-cloud.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Process and all enabled sinks in this process
    Run,
    /// Only process: deduplicate, join, enrich
    Process,
    /// Only these sinks
    Sink {
        /// mysql, elasticsearch, clickhouse
        #[arg(required = true, value_name = "NAME", value_parser = sinks::SinkName::parse)]
        names: Vec<sinks::SinkName>,
    },
    /// Make topics, first offsets, tables and templates; may be repeated
    Init {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Dead letters: list them, show one, send them through again
    Dlq {
        #[command(subcommand)]
        command: dlq::Command,
    },
    /// Compare the stores with what Kafka has: what is lost, doubled or altered; changes nothing
    Verify(sinks::verify::Asked),
    /// Look at the rules and change them
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// The running process in the terminal, once a second
    Top(top::Asked),
    /// Look at the settings, every server, the running process and the machine, and say what is wrong
    Doctor(doctor::Asked),
    /// The audit log: look whether it is as it was written
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Print the configuration's reference, with every key and its default
    Reference,
    /// Write the man pages and the completions of shells into a folder
    #[command(hide = true)]
    Manual {
        /// The folder
        folder: PathBuf,
    },
    /// Check the configuration and end
    Check {
        /// Also connect to everything that it names; one line per check
        #[arg(long)]
        connect: bool,
        /// Also print all of it, defaults included, with *** for passwords
        #[arg(long)]
        print: bool,
    },
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let _set_up = faults::set_up();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if let Err(error) = error.print() {
                tracing::debug!("nobody to tell: {error}");
            }
            return if error.use_stderr() { ExitCode::from(BAD_CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    weir_shared::log::init();
    match &cli.command {
        Command::Reference => return ended(said(config::REFERENCE)),
        Command::Manual { folder } => {
            return ended(weir_shared::manual::write(Cli::command(), folder).map_err(Into::into));
        }
        Command::Audit { command } if command.has_directory() => return ended(audited(command, None)),
        _ => {}
    }
    let (config, text) = match config::load(&cli.config) {
        Ok(loaded) => loaded,
        Err(error) => {
            if let Command::Doctor(asked) = &cli.command {
                Doctor::without_settings("weir-cloud", PORT, &error.to_string(), asked);
            }
            tracing::error!("bad configuration\n{error}");
            return ExitCode::from(if error.is_of_files() { MISSING_FILE } else { BAD_CONFIG });
        }
    };
    let roles = match cli.command {
        // Answered above, without a configuration.
        Command::Reference | Command::Manual { .. } => return ExitCode::SUCCESS,
        Command::Check { connect, print } => {
            return ended(checked((&cli.config, &text), &config, connect, print));
        }
        Command::Init { dry_run } => return ended(init::run(&config, dry_run)),
        Command::Verify(asked) => return ended(verified(&config, &asked)),
        Command::Doctor(asked) => return ended(examined(&text, &config, &asked)),
        Command::Top(asked) => return ended(top::run(&config.admin, &ROWS, &asked)),
        Command::Audit { command } => return ended(audited(&command, config.audit.as_deref())),
        Command::Dlq { command } => return retried(dlq::run(&config.kafka, command)),
        Command::Rules { command } => {
            return ruled(rules::cli::run(&config.rules, dims(&config.process.dimensions), &command));
        }
        Command::Run => Roles::all(&config),
        Command::Process => Roles::process(),
        Command::Sink { names } => {
            if let Some(off) = names.iter().find(|name| !config.sinks.has(**name)) {
                tracing::error!("sink.{} is not enabled in {}", off.name(), cli.config.display());
                return ExitCode::from(BAD_CONFIG);
            }
            Roles::sinks(names)
        }
    };
    let file = cli.config.display().to_string();
    ended(config::shown(&text).and_then(|shown| pipeline::run(config, (&file, &shown), &roles)))
}

/// What is said of a configuration that is right.
fn checked(
    (path, text): (&Path, &str),
    config: &config::Config,
    connect: bool,
    print: bool,
) -> Result<(), weir_shared::supervise::Error> {
    if print {
        said(&config::shown(text)?)?;
    }
    match connect {
        true => doctor::print(&connect::all(config)),
        false if print => Ok(()),
        false => said(&format!("{}: ok; --connect also asks the servers that it names\n", path.display())),
    }
}

fn audited(command: &AuditCommand, configured: Option<&Path>) -> Result<(), weir_shared::supervise::Error> {
    said(&audit::cli::run(command, configured)?)
}

/// What the doctor finds.
fn examined(
    text: &str,
    config: &config::Config,
    asked: &doctor::Asked,
) -> Result<(), weir_shared::supervise::Error> {
    let shown = config::shown(text)?;
    let audit = config.audit.as_deref();
    let doctor = Doctor { program: "weir-cloud", shown: Ok(&shown), admin: &config.admin, audit };
    doctor.run(connect::all(config), asked)
}

/// What rules may name of the dimension tables: their databases are asked; without an answer, what the configuration says.
fn dims(dimensions: &[process::join::DimensionConfig]) -> Dims {
    let mut dims = Dims { known: Vec::new(), open: Vec::new() };
    for dimension in dimensions {
        let columns = process::columns(dimension).unwrap_or_else(|error| {
            tracing::warn!("dimension {}: {error}", dimension.name);
            if dimension.columns.is_empty() {
                dims.open.push(dimension.name.clone());
            }
            dimension.columns.clone()
        });
        dims.known.push((dimension.name.clone(), columns));
    }
    dims
}

/// Fails when a store is not as it should be.
fn verified(
    config: &config::Config,
    asked: &sinks::verify::Asked,
) -> Result<(), weir_shared::supervise::Error> {
    let report = sinks::verify::run(&config.sinks, &config.kafka, asked)?;
    said(&asked.shown(&report))?;
    if report.is_right() { Ok(()) } else { Err("a store differs from the log".into()) }
}

/// The answer of a command.
fn said(text: &str) -> Result<(), weir_shared::supervise::Error> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Who has read enough, has what was asked for.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn ruled(result: Result<(), Failed>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            let usage = matches!(error, Failed::Usage(_));
            if usage { ExitCode::from(BAD_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

fn retried(result: Result<(), dlq::Failed>) -> ExitCode {
    match result {
        Err(error @ dlq::Failed::Usage(_)) => {
            tracing::error!("{error}");
            ExitCode::from(BAD_CONFIG)
        }
        Err(dlq::Failed::Failed(error)) => ended(Err(error)),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn ended(result: Result<(), weir_shared::supervise::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}
