//! From a record of `weir.enriched` to typed columns: the path that must be fast.
//!
//! Comes in: the JSON of one record (formats: `weir_shared::wire`). Goes out: its columns, borrowed from the JSON
//! where it has no escapes; objects (values, tags, dims, versions) as their JSON text, unchanged.
//! Guarantees: what decodes fits every store's columns: lengths and times are checked here, once for all. Pure.
//! On failure: a [`RowError`] with a reason for the dead letter; the processor validates, so this is rare.

use std::borrow::Cow;

use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};
use weir_shared::record::{DEVICE_BYTES_MAX, Identity, NAME_BYTES_MAX, StreamId, TIME_MS_MAX, TIME_MS_MIN};

use super::SinkName;

/// Why a record cannot become a row. Reject: dead-letter this record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub(super) struct RowError {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

/// A reading, joined: one row of `weir_readings`.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) identity: Identity,
    pub(super) edge: Cow<'a, str>,
    pub(super) joined: bool,
    /// The rule set that was in force.
    pub(super) rules: Option<u64>,
    /// JSON object: dimension → version.
    pub(super) versions: &'a str,
    /// JSON object: dimension → columns.
    pub(super) dims: &'a str,
    pub(super) device: Cow<'a, str>,
    /// Event time, ms since 1970.
    pub(super) time: i64,
    /// Receipt at the edge, ms since 1970.
    pub(super) received: i64,
    pub(super) clock: Cow<'a, str>,
    /// JSON object: name → number, bool or string.
    pub(super) values: &'a str,
    /// JSON object: name → string.
    pub(super) tags: &'a str,
}

#[derive(Deserialize)]
struct EnrichedJson<'a> {
    #[serde(borrow)]
    weir: OriginJson<'a>,
    #[serde(borrow)]
    dims: Option<LazyValue<'a>>,
    #[serde(borrow)]
    device: Cow<'a, str>,
    time: i64,
    received: Option<i64>,
    #[serde(borrow)]
    clock: Option<Cow<'a, str>>,
    #[serde(borrow)]
    values: LazyValue<'a>,
    #[serde(borrow)]
    tags: Option<LazyValue<'a>>,
}

#[derive(Deserialize)]
struct OriginJson<'a> {
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    partition: Option<i32>,
    number: Option<u64>,
    #[serde(borrow)]
    edge: Option<Cow<'a, str>>,
    joined: Option<bool>,
    #[serde(borrow)]
    versions: Option<LazyValue<'a>>,
    rules: Option<u64>,
    /// The only stores that it goes to.
    #[serde(borrow)]
    stores: Option<Vec<Cow<'a, str>>>,
}

impl OriginJson<'_> {
    fn identity(&self) -> Option<Identity> {
        let stream = StreamId::from_hex(self.stream.as_deref()?.as_bytes())?;
        Some(Identity { stream, partition: self.partition.filter(|p| *p >= 0)?, number: self.number? })
    }
}

/// Whether a record goes to a store; `stores` are the only ones that it goes to.
pub(super) fn goes_to(stores: Option<&[Cow<'_, str>]>, which: SinkName) -> bool {
    stores.is_none_or(|stores| stores.iter().any(|store| store == which.name()))
}

/// Decodes a record of `weir.enriched`; `None` for one that goes only to other stores.
pub(super) fn reading(json: &[u8], which: SinkName) -> Result<Option<Reading<'_>>, RowError> {
    let r: EnrichedJson<'_> = parse(json)?;
    if !goes_to(r.weir.stores.as_deref(), which) {
        return Ok(None);
    }
    let identity = r.weir.identity().ok_or_else(|| {
        wrong("identity_missing", "weir.stream, weir.partition or weir.number is missing or malformed")
    })?;
    if r.device.is_empty() {
        return Err(wrong("device_missing", "device is empty"));
    }
    Ok(Some(Reading {
        identity,
        edge: short("weir.edge", r.weir.edge.unwrap_or_default(), NAME_BYTES_MAX)?,
        joined: r.weir.joined.unwrap_or(false),
        rules: r.weir.rules,
        versions: object("weir.versions", r.weir.versions)?,
        dims: object("dims", r.dims)?,
        device: short("device", r.device, DEVICE_BYTES_MAX)?,
        time: time("time", r.time)?,
        received: time("received", r.received.unwrap_or(r.time))?,
        clock: short("clock", r.clock.unwrap_or_default(), 16)?,
        values: object("values", Some(r.values))?,
        tags: object("tags", r.tags)?,
    }))
}

/// A value of a reading.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Any number that a double stands for, or that no 64-bit integer holds.
    Number(f64),
    /// An integer that a double cannot hold exactly.
    Integer(i64),
    /// True or false.
    Flag(bool),
    /// A string.
    Text(Cow<'a, str>),
}

/// Walks over the values of a reading.
pub(super) fn values(
    json: &str,
    mut each: impl FnMut(&str, Value<'_>) -> Result<(), RowError>,
) -> Result<(), RowError> {
    for member in sonic_rs::to_object_iter(json) {
        let (name, lazy) = member.map_err(|e| wrong("value_malformed", &e.to_string()))?;
        let raw = lazy.as_raw_str();
        let value = match raw.as_bytes().first() {
            Some(b'"') => Value::Text(parse(raw.as_bytes())?),
            Some(b't' | b'f') => Value::Flag(parse(raw.as_bytes())?),
            Some(b'-' | b'0'..=b'9') => number(raw)?,
            _ => return Err(wrong("value_wrong_type", &format!("{name}: not a number, bool or string"))),
        };
        each(&name, value)?;
    }
    Ok(())
}

/// Walks over an object of strings.
pub(super) fn texts(
    json: &str,
    mut each: impl FnMut(&str, &str) -> Result<(), RowError>,
) -> Result<(), RowError> {
    for member in sonic_rs::to_object_iter(json) {
        let (name, lazy) = member.map_err(|e| wrong("tag_malformed", &e.to_string()))?;
        // What is no string keeps its JSON text: a tag is never a reason to lose a reading.
        match lazy.as_str() {
            Some(text) => each(&name, text)?,
            None => each(&name, lazy.as_raw_str())?,
        }
    }
    Ok(())
}

fn number(raw: &str) -> Result<Value<'static>, RowError> {
    let double: f64 = parse(raw.as_bytes())?;
    if !double.is_finite() {
        return Err(wrong("value_not_finite", raw));
    }
    if let Ok(integer) = raw.parse::<i64>()
        && double as i128 != i128::from(integer)
    {
        return Ok(Value::Integer(integer));
    }
    Ok(Value::Number(double))
}

pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, RowError> {
    sonic_rs::from_slice(json).map_err(|e| wrong("row_malformed", &first_line(&e.to_string())))
}

/// sonic-rs adds a picture of the input below its message.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

pub(super) fn wrong(reason: &'static str, detail: &str) -> RowError {
    RowError { reason, detail: detail.to_owned() }
}

pub(super) fn short<'a>(name: &str, text: Cow<'a, str>, bytes_max: usize) -> Result<Cow<'a, str>, RowError> {
    if text.len() > bytes_max {
        return Err(wrong("too_long", &format!("{name} has {} bytes, at most {bytes_max}", text.len())));
    }
    Ok(text)
}

pub(super) fn time(name: &str, ms: i64) -> Result<i64, RowError> {
    if (TIME_MS_MIN..=TIME_MS_MAX).contains(&ms) {
        return Ok(ms);
    }
    Err(wrong("time_out_of_range", &format!("{name} is {ms}")))
}

fn object<'a>(name: &str, value: Option<LazyValue<'a>>) -> Result<&'a str, RowError> {
    let Some(value) = value else { return Ok("{}") };
    // A lazy value that was read from a slice borrows from it.
    let Cow::Borrowed(raw) = value.as_raw_cow() else { return Err(wrong("row_malformed", name)) };
    match raw.as_bytes().first() {
        Some(b'{') => Ok(raw),
        _ if raw == "null" => Ok("{}"),
        _ => Err(wrong("row_malformed", &format!("{name} is not an object"))),
    }
}

#[cfg(test)]
mod tests;
