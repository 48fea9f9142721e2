//! The rules as MySQL has them: followed by every process, in force by number.
//!
//! Comes in: `weir_rules_active` and `weir_rules`, asked every `poll_ms`; the schema of the dimensions; what workers
//! report. Goes out: [`Loaded`], the set in force and its number; `weir_rules_sets`, `weir_rules_status`,
//! `weir_rules_processes`; metrics `weir_cloud_rules_…`.
//! Guarantees: a number stands for exactly the same versions in every process, and is larger than all before it. A
//! process that publishes a number runs exactly the versions of that number (but for those it tripped itself). What
//! is refused leaves the version before in force. Two processes that see the same change make one number: a row of
//! `weir_rules_sets` names the one before it, and no two can name the same.
//! On failure: with MySQL away the last set stays in force, and its age is a metric; asked again with growing waits.
//!
//! [`config`] is read; [`tables`] connects; [`look`] reads; [`decide`] decides, pure; [`follow`] is the loop around it.

pub(crate) mod config;
pub(crate) mod decide;
pub(crate) mod tables;

mod audited;
mod follow;
mod look;
mod measures;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use weir_shared::audit::Audit;
use weir_shared::supervise::{Error, Stop};

use super::{RuleSet, Schema};
use config::RulesConfig;

/// A set in force.
pub(crate) struct Loaded {
    /// Row of `weir_rules_sets`; 0: there has never been a rule.
    pub(crate) number: u64,
    /// Compiled.
    pub(crate) set: Arc<RuleSet>,
}

/// The rules of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rules(Arc<Inner>);

struct Inner {
    config: RulesConfig,
    slot: String,
    audit: OnceLock<Audit>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    current: Option<Arc<Loaded>>,
    /// With how often it was set.
    schema: Option<(u64, Arc<Schema>)>,
    reports: Vec<Report>,
}

/// A worker's wish to be rid of a rule.
#[derive(Clone, Debug)]
struct Report {
    id: String,
    version: u32,
    reason: String,
}

impl Rules {
    /// Nothing in force yet; without an url the empty set, for ever. `slot` names the process.
    pub(crate) fn new(config: &RulesConfig, slot: &str) -> Self {
        let mut shared = Shared::default();
        if config.server.is_none() {
            let empty = Schema { dims: Vec::new(), topics: Vec::new(), hash_key: None };
            let (set, _) = RuleSet::compile(&[], &empty);
            shared.current = Some(Arc::new(Loaded { number: 0, set: Arc::new(set) }));
        }
        Self(Arc::new(Inner {
            config: config.clone(),
            slot: slot.to_owned(),
            audit: OnceLock::new(),
            shared: Mutex::new(shared),
        }))
    }

    /// Writes down there what comes into force here, and what is refused.
    pub(crate) fn audited(self, audit: Audit) -> Self {
        let _first = self.0.audit.set(audit);
        self
    }

    /// Follows the tables until told to stop. Blocks: call it on a thread of its own. Loads nothing before
    /// [`Rules::set_schema`] was called: what the rules refer to must be known first.
    ///
    /// # Errors
    /// When there is no runtime. A database that is away or has no tables is asked again, for ever.
    pub(crate) fn follow(&self, stop: &Stop) -> Result<(), Error> {
        follow::run(self, stop)
    }

    /// Whether there is a database of rules at all.
    pub(crate) fn are_configured(&self) -> bool {
        self.0.config.server.is_some()
    }

    /// What is in force; `None` until the first load.
    pub(crate) fn current(&self) -> Option<Arc<Loaded>> {
        self.lock().current.clone()
    }

    /// What rules may refer to, now: everything is compiled again.
    pub(crate) fn set_schema(&self, schema: Schema) {
        let mut shared = self.lock();
        let times = shared.schema.as_ref().map_or(0, |(times, _)| *times);
        shared.schema = Some((times + 1, Arc::new(schema)));
    }

    /// A rule fails too often: it leaves the set of this process, until another version of it is made active or the
    /// same one again.
    pub(crate) fn tripped(&self, id: &str, version: u32, reason: &str) {
        let report = Report { id: id.to_owned(), version, reason: reason.to_owned() };
        self.lock().reports.push(report);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
