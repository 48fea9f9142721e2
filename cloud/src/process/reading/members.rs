//! The members of `values` and `tags` of a reading.
//!
//! Comes in: the JSON of the object. Goes out: whether every store can hold it, or the first thing that is wrong.
//! Guarantees: every member is visited to its end; a name is there once. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use weir_shared::record::{NAME_BYTES_MAX, VALUES_MAX};

use super::{Any, AnyVisitor, Name};

/// Up to this many names are compared each with each.
const COMPARED_MAX: usize = 24;

/// What is wrong with the members of `values` or `tags`, if anything.
pub(super) enum Members {
    Right,
    NotAnObject,
    WrongType(String, &'static str),
    WrongName(usize),
    TooMany(usize),
    Twice(String),
}

/// The members of `values`: numbers, bools and strings.
pub(super) struct Values(pub(super) Members);
/// The members of `tags`: strings.
pub(super) struct Tags(pub(super) Members);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fits = |v: &Any<'_>| matches!(v, Any::Bool | Any::Integer(_) | Any::Number | Any::Text(_));
        deserializer.deserialize_any(MembersVisitor { fits }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fits = |v: &Any<'_>| matches!(v, Any::Text(_));
        deserializer.deserialize_any(MembersVisitor { fits }).map(Self)
    }
}

struct MembersVisitor<F> {
    fits: F,
}

impl<'de, F: Fn(&Any<'_>) -> bool> Visitor<'de> for MembersVisitor<F> {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut names: Vec<Cow<'de, str>> = Vec::with_capacity(16);
        let mut found = Members::Right;
        while let Some(Name(name)) = map.next_key()? {
            let value: Any<'_> = map.next_value()?;
            if !matches!(found, Members::Right) {
                continue;
            }
            if !(self.fits)(&value) {
                found = Members::WrongType(name.into_owned(), value.kind());
            } else if name.is_empty() || name.len() > NAME_BYTES_MAX {
                found = Members::WrongName(name.len());
            } else {
                names.push(name);
            }
        }
        if matches!(found, Members::Right) {
            found = named_twice(&mut names);
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Members, A::Error> {
        AnyVisitor.visit_seq(seq).map(|_| Members::NotAnObject)
    }
    fn visit_unit<E: Error>(self) -> Result<Members, E> {
        Ok(Members::NotAnObject)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Members, E> {
        Ok(Members::NotAnObject)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Members, E> {
        Ok(Members::NotAnObject)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Members, E> {
        Ok(Members::NotAnObject)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Members, E> {
        Ok(Members::NotAnObject)
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Members, E> {
        Ok(Members::NotAnObject)
    }
}

/// Elasticsearch refuses a document with a name twice, other stores take the last: so none may be.
fn named_twice(names: &mut [Cow<'_, str>]) -> Members {
    if names.len() > VALUES_MAX {
        return Members::TooMany(names.len());
    }
    let twice = if names.len() <= COMPARED_MAX {
        names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name)
    } else {
        names.sort_unstable();
        names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &pair[0])
    };
    twice.map_or(Members::Right, |name| Members::Twice(name.clone().into_owned()))
}
