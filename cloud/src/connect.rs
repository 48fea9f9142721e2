//! `weir-cloud check --connect`, and what `weir-cloud doctor` looks at: whether everything that the configuration names is
//! there, and as it must be.
//!
//! Comes in: the configuration. Goes out: a finding for each check.
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
use std::time::Duration;

use weir_shared::doctor::Finding;

use crate::config::Config;

pub(crate) use brokers::warn_of_slow_scan;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(5);

/// What one thread asks.
type Ask<'a> = Box<dyn FnOnce() -> Vec<Finding> + Send + 'a>;

/// Asks everything, with a thread for each server; the findings come in the order of the configuration.
pub(crate) fn all(config: &Config) -> Vec<Finding> {
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
