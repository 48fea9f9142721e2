//! `weir-cloud rules apply FILE`: the rules of a file, as they should be.
//!
//! Comes in: a file. Goes out: new versions of the rules whose content differs from the active one, made active, all
//! in one transaction; what changed, as a difference; what the processes make of it.
//! Guarantees: if one rule of the file is bad, nothing is changed. Applying the same file again changes nothing. A
//! content that was there before gets its old version back, not a new one. A rule that somebody switched off stays off
//! as long as the file says the same as its newest version.
//! On failure: all problems with their places; nothing is changed.

use std::fmt::Write as _;
use std::path::Path;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};

use super::change::{set, transaction};
use super::file::{self, FileRule, RulesFile};
use super::read::{self, Rule, Version};
use super::{Failed, Signed, Who, diff, say, sign, wait};
use crate::rules::store::tables::{Failure, answer};
use crate::rules::{RuleRow, RuleSet, Schema};

const ADD: &str = "INSERT INTO weir_rules (id, version, kind, spec, priority, author, note, effective_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

/// What is to be done for one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Another version becomes active; a new one when `new`.
    Change { before: Option<u32>, after: u32, new: bool },
    /// It is as the file says.
    Same(u32),
    /// It is as the file says, and somebody switched it off.
    Off(u32),
}

/// One rule of the file and its step.
struct Planned {
    id: String,
    step: Step,
    shown: String,
}

/// Runs the command.
pub(super) async fn run(
    connection: &mut Conn,
    (schema, open): (&Schema, &[String]),
    path: &Path,
    (dry_run, wait_seconds): (bool, u64),
    who: &Who,
) -> Result<(), Failed> {
    let signed = sign(who)?;
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Failed::Usage(format!("{name}: {e}")))?;
    let file = read_file(&name, &text, schema)?;
    if !open.is_empty() {
        let tables = open.join(", ");
        say(&format!(
            "note: the columns of {tables} are not known here; the processes check what names them"
        ))?;
    }
    let planned =
        transaction(connection, async |connection| Ok((apply(connection, &file, &signed).await?, !dry_run)))
            .await?;
    say(&shown(&planned, dry_run))?;
    let changed = |p: &Planned| match p.step {
        Step::Change { after, .. } => Some((p.id.clone(), after)),
        _ => None,
    };
    let changed: Vec<(String, u32)> = planned.iter().filter_map(changed).collect();
    if dry_run || changed.is_empty() || wait_seconds == 0 {
        return Ok(());
    }
    wait::for_processes(connection, &changed, wait_seconds).await
}

/// Reads and compiles all of it.
fn read_file(name: &str, text: &str, schema: &Schema) -> Result<RulesFile, Failed> {
    let refused = |problems: Vec<String>| {
        let n = problems.len();
        let s = if n == 1 { "" } else { "s" };
        Failed::Failed(format!("nothing is changed\n{}\n{n} problem{s} in {name}", problems.join("\n")))
    };
    let file = file::parse(name, text).map_err(refused)?;
    let check = |rule: &FileRule| {
        let row = RuleRow {
            id: rule.id.clone(),
            version: 0,
            kind: rule.kind.clone(),
            spec: rule.spec.to_string(),
            priority: rule.priority,
            stands: false,
        };
        RuleSet::check(&row, schema).err().map(|problem| file.refused(rule, &problem.reason))
    };
    let problems: Vec<String> =
        file.problems.iter().cloned().chain(file.rules.iter().filter_map(check)).collect();
    if problems.is_empty() { Ok(file) } else { Err(refused(problems)) }
}

/// Does all steps, within a transaction; in the order of ids, so that two at a time seldom wait for each other.
async fn apply(connection: &mut Conn, file: &RulesFile, signed: &Signed) -> Result<Vec<Planned>, Failure> {
    let mut rules: Vec<&FileRule> = file.rules.iter().collect();
    rules.sort_by(|a, b| a.id.cmp(&b.id));
    let mut planned = Vec::with_capacity(rules.len());
    for rule in rules {
        let stored = read::rule(connection, &rule.id, " FOR UPDATE").await?;
        let step = plan(rule, stored.as_ref());
        if let Step::Change { before, after, new } = step {
            let signed = Signed {
                author: signed.author.clone(),
                note: rule.note.clone().unwrap_or_else(|| signed.note.clone()),
            };
            if new {
                let spec = rule.spec.to_string();
                let params = Params::from((
                    &rule.id,
                    after,
                    &rule.kind,
                    spec,
                    rule.priority,
                    &signed.author,
                    &signed.note,
                    &rule.effective_at,
                ));
                answer(connection.exec_drop(ADD, params)).await?;
            }
            set(connection, ("apply", &rule.id), (before, Some(after)), &signed).await?;
        }
        planned.push(Planned { id: rule.id.clone(), shown: difference(rule, stored.as_ref(), &step), step });
    }
    Ok(planned)
}

/// What is to be done for a rule, given what is stored of it; pure.
fn plan(rule: &FileRule, stored: Option<&Rule>) -> Step {
    let Some(stored) = stored else { return Step::Change { before: None, after: 1, new: true } };
    let active = stored.active_version();
    let newest = stored.newest();
    let same = |v: &&Version| {
        v.kind == rule.kind
            && v.priority == rule.priority
            && v.effective_at == rule.effective_at
            && v.spec == rule.spec
    };
    let of_active = stored.versions.iter().find(|v| Some(v.version) == active).filter(same);
    if let Some(version) = of_active {
        return Step::Same(version.version);
    }
    match stored.versions.iter().filter(same).map(|v| v.version).max() {
        Some(version) if active.is_none() && version == newest && stored.active.is_some() => {
            Step::Off(version)
        }
        Some(after) => Step::Change { before: active, after, new: false },
        None => Step::Change { before: active, after: newest.saturating_add(1), new: true },
    }
}

/// Its content beside that of the active version, or of the newest.
fn difference(rule: &FileRule, stored: Option<&Rule>, step: &Step) -> String {
    if !matches!(step, Step::Change { .. }) {
        return String::new();
    }
    let compared = stored.and_then(|stored| {
        let version = stored.active_version().unwrap_or(stored.newest());
        stored.versions.iter().find(|v| v.version == version)
    });
    let before = compared.map(|v| diff::content(&v.kind, v.priority, v.effective_at.as_deref(), &v.spec));
    let after = diff::content(&rule.kind, rule.priority, rule.effective_at.as_deref(), &rule.spec);
    diff::lines(&before.unwrap_or_default(), &after)
}

fn shown(planned: &[Planned], dry_run: bool) -> String {
    let mut out = String::new();
    let mut put = |line: String| writeln!(out, "{line}").expect("a String takes everything");
    let mut changes = 0;
    for p in planned {
        let id = &p.id;
        match p.step {
            Step::Same(version) => put(format!("{id}: version {version}, unchanged")),
            Step::Off(version) => put(format!(
                "{id}: version {version}, unchanged, and switched off; `weir-cloud rules enable {id}` switches it on"
            )),
            Step::Change { before, after, new } => {
                changes += 1;
                let before = match before {
                    Some(version) => format!("version {version} → "),
                    None if after == 1 && new => "new, ".to_owned(),
                    None => "off → ".to_owned(),
                };
                let again = if new { "" } else { ", which was there before" };
                put(format!("{id}: {before}version {after}{again}\n{}", p.shown.trim_end_matches('\n')));
            }
        }
    }
    let would = if dry_run { "would change" } else { "changed" };
    put(format!("{changes} of {} {would}", planned.len()));
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read::Active;
    use super::*;

    fn in_file(spec: &serde_json::Value) -> FileRule {
        let text = json!({"id": "a", "kind": "filter", "spec": spec}).to_string();
        file::parse("r.json", &text).unwrap().rules.remove(0)
    }

    fn stored(versions: &[(u32, serde_json::Value)], active: Option<Option<u32>>) -> Rule {
        let version = |(version, spec): &(u32, serde_json::Value)| Version {
            id: "a".into(),
            version: *version,
            kind: "filter".into(),
            spec: spec.clone(),
            priority: 0,
            author: String::new(),
            note: String::new(),
            effective_at: None,
            created_at: String::new(),
        };
        let active = active.map(|version| Active {
            version,
            author: String::new(),
            note: String::new(),
            changed_at: String::new(),
        });
        Rule { id: "a".into(), versions: versions.iter().map(version).collect(), active }
    }

    #[test]
    fn only_what_changed_gets_a_version() {
        let (one, two) = (json!({"drop": "true", "x": 1}), json!({"drop": "false"}));
        let both = [(1, one.clone()), (2, two.clone())];
        let change = |before, after, new| Step::Change { before, after, new };
        assert_eq!(plan(&in_file(&one), None), change(None, 1, true));
        assert_eq!(plan(&in_file(&one), Some(&stored(&both, Some(Some(1))))), Step::Same(1));
        assert_eq!(plan(&in_file(&one), Some(&stored(&both, Some(Some(2))))), change(Some(2), 1, false));
        assert_eq!(plan(&in_file(&json!({})), Some(&stored(&both, Some(Some(1))))), change(Some(1), 3, true));
        // Switched off: the same again leaves it so, anything else switches it on.
        assert_eq!(plan(&in_file(&two), Some(&stored(&both, Some(None)))), Step::Off(2));
        assert_eq!(plan(&in_file(&json!({})), Some(&stored(&both, Some(None)))), change(None, 3, true));
        // Stored and never made active.
        assert_eq!(plan(&in_file(&two), Some(&stored(&both, None))), change(None, 2, false));
    }

    #[test]
    fn what_changes_is_shown() {
        let stored = stored(&[(1, json!({"drop": "true"}))], Some(Some(1)));
        let rule = in_file(&json!({"drop": "false"}));
        let step = plan(&rule, Some(&stored));
        let planned = Planned { id: "a".into(), shown: difference(&rule, Some(&stored), &step), step };
        let text = shown(&[planned], true);
        assert!(text.starts_with("a: version 1 → version 2\n"), "{text}");
        assert!(text.contains("  -   \"drop\": \"true\"\n  +   \"drop\": \"false\"\n"), "{text}");
        assert!(text.ends_with("1 of 1 would change\n"), "{text}");
    }
}
