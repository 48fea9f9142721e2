//! What the audit log says of rules: what came into force here, and what was refused.
//!
//! Comes in: what was decided, and whom `weir_rules_active` names as author. Goes out: an entry for each rule whose version
//! changed, one for all at the start, and one for each refusal, once; all of one decision are made durable together.
//! Guarantees: also a change that somebody made with SQL of their own is written down; its author is what the row says, which
//! that person may have left as it was.
//! On failure: a log that cannot be written holds up no rule; it is a metric and a line in the program's log.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weir_shared::audit::{Audit, Entry};

use super::decide::{Force, Key, State};
use super::look::Said;

/// What was decided, by rule and version.
type Verdicts = BTreeMap<Key, (State, String)>;

/// What one entry says of a rule, or of all.
struct Line {
    action: &'static str,
    id: String,
    before: Value,
    after: Value,
    result: String,
}

/// Writes down what comes into force and what is refused.
#[derive(Default)]
pub(super) struct Told {
    /// What was refused at the last look, and why.
    refused: BTreeMap<Key, String>,
}

impl Told {
    /// After a decision: what was in force (`None`: this process has just started; the same: nothing changed), what is, what is
    /// said of each version and what this slot said before.
    pub(super) fn tell(
        &mut self,
        audit: &Audit,
        authors: &BTreeMap<String, String>,
        (number, before, after): (u64, Option<&Force>, &Force),
        (verdicts, said): (&Verdicts, &BTreeMap<Key, Said>),
    ) {
        let mut lines = in_force(number, before, after);
        lines.extend(self.newly_refused(verdicts, said, after));
        let who = |id: &str| authors.get(id).map_or("", String::as_str);
        let entries: Vec<Entry<'_>> = lines
            .iter()
            .map(|Line { action, id, before, after, result }| {
                let (before, after) = (before.clone(), after.clone());
                Entry { who: who(id), role: "", action, subject: id, before, after, result }
            })
            .collect();
        let _logged = audit.record_all(&entries);
    }

    /// What was refused, and neither this process nor, before it began, this slot has said so.
    fn newly_refused(&mut self, verdicts: &Verdicts, said: &BTreeMap<Key, Said>, force: &Force) -> Vec<Line> {
        let refused = verdicts.iter().filter(|(_, (state, _))| *state == State::Refused);
        let refused: BTreeMap<Key, String> =
            refused.map(|(key, (_, why))| (key.clone(), why.clone())).collect();
        let is_known = |key: &Key, why: &String| {
            let of_slot = said.get(key);
            self.refused.get(key) == Some(why)
                || of_slot.is_some_and(|s| s.of_this && s.state == State::Refused.word() && s.reason == *why)
        };
        let new = refused.iter().filter(|(key, why)| !is_known(key, why));
        let lines = new.map(|((id, version), why)| {
            let stays = json!(force.get(id));
            Line::of(id, stays.clone(), stays, format!("refused: version {version}: {why}"))
        });
        let lines = lines.collect();
        self.refused = refused;
        lines
    }
}

/// What is in force now, where that is something else.
fn in_force(number: u64, before: Option<&Force>, after: &Force) -> Vec<Line> {
    let result = format!("in force with set {number}");
    let Some(before) = before else {
        let all: Map<String, Value> =
            after.iter().map(|(id, version)| (id.clone(), json!(version))).collect();
        let id = "all, at the start".to_owned();
        return vec![Line { action: "rules.start", id, before: Value::Null, after: all.into(), result }];
    };
    let ids = before.keys().chain(after.keys().filter(|id| !before.contains_key(*id)));
    let changed = ids.filter(|id| before.get(*id) != after.get(*id));
    changed.map(|id| Line::of(id, json!(before.get(id)), json!(after.get(id)), result.clone())).collect()
}

impl Line {
    fn of(id: &str, before: Value, after: Value, result: String) -> Self {
        Self { action: "rules.version", id: id.to_owned(), before, after, result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_while_it_cannot_be_said_elsewhere_and_again_when_its_reason_changes() {
        let folder = std::env::temp_dir().join(format!("weir-audited-{}", std::process::id()));
        let audit = Audit::new(Some(folder.clone()), "x");
        let (mut told, authors) = (Told::default(), BTreeMap::from([("a".to_owned(), "anna".to_owned())]));
        let (force, said) = (Force::from([("a".to_owned(), 1)]), BTreeMap::new());
        let refused = |why: &str| Verdicts::from([(("a".to_owned(), 2), (State::Refused, why.to_owned()))]);
        for (before, why) in
            [(None, "no table t"), (Some(&force), "no table t"), (Some(&force), "no column c")]
        {
            told.tell(&audit, &authors, (7, before, &force), (&refused(why), &said));
        }
        let text = std::fs::read_to_string(folder.join("x.audit.jsonl")).unwrap();
        let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let short: Vec<_> =
            entries.iter().map(|e| (e["action"].as_str().unwrap(), &e["after"], &e["result"])).collect();
        let version = |why: &str| ("rules.version", json!(1), json!(format!("refused: version 2: {why}")));
        let start = ("rules.start", json!({"a": 1}), json!("in force with set 7"));
        let wanted = [start, version("no table t"), version("no column c")];
        assert_eq!(short, wanted.each_ref().map(|(action, after, result)| (*action, after, result)));
        assert_eq!(entries[1]["who"], "anna");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
