//! Rules as text and as JSON.
//!
//! Comes in: what was read. Goes out: text for people, JSON for programs. Pure. Times are UTC.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::diff;
use super::read::{Event, Listed, Report, Rule, Version, What};

/// A note is cut to this many characters in a table; `show` has all of it.
const NOTE_CHARS: usize = 60;

/// The list as a table.
pub(super) fn list(rules: &[Listed]) -> String {
    if rules.is_empty() {
        return "no rules".to_owned();
    }
    let head = ["ID", "KIND", "ACTIVE", "NEWEST", "PRIORITY", "STATE", "AUTHOR", "NOTE"].map(str::to_owned);
    let line = |r: &Listed| {
        [
            r.id.clone(),
            r.kind.clone(),
            r.active.map_or_else(|| "off".to_owned(), |v| v.to_string()),
            r.newest.to_string(),
            r.priority.to_string(),
            state(r.active, &r.reports),
            r.author.clone(),
            cut(&r.note),
        ]
    };
    table(&std::iter::once(head).chain(rules.iter().map(line)).collect::<Vec<_>>())
}

/// What the processes say, in few words.
fn state(active: Option<u32>, reports: &[Report]) -> String {
    if active.is_none() {
        return "off".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for report in reports {
        *counts.entry(&report.state).or_default() += 1;
    }
    if counts.is_empty() {
        return "unheard".to_owned();
    }
    counts.iter().map(|(state, n)| format!("{state} ×{n}")).collect::<Vec<_>>().join(", ")
}

fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= NOTE_CHARS && line.len() == text.len() {
        return line.to_owned();
    }
    line.chars().take(NOTE_CHARS - 1).chain(['…']).collect()
}

fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
            .expect("a String takes everything");
    }
    out
}

/// The list as JSON.
pub(super) fn list_json(rules: &[Listed]) -> String {
    let one = |r: &Listed| {
        json!({
            "id": r.id, "kind": r.kind, "active": r.active, "newest": r.newest, "priority": r.priority,
            "author": r.author, "note": r.note, "processes": reports_json(&r.reports),
        })
    };
    format!("{:#}", Value::Array(rules.iter().map(one).collect()))
}

fn reports_json(reports: &[Report]) -> Vec<Value> {
    let one = |r: &Report| json!({"slot": r.slot, "version": r.version, "state": r.state, "reason": r.reason, "since": r.since});
    reports.iter().map(one).collect()
}

/// One version of a rule, whole.
pub(super) fn version(rule: &Rule, v: &Version, reports: &[Report]) -> String {
    let mut out = String::new();
    let mut put = |line: String| writeln!(out, "{line}").expect("a String takes everything");
    let active = match rule.active_version() {
        Some(active) if active == v.version => "active".to_owned(),
        Some(active) => format!("version {active} is active"),
        None => "off".to_owned(),
    };
    put(format!("{}: version {} of {}, {active}", rule.id, v.version, rule.newest()));
    put(format!("made: {} UTC by {}{}", v.created_at, v.author, noted(&v.note)));
    if let Some(active) = &rule.active {
        put(format!("changed: {} UTC by {}{}", active.changed_at, active.author, noted(&active.note)));
    }
    put(diff::content(&v.kind, v.priority, v.effective_at.as_deref(), &v.spec));
    for r in reports {
        let why = if r.reason.is_empty() { String::new() } else { format!(": {}", r.reason) };
        put(format!("{}: version {} {} since {} UTC{why}", r.slot, r.version, r.state, r.since));
    }
    out
}

fn noted(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(": {note}") }
}

/// The same as JSON.
pub(super) fn version_json(rule: &Rule, v: &Version, reports: &[Report]) -> String {
    let shown = json!({
        "id": v.id, "version": v.version, "kind": v.kind, "priority": v.priority, "spec": v.spec,
        "effective_at": v.effective_at, "author": v.author, "note": v.note, "created_at": v.created_at,
        "active": rule.active_version(), "newest": rule.newest(), "processes": reports_json(reports),
        "versions": rule.versions.iter().map(|v| v.version).collect::<Vec<_>>(),
    });
    format!("{shown:#}")
}

/// What happened, as a table.
pub(super) fn history(events: &[Event]) -> String {
    if events.is_empty() {
        return "nothing yet".to_owned();
    }
    let head = ["AT (UTC)", "ID", "WHAT", "AUTHOR", "NOTE"].map(str::to_owned);
    let line = |e: &Event| [e.at.clone(), e.id.clone(), what(&e.what), e.author.clone(), cut(&e.note)];
    table(&std::iter::once(head).chain(events.iter().map(line)).collect::<Vec<_>>())
}

fn what(what: &What) -> String {
    let shown = |version: &Option<u32>| version.map_or_else(|| "off".to_owned(), |v| v.to_string());
    match what {
        What::Made(version) => format!("version {version} made"),
        What::Changed { action, before, after } => format!("{action}: {} → {}", shown(before), shown(after)),
    }
}

/// The same as JSON.
pub(super) fn history_json(events: &[Event]) -> String {
    let one = |e: &Event| {
        let common = json!({"at": e.at, "id": e.id, "author": e.author, "note": e.note});
        let mut object = common.as_object().cloned().unwrap_or_default();
        match &e.what {
            What::Made(version) => {
                object.insert("action".to_owned(), "version".into());
                object.insert("version".to_owned(), (*version).into());
            }
            What::Changed { action, before, after } => {
                object.insert("action".to_owned(), action.as_str().into());
                object.insert("before".to_owned(), json!(before));
                object.insert("after".to_owned(), json!(after));
            }
        }
        Value::Object(object)
    };
    format!("{:#}", Value::Array(events.iter().map(one).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(slot: &str, state: &str) -> Report {
        Report {
            id: "a".into(),
            version: 1,
            slot: slot.into(),
            state: state.into(),
            reason: "why".into(),
            since: "2026-11-21 10:00:00.000".into(),
            of_this: true,
        }
    }

    fn listed(id: &str, active: Option<u32>, note: &str, reports: Vec<Report>) -> Listed {
        let (kind, author) = ("filter".to_owned(), "ann".to_owned());
        Listed { id: id.into(), newest: 3, active, kind, priority: -1, author, note: note.into(), reports }
    }

    #[test]
    fn the_list_is_a_table() {
        let reports = vec![report("p", "active"), report("q", "refused"), report("r", "active")];
        let text =
            list(&[listed("a", Some(1), "", reports), listed("long-name", None, &"n".repeat(70), vec![])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "ID         KIND    ACTIVE  NEWEST  PRIORITY  STATE                  AUTHOR  NOTE"
        );
        assert_eq!(lines[1], "a          filter  1       3       -1        active ×2, refused ×1  ann");
        assert!(lines[2].starts_with("long-name  filter  off     3       -1        off  "), "{text}");
        assert!(lines[2].ends_with("nn…"), "{text}");
        assert!(list(&[listed("a", Some(1), "", vec![])]).contains("unheard"));
        assert_eq!(list(&[]), "no rules");
        let json: Value = serde_json::from_str(&list_json(&[listed("a", None, "x", vec![])])).unwrap();
        assert_eq!((&json[0]["active"], &json[0]["note"]), (&Value::Null, &json!("x")));
    }

    #[test]
    fn the_history_names_what_happened() {
        let event = |what| Event {
            at: "2026-11-21 10:00:00.000".into(),
            id: "a".into(),
            what,
            author: "ann".into(),
            note: "two\nlines".into(),
        };
        let changed = What::Changed { action: "disable".into(), before: Some(2), after: None };
        let text = history(&[event(What::Made(2)), event(changed)]);
        assert!(text.contains("a   version 2 made    ann     two…"), "{text}");
        assert!(text.contains("disable: 2 → off"), "{text}");
        let json: Value = serde_json::from_str(&history_json(&[event(What::Made(2))])).unwrap();
        assert_eq!(json[0]["version"], 2);
    }
}
