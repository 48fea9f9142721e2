//! What the audit log says of rules: what came into force here, and what was refused.
//!
//! Comes in: what was decided, and whom `weir_rules_active` names as author. Goes out: an entry for each rule whose version
//! changed, one for all at the start, and one for each refusal, once. Guarantees: also a change that somebody made with SQL of
//! their own is written down; its author is what the row says, which that person may have left as it was.
//! On failure: a log that cannot be written holds up no rule; it is a metric and a line in the program's log.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_shared::audit::{Audit, Entry};

use super::decide::{Force, Key, State};
use super::look::Said;

/// What entries are made of.
pub(super) struct Told<'t> {
    /// The set.
    pub(super) number: u64,
    /// By rule.
    pub(super) authors: &'t BTreeMap<String, String>,
    /// What this slot said before.
    pub(super) said: &'t BTreeMap<Key, Said>,
}

impl Told<'_> {
    /// What is in force, and what was; `None`: this process has just started.
    pub(super) fn in_force(&self, audit: &Audit, before: Option<&Force>, after: &Force) {
        let result = format!("in force with set {}", self.number);
        let Some(before) = before else {
            let all = json!(
                after
                    .iter()
                    .map(|(id, version)| (id.clone(), json!(version)))
                    .collect::<serde_json::Map<_, _>>()
            );
            let subject = "all, at the start";
            return self.write(
                audit,
                &Entry { action: "rules.start", subject, after: all, result: &result, ..Entry::default() },
            );
        };
        let ids = before.keys().chain(after.keys().filter(|id| !before.contains_key(*id)));
        for id in ids.filter(|id| before.get(*id) != after.get(*id)) {
            self.one(audit, id, (before.get(id), after.get(id)), &result);
        }
    }

    /// What was refused and is not known to be.
    pub(super) fn refused(&self, audit: &Audit, verdicts: &BTreeMap<Key, (State, String)>, force: &Force) {
        for ((id, version), (state, why)) in verdicts {
            let known = |said: &Said| said.of_this && said.state == state.word() && said.reason == *why;
            let key = (id.clone(), *version);
            if *state == State::Refused && !self.said.get(&key).is_some_and(known) {
                let result = format!("refused: version {version}: {why}");
                self.one(audit, id, (force.get(id), force.get(id)), &result);
            }
        }
    }

    fn one(&self, audit: &Audit, id: &str, (before, after): (Option<&u32>, Option<&u32>), result: &str) {
        let who = self.authors.get(id).map_or("", String::as_str);
        let version = |version: Option<&u32>| version.map_or(Value::Null, |version| json!(version));
        let (before, after) = (version(before), version(after));
        self.write(
            audit,
            &Entry { who, role: "", action: "rules.version", subject: id, before, after, result },
        );
    }

    fn write(&self, audit: &Audit, entry: &Entry<'_>) {
        let _logged = audit.record(entry);
    }
}
