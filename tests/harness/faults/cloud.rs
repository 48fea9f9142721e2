//! One `weir-cloud` of a fault suite.
//!
//! Comes in: a [`CloudSpec`], environment variables that hurt it. Goes out: a [`Subject`] to kill, ask and measure.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::subject::{Program, Subject};

/// A running one.
pub type Cloud = Subject;

/// How it is called and configured.
#[derive(Clone, Debug)]
pub struct CloudSpec {
    /// Its first arguments.
    pub command: &'static [&'static str],
    /// Its slot.
    pub slot: String,
    /// The program.
    pub binary: PathBuf,
    /// Its configuration and log.
    pub folder: PathBuf,
    /// Kafka.
    pub brokers: String,
    /// Copies of each topic.
    pub replication: u16,
    /// Its admin port.
    pub admin_port: u16,
    /// Its workers.
    pub workers: u16,
    /// Further lines of `[process]`.
    pub process: String,
    /// Further sections: dimension tables, rules, sinks.
    pub sections: String,
}

impl CloudSpec {
    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("weir-cloud.toml")
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let text = format!(
            "slot = \"{slot}\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n[kafka]\nbrokers = \"{brokers}\"\n\
             replication = {replication}\n[process]\nworkers = {workers}\n{process}\n{sections}",
            slot = self.slot,
            admin = self.admin_port,
            brokers = self.brokers,
            replication = self.replication,
            workers = self.workers,
            process = self.process,
            sections = self.sections,
        );
        fs::write(self.config(), text).context("configuration of weir-cloud")
    }

    /// Starts it, with these environment variables. From the main thread only.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, env: &[(String, String)]) -> anyhow::Result<Cloud> {
        self.write()?;
        let program = Program {
            binary: &self.binary,
            command: self.command,
            config: &self.config(),
            folder: &self.folder,
            log: self.folder.join("weir-cloud.log"),
            admin_port: self.admin_port,
        };
        Subject::start(program, env)
    }
}
