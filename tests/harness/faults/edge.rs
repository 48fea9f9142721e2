//! One `weir-edge` of the fault suite: a child process of its own, not of the supervisor, so that nobody starts it again.
//!
//! Comes in: an [`EdgeSpec`], environment variables that hurt it. Goes out: a [`Subject`] to kill, ask and measure.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::subject::{Program, Subject};

/// A running edge.
pub type Edge = Subject;

/// How an edge is configured.
#[derive(Clone, Debug)]
pub struct EdgeSpec {
    /// Its name.
    pub name: String,
    /// The program.
    pub binary: PathBuf,
    /// Its configuration and log.
    pub folder: PathBuf,
    /// Its journal.
    pub journal: PathBuf,
    /// Port of its broker on this host.
    pub mqtt_port: u16,
    /// What it subscribes.
    pub filter: String,
    /// Kafka.
    pub brokers: String,
    /// Partition count of its topics; 0: it asks Kafka.
    pub partitions: i32,
    /// Its admin port.
    pub admin_port: u16,
    /// Further lines by section; `""` is the text before the first section.
    pub more: BTreeMap<&'static str, String>,
}

impl EdgeSpec {
    /// Adds lines to a section.
    pub fn add(&mut self, section: &'static str, lines: &str) {
        let text = self.more.entry(section).or_default();
        text.push_str(lines);
        text.push('\n');
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("weir-edge.toml")
    }

    /// Its log, appended to by each process.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("weir-edge.log")
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.config(), self.text()).context("configuration of the edge")
    }

    /// Starts it, with these environment variables. From the main thread only.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, env: &[(String, String)]) -> anyhow::Result<Edge> {
        self.write()?;
        let program = Program {
            binary: &self.binary,
            command: &["run"],
            config: &self.config(),
            folder: &self.folder,
            log: self.log(),
            admin_port: self.admin_port,
        };
        Subject::start(program, env)
    }

    fn text(&self) -> String {
        let more = |section: &str| self.more.get(section).cloned().unwrap_or_default();
        let own = ["", "admin", "mqtt", "journal", "kafka"];
        let others = self.more.iter().filter(|(section, _)| !own.contains(section));
        let others: String = others.map(|(section, lines)| format!("[{section}]\n{lines}")).collect();
        format!(
            "name = \"{name}\"\n{top}[admin]\nlisten = \"127.0.0.1:{admin}\"\n{admin_more}[mqtt]\nhost = \"127.0.0.1\"\n\
             port = {mqtt}\ntopics = [\"{filter}\"]\n{mqtt_more}[journal]\ndir = \"{journal}\"\n{journal_more}\
             [kafka]\nbrokers = \"{brokers}\"\npartitions = {partitions}\n{kafka_more}{others}",
            name = self.name,
            top = more(""),
            admin = self.admin_port,
            admin_more = more("admin"),
            mqtt = self.mqtt_port,
            filter = self.filter,
            mqtt_more = more("mqtt"),
            journal = self.journal.display(),
            journal_more = more("journal"),
            brokers = self.brokers,
            partitions = self.partitions,
            kafka_more = more("kafka"),
        )
    }
}
