//! What is the matter: findings of one kind for `check --connect` and `doctor` of both programs, and a bundle for support.
//!
//! Comes in: what each check found; the running process, asked through its admin port. Goes out: a line for each finding, `ok`,
//! `warn` or `FAIL`, with the way out; on request a `.tar.gz` of all that helps from afar.
//! Guarantees: nothing is changed anywhere; the settings in the bundle have `***` for secrets, and a finding never holds one.
//! On failure: what cannot be asked is a finding, and stands in the way of nothing but itself.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::admin::AdminConfig;
use crate::audit::verify::verify;
use crate::client::{Client, Settings};
use crate::clock;
use crate::supervise::Error;

/// Lines of the program's log that go into a bundle, where journald has them.
const LOG_LINES: &str = "5000";
/// Seconds that it may take to find them.
const LOG_WAIT: &str = "10";
/// What `timeout` ends with when that was not enough.
const TIMED_OUT: i32 = 124;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it must be.
    Ok,
    /// It works, and something should be done.
    Warn,
    /// It does not work.
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it ended.
    pub grade: Grade,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub detail: String,
    /// Empty when there is nothing to do.
    pub way_out: String,
}

impl Finding {
    /// As it must be.
    pub fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, what: what.into(), detail: detail.into(), way_out: String::new() }
    }

    /// Something should be done.
    pub fn warn(what: impl Into<String>, detail: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { grade: Grade::Warn, what: what.into(), detail: detail.into(), way_out: way_out.into() }
    }

    /// It does not work.
    pub fn fail(what: impl Into<String>, detail: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { grade: Grade::Fail, what: what.into(), detail: detail.into(), way_out: way_out.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        write!(f, "{grade:<6}{:<44}{}", self.what, self.detail.replace('\n', " "))?;
        if self.way_out.is_empty() { Ok(()) } else { write!(f, "  → {}", self.way_out) }
    }
}

/// Prints findings.
///
/// # Errors
/// How many checks failed, or that nobody listens.
pub fn print(findings: &[Finding]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    match findings.iter().filter(|finding| finding.grade == Grade::Fail).count() {
        0 => Ok(()),
        n => Err(format!("{n} of {} checks failed", findings.len()).into()),
    }
}

/// How the doctor is asked.
#[derive(Clone, Debug, Args)]
pub struct Asked {
    /// Also write everything that helps from afar into this file (.tar.gz); secrets are left out
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Where the running process is; default: admin.listen of the configuration
    #[arg(long, value_name = "URL")]
    pub address: Option<String>,
}

/// A program's doctor.
pub struct Doctor<'d> {
    /// `weir-edge` or `weir-cloud`: also the name of its unit.
    pub program: &'static str,
    /// The settings without secrets, or what is wrong with them.
    pub shown: Result<&'d str, &'d str>,
    /// Its port.
    pub admin: &'d AdminConfig,
    /// The folder of its audit log.
    pub audit: Option<&'d Path>,
}

impl Doctor<'_> {
    /// What is there to see while the settings are wrong.
    pub fn without_settings(program: &'static str, port: u16, why: &str, asked: &Asked) {
        let admin = AdminConfig {
            listen: Some((std::net::Ipv4Addr::LOCALHOST, port).into()),
            ..AdminConfig::default()
        };
        let doctor = Doctor { program, shown: Err(why), admin: &admin, audit: None };
        if let Err(error) = doctor.run(Vec::new(), asked) {
            tracing::error!("{error}");
        }
    }

    /// Looks at the running process and the machine, besides what was `found`; prints all, and writes the bundle.
    ///
    /// # Errors
    /// How many checks failed, or why there is no bundle.
    pub fn run(&self, mut found: Vec<Finding>, asked: &Asked) -> Result<(), Error> {
        let mut parts = Vec::new();
        match self.shown {
            Ok(shown) => {
                parts.push(("settings.toml", shown.to_owned()));
                found.insert(0, Finding::ok("settings", "read and right"));
            }
            Err(why) => {
                found
                    .insert(0, Finding::fail("settings", why, "mend them; what they name was not looked at"));
            }
        }
        found.extend(self.process(asked.address.as_deref(), &mut parts));
        found.extend(self.audit.map(|folder| audit_log(self.program, folder)));
        found.extend(machine());
        let well = print(&found);
        if let Some(path) = &asked.bundle {
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            parts.push(("findings.txt", lines.join("\n") + "\n"));
            parts.push(("machine.txt", machine_text(self.program)));
            parts.push(("log.txt", log_of(self.program)));
            bundle(path, self.program, &parts).map_err(|e| format!("{}: {e}", path.display()))?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "\n{} is written: look through it before you pass it on", path.display())?;
        }
        well
    }

    /// The process that runs, if one does.
    fn process(&self, address: Option<&str>, parts: &mut Vec<(&'static str, String)>) -> Vec<Finding> {
        const WHAT: &str = "running process";
        let ask = || -> Result<_, Error> {
            let client = Client::new(&Settings::of(self.admin, address)?)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(async {
                let paths = ["/live", "/ready", "/metrics"];
                let mut answers = Vec::new();
                for path in paths {
                    answers.push((path, client.get(path).await));
                }
                answers
            }))
        };
        let answers = match ask() {
            Ok(answers) => answers,
            Err(error) => return vec![Finding::warn(WHAT, error.to_string(), "give --address")],
        };
        let mut found = Vec::new();
        for (path, answer) in answers {
            match (path, answer) {
                ("/metrics", Ok(page)) => parts.push(("metrics.txt", page)),
                (_, Ok(_)) => found.push(Finding::ok(format!("{WHAT} {path}"), "ok")),
                (_, Err(why)) if why.contains("is the process running?") => {
                    let way_out = format!("systemctl status {}; or give --address", self.program);
                    return vec![Finding::warn(WHAT, why, way_out)];
                }
                (_, Err(why)) => {
                    let reasons = why.lines().map(|why| Finding::fail(format!("{WHAT} {path}"), why, ""));
                    found.extend(reasons);
                }
            }
        }
        found
    }
}

/// A log that somebody touched stops nothing.
fn audit_log(program: &str, folder: &Path) -> Finding {
    match verify(folder, None, None) {
        Ok(chains) => Finding::ok("audit log", chains.trim_end()),
        Err(why) => {
            let mut lines = why.lines();
            let told: Vec<_> = lines.next().into_iter().chain(lines.last()).collect();
            let way_out = format!("{program} audit verify; docs/runbooks/WeirAuditNotWritten.md");
            Finding::warn("audit log", told.join("; "), way_out)
        }
    }
}

/// What the machine has to offer.
fn machine() -> Vec<Finding> {
    let now = clock::now();
    let time = jiff::Timestamp::from_millisecond(now.wall_ms).unwrap_or_default();
    let clock = if now.trusted {
        Finding::ok("clock", format!("{time:.0}"))
    } else {
        Finding::fail("clock", format!("{time:.0} cannot be true"), "set it, or let it be set (timedatectl)")
    };
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let (free, all) = (kilobytes("MemAvailable:"), kilobytes("MemTotal:"));
    let memory = free.zip(all).map(|(free, all)| {
        let detail = format!("{} of {} MB are free", free / 1024, all / 1024);
        if free < all / 20 {
            Finding::warn("memory", detail, "end what else runs here, or give the machine more")
        } else {
            Finding::ok("memory", detail)
        }
    });
    std::iter::once(clock).chain(memory).collect()
}

fn machine_text(program: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    format!(
        "{program} {}\n{}{}\nload {}\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/version"),
        read("/etc/os-release"),
        read("/proc/loadavg"),
        read("/proc/meminfo"),
        read("/proc/self/mountinfo"),
    )
}

/// Its unit's log, where there is one; a log never holds a secret.
fn log_of(program: &str) -> String {
    let mut journal = std::process::Command::new("timeout");
    journal.args([LOG_WAIT, "journalctl", "--no-pager", "--unit", program, "--lines", LOG_LINES]);
    let (text, why) = match journal.output() {
        Ok(output) if output.status.success() => {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        Ok(output) if output.status.code() == Some(TIMED_OUT) => {
            (output.stdout, format!("it goes on, but journalctl took more than {LOG_WAIT} s"))
        }
        Ok(output) => (output.stdout, String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
        Err(error) => (Vec::new(), format!("timeout (of coreutils): {error}")),
    };
    format!("{}{why}; add the log of {program} yourself\n", String::from_utf8_lossy(&text))
}

fn bundle(path: &Path, program: &str, parts: &[(&str, String)]) -> std::io::Result<()> {
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create(true).truncate(true), 0o600);
    let file = options.open(path)?;
    // One that was there keeps its rights otherwise.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(clock::wall_ms() / 1000).unwrap_or_default());
        tar.append_data(&mut header, format!("{program}/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        let shown =
            Finding::fail("topic weir.readings", "there\nis none", "run `weir-cloud init`").to_string();
        let what = "topic weir.readings                         ";
        assert_eq!(shown, format!("FAIL  {what}there is none  → run `weir-cloud init`"));
        assert!(Finding::ok("a", "b").to_string().ends_with("  b"));
        assert!(Grade::Fail > Grade::Warn && Grade::Warn > Grade::Ok);
    }

    #[test]
    fn the_bundle_has_every_part_and_is_for_its_owner_alone() {
        let path = std::env::temp_dir().join(format!("weir-bundle-{}.tar.gz", std::process::id()));
        std::fs::write(&path, "an older one, for everybody to read").unwrap();
        bundle(&path, "weir-x", &[("a.txt", "one".to_owned()), ("b.txt", String::new())]).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let names: Vec<String> =
            tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["weir-x/a.txt", "weir-x/b.txt"]);
        std::fs::remove_file(&path).unwrap();
    }
}
