//! Brings what the servers need: Debian packages, jars, one Python library, the real sensor series.
//!
//! In: what is on the machine. Out: programs on the path, and `target/stack/dist/` with `kafka/`,
//! `elasticsearch/`, `python/` and `data/`; for the benchmarks and tests that need them also `go/`, `telegraf/`, `flink/`,
//! `elasticsearch-8/` and `opensearch/`.
//! Guarantees: says what it installs; versions are pinned (Debian's are those of the release); a part is
//! stamped with its version when it is complete, so an interrupted install is done again.
//! On failure: the last lines of the installer's own output and where the rest is.

mod apt;
mod go;
mod maven;
mod python;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use weir_shared::clock;

use crate::places::{Places, last_lines};
use crate::process::tie_to_this_thread;

/// Receives one line of progress at a time.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

const JAVA_MIN: u32 = 17;

/// Installs whatever is missing. Only one process does so at a time; others wait for it.
pub fn everything(places: &Places, progress: Progress<'_>) -> Result<()> {
    install(
        places,
        |dist| vec![maven::kafka(dist), maven::elasticsearch(dist), python::engine(dist), python::data(dist)],
        progress,
    )
}

/// Installs the search servers that only their own test starts.
pub(crate) fn search_servers(places: &Places, progress: Progress<'_>) -> Result<()> {
    install(places, |dist| vec![maven::elasticsearch_8(dist), maven::opensearch(dist)], progress)
}

/// Installs Telegraf, which one benchmark compares with; gives its program.
pub fn telegraf(places: &Places, progress: Progress<'_>) -> Result<PathBuf> {
    install(places, |dist| vec![python::engine(dist), go::toolchain(dist), go::telegraf(dist)], progress)?;
    Ok(places.dist().join("telegraf/telegraf"))
}

/// Installs Helm, which renders the chart; gives its program.
pub fn helm(places: &Places, progress: Progress<'_>) -> Result<PathBuf> {
    install(places, |dist| vec![python::engine(dist), go::toolchain(dist), go::helm(dist)], progress)?;
    Ok(places.dist().join("helm/helm"))
}

/// Apache Flink, which one benchmark compares with.
#[derive(Clone, Debug)]
pub struct Flink {
    folder: PathBuf,
}

impl Flink {
    /// Its class path.
    pub(crate) fn classes(&self) -> String {
        format!("{0}/launcher:{0}/lib/*", self.folder.display())
    }
}

/// Installs Flink.
pub fn flink(places: &Places, progress: Progress<'_>) -> Result<Flink> {
    install(places, |dist| vec![maven::flink(dist)], progress)?;
    Ok(Flink { folder: places.dist().join("flink") })
}

/// Installs those of the parts that are missing, in their order.
fn install(places: &Places, parts: fn(&Path) -> Vec<Part>, progress: Progress<'_>) -> Result<()> {
    let dist = places.dist();
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    let lock = File::create(dist.join("lock"))?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        progress("another weir-stack is installing: waiting for it");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    }
    let parts = parts(&dist);
    let missing: Vec<&Part> = parts.iter().filter(|part| !part.is_complete()).collect();
    apt::install_missing(&dist, &missing, progress)?;
    for part in missing {
        part.install(progress)?;
    }
    Ok(())
}

/// Installs what the fault suite of the edge needs beside the servers.
///
/// # Errors
/// What apt says; without root: the command to type.
pub fn chaos(places: &Places, progress: Progress<'_>) -> Result<()> {
    programs(places, &apt::CHAOS, progress)
}

/// Installs the Debian packages of programs that are missing: names of programs, each with its package.
///
/// # Errors
/// What apt says; without root: the command to type.
pub fn programs(places: &Places, programs: &[(&str, &str)], progress: Progress<'_>) -> Result<()> {
    let dist = places.dist();
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    apt::install_programs(&dist, programs, progress)
}

/// Installs the old ClickHouse server, which one test needs.
pub(crate) fn old_clickhouse(places: &Places, progress: Progress<'_>) -> Result<()> {
    programs(places, &[("clickhouse-server", "clickhouse-server")], progress)
}

/// A folder of `dist` with a pinned content.
struct Part {
    /// Name of the folder and of the stamp.
    name: &'static str,
    /// What it is, for people; with the versions: also what the stamp says.
    content: String,
    folder: PathBuf,
    /// Programs that building it needs.
    needs: &'static [&'static str],
    build: fn(&Path, &Path) -> Result<()>,
}

impl Part {
    fn stamp(&self) -> PathBuf {
        self.folder.with_extension("stamp")
    }

    fn is_complete(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|stamp| stamp == self.content)
    }

    fn install(&self, progress: Progress<'_>) -> Result<()> {
        progress(&format!("installing {}", self.content));
        let started = clock::instant();
        let _none_yet = fs::remove_file(self.stamp());
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).context("cannot remove a half-finished install")?;
        }
        fs::create_dir_all(&self.folder)?;
        let log = self.folder.with_extension("log");
        let _none_yet = fs::remove_file(&log);
        (self.build)(&self.folder, &log).with_context(|| format!("cannot install {}", self.name))?;
        fs::write(self.stamp(), &self.content)?;
        progress(&format!("installed {} in {:.1} s", self.name, clock::since(started).as_secs_f64()));
        Ok(())
    }
}

/// Runs an installer that may be cut off at any point: it ends when this process is killed.
fn run_tied(command: &mut Command, log: &Path) -> Result<()> {
    tie_to_this_thread(command);
    run(command, log)
}

/// Runs an installer to its end; its output goes to `log`.
fn run(command: &mut Command, log: &Path) -> Result<()> {
    let output = File::options().create(true).append(true).open(log)?;
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status}); all of its output: {}\n{}", log.display(), last_lines(log, 15));
    }
    Ok(())
}

/// Where a program is: on the path, or where Debian puts servers.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("`{name}` is not installed; `weir-stack up` installs it"))
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// The home of a JDK (with compiler) that is new enough: `JAVA_HOME`, the path's, or one of Debian's.
pub(crate) fn java_home() -> Option<PathBuf> {
    let own = env::var_os("JAVA_HOME").map(PathBuf::from);
    let on_path =
        find("javac").and_then(|javac| javac.canonicalize().ok()?.parent()?.parent().map(Path::to_owned));
    let debian = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path());
    own.into_iter().chain(on_path).chain(debian).find(|home| {
        home.join("bin/java").is_file()
            && home.join("bin/javac").is_file()
            && java_version(home).is_some_and(|version| version >= JAVA_MIN)
    })
}

/// From the `release` file that every JDK has: asking the JVM itself takes a second.
fn java_version(home: &Path) -> Option<u32> {
    let release = fs::read_to_string(home.join("release")).ok()?;
    let line = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    line.split(['.', '"', '-', '+']).next()?.parse().ok()
}
