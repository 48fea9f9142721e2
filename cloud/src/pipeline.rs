//! The only wiring: which roles run in this process, each on a supervised thread of its own.
//!
//! Comes in: the configuration and the roles. Goes out: what the process ends with.
//! Guarantees: roles share nothing but the admin port and the wish to stop; one that fails or panics stops all.

use std::time::Duration;

use weir_shared::admin::{Admin, Feed, Health, serve};
use weir_shared::audit::{Audit, settings};
use weir_shared::pulse::Pulses;
use weir_shared::supervise::{Error, Supervisor};
use weir_shared::tls::expiry;

use crate::actions::{self, Pauses};
use crate::config::Config;
use crate::connect;
use crate::dims;
use crate::init;
use crate::process::{self, Dimensions, Versions};
use crate::rules::store::Rules;
use crate::sinks::{self, SinkName};

/// A graceful stop takes no longer.
const STOP: Duration = Duration::from_secs(10);
/// A cycle of the processor that takes longer than this is stuck.
const CYCLE_MAX: Duration = Duration::from_secs(120);
/// A round of a sink that takes longer is stuck: one that waits for its store beats meanwhile.
const WRITE_MAX: Duration = Duration::from_secs(300);

/// What this process does.
#[derive(Clone, Debug)]
pub(crate) struct Roles {
    process: bool,
    sinks: Vec<SinkName>,
}

impl Roles {
    /// The processor and every enabled sink.
    pub(crate) fn all(config: &Config) -> Self {
        let enabled = |name: &SinkName| config.sinks.has(*name);
        Self { process: true, sinks: SinkName::ALL.into_iter().filter(enabled).collect() }
    }

    /// Only the processor.
    pub(crate) fn process() -> Self {
        Self { process: true, sinks: Vec::new() }
    }

    /// Only these sinks.
    pub(crate) fn sinks(mut names: Vec<SinkName>) -> Self {
        names.sort_unstable_by_key(|name| *name as usize);
        names.dedup();
        Self { process: false, sinks: names }
    }
}

/// Starts the roles and waits for a signal or a failure.
///
/// # Errors
/// The first failure of a role, or that some did not stop in time.
pub(crate) fn run(config: Config, (file, shown): (&str, &str), roles: &Roles) -> Result<(), Error> {
    let handle = weir_shared::metrics::install()?;
    let (live, ready) = (Health::default(), Health::default());
    let audit = Audit::new(config.audit.clone(), &config.slot);
    settings::record(&audit, file, shown);
    let (feed, pauses) = (Feed::default(), Pauses::default());
    let asking = config.process.dimensions.clone();
    let admin = Admin {
        program: "weir-cloud",
        name: config.slot.clone(),
        metrics: handle,
        live: live.clone(),
        ready: ready.clone(),
        feed: feed.clone(),
        audit: audit.clone(),
        actions: actions::all(&config.rules, move || dims(&asking), &roles.sinks, &pauses),
    };
    let (more_topics, peers) = (init::more_topics(&config), config.peers());
    let Config { slot, admin: port, audit: _, kafka, mut process, rules, sinks } = config;
    process.more_topics = more_topics;
    let mut pulses = Pulses::default();
    let mut supervisor = Supervisor::new();
    supervisor.spawn("admin", move |stop| serve(port, admin, &stop))?;
    if roles.process {
        let brokers = kafka.clone();
        supervisor.spawn("process-brokers", move |stop| {
            connect::warn_of_slow_scan(&brokers);
            while !stop.wait_for(CYCLE_MAX) {}
            Ok(())
        })?;
        let dimensions = Dimensions::new(&process.dimensions).audited(audit.clone());
        let followed = Rules::new(&rules, &slot).audited(audit);
        let versions = Versions::new(&dimensions, &followed);
        let telling = versions.clone();
        supervisor.spawn("dimensions", move |stop| dimensions.follow(&stop))?;
        supervisor.spawn("rules", move |stop| followed.follow(&stop))?;
        supervisor.spawn("schema", move |stop| telling.tell_schema(&rules, &stop))?;
        for name in process::names(&process, &slot) {
            let versions = versions.clone();
            let (pulse, who) = (pulses.add(&name.who, CYCLE_MAX), name.who.clone());
            let (process, kafka, ready, feed) = (process.clone(), kafka.clone(), ready.clone(), feed.clone());
            supervisor.spawn(&who, move |stop| {
                process::run(&process, &kafka, &name, &versions, (&ready, &feed, &pulse), &stop)
            })?;
        }
    }
    for name in roles.sinks.iter().copied() {
        let (kafka, slot, ready, sinks) = (kafka.clone(), slot.clone(), ready.clone(), sinks.clone());
        let pauses = pauses.clone();
        let pulse = pulses.add(name.stage(), WRITE_MAX);
        supervisor.spawn(&format!("sink-{}", name.name()), move |stop| {
            sinks::run(name, &kafka, &slot, &sinks, (&ready, &pulse, &pauses), &stop)
        })?;
    }
    if !peers.is_empty() {
        supervisor.spawn("certificates", move |stop| {
            expiry::watch("weir_cloud_tls_not_after_seconds", &peers, &stop)
        })?;
    }
    supervisor.spawn("pulse", move |stop| pulses.watch(&live, &ready, || {}, &stop))?;
    supervisor.run(STOP)
}
