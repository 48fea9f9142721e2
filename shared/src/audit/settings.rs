//! With which settings a program starts: an entry whenever they differ from those before.
//!
//! Comes in: the settings as [`crate::config::shown`] gives them, without secrets. Goes out: an entry `settings`; `after` is all
//! of them, by their full names, `before` has what changed, as it was. On failure: it is logged, and the program starts.

use serde_json::{Map, Value, json};
use toml::Table;

use super::{Audit, Entry};
use crate::record::hex;

const ACTION: &str = "settings";
/// Longest value that stands in an entry as it is.
const VALUE_BYTES_MAX: usize = 4096;

/// Writes the entry, if there is something to say.
pub fn record(audit: &Audit, file: &str, shown: &str) {
    let mut now = Map::new();
    match shown.parse::<Table>() {
        Ok(table) => flatten("", &table, &mut now),
        Err(error) => return tracing::warn!("audit: the settings: {error}"),
    }
    let before = match audit.last_of(ACTION) {
        Some(Value::Object(before)) => before,
        _ => Map::new(),
    };
    if before == now {
        return;
    }
    let changed = changed(&before, &now);
    let entry = Entry {
        action: ACTION,
        subject: file,
        before: if before.is_empty() { Value::Null } else { Value::Object(changed) },
        after: Value::Object(now),
        result: "in force since this start",
        ..Entry::default()
    };
    // It is in the log and a metric; data must flow.
    let _logged = audit.record(&entry);
}

/// What was, of all that is other now; null: it was not there.
fn changed(before: &Map<String, Value>, now: &Map<String, Value>) -> Map<String, Value> {
    let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
    let differing = names.filter(|name| before.get(*name) != now.get(*name));
    differing.map(|name| (name.clone(), before.get(name).cloned().unwrap_or(Value::Null))).collect()
}

/// A long value is told by its hash: an entry has a limit, and what was cut could not be compared.
fn told(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= VALUE_BYTES_MAX {
        return value;
    }
    json!(format!("{} bytes, SHA-256 {}", text.len(), hex(&openssl::sha::sha256(text.as_bytes()))))
}

fn flatten(path: &str, table: &Table, into: &mut Map<String, Value>) {
    for (key, value) in table {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&name, table, into),
            toml::Value::Array(list) if list.first().is_some_and(toml::Value::is_table) => {
                for (at, item) in list.iter().enumerate() {
                    if let toml::Value::Table(item) = item {
                        flatten(&format!("{name}[{at}]"), item, into);
                    }
                }
            }
            other => drop(into.insert(name, told(json!(other)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_told_once_too() {
        let folder = std::env::temp_dir().join(format!("weir-settings-long-{}", std::process::id()));
        let topics = |n: u32| {
            format!("[mqtt]\ntopics = {:?}\n", (0..n).map(|n| format!("hall/{n}")).collect::<Vec<_>>())
        };
        for n in [9_000, 9_000, 9_001] {
            record(&Audit::new(Some(folder.clone()), "x"), "x.toml", &topics(n));
        }
        let text = std::fs::read_to_string(folder.join("x.audit.jsonl")).unwrap();
        assert!(text.lines().count() == 2 && text.len() < 2_000, "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_change_is_told_once_with_what_was_before() {
        let folder = std::env::temp_dir().join(format!("weir-settings-{}", std::process::id()));
        let audit = Audit::new(Some(folder.clone()), "x");
        let first = "name = 'a'\n[kafka]\nbrokers = 'k:1'\n[[file]]\npath = '/a'\n";
        record(&audit, "x.toml", first);
        record(&audit, "x.toml", first);
        record(&audit, "x.toml", "name = 'a'\n[kafka]\nbrokers = 'k:2'\n[mqtt]\nport = 1\n");
        drop(audit);
        let text = std::fs::read_to_string(folder.join("x.audit.jsonl")).unwrap();
        let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries.len(), 2, "{text}");
        assert_eq!(entries[0]["before"], Value::Null);
        assert_eq!(entries[0]["after"], json!({"name": "a", "kafka.brokers": "k:1", "file[0].path": "/a"}));
        assert_eq!(
            entries[1]["before"],
            json!({"kafka.brokers": "k:1", "file[0].path": "/a", "mqtt.port": null})
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
