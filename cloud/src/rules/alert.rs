//! The JSON of alerts (`weir.alerts`), and the texts of their messages.
//!
//! Comes in: an alert, the record that raised it, its masks. Goes out: JSON in the layout of `weir_shared::wire`.
//! Guarantees: pure; what is masked is masked in every member: `device`, `key`, `value`, `message`, `values`, `tags`,
//! `dims`. An alert's identity is (rule, rule_version, key, episode, kind, repeat). What the rule's expression computes
//! of a masked field is masked too; a masked `value` is null, since it is a number, a dropped `key` is empty.
//! On failure: a template with a wrong place is refused when it is compiled; [`Malformed`] as for bodies.

use weir_shared::expr::{Derived, Field, Record};
use weir_shared::reading::{Reading, Value};
use weir_shared::record::Identity;

use super::body::{Malformed, write_dims, write_text, write_value};
use super::mask::{Masks, Method, text_of};
use super::threshold::Threshold;
use super::{Action, Alert, AlertKind, Rule, RuleSet, Verdict};

/// Longest message that is written, in bytes.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// What an alert's reading carries besides itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AlertContext<'a> {
    pub(crate) identity: Identity,
    pub(crate) edge: &'a str,
    /// Number of the rule set.
    pub(crate) rules: u64,
    /// JSON object: dimension → version.
    pub(crate) versions: &'a [u8],
    /// JSON object: dimension → row.
    pub(crate) dims: &'a [u8],
}

/// A message with places.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value,
    Limit,
    Key,
    Rule,
    Field(Field),
}

impl Template {
    /// Reads a message; `field` knows the names of fields.
    pub(super) fn parse(
        text: &str,
        mut field: impl FnMut(&str) -> Result<Field, String>,
    ) -> Result<Self, String> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(format!("{} bytes, at most {MESSAGE_BYTES_MAX} are taken", text.len()));
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((place, behind)) = behind.split_once('}') else {
                let column = text.chars().count() - rest.chars().count() + before.chars().count() + 1;
                return Err(format!("column {column}: {{ without }}"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(match place {
                "value" => Part::Value,
                "limit" => Part::Limit,
                "key" => Part::Key,
                "rule" => Part::Rule,
                place => Part::Field(
                    field(place)
                        .map_err(|why| format!("{why}, or {{value}}, {{limit}}, {{key}}, {{rule}}"))?,
                ),
            });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

/// Writes an alert. `out` is overwritten.
pub(crate) fn write_alert(
    out: &mut Vec<u8>,
    set: &RuleSet,
    verdict: &Verdict,
    alert: &Alert,
    reading: &Reading<'_>,
    context: &AlertContext<'_>,
) -> Result<(), Malformed> {
    out.clear();
    let Some((rule, threshold)) = set.rules().get(alert.rule).and_then(|rule| match &rule.action {
        Action::Threshold(threshold) => Some((rule, threshold)),
        _ => None,
    }) else {
        return Err(Malformed);
    };
    let masks = set.masks(verdict);
    let mut dims = Vec::new();
    write_dims(&mut dims, context.dims, masks)?;
    let view = View { rule, threshold, alert, reading, derived: &verdict.derived, dims: &dims, masks };
    out.extend_from_slice(b"{\"weir\":{\"stream\":\"");
    out.extend_from_slice(&context.identity.stream.to_hex());
    number(out, "\",\"partition\":", context.identity.partition);
    number(out, ",\"number\":", context.identity.number);
    text(out, ",\"edge\":", context.edge);
    number(out, ",\"rules\":", context.rules);
    out.extend_from_slice(b",\"versions\":");
    out.extend_from_slice(context.versions);
    text(out, "},\"rule\":", &rule.id);
    number(out, ",\"rule_version\":", rule.version);
    let (kind, repeat) = match alert.kind {
        AlertKind::First => ("first", 0),
        AlertKind::Repeat(n) => ("repeat", n),
        AlertKind::Recovered => ("recovered", 0),
    };
    text(out, ",\"kind\":", kind);
    text(out, ",\"severity\":", alert.severity.name());
    text(out, ",\"key\":", &view.key());
    text(out, ",\"device\":", &view.device());
    out.extend_from_slice(b",\"episode\":{\"stream\":\"");
    out.extend_from_slice(&alert.episode.stream.to_hex());
    number(out, "\",\"partition\":", alert.episode.partition);
    number(out, ",\"number\":", alert.episode.number);
    number(out, "},\"since\":", alert.since);
    number(out, ",\"time\":", reading.time);
    number(out, ",\"repeat\":", repeat);
    out.extend_from_slice(b",\"value\":");
    match view.value() {
        None => write_value(out, &Value::Float(alert.value)),
        // The stores keep a number there; the message shows the masked text.
        Some(_) => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"limit\":");
    write_value(out, &Value::Float(threshold.limits.limit));
    text(out, ",\"message\":", &view.message());
    view.members(out);
    out.extend_from_slice(b",\"dims\":");
    out.extend_from_slice(&dims);
    number(out, ",\"received\":", reading.received);
    out.push(b'}');
    Ok(())
}

impl RuleSet {
    /// The key of an alert as it leaves: the key of its record.
    pub(crate) fn alert_key(&self, verdict: &Verdict, alert: &Alert) -> String {
        let masks = self.masks(verdict);
        match self.rules().get(alert.rule).map(|rule| &rule.action) {
            Some(Action::Threshold(threshold)) => masked_key(threshold, alert, masks),
            _ => String::new(),
        }
    }
}

fn masked_key(threshold: &Threshold, alert: &Alert, masks: Masks<'_>) -> String {
    match masks.find(&threshold.key) {
        Some(method) => method.apply(&alert.key).unwrap_or_default(),
        None => alert.key.clone(),
    }
}

fn text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    write_text(out, text);
}

fn number(out: &mut Vec<u8>, before: &str, n: impl itoa::Integer) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// What of a record may be shown in an alert.
struct View<'a> {
    rule: &'a Rule,
    threshold: &'a Threshold,
    alert: &'a Alert,
    reading: &'a Reading<'a>,
    derived: &'a [Derived],
    /// Masked already.
    dims: &'a [u8],
    masks: Masks<'a>,
}

impl View<'_> {
    fn key(&self) -> String {
        masked_key(self.threshold, self.alert, self.masks)
    }

    fn device(&self) -> String {
        self.masks.device(&self.reading.device).unwrap_or_else(|| self.reading.device.to_string())
    }

    /// `Some` if it is masked.
    fn value(&self) -> Option<Option<String>> {
        let method = self.masks.result(&self.threshold.value)?;
        Some(method.apply(&self.alert.value.to_string()))
    }

    fn message(&self) -> String {
        let mut out = String::new();
        for part in &self.threshold.message.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value => match self.value() {
                    None => out.push_str(&self.alert.value.to_string()),
                    Some(masked) => out.push_str(&masked.unwrap_or_default()),
                },
                Part::Limit => out.push_str(&self.threshold.limits.limit.to_string()),
                Part::Key => out.push_str(&self.key()),
                Part::Rule => out.push_str(&self.rule.id),
                Part::Field(field) => out.push_str(&self.field(field).unwrap_or_default()),
            }
        }
        out.truncate(out.floor_char_boundary(MESSAGE_BYTES_MAX));
        out
    }

    fn field(&self, field: &Field) -> Option<String> {
        let (plain, method) = match field {
            Field::Device => return Some(self.device()),
            Field::Value(name) => {
                let record = Record { derived: self.derived, ..Record::of(self.reading) };
                (record.value(name).map(text_of)?, self.masks.value(name))
            }
            Field::Tag(name) => (self.reading.tag(name)?.to_owned(), self.masks.tag(name)),
            Field::Column(dimension, column) => {
                let dims: serde_json::Value = serde_json::from_slice(self.dims).ok()?;
                return match dims.get(dimension)?.get(column)? {
                    serde_json::Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
            }
            Field::AnyValue | Field::AnyTag => return None,
        };
        method.map_or(Some(plain.clone()), |method| method.apply(&plain))
    }

    /// Writes `values` and `tags`.
    fn members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"values\":{");
        let mut first = true;
        let fresh = |name: &str| self.derived.iter().find(|(known, _)| **known == *name).map(|(_, v)| v);
        for (name, value) in &self.reading.values {
            let value = fresh(name).unwrap_or(value);
            member(out, &mut first, name, value, self.masks.value(name));
        }
        for (name, value) in self.derived.iter().filter(|(name, _)| self.reading.value(name).is_none()) {
            member(out, &mut first, name, value, self.masks.value(name));
        }
        out.extend_from_slice(b"},\"tags\":{");
        first = true;
        for (name, tag) in &self.reading.tags {
            let value = Value::Text(std::borrow::Cow::Borrowed(&**tag));
            member(out, &mut first, name, &value, self.masks.tag(name));
        }
        out.push(b'}');
    }
}

fn member(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value<'_>, method: Option<&Method>) {
    let masked = match method {
        None => None,
        Some(method) => match method.apply(&text_of(value)) {
            Some(masked) => Some(masked),
            None => return,
        },
    };
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    write_text(out, name);
    out.push(b':');
    match masked {
        Some(masked) => write_text(out, &masked),
        None => write_value(out, value),
    }
}
