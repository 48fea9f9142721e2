//! Apache Flink as the peer of a measurement: a cluster of its own in one process, which runs one job in SQL.
//!
//! Comes in: a job. Goes out: it runs on one task manager with two slots and 4 GiB of heap, in the stack's folder `flink`.
//! Guarantees: exactly once as far as its connectors can (checkpoint every second, no restart, so that a failure is
//! seen); set for throughput as its documentation advises: object reuse, state on the heap, parallelism as the cores.
//! Everything runs in one process, so nothing goes through a network but what the connectors send.
//! On failure: the process ends; its log, of which [`Cluster::why`] gives what matters, says why.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::backlog::Begin;
use crate::addresses::{HOST, MYSQL_DATABASE};
use crate::install::{self, Flink};
use crate::stack::Stack;

const NAME: &str = "flink";
const HEAP: [&str; 2] = ["-Xms4g", "-Xmx4g"];
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
const EXCEPTIONS_SHOWN_MAX: usize = 10;

/// What Flink's own start script opens for Java 17 (`env.java.opts.all` of its distribution).
const OPENED: [&str; 15] = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.net=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.text=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
];

/// Flink on a stack.
pub(super) struct Cluster<'a> {
    stack: &'a Stack,
    jars: Flink,
    folder: PathBuf,
}

impl<'a> Cluster<'a> {
    /// Starts nothing.
    pub(super) fn new(stack: &'a Stack, jars: Flink) -> anyhow::Result<Self> {
        let folder = stack.data_dir().join(NAME);
        fs::create_dir_all(&folder)?;
        Ok(Self { stack, jars, folder })
    }

    /// The stack on which it runs.
    pub(super) fn stack(&self) -> &'a Stack {
        self.stack
    }

    /// Starts a job in SQL, with options beside those that every job has; gives the process.
    pub(super) fn start(&self, job: &str, options: &[&str]) -> anyhow::Result<u32> {
        let (options_file, job_file) = (self.folder.join("flink.properties"), self.folder.join("job.sql"));
        fs::write(&options_file, format!("{}{}\n", self.options(), options.join("\n")))?;
        fs::write(&job_file, job)?;
        let java = install::java_home().context("no JDK of version 17 or newer")?.join("bin/java");
        let [java, classes, options, job] = [
            java.display().to_string(),
            self.jars.classes(),
            options_file.display().to_string(),
            job_file.display().to_string(),
        ];
        let mut argv = vec![java.as_str()];
        argv.extend(HEAP);
        argv.extend(OPENED);
        argv.extend(["-cp", &classes, "FlinkJob", &options, &job]);
        self.stack.spawn(NAME, &argv, &[], false)
    }

    /// Stops the job.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        self.stack.stop_server(NAME)?;
        self.stack.wait_exit(NAME, STOP_TIME_MAX)?;
        Ok(())
    }

    /// Its log.
    pub(super) fn log(&self) -> PathBuf {
        self.stack.log_of(NAME)
    }

    /// Where its log is, and which exceptions stand in it.
    pub(super) fn why(&self) -> String {
        let log = self.log();
        let text =
            fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let exceptions =
            text.lines().filter(|line| line.starts_with("Caused by: ") || line.contains("Exception: "));
        let lines: Vec<&str> = exceptions.take(EXCEPTIONS_SHOWN_MAX).collect();
        format!("{}:\n{}", log.display(), lines.join("\n"))
    }

    /// The stack's MySQL, for the driver of MariaDB or of MySQL, with these parameters.
    pub(super) fn jdbc(&self, parameters: &str) -> String {
        format!("jdbc:mysql://{HOST}:{}/{MYSQL_DATABASE}?{parameters}", self.stack.ports().mysql())
    }

    fn options(&self) -> String {
        format!(
            "execution.target: local\n\
             execution.attached: true\n\
             parallelism.default: 2\n\
             taskmanager.numberOfTaskSlots: 2\n\
             rest.address: {HOST}\n\
             rest.bind-address: {HOST}\n\
             rest.bind-port: {port}\n\
             pipeline.object-reuse: true\n\
             restart-strategy.type: none\n\
             state.backend.type: hashmap\n\
             state.checkpoints.dir: file://{checkpoints}\n\
             execution.checkpointing.interval: 1 s\n\
             execution.checkpointing.mode: EXACTLY_ONCE\n",
            port = self.stack.ports().first_free() + 10,
            checkpoints = self.folder.join("checkpoints").display(),
        )
    }
}

/// Where to begin, for `scan.startup.specific-offsets`.
pub(super) fn offsets(begin: &Begin) -> String {
    let all: Vec<String> =
        begin.iter().map(|(partition, offset)| format!("partition:{partition},offset:{offset}")).collect();
    all.join(";")
}

/// A job with its places filled in: `{name}` by a value.
pub(super) fn filled(job: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(job.to_owned(), |job, (name, value)| job.replace(&format!("{{{name}}}"), value))
}
