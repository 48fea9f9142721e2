//! `weir-edge`: from MQTT through a journal on disk to Kafka, on a gateway.
//!
//! The flow, in the order of the modules: [`sources`] → [`ingest`] ([`decode`], [`journal`]) → [`windows`] and
//! [`forward`]; [`pipeline`] connects them. Exit codes: 0 drained, 1 failed, 64 bad configuration,
//! 66 a file that it names cannot be used.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use weir_shared::audit::{self, cli::AuditCommand};
use weir_shared::doctor::{self, Doctor};
use weir_shared::top::{self, Row, Unit, row};

mod config;
mod connect;
mod pipeline;

mod clocks;
mod events;
mod faults;
mod flow;
#[cfg(test)]
mod gauges;

mod sources;

mod ingest;

mod decode;
mod journal;

mod windows;

mod bench;
mod replay;

pub mod fuzzing;

mod forward;

/// What `top` shows.
const ROWS: [Row; 19] = [
    row("connected to MQTT", "weir_edge_mqtt_connected", Unit::Number, ""),
    row("messages received", "weir_edge_messages_received_total", Unit::PerSecond, ""),
    row("messages acknowledged", "weir_edge_messages_acknowledged_total", Unit::PerSecond, ""),
    row("rows of files", "weir_edge_file_rows_total", Unit::PerSecond, ""),
    row("readings kept", "weir_edge_readings_kept_total", Unit::PerSecond, ""),
    row("rejected", "weir_edge_rejected_total", Unit::PerSecond, "reason"),
    row("filtered", "weir_edge_filtered_total", Unit::PerSecond, ""),
    row("journal", "weir_edge_journal_bytes", Unit::Bytes, "flow"),
    row("journal's budget", "weir_edge_journal_budget_bytes", Unit::Bytes, "flow"),
    row("journal full in", "weir_edge_journal_seconds_until_full", Unit::Seconds, "flow"),
    row("disk free", "weir_edge_disk_free_bytes", Unit::Bytes, "flow"),
    row("window results", "weir_edge_window_results_total", Unit::PerSecond, "flow"),
    row("late readings", "weir_edge_late_readings_total", Unit::PerSecond, "flow"),
    row("connected to Kafka", "weir_edge_kafka_connected", Unit::Number, "flow"),
    row("records forwarded", "weir_edge_records_forwarded_total", Unit::PerSecond, "flow"),
    row("held back", "weir_edge_held_bytes", Unit::Bytes, "flow"),
    row("oldest held", "weir_edge_held_seconds", Unit::Seconds, "flow"),
    row("CPU seconds", "process_cpu_seconds_total", Unit::PerSecond, ""),
    row("memory", "process_resident_memory_bytes", Unit::Bytes, ""),
];

/// Where the package puts it.
const CONFIG: &str = "/etc/weir/weir-edge.toml";

/// Takes sensor data from MQTT, keeps it safe on disk, and forwards it to Kafka exactly once.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Every key of the configuration with its default: weir-edge reference"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT.
    Run {
        /// The configuration file (TOML).
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Check a configuration and show all its problems; opens and changes nothing.
    Check {
        /// The configuration file (TOML).
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
        /// Also ask the servers that it names, and look at the disk; one line per check.
        #[arg(long)]
        connect: bool,
        /// Print all of it, defaults included, with *** for passwords.
        #[arg(long)]
        print: bool,
    },
    /// Compute the windows over the journals of a stopped edge again, from where they begin, and print the results.
    Replay {
        /// The configuration file (TOML).
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
    },
    /// The running edge in the terminal, once a second.
    Top {
        /// The configuration file (TOML).
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
        #[command(flatten)]
        asked: top::Asked,
    },
    /// Look at the settings, the servers, the disk, the running edge and the machine, and say what is wrong.
    Doctor {
        /// The configuration file (TOML).
        #[arg(long, short, default_value = CONFIG)]
        config: PathBuf,
        #[command(flatten)]
        asked: doctor::Asked,
    },
    /// The audit log: look whether it is as it was written.
    Audit {
        /// The configuration file (TOML).
        #[arg(long, short, global = true, default_value = CONFIG)]
        config: PathBuf,
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Measure how fast this machine decodes readings and computes windows.
    #[command(hide = true)]
    BenchDecode {
        /// How long.
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Print every key of the configuration with its default.
    Reference,
    /// Write the man pages and the completions of shells into a folder.
    #[command(hide = true)]
    Manual {
        /// The folder.
        folder: PathBuf,
    },
}

const BAD_CONFIG: u8 = 64;
/// Of the admin port, where nothing else is said.
const PORT: u16 = 9187;
/// A certificate or a secret may still come: worth another try.
const MISSING_FILE: u8 = 66;

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    weir_shared::log::init();
    let _set_up = faults::set_up();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let shown = error.print();
            return ExitCode::from(if error.use_stderr() || shown.is_err() { BAD_CONFIG } else { 0 });
        }
    };
    let (path, task) = match arguments.command {
        Command::Run { config } => (config, Task::Run),
        Command::Check { config, connect, print } => {
            let task = match (connect, print) {
                (true, _) => Task::Connect,
                (false, true) => Task::Print,
                (false, false) => Task::Check,
            };
            (config, task)
        }
        Command::Doctor { config, asked } => (config, Task::Doctor(asked)),
        Command::Replay { config } => (config, Task::Replay),
        Command::Top { config, asked } => (config, Task::Top(asked)),
        Command::Audit { config, command } => (config, Task::Audit(command)),
        Command::BenchDecode { seconds } => return print(&bench::decode_and_window(seconds)),
        Command::Reference => return print(config::REFERENCE),
        Command::Manual { folder } => {
            let written = weir_shared::manual::write(Arguments::command(), &folder);
            return written.map_or_else(|error| fail(1, &error.to_string()), |()| ExitCode::SUCCESS);
        }
    };
    let file = path.display().to_string();
    if let Task::Audit(command) = &task
        && command.has_directory()
    {
        return audited(command, None);
    }
    let refuse = |code, why: &str| {
        if let Task::Doctor(asked) = &task {
            Doctor::without_settings("weir-edge", PORT, why, asked);
        }
        fail(code, why)
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return refuse(BAD_CONFIG, &format!("{file}: {error}")),
    };
    let text = match config::text(&file, &bytes) {
        Ok(text) => text,
        Err(problem) => return refuse(BAD_CONFIG, &problem),
    };
    let config = match config::check(&file, text) {
        Ok(config) => config,
        Err(problems) => {
            let code = if problems.are_of_files() { MISSING_FILE } else { BAD_CONFIG };
            return refuse(code, &problems.to_string());
        }
    };
    carry_out(task, (&file, text), config)
}

/// What is asked for, with settings that are right.
fn carry_out(task: Task, (file, text): (&str, &str), config: config::Config) -> ExitCode {
    let done = match task {
        Task::Check => return print(&format!("{file}: ok\n")),
        Task::Print => {
            let shown = config::shown(text);
            return shown.map_or_else(|error| fail(1, &error.to_string()), |shown| print(&shown));
        }
        Task::Connect => doctor::print(&connect::all(&config)).map_err(|e| anyhow::anyhow!(e)),
        Task::Doctor(asked) => examined(text, &config, &asked).map_err(|e| anyhow::anyhow!(e)),
        Task::Run => match config::shown(text) {
            Ok(shown) => pipeline::run(config, file, &shown),
            Err(error) => return fail(1, &error.to_string()),
        },
        Task::Top(asked) => top::run(&config.admin, &ROWS, &asked).map_err(|e| anyhow::anyhow!(e)),
        Task::Audit(command) => return audited(&command, config.audit.as_deref()),
        Task::Replay => replay::run(&config, &mut std::io::BufWriter::new(std::io::stdout().lock())),
    };
    done.map_or_else(|error| fail(1, &format!("{error:#}")), |()| ExitCode::SUCCESS)
}

fn audited(command: &AuditCommand, configured: Option<&std::path::Path>) -> ExitCode {
    match audit::cli::run(command, configured) {
        Ok(found) => print(&found),
        Err(problems) => fail(1, &problems),
    }
}

/// What the doctor finds.
fn examined(
    text: &str,
    config: &config::Config,
    asked: &doctor::Asked,
) -> Result<(), weir_shared::supervise::Error> {
    let shown = config::shown(text)?;
    let audit = config.audit.as_deref();
    let doctor = Doctor { program: "weir-edge", shown: Ok(&shown), admin: &config.admin, audit };
    doctor.run(connect::all(config), asked)
}

/// What is to be done with a configuration.
enum Task {
    Run,
    Check,
    Connect,
    Doctor(doctor::Asked),
    Print,
    Replay,
    Top(top::Asked),
    Audit(AuditCommand),
}

fn print(text: &str) -> ExitCode {
    match std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()) {
        // Who has read enough, has what was asked for.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(1, &error.to_string()),
        _ => ExitCode::SUCCESS,
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}
