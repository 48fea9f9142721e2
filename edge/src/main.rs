//! `weir-edge`: from MQTT through a journal on disk to Kafka, on a gateway.
//!
//! The flow, in the order of the modules: [`sources`] → [`ingest`] ([`decode`], [`journal`]) → [`forward`];
//! [`pipeline`] connects them. Exit codes: 0 drained, 1 failed, 64 bad configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod config;
mod pipeline;

mod sources;

mod ingest;

mod decode;
mod journal;

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
    },
    /// Print every key of the configuration with its default.
    Reference,
}

const BAD_CONFIG: u8 = 64;

fn main() -> ExitCode {
    weir_shared::log::init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let shown = error.print();
            return ExitCode::from(if error.use_stderr() || shown.is_err() { BAD_CONFIG } else { 0 });
        }
    };
    let (path, run) = match arguments.command {
        Command::Run { config } => (config, true),
        Command::Check { config } => (config, false),
        Command::Reference => return print(config::REFERENCE),
    };
    let file = path.display().to_string();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return fail(BAD_CONFIG, &format!("{file}: {error}")),
    };
    match config::check(&file, &text) {
        Err(problems) => fail(BAD_CONFIG, &problems.to_string()),
        Ok(_) if !run => print(&format!("{file}: ok\n")),
        Ok(config) => match pipeline::run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &format!("{error:#}")),
        },
    }
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
