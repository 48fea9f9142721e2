//! `weir-edge`: from MQTT through a journal on disk to Kafka, on a gateway.
//!
//! The flow, in the order of the modules: [`sources`] → [`ingest`] ([`decode`], [`journal`]) → [`windows`] and
//! [`forward`]; [`pipeline`] connects them. Exit codes: 0 drained, 1 failed, 64 bad configuration,
//! 66 a file that it names cannot be used.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod config;
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
        #[arg(long, short)]
        config: PathBuf,
    },
    /// Check a configuration and show all its problems; opens and changes nothing.
    Check {
        /// The configuration file (TOML).
        #[arg(long, short)]
        config: PathBuf,
        /// Print all of it, defaults included, with *** for passwords.
        #[arg(long)]
        print: bool,
    },
    /// Compute the windows over the journals of a stopped edge again, from where they begin, and print the results.
    Replay {
        /// The configuration file (TOML).
        #[arg(long, short)]
        config: PathBuf,
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
        Command::Check { config, print } => (config, if print { Task::Print } else { Task::Check }),
        Command::Replay { config } => (config, Task::Replay),
        Command::BenchDecode { seconds } => return print(&bench::decode_and_window(seconds)),
        Command::Reference => return print(config::REFERENCE),
        Command::Manual { folder } => {
            let written = weir_shared::manual::write(Arguments::command(), &folder);
            return written.map_or_else(|error| fail(1, &error.to_string()), |()| ExitCode::SUCCESS);
        }
    };
    let file = path.display().to_string();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return fail(BAD_CONFIG, &format!("{file}: {error}")),
    };
    let text = match config::text(&file, &bytes) {
        Ok(text) => text,
        Err(problem) => return fail(BAD_CONFIG, &problem),
    };
    let config = match config::check(&file, text) {
        Ok(config) => config,
        Err(problems) => {
            let code = if problems.are_of_files() { MISSING_FILE } else { BAD_CONFIG };
            return fail(code, &problems.to_string());
        }
    };
    let done = match task {
        Task::Check => return print(&format!("{file}: ok\n")),
        Task::Print => {
            let shown = config::shown(text);
            return shown.map_or_else(|error| fail(1, &error.to_string()), |shown| print(&shown));
        }
        Task::Run => pipeline::run(config),
        Task::Replay => replay::run(&config, &mut std::io::BufWriter::new(std::io::stdout().lock())),
    };
    done.map_or_else(|error| fail(1, &format!("{error:#}")), |()| ExitCode::SUCCESS)
}

/// What is to be done with a configuration.
#[derive(Clone, Copy)]
enum Task {
    Run,
    Check,
    Print,
    Replay,
}

#[expect(clippy::print_stdout, reason = "the answer of a command goes to standard output")]
fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}
