//! The JSON of a spec, strictly: nothing may stand there twice, nothing that is not known.
//!
//! Comes in: a text. Goes out: its members, taken one by one by name. Guarantees: pure; bounded by
//! [`SPEC_BYTES_MAX`](super::spec::SPEC_BYTES_MAX). On failure: everything that is wrong, collected in words.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use weir_shared::expr::nearest;

/// Any JSON value; members in their order.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rules) enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Json, E> {
        Ok(Json::Bool(v))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Json, E> {
        Ok(Json::Number(v.into()))
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Json, E> {
        Ok(Json::Number(v.into()))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(v).map(Json::Number).ok_or_else(|| E::custom("a number is too large"))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Json, E> {
        Ok(Json::Text(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(v) = seq.next_element()? {
            list.push(v);
        }
        Ok(Json::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format_args!("{name:?} is there twice")));
            }
            members.push((name, map.next_value()?));
        }
        Ok(Json::Object(members))
    }
}

/// The members of a spec, and what is wrong with them.
pub(super) struct Members {
    members: Vec<(String, Json)>,
    known: Vec<&'static str>,
    problems: Vec<String>,
}

impl Members {
    /// Reads a text, which must be an object.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(Json::Object(members)) => Ok(Self { members, known: Vec::new(), problems: Vec::new() }),
            Ok(_) => Err("spec: is not a JSON object".to_owned()),
            Err(error) => Err(format!("spec: {error}")),
        }
    }

    /// Something is wrong with a member.
    pub(super) fn problem(&mut self, name: &str, what: impl fmt::Display) {
        self.problems.push(format!("{name}: {what}"));
    }

    /// Takes a member.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Json> {
        self.known.push(name);
        let at = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.remove(at).1)
    }

    /// Takes a member that must be there.
    pub(super) fn required(&mut self, name: &'static str, way: &str) -> Option<Json> {
        let taken = self.take(name);
        if taken.is_none() {
            self.problem(name, format_args!("is missing; write {way}"));
        }
        taken
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Json::Text(text) => Some(text),
            _ => self.wrong(name, "a text is wanted"),
        }
    }

    /// True or false.
    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Json::Bool(v) => Some(v),
            _ => self.wrong(name, "true or false is wanted"),
        }
    }

    /// A number.
    pub(super) fn number(&mut self, name: &'static str) -> Option<f64> {
        match self.take(name)? {
            Json::Number(v) => v.as_f64(),
            _ => self.wrong(name, "a number is wanted"),
        }
    }

    /// A whole number from 0 (or `least`) to `most`.
    pub(super) fn integer(&mut self, name: &'static str, least: i64, most: i64) -> Option<i64> {
        match self.take(name)? {
            Json::Number(v) if v.as_i64().is_some_and(|v| (least..=most).contains(&v)) => v.as_i64(),
            _ => self.wrong(name, &format!("a whole number from {least} to {most} is wanted")),
        }
    }

    /// A list of texts, each once.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let Json::List(list) = self.take(name)? else { return self.wrong(name, "a list of texts is wanted") };
        let mut texts = Vec::new();
        for v in list {
            let Json::Text(text) = v else { return self.wrong(name, "a list of texts is wanted") };
            if texts.contains(&text) {
                return self.wrong(name, &format!("{text:?} is there twice"));
            }
            texts.push(text);
        }
        Some(texts)
    }

    fn wrong<T>(&mut self, name: &str, want: &str) -> Option<T> {
        self.problem(name, want);
        None
    }

    /// Ends: what nobody took is not known.
    pub(super) fn end(mut self) -> Result<(), String> {
        for (name, _) in std::mem::take(&mut self.members) {
            let hint = nearest(&name, self.known.iter().copied());
            self.problem(&name, format_args!("unknown member; {hint}"));
        }
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems.join("; ")) }
    }
}
