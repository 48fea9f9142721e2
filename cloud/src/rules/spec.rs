//! What stands in a row of the rule table: JSON, one object per rule.
//!
//! Comes in: a row. Goes out: a compiled [`Rule`], or everything that is wrong with it, each with the member, the column
//! of an expression, the nearest right word or the way out. Unknown members and members that stand there twice are
//! refused. Pure. Expressions are CEL ([`weir_shared::expr`]) over `device`, `time`, `received`, `values`, `tags` and
//! `dims.<dimension>.<column>`; a record that lacks what an expression looks at does not match.
//!
//! All kinds: `"when"`: the rule looks only at records for which this is true.
//! - `filter`: `{"drop":"values.t < -40.0"}`: records for which it is true go nowhere.
//! - `derive`: `{"set":{"t_f":"values.t * 1.8 + 32"}}`: new values; all of them, or none if one cannot be had. They see
//!   what earlier rules derived.
//! - `threshold`: `{"value":"values.t","above":80,"clear_below":75,"for_ms":60000,"clear_for_ms":0,"severity":"high",
//!   "key":"device","repeat_every_ms":0,"quiet_ms":0,"message":"{value} at {device}"}`, or `"below"` with
//!   `"clear_above"`; see [`threshold`](super::threshold). `severity`: `high`, `medium` (default), `low`. `key`: `device`
//!   (default), `tags.x`, `dims.d.c`. In `message`: `{value}`, `{limit}`, `{key}`, `{rule}`, `{device}`, `{values.x}`,
//!   `{tags.x}`, `{dims.d.c}`.
//! - `route`: `{"stores":["mysql","clickhouse"],"topics":["weir.site-graz"],"enriched":true}`: the first route whose
//!   `when` is true; without one: `weir.enriched`, all stores.
//! - `mask`: `{"fields":["values.name","tags.user","dims.devices.owner","device"],"method":"hash"}`; `hash` (HMAC-SHA256,
//!   the first 16 bytes in hex), `drop`, `keep_last` with `"keep":4` (only the last characters). When `when` cannot be
//!   evaluated, the mask applies. What `derive` computes of a masked field is masked with it. A mask that is in force stays
//!   when something it refers to is gone: without the columns of its `when` it applies always, without the secret of hashes
//!   nothing of a field is shown.

use std::sync::Arc;

use weir_shared::expr::{Expression, Field, Names, Program, Scope, Wanted, nearest};
use weir_shared::record::NAME_BYTES_MAX;

use super::alert::Template;
use super::json::{Json, Members};
use super::mask::{self, Mask, Method};
use super::threshold::{Limits, Severity, Threshold};
use super::{Action, ID_BYTES_MAX, Kind, Route, Rule, RuleRow, Schema};

/// Longest spec, in bytes.
pub(super) const SPEC_BYTES_MAX: usize = 16 * 1024;
/// Most values that one rule derives, and most fields that one masks.
const FIELDS_MAX: usize = 64;
/// Longest time of a threshold: a year, in ms.
const TIME_MS_MAX: i64 = 366 * 86_400_000;
/// Most characters that a mask may keep.
const KEEP_MAX: i64 = 16;
/// What a route may name.
const STORES: [&str; 3] = ["mysql", "elasticsearch", "clickhouse"];

/// Compiles a row.
pub(super) fn rule(row: &RuleRow, schema: &Schema, scope: &Scope, names: &mut Names) -> Result<Rule, String> {
    if row.id.is_empty() || row.id.len() > ID_BYTES_MAX {
        return Err(format!("id: has {} bytes; 1 to {ID_BYTES_MAX} are allowed", row.id.len()));
    }
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == row.kind) else {
        let hint = nearest(&row.kind, Kind::ALL.iter().map(|kind| kind.name()));
        return Err(format!("kind: {:?} is not known; {hint}", row.kind));
    };
    if row.spec.len() > SPEC_BYTES_MAX {
        return Err(format!("spec: {} bytes, at most {SPEC_BYTES_MAX} are taken", row.spec.len()));
    }
    let stands = row.stands && kind == Kind::Mask;
    let mut reader = Reader { spec: Members::read(&row.spec)?, scope, schema, names, stands };
    let when = reader.optional("when");
    let action = match kind {
        Kind::Derive => reader.derive(),
        Kind::Filter => reader.filter(),
        Kind::Threshold => reader.threshold(),
        Kind::Route => reader.route(),
        Kind::Mask => reader.mask(),
    };
    reader.spec.end()?;
    // Whatever is missing was told of as a problem.
    let action = action.ok_or("spec: is not whole")?;
    Ok(Rule { index: 0, id: row.id.as_str().into(), version: row.version, kind, when, action })
}

struct Reader<'a> {
    spec: Members,
    scope: &'a Scope,
    schema: &'a Schema,
    names: &'a mut Names,
    /// A mask that was in force: what cannot be had any more hides more, not less.
    stands: bool,
}

impl Reader<'_> {
    fn program(&mut self, place: &str, text: &Json, wanted: Wanted) -> Option<Program> {
        let Json::Text(text) = text else {
            self.spec.problem(place, "an expression in quotes is wanted");
            return None;
        };
        match Expression::compile_in(text, self.scope, wanted) {
            Ok(expression) => Some(Program::new(expression, self.names)),
            Err(problem) => {
                self.spec.problem(place, problem);
                None
            }
        }
    }

    fn optional(&mut self, name: &'static str) -> Option<Program> {
        let text = self.spec.take(name)?;
        match &text {
            // Then it applies always.
            Json::Text(text) if self.stands => {
                let expression = Expression::compile_in(text, self.scope, Wanted::Bool).ok()?;
                Some(Program::new(expression, self.names))
            }
            _ => self.program(name, &text, Wanted::Bool),
        }
    }

    fn filter(&mut self) -> Option<Action> {
        let text = self.spec.required("drop", "\"drop\":\"values.t < -40.0\"")?;
        self.program("drop", &text, Wanted::Bool).map(Action::Filter)
    }

    fn derive(&mut self) -> Option<Action> {
        let Json::Object(members) = self.spec.required("set", "\"set\":{\"t_f\":\"values.t * 1.8 + 32\"}")?
        else {
            self.spec.problem("set", "an object of names and expressions is wanted");
            return None;
        };
        if members.is_empty() || members.len() > FIELDS_MAX {
            self.spec.problem("set", format_args!("{} values; 1 to {FIELDS_MAX} are allowed", members.len()));
        }
        let mut set = Vec::new();
        for (name, text) in &members {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
                let what = format!("the name {name:?} has not 1 to {NAME_BYTES_MAX} bytes, or a NUL");
                self.spec.problem("set", what);
            }
            if let Some(program) = self.program(&format!("set.{name}"), text, Wanted::Scalar)
                && let Some(number) = self.names.number(&Field::Value(name.clone()))
            {
                set.push((Arc::from(name.as_str()), number, program));
            }
        }
        Some(Action::Derive(set))
    }

    fn threshold(&mut self) -> Option<Action> {
        let text = self.spec.required("value", "\"value\":\"values.t\"");
        let value = text.and_then(|text| self.program("value", &text, Wanted::Number));
        let (above, below) = (self.spec.number("above"), self.spec.number("below"));
        let (clear_below, clear_above) = (self.spec.number("clear_below"), self.spec.number("clear_above"));
        let limits = match (above, below) {
            (Some(limit), None) => {
                if clear_above.is_some() {
                    self.spec.problem("clear_above", "goes with below; with above goes clear_below");
                }
                if clear_below.is_some_and(|clear| clear > limit) {
                    self.spec.problem("clear_below", "is more than above: it would recover at once");
                }
                Some((true, limit, clear_below))
            }
            (None, Some(limit)) => {
                if clear_below.is_some() {
                    self.spec.problem("clear_below", "goes with above; with below goes clear_above");
                }
                if clear_above.is_some_and(|clear| clear < limit) {
                    self.spec.problem("clear_above", "is less than below: it would recover at once");
                }
                Some((false, limit, clear_above))
            }
            _ => {
                self.spec.problem("above", "one of above and below is wanted");
                None
            }
        };
        let [for_ms, clear_for_ms, repeat_every_ms, quiet_ms] =
            ["for_ms", "clear_for_ms", "repeat_every_ms", "quiet_ms"]
                .map(|name| self.spec.integer(name, 0, TIME_MS_MAX).unwrap_or(0));
        let severity = self.severity();
        let key = self.key();
        let message = self.spec.text("message").unwrap_or_else(|| "{rule}: {value} at {key}".to_owned());
        let message = match Template::parse(&message, |path| self.field(path)) {
            Ok(message) => Some(message),
            Err(problem) => {
                self.spec.problem("message", problem);
                None
            }
        };
        let (above, limit, clear) = limits?;
        let limits = Limits { above, limit, clear, for_ms, clear_for_ms, repeat_every_ms, quiet_ms };
        let (key, key_number) = key?;
        Some(Action::Threshold(Box::new(Threshold {
            value: value?,
            limits,
            severity: severity?,
            key,
            key_number,
            message: message?,
        })))
    }

    fn severity(&mut self) -> Option<Severity> {
        let Some(word) = self.spec.text("severity") else { return Some(Severity::Medium) };
        let found = Severity::ALL.into_iter().find(|severity| severity.name() == word);
        if found.is_none() {
            let hint = nearest(&word, Severity::ALL.iter().map(|severity| severity.name()));
            self.spec.problem("severity", format_args!("{word:?} is not known; {hint}"));
        }
        found
    }

    fn key(&mut self) -> Option<(Field, Option<u32>)> {
        let text = self.spec.text("key").unwrap_or_else(|| "device".to_owned());
        match self.field(&text) {
            Ok(Field::Value(_)) => {
                self.spec.problem("key", "a value is no key; device, tags.x and dims.d.c are");
                None
            }
            Ok(field) => {
                let number = self.names.number(&field);
                Some((field, number))
            }
            Err(problem) => {
                self.spec.problem("key", problem);
                None
            }
        }
    }

    /// A field by its name, `tags.x`; names may hold points.
    fn field(&mut self, text: &str) -> Result<Field, String> {
        let named = |name: &str| if name.is_empty() { None } else { Some(name.to_owned()) };
        let field = match text.split_once('.') {
            None if text == "device" => Some(Field::Device),
            Some(("values", name)) => named(name).map(Field::Value),
            Some(("tags", name)) => named(name).map(Field::Tag),
            Some(("dims", name)) => {
                let (dimension, column) = name.split_once('.').unwrap_or((name, ""));
                let dims = &self.scope.dims;
                let Some((_, columns)) = dims.iter().find(|(known, _)| known == dimension) else {
                    let hint = nearest(dimension, dims.iter().map(|(name, _)| name.as_str()));
                    return Err(format!("{text:?}: there is no dimension {dimension:?}; {hint}"));
                };
                if !columns.iter().any(|known| known == column) {
                    let hint = nearest(column, columns.iter().map(String::as_str));
                    return Err(format!("{text:?}: {dimension:?} has no column {column:?}; {hint}"));
                }
                Some(Field::Column(dimension.to_owned(), column.to_owned()))
            }
            _ => None,
        };
        field.ok_or_else(|| format!("{text:?} is no field; write device, values.x, tags.x or dims.d.c"))
    }

    fn route(&mut self) -> Option<Action> {
        let enriched = self.spec.boolean("enriched").unwrap_or(true);
        let mut stores = None;
        if let Some(list) = self.spec.texts("stores") {
            let mut known = Vec::new();
            for word in list {
                match STORES.into_iter().find(|store| *store == word) {
                    Some(store) => known.push(store),
                    None => {
                        let hint = nearest(&word, STORES.into_iter());
                        self.spec.problem("stores", format_args!("{word:?} is no store; {hint}"));
                    }
                }
            }
            if !enriched {
                let what = "stores read weir.enriched, which \"enriched\":false leaves out; leave out one of the two";
                self.spec.problem("stores", what);
            }
            stores = Some(known);
        }
        let topics = self.spec.texts("topics").unwrap_or_default();
        for topic in &topics {
            if !self.schema.topics.contains(topic) {
                let hint = nearest(topic, self.schema.topics.iter().map(String::as_str));
                self.spec.problem("topics", format_args!("{topic:?} is not configured; {hint}"));
            }
        }
        if !enriched && topics.is_empty() {
            self.spec.problem("enriched", "the records would go nowhere; write a filter for that");
        }
        Some(Action::Route(Route { stores, topics, enriched }))
    }

    fn mask(&mut self) -> Option<Action> {
        let list = self.spec.texts("fields").unwrap_or_default();
        if list.is_empty() || list.len() > FIELDS_MAX {
            let what =
                format!("{} of them; 1 to {FIELDS_MAX} are wanted, for example \"tags.user\"", list.len());
            self.spec.problem("fields", what);
        }
        let mut fields = Vec::new();
        for text in &list {
            match self.field(text) {
                Ok(field) => fields.push(field),
                // What is not there any more needs no hiding.
                Err(_) if self.stands => {}
                Err(problem) => self.spec.problem("fields", problem),
            }
        }
        let keep = self.spec.integer("keep", 1, KEEP_MAX);
        let word = self.spec.text("method").unwrap_or_default();
        if keep.is_some() && word != "keep_last" {
            self.spec.problem("keep", "goes with \"method\":\"keep_last\"");
        }
        let method = match word.as_str() {
            "drop" => {
                if fields.contains(&Field::Device) {
                    let what = "a record needs its device; hash it";
                    self.spec.problem("method", what);
                }
                Some(Method::Drop)
            }
            "keep_last" => {
                if keep.is_none() {
                    let what = format!("is missing; write how many characters are left, 1 to {KEEP_MAX}");
                    self.spec.problem("keep", what);
                }
                keep.and_then(|keep| usize::try_from(keep).ok()).map(Method::KeepLast)
            }
            "hash" if self.stands && self.schema.hash_key.is_none() => Some(Method::KeepLast(0)),
            "hash" => mask::hash(self.schema.hash_key.as_deref())
                .map_err(|problem| self.spec.problem("method", problem))
                .ok(),
            word => {
                let hint = nearest(word, ["hash", "drop", "keep_last"].into_iter());
                self.spec.problem("method", format_args!("{word:?} is not known; {hint}"));
                None
            }
        };
        Some(Action::Mask(Mask { fields, method: method? }))
    }
}
