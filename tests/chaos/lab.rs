//! The servers of the suite, and what all rows share.
//!
//! Goes out: progress on standard output. Guarantees: what a killed suite left mounted or filtered is undone first; the
//! stack is taken down at the end, also after a failure.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use weir_harness::addresses::CHAOS;
pub(crate) use weir_harness::faults::dice::Dice;
use weir_harness::faults::{disk, net};
use weir_harness::install;
use weir_harness::judge::enriched::{self, Enriched};
use weir_harness::judge::run::Run;
use weir_harness::judge::tape;
use weir_harness::places::{Places, last_lines};
use weir_harness::programs::Admin;
use weir_harness::stack::Stack;
use weir_shared::clock;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Seeds of each step.
    pub(crate) seeds: u64,
    /// Photographs.
    pub(crate) images: u64,
    /// Random kills.
    pub(crate) kills: u64,
    /// Edges that flap together.
    pub(crate) edges: u64,
}

/// The servers, and what is wanted.
pub(crate) struct Lab {
    pub(crate) stack: Stack,
    pub(crate) admin: Admin,
    pub(crate) wanted: Wanted,
    pub(crate) partitions: i32,
    /// Whether the edge computes windows, and can replay its journal.
    pub(crate) windows: bool,
    pub(crate) replay: bool,
    /// The known-bad switch of this run.
    pub(crate) bad: RefCell<Option<String>>,
    started: Instant,
    scenes: Cell<u32>,
}

impl Lab {
    /// Brings everything up, fresh.
    pub(crate) fn up(wanted: Wanted, bad: Option<String>) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the fault suite mounts and filters: it needs root");
        let started = clock::instant();
        let mut told = |words: &str| line(&format!("{:6.1} s  {words}", clock::since(started).as_secs_f64()));
        let places = Places::find()?;
        install::chaos(&places, &mut told)?;
        fs::create_dir_all(places.stack(CHAOS))?;
        let folder = places.stack(CHAOS);
        tidy_up_on_signals(move || {
            vec![net::sweep(), Stack::named(CHAOS).and_then(|stack| stack.down()), disk::sweep(&folder)]
        })?;
        disk::sweep(&places.stack(CHAOS))?;
        net::sweep()?;
        let stack = Stack::up(CHAOS, true, &mut told)?;
        let admin = Admin::new()?;
        let bad = RefCell::new(bad);
        let scenes = Cell::new(0);
        let (windows, replay) = (false, false);
        let mut lab = Self { stack, admin, wanted, partitions: 0, windows, replay, bad, started, scenes };
        lab.init()?;
        lab.partitions = tape::partitions(&lab.brokers())?;
        lab.windows = lab.edge_says("reference")?.contains("[[window]]");
        lab.replay = lab.edge_says("--help")?.contains("replay");
        Ok(lab)
    }

    pub(crate) fn down(&self) -> anyhow::Result<()> {
        self.stack.down()
    }

    /// Kafka.
    pub(crate) fn brokers(&self) -> String {
        self.stack.addresses().kafka
    }

    /// Mosquitto.
    pub(crate) fn mqtt(&self) -> (String, u16) {
        self.stack.addresses().mqtt
    }

    /// The admin port of the edge with this number.
    pub(crate) fn admin_port(&self, edge: u64) -> anyhow::Result<u16> {
        Ok(self.stack.ports().first_free() + u16::try_from(edge)?)
    }

    /// A folder and a name of its own for a scene.
    pub(crate) fn scene(&self, about: &str) -> anyhow::Result<(String, PathBuf)> {
        let number = self.scenes.get() + 1;
        self.scenes.set(number);
        let name = format!("c{number}x{}", std::process::id());
        let folder = self.stack.data_dir().join("scenes").join(format!("{number:04}-{about}"));
        fs::create_dir_all(&folder)?;
        Ok((name, folder))
    }

    /// The edge with failpoints in it.
    pub(crate) fn binary(&self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let folder = own.parent().context("a program lies in a folder")?;
        let found = folder.join("weir-edge-chaos");
        ensure!(found.is_file(), "no weir-edge-chaos beside this program: `make chaos SUITE=edge` makes it");
        Ok(found)
    }

    fn edge_says(&self, argument: &str) -> anyhow::Result<String> {
        let output = Command::new(self.binary()?).arg(argument).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Seconds since the suite began.
    pub(crate) fn seconds(&self) -> f64 {
        clock::since(self.started).as_secs_f64()
    }

    /// A line of progress.
    pub(crate) fn tell(&self, words: &str) {
        line(&format!("{:6.1} s  {words}", self.seconds()));
    }

    /// `weir-cloud init` makes the topics.
    fn init(&self) -> anyhow::Result<()> {
        let own = std::env::current_exe()?;
        let binary = own.with_file_name("weir-cloud");
        let config = self.cloud_config();
        let text = format!(
            "slot = \"chaos\"\n[admin]\nlisten = \"{}\"\n[kafka]\nbrokers = \"{}\"\n",
            self.stack.addresses().cloud_admin,
            self.brokers()
        );
        fs::write(&config, text)?;
        let log = self.stack.log_of("weir-cloud-init");
        let out = fs::File::create(&log)?;
        let mut command = Command::new(&binary);
        command.args(["init", "--config"]).arg(&config).stdout(out.try_clone()?).stderr(out);
        let status = command.status().with_context(|| binary.display().to_string())?;
        ensure!(status.success(), "weir-cloud init: {status}:\n{}", last_lines(&log, 10));
        Ok(())
    }

    /// Lets `weir-cloud process` work off the topics, and compares what it made of this run.
    pub(crate) fn processed(&self, run: &Run, expected: usize) -> anyhow::Result<Vec<String>> {
        let binary = std::env::current_exe()?.with_file_name("weir-cloud").display().to_string();
        let config = self.cloud_config().display().to_string();
        self.stack.spawn("weir-cloud", &[&binary, "process", "--config", &config], &[], false)?;
        let found = enriched::read(&self.brokers(), run, expected);
        self.stack.stop_server("weir-cloud")?;
        let Enriched { records, readings, wrong, first_wrong } = found?;
        let right = records == expected && readings == expected && wrong == 0;
        let words = format!(
            "weir.enriched: {records} records of {readings} readings, wanted {expected}; wrong {wrong} {}",
            first_wrong.unwrap_or_default()
        );
        Ok(if right { Vec::new() } else { vec![words] })
    }

    /// Configuration of the processor.
    fn cloud_config(&self) -> PathBuf {
        self.stack.data_dir().join("weir-cloud.toml")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _down_already_or_told = self.stack.down();
    }
}

/// Told to stop, the suite does this first, so that it leaves nothing mounted, filtered or running.
pub(crate) fn tidy_up_on_signals(
    tidy: impl FnOnce() -> Vec<anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<()> {
    let (mut read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, write.try_clone()?)?;
    }
    std::thread::spawn(move || {
        if read.read_exact(&mut [0]).is_ok() {
            for error in tidy().into_iter().filter_map(Result::err) {
                line(&format!("{error:#}"));
            }
            std::process::exit(1);
        }
    });
    Ok(())
}

/// A line on standard output.
pub(crate) fn line(words: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads it: the exit code still tells.
    let _closed = writeln!(out, "{words}").and_then(|()| out.flush());
}

/// Lets so much time pass on purpose: a fault lasts, or a kill comes later.
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}
