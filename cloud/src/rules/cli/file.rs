//! Reading a file of rules.
//!
//! Comes in: the text of a TOML file (`[[rule]]` tables) or of a JSON file (one rule, a list of them, or
//! `{"rule": […]}`). Goes out: the rules, or every problem with its place: line and column in TOML, the member in JSON.
//! Guarantees: pure. A number of TOML keeps its kind; a time becomes text. On failure: all problems at once, beside the
//! rules that have none; a file that does not parse, or says a thing twice, gives that alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::rules::json::Json;

/// Longest name of a rule, as the table has it.
const ID_BYTES_MAX: usize = 64;
/// Longest `spec`, in bytes of JSON.
const SPEC_BYTES_MAX: usize = 65_536;
/// Longest note, in characters, as the table has it.
const NOTE_CHARS_MAX: usize = 1000;
/// Most rules of a file.
const RULES_MAX: usize = 10_000;
const MEMBERS: [&str; 6] = ["id", "kind", "priority", "effective_at", "note", "spec"];

/// A rule of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileRule {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) priority: i32,
    /// UTC, as the table has it.
    pub(super) effective_at: Option<String>,
    pub(super) note: Option<String>,
    pub(super) spec: Value,
    /// Where it stands.
    path: String,
}

/// All rules of a file.
#[derive(Clone, Debug)]
pub(super) struct RulesFile {
    pub(super) rules: Vec<FileRule>,
    /// What is wrong with the others, and with the file.
    pub(super) problems: Vec<String>,
    places: Places,
}

/// Where what stands, by its path.
#[derive(Clone, Debug, Default)]
struct Places {
    file: String,
    by_path: BTreeMap<String, (usize, usize)>,
}

impl Places {
    /// The problem with its place; where the path has none, that of what it is in.
    fn problem(&self, path: &str, message: &str) -> String {
        let mut at = path;
        loop {
            if let Some((line, column)) = self.by_path.get(at) {
                return format!("{}:{line}:{column}: {path}: {message}", self.file);
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None if path.is_empty() => return format!("{}: {message}", self.file),
                None => return format!("{}: {path}: {message}", self.file),
            }
        }
    }
}

impl RulesFile {
    /// What the compiler says of a rule, with the place of the member that it names first.
    pub(super) fn refused(&self, rule: &FileRule, reason: &str) -> String {
        let member = reason.split(':').next().unwrap_or_default();
        let known = !member.is_empty() && rule.spec.get(member).is_some();
        let path = if known { format!("{}.spec.{member}", rule.path) } else { format!("{}.spec", rule.path) };
        self.places.problem(&path, &format!("{}: {reason}", rule.id))
    }
}

/// Reads a file by the end of its name: `.json`, everything else is TOML.
pub(super) fn parse(name: &str, text: &str) -> Result<RulesFile, Vec<String>> {
    let is_json = std::path::Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let mut places = Places { file: name.to_owned(), by_path: BTreeMap::new() };
    let (root, mut problems) =
        if is_json { (json(&places, text)?, Vec::new()) } else { toml(&mut places, text)? };
    let mut rules = Vec::new();
    for (path, value) in root {
        if let Some(rule) = rule(&places, &path, &value, &mut problems) {
            rules.push(rule);
        }
    }
    let mut ids = BTreeSet::new();
    for rule in &rules {
        if !ids.insert(rule.id.as_str()) {
            let message = format!("{:?} is there twice", rule.id);
            problems.push(places.problem(&format!("{}.id", rule.path), &message));
        }
    }
    if rules.is_empty() && problems.is_empty() {
        problems
            .push(places.problem("", "no rules: a rule is a table [[rule]] with id, kind and [rule.spec]"));
    }
    if rules.len() > RULES_MAX {
        problems.push(places.problem("", &format!("more than {RULES_MAX} rules")));
    }
    Ok(RulesFile { rules, problems, places })
}

type Root = Vec<(String, Value)>;

fn numbered(list: Vec<Value>) -> Root {
    list.into_iter().enumerate().map(|(i, value)| (format!("rule[{i}]"), value)).collect()
}

fn json(places: &Places, text: &str) -> Result<Root, Vec<String>> {
    // Read twice: only the strict form sees what stands there twice.
    let value: Value =
        serde_json::from_str::<Json>(text).and_then(|_| serde_json::from_str(text)).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            vec![format!("{}:{line}:{column}: {e}", places.file)]
        })?;
    match value {
        Value::Array(list) => Ok(numbered(list)),
        Value::Object(mut root) if root.len() == 1 && root.get("rule").is_some_and(Value::is_array) => {
            match root.remove("rule") {
                Some(Value::Array(list)) => Ok(numbered(list)),
                _ => Ok(Vec::new()),
            }
        }
        Value::Object(root) => Ok(vec![("rule".to_owned(), Value::Object(root))]),
        _ => Err(vec![places.problem("", "must be a rule, a list of rules, or {\"rule\": [...]}")]),
    }
}

fn toml(places: &mut Places, text: &str) -> Result<(Root, Vec<String>), Vec<String>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let at = |start: usize| {
        let before = text.get(..start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    };
    if !errors.is_empty() {
        let shown = errors.iter().map(|e| {
            let (line, column) = at(e.span().map_or(0, |s| s.start));
            format!("{}:{line}:{column}: {}", places.file, e.message())
        });
        return Err(shown.collect());
    }
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    let mut convert = Convert { at: &at, places: &mut places.by_path, problems: Vec::new() };
    for (key, value) in root.get_ref() {
        let name: &str = key.get_ref();
        convert.places.insert(name.to_owned(), at(key.span().start));
        match value.get_ref() {
            DeValue::Array(list) if name == "rule" => {
                for (i, value) in list.iter().enumerate() {
                    let path = format!("rule[{i}]");
                    rules.push((path.clone(), convert.value(value, &path)));
                }
            }
            _ => problems.push((name.to_owned(), "unknown here: a file has only [[rule]] tables".to_owned())),
        }
    }
    problems.append(&mut convert.problems);
    let problems = problems.iter().map(|(path, message)| places.problem(path, message)).collect();
    Ok((rules, problems))
}

/// From TOML to JSON, noting where what stands.
struct Convert<'a> {
    at: &'a dyn Fn(usize) -> (usize, usize),
    places: &'a mut BTreeMap<String, (usize, usize)>,
    problems: Vec<(String, String)>,
}

impl Convert<'_> {
    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        self.places.insert(path.to_owned(), (self.at)(value.span().start));
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Integer(n) => {
                let digits = n.as_str().replace('_', "");
                let signed = i64::from_str_radix(&digits, n.radix()).map(Number::from);
                let number = signed.or_else(|_| u64::from_str_radix(&digits, n.radix()).map(Number::from));
                self.number(number.ok(), path)
            }
            DeValue::Float(n) => {
                let number = n.as_str().replace('_', "").parse().ok().and_then(Number::from_f64);
                self.number(number, path)
            }
            DeValue::Array(list) => {
                let items = list.iter().enumerate();
                Value::Array(items.map(|(i, v)| self.value(v, &format!("{path}[{i}]"))).collect())
            }
            DeValue::Table(table) => {
                let mut object = Map::new();
                for (key, value) in table {
                    let name: &str = key.get_ref();
                    let value = self.value(value, &format!("{path}.{name}"));
                    object.insert(name.to_owned(), value);
                }
                Value::Object(object)
            }
        }
    }

    fn number(&mut self, number: Option<Number>, path: &str) -> Value {
        if number.is_none() {
            self.problems.push((path.to_owned(), "must be a finite number of 64 bits".to_owned()));
        }
        number.map_or(Value::Null, Value::Number)
    }
}

/// One rule; `None` when it has problems.
fn rule(places: &Places, path: &str, value: &Value, problems: &mut Vec<String>) -> Option<FileRule> {
    let Some(table) = value.as_object() else {
        problems.push(places.problem(path, "must be a rule: id, kind, priority, effective_at, note, spec"));
        return None;
    };
    let before = problems.len();
    let mut problem = |member: &str, message: &str| {
        problems.push(places.problem(&format!("{path}.{member}"), message));
    };
    for member in table.keys().filter(|member| !MEMBERS.contains(&member.as_str())) {
        problem(member, &format!("unknown; a rule has {}", MEMBERS.join(", ")));
    }
    let text = |member: &str| table.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (id, kind) = (text("id"), text("kind"));
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.chars().all(fits) {
        problem("id", &format!("must be 1 to {ID_BYTES_MAX} letters, digits, dots, underscores and dashes"));
    }
    if kind.is_empty() {
        problem("kind", "must be set: what the rule does");
    }
    let priority = table.get("priority").map_or(Some(0), |p| i32::try_from(p.as_i64()?).ok());
    if priority.is_none() {
        problem("priority", "must be an integer of 32 bits");
    }
    let effective_at = table.get("effective_at").map(|at| at.as_str().and_then(utc));
    if effective_at == Some(None) {
        problem("effective_at", "must be a time with its zone, such as 2026-11-22T06:00:00Z");
    }
    let note = table.get("note").map(|note| note.as_str().map(str::to_owned));
    if note.as_ref().is_some_and(|n| n.as_ref().is_none_or(|n| n.chars().count() > NOTE_CHARS_MAX)) {
        problem("note", &format!("must be a text of at most {NOTE_CHARS_MAX} characters"));
    }
    let spec = table.get("spec").filter(|spec| spec.is_object());
    match spec {
        None => problem("spec", "must be a table: what the rule says"),
        Some(spec) if spec.to_string().len() > SPEC_BYTES_MAX => {
            problem("spec", &format!("must be at most {SPEC_BYTES_MAX} bytes of JSON"));
        }
        Some(_) => {}
    }
    if problems.len() > before {
        return None;
    }
    let (effective_at, note) = (effective_at.flatten(), note.flatten());
    Some(FileRule {
        id,
        kind,
        priority: priority?,
        effective_at,
        note,
        spec: spec?.clone(),
        path: path.to_owned(),
    })
}

/// RFC 3339 → UTC as `DATETIME(3)` shows it.
fn utc(text: &str) -> Option<String> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
}

#[cfg(test)]
mod tests;
