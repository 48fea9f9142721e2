//! `weir-cloud check --connect`: whether everything that the configuration names is there, and as it must be.
//!
//! Comes in: the configuration. Goes out: one line per check on standard output: `ok`, `warn` or `FAIL`, what was checked,
//! what was found, and the way out.
//! Guarantees: only asks; changes nothing anywhere. Servers are asked at the same time, each question for at most
//! [`ASK`], those of a dimension for as long as its follower would wait.
//! On failure: that is a line; a server that does not answer stands in the way of nothing but its own checks.

mod brokers;
mod databases;
mod grants;
mod settings;
mod stores;

use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::time::Duration;

use weir_shared::supervise::Error;

use crate::config::Config;

pub(crate) use brokers::warn_of_slow_scan;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    what: String,
    detail: String,
    /// Empty when there is nothing to do.
    way_out: String,
}

impl Finding {
    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, what: what.into(), detail: detail.into(), way_out: String::new() }
    }

    fn warn(what: impl Into<String>, detail: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { grade: Grade::Warn, what: what.into(), detail: detail.into(), way_out: way_out.into() }
    }

    fn fail(what: impl Into<String>, detail: impl Into<String>, way_out: impl Into<String>) -> Self {
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

/// Asks everything and prints what was found.
///
/// # Errors
/// How many checks failed.
pub(crate) fn run(config: &Config) -> Result<(), Error> {
    let findings = all(config);
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    match findings.iter().filter(|finding| finding.grade == Grade::Fail).count() {
        0 => Ok(()),
        n => Err(format!("{n} of {} checks failed", findings.len()).into()),
    }
}

/// What one thread asks.
type Ask<'a> = Box<dyn FnOnce() -> Vec<Finding> + Send + 'a>;

/// One thread for each server; the findings come in the order of the configuration.
fn all(config: &Config) -> Vec<Finding> {
    let mut asking: Vec<(String, Ask<'_>)> = Vec::new();
    asking.push(("kafka".to_owned(), Box::new(|| brokers::check(config))));
    for dimension in &config.process.dimensions {
        let what = databases::name(dimension);
        asking.push((what, Box::new(|| waited(databases::check(dimension)))));
    }
    if let Some(server) = &config.rules.server {
        asking.push((databases::RULES_NAME.to_owned(), Box::new(|| waited(databases::rules(server)))));
    }
    for which in stores::enabled(&config.sinks) {
        asking.push((stores::name(which), Box::new(move || waited(stores::check(&config.sinks, which)))));
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = asking.into_iter().map(|(what, ask)| (what, scope.spawn(ask))).collect();
        let joined = threads.into_iter().flat_map(|(what, thread)| {
            let panicked =
                |_| vec![Finding::fail(what, "the check itself panicked", "report it; the log says more")];
            thread.join().unwrap_or_else(panicked)
        });
        joined.collect()
    })
}

fn waited(work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => vec![Finding::fail("this process", error.to_string(), "raise its limits")],
    }
}

/// One question, within [`ASK`].
async fn answered<T, E: fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(ASK, work).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", ASK.as_secs())),
    }
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
}
