//! Checking the value of a reading: parsed once, borrowed, nothing is built.
//!
//! Comes in: the bytes of a record. Goes out: its device, or why it is refused.
//! Guarantees: what passes is one whole, valid JSON object in UTF-8, nested at most as deep as sonic-rs's limit (255,
//! which its own skipping does not keep: so nothing here is skipped, everything is visited); its device, time, values
//! and tags have the shapes that every store can hold; it has no member of ours. Pure.
//! On failure: a [`Refusal`], the reason for the dead letter.

mod members;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use weir_shared::record::{DEVICE_BYTES_MAX, NAME_BYTES_MAX, TIME_MS_MAX, TIME_MS_MIN, VALUES_MAX};

use members::{Members, Tags, Values};

/// Why a record becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// A word for counters and filters.
    pub(super) reason: &'static str,
    /// What a person needs to know.
    pub(super) detail: String,
}

impl Refusal {
    /// A refusal with its explanation.
    pub(super) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// Checks a reading and gives its device.
pub(super) fn device(bytes: &[u8]) -> Result<Cow<'_, str>, Refusal> {
    let top = parse(bytes)?;
    if let Some(refusal) = top.refusal {
        return Err(refusal);
    }
    let device = match top.device {
        None => return Err(Refusal::new("device_missing", "the reading has no device")),
        Some(Any::Text(device)) => device,
        Some(other) => return Err(Refusal::new("device_wrong_type", format!("device is {}", other.kind()))),
    };
    if device.is_empty() || device.len() > DEVICE_BYTES_MAX {
        let detail = format!("the device has {} bytes; 1 to {DEVICE_BYTES_MAX} are allowed", device.len());
        return Err(Refusal::new("device_length", detail));
    }
    if device.contains('\0') {
        return Err(Refusal::new("device_wrong_character", "the device has a NUL character"));
    }
    match top.time {
        None => return Err(Refusal::new("time_missing", "the reading has no time")),
        Some(Any::Integer(ms)) => in_range("time", ms)?,
        Some(other) => {
            return Err(Refusal::new(
                "time_wrong_type",
                format!("time is {}, not ms since 1970", other.kind()),
            ));
        }
    }
    match top.received {
        None => {}
        Some(Any::Integer(ms)) => in_range("received", ms)?,
        Some(other) => {
            let detail = format!("received is {}, not ms since 1970", other.kind());
            return Err(Refusal::new("received_wrong_type", detail));
        }
    }
    if !top.values_seen {
        return Err(Refusal::new("values_missing", "the reading has no values"));
    }
    Ok(device)
}

/// Checks that a dead letter of the edge is an object into which `weir` can be put.
pub(super) fn dead_letter(bytes: &[u8]) -> Result<(), Refusal> {
    // Its other members are the edge's business.
    if parse(bytes)?.weir_seen { Err(reserved("weir")) } else { Ok(()) }
}

fn reserved(key: &str) -> Refusal {
    Refusal::new("reserved_field", format!("{key} is a member that weir itself adds"))
}

fn in_range(name: &str, ms: i64) -> Result<(), Refusal> {
    if (TIME_MS_MIN..=TIME_MS_MAX).contains(&ms) {
        return Ok(());
    }
    let reason = if name == "time" { "time_out_of_range" } else { "received_out_of_range" };
    Err(Refusal::new(
        reason,
        format!("{name} {ms} is not within {TIME_MS_MIN} and {TIME_MS_MAX} ms since 1970"),
    ))
}

fn parse(bytes: &[u8]) -> Result<Top<'_>, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::new("empty", "the record has no value"));
    }
    if std::str::from_utf8(bytes).is_err() {
        return Err(Refusal::new("invalid_utf8", "the record is not UTF-8"));
    }
    let top: Top<'_> = sonic_rs::from_slice(bytes).map_err(|e| {
        // The text of sonic-rs shows the input on further lines; the dead letter has it anyway.
        let text = e.to_string();
        Refusal::new("not_json", text.lines().next().unwrap_or_default())
    })?;
    if top.is_object {
        Ok(top)
    } else {
        Err(Refusal::new("not_an_object", "the record is not a JSON object"))
    }
}

/// What is looked at of the outermost value.
#[derive(Default)]
struct Top<'a> {
    is_object: bool,
    device: Option<Any<'a>>,
    time: Option<Any<'a>>,
    received: Option<Any<'a>>,
    values_seen: bool,
    weir_seen: bool,
    refusal: Option<Refusal>,
}

impl Top<'_> {
    fn refuse(&mut self, refusal: impl FnOnce() -> Refusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal());
        }
    }

    fn members(&mut self, what: &'static str, members: &Members) {
        let words = if what == "values" {
            ["values_wrong_type", "value_wrong_type", "value_name", "values_too_many", "value_twice"]
        } else {
            ["tags_wrong_type", "tag_wrong_type", "tag_name", "tags_too_many", "tag_twice"]
        };
        let refusal = match members {
            Members::Right => return,
            Members::NotAnObject => Refusal::new(words[0], format!("{what} is not an object")),
            Members::WrongType(name, kind) => Refusal::new(words[1], format!("{what}: {name:?} is {kind}")),
            Members::WrongName(length) => {
                let detail = format!("{what}: a name of {length} bytes; 1 to {NAME_BYTES_MAX} are allowed");
                Refusal::new(words[2], detail)
            }
            Members::TooMany(n) => {
                Refusal::new(words[3], format!("{what}: {n} members; {VALUES_MAX} are allowed"))
            }
            Members::Twice(name) => Refusal::new(words[4], format!("{what}: {name:?} is there twice")),
        };
        self.refuse(|| refusal);
    }
}

impl<'de> Deserialize<'de> for Top<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reading")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top<'de>, A::Error> {
        let mut top = Top { is_object: true, ..Top::default() };
        let mut tags_seen = false;
        while let Some(Name(key)) = map.next_key()? {
            let twice = match &*key {
                "device" => top.device.replace(map.next_value()?).is_some(),
                "time" => top.time.replace(map.next_value()?).is_some(),
                "received" => top.received.replace(map.next_value()?).is_some(),
                "values" => {
                    let Values(members) = map.next_value()?;
                    top.members("values", &members);
                    std::mem::replace(&mut top.values_seen, true)
                }
                "tags" => {
                    let Tags(members) = map.next_value()?;
                    top.members("tags", &members);
                    std::mem::replace(&mut tags_seen, true)
                }
                "weir" | "dims" => {
                    let _: Any<'_> = map.next_value()?;
                    top.weir_seen |= key == "weir";
                    top.refuse(|| reserved(&key));
                    false
                }
                _ => {
                    let _: Any<'_> = map.next_value()?;
                    false
                }
            };
            if twice {
                top.refuse(|| Refusal::new("field_twice", format!("{key:?} is there twice")));
            }
        }
        Ok(top)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Top<'de>, A::Error> {
        AnyVisitor.visit_seq(seq).map(|_| Top::default())
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Top<'de>, E> {
        Ok(Top::default())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Top<'de>, E> {
        Ok(Top::default())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Top<'de>, E> {
        Ok(Top::default())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Top<'de>, E> {
        Ok(Top::default())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Top<'de>, E> {
        Ok(Top::default())
    }
    fn visit_unit<E: Error>(self) -> Result<Top<'de>, E> {
        Ok(Top::default())
    }
}

/// A key or string, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(AnyVisitor)? {
            Any::Text(text) => Ok(Self(text)),
            other => Err(D::Error::custom(format_args!("a name is {}", other.kind()))),
        }
    }
}

/// Any value, visited to its end; only what is not nested is kept.
enum Any<'a> {
    Null,
    Bool,
    Integer(i64),
    /// A number that is no `i64`.
    Number,
    Text(Cow<'a, str>),
    Array,
    Object,
}

impl Any<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a bool",
            Self::Integer(_) | Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Any<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Any<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Any<'de>, E> {
        Ok(Any::Null)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Any<'de>, E> {
        Ok(Any::Bool)
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<Any<'de>, E> {
        Ok(Any::Integer(n))
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<Any<'de>, E> {
        Ok(i64::try_from(n).map_or(Any::Number, Any::Integer))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Any<'de>, E> {
        Ok(Any::Number)
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Any<'de>, E> {
        Ok(Any::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Any<'de>, E> {
        Ok(Any::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Any<'de>, A::Error> {
        while seq.next_element::<Any<'_>>()?.is_some() {}
        Ok(Any::Array)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Any<'de>, A::Error> {
        while map.next_entry::<Name<'_>, Any<'_>>()?.is_some() {}
        Ok(Any::Object)
    }
}

#[cfg(test)]
mod tests;
