//! The states of thresholds in one partition, by rule, version and key.
//!
//! Guarantees: changes wait for the commit of their cycle. The states of a version that is no longer in force are let go,
//! and so are those of keys that were silent for [`SILENT_MS`] by Kafka's time: their episodes end without a word. Event times
//! decide nothing here: old readings that are sent today are today's. Pure.

use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::staged::Staged;
use crate::rules::{Rule, RuleSet, States, ThresholdState};

/// A key that was silent for so long is forgotten.
const SILENT_MS: i64 = 30 * 86_400_000;
/// Most states that are let go in one cycle: each is a record of its transaction.
const LET_GO_MAX: usize = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::process) struct RuleStates {
    versions: Vec<Version>,
    /// The set that `places` is for.
    set: Weak<RuleSet>,
    /// For each rule of the set, where its states are.
    places: Vec<Option<usize>>,
    /// Kafka's time of the newest record.
    now: i64,
}

/// What is kept of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::process) struct Kept {
    /// Kafka's time of the newest record when it was written.
    kept: i64,
    state: ThresholdState,
}

#[derive(Debug)]
struct Version {
    id: Box<str>,
    version: u32,
    keys: Staged<Box<str>, Kept>,
    /// Whether it is in force.
    active: bool,
}

impl RuleStates {
    /// Goes on with the rules of this set.
    #[inline]
    pub(in crate::process) fn bind(&mut self, set: &Arc<RuleSet>) {
        if !std::ptr::eq(self.set.as_ptr(), Arc::as_ptr(set)) {
            self.bind_anew(set);
        }
    }

    #[cold]
    fn bind_anew(&mut self, set: &Arc<RuleSet>) {
        self.set = Arc::downgrade(set);
        for version in &mut self.versions {
            version.active = false;
        }
        self.places.clear();
        for rule in set.rules() {
            let place = self.place(&rule.id, rule.version);
            if let Some(place) = place {
                self.versions[place].active = true;
            }
            self.places.push(place);
        }
    }

    fn place(&self, id: &str, version: u32) -> Option<usize> {
        self.versions.iter().position(|v| *v.id == *id && v.version == version)
    }

    fn place_or_new(&mut self, id: &str, version: u32, active: bool) -> usize {
        self.place(id, version).unwrap_or_else(|| {
            self.versions.push(Version { id: id.into(), version, keys: Staged::default(), active });
            self.versions.len() - 1
        })
    }

    /// A record of this time was processed.
    #[inline]
    pub(in crate::process) fn passes(&mut self, time_ms: i64) {
        self.now = self.now.max(time_ms);
    }

    /// Lets go of some of what is not needed any more.
    pub(in crate::process) fn tidy(&mut self) {
        let (now, mut left) = (self.now, LET_GO_MAX);
        for version in &mut self.versions {
            let old = |kept: &Kept| !version.active || now.saturating_sub(kept.kept) > SILENT_MS;
            // As they are in this cycle: one that was just touched stays.
            let is_old = |key: &str| version.keys.get(key).is_some_and(old);
            let keys: Vec<_> = version
                .keys
                .iter()
                .map(|(key, _)| key)
                .filter(|key| is_old(key.as_ref()))
                .take(left)
                .cloned()
                .collect();
            left -= keys.len();
            for key in keys {
                version.keys.set(key, None);
            }
        }
    }

    /// Whether states of versions that are not in force wait to be let go.
    pub(in crate::process) fn is_untidy(&self) -> bool {
        self.versions.iter().any(|version| !version.active && version.keys.len() > 0)
    }

    /// What this cycle changed: rule, version, key, state.
    pub(in crate::process) fn staged(&self) -> impl Iterator<Item = (&str, u32, &str, Option<&Kept>)> {
        self.versions.iter().flat_map(|v| v.keys.staged().map(|(key, s)| (&*v.id, v.version, &**key, s)))
    }

    /// The transaction that carries the staged states has been committed.
    pub(in crate::process) fn commit(&mut self) {
        for version in &mut self.versions {
            version.keys.commit();
        }
    }

    /// The transaction was aborted.
    pub(in crate::process) fn abort(&mut self) {
        for version in &mut self.versions {
            version.keys.abort();
        }
    }

    /// An entry of the changelog.
    pub(in crate::process) fn restore(&mut self, id: &str, version: u32, key: &str, state: Option<Kept>) {
        let place = self.place_or_new(id, version, true);
        self.versions[place].keys.restore(key.into(), state);
    }

    /// Keys with a state.
    pub(in crate::process) fn len(&self) -> usize {
        self.versions.iter().map(|version| version.keys.len()).sum()
    }
}

impl States for RuleStates {
    fn get(&self, rule: &Rule, key: &str) -> Option<ThresholdState> {
        let place = (*self.places.get(rule.index)?)?;
        Some(self.versions[place].keys.get(key)?.state)
    }

    fn set(&mut self, rule: &Rule, key: &str, state: Option<ThresholdState>) {
        let place = match self.places.get(rule.index) {
            Some(Some(place)) => *place,
            _ => {
                let place = self.place_or_new(&rule.id, rule.version, true);
                if let Some(known) = self.places.get_mut(rule.index) {
                    *known = Some(place);
                }
                place
            }
        };
        let kept = state.map(|state| Kept { kept: self.now, state });
        self.versions[place].keys.set(key.into(), kept);
    }
}
