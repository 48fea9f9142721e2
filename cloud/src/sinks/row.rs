//! From a record of `weir.enriched` or `weir.rejected` to typed columns.
//!
//! Comes in: the JSON of one record (formats: `weir_shared::wire`). Goes out: its columns, borrowed from the JSON
//! where it has no escapes; objects (values, tags, dims, versions) as their JSON text, unchanged.
//! Guarantees: what decodes fits every store's columns: lengths and times are checked here, once for all. Pure.
//! On failure: a [`RowError`] with a reason for the dead letter; the processor validates, so this is rare.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use sonic_rs::{JsonValueTrait, LazyValue};
use weir_shared::record::{DEVICE_BYTES_MAX, Identity, NAME_BYTES_MAX, StreamId, TIME_MS_MAX, TIME_MS_MIN};

/// Longest text of a rejection's detail or MQTT topic in bytes.
const TEXT_BYTES_MAX: usize = 65_535;

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

/// A dead letter: one row of `weir_rejected`.
#[derive(Debug)]
pub(super) struct Rejection<'a> {
    /// `None` when the record was too broken to have one.
    pub(super) identity: Option<Identity>,
    pub(super) edge: Cow<'a, str>,
    /// Kafka topic in which the record stood when it was rejected; empty if unknown.
    pub(super) origin: Cow<'a, str>,
    /// Partition and offset there.
    pub(super) origin_partition: Option<i32>,
    pub(super) origin_offset: Option<i64>,
    pub(super) stage: Cow<'a, str>,
    pub(super) reason: Cow<'a, str>,
    pub(super) detail: Cow<'a, str>,
    pub(super) source: Cow<'a, str>,
    /// Topic at the source, for example MQTT's.
    pub(super) source_topic: Cow<'a, str>,
    /// Ms since 1970.
    pub(super) received: i64,
    /// Length of the whole rejected message.
    pub(super) bytes: u64,
    /// The rejected message, maybe only its first part.
    pub(super) raw: Vec<u8>,
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

#[derive(Default, Deserialize)]
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
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    offset: Option<i64>,
}

#[derive(Deserialize)]
struct RejectedJson<'a> {
    #[serde(borrow, default)]
    weir: OriginJson<'a>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    detail: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    received: i64,
    bytes: Option<u64>,
    #[serde(borrow)]
    raw: Option<Cow<'a, str>>,
}

impl OriginJson<'_> {
    fn identity(&self) -> Option<Identity> {
        let stream = StreamId::from_hex(self.stream.as_deref()?.as_bytes())?;
        Some(Identity { stream, partition: self.partition.filter(|p| *p >= 0)?, number: self.number? })
    }
}

/// Decodes a record of `weir.enriched`.
pub(super) fn reading(json: &[u8]) -> Result<Reading<'_>, RowError> {
    let r: EnrichedJson<'_> = parse(json)?;
    let identity = r.weir.identity().ok_or_else(|| {
        wrong("identity_missing", "weir.stream, weir.partition or weir.number is missing or malformed")
    })?;
    if r.device.is_empty() {
        return Err(wrong("device_missing", "device is empty"));
    }
    Ok(Reading {
        identity,
        edge: short("weir.edge", r.weir.edge.unwrap_or_default(), NAME_BYTES_MAX)?,
        joined: r.weir.joined.unwrap_or(false),
        versions: object("weir.versions", r.weir.versions)?,
        dims: object("dims", r.dims)?,
        device: short("device", r.device, DEVICE_BYTES_MAX)?,
        time: time("time", r.time)?,
        received: time("received", r.received.unwrap_or(r.time))?,
        clock: short("clock", r.clock.unwrap_or_default(), 16)?,
        values: object("values", Some(r.values))?,
        tags: object("tags", r.tags)?,
    })
}

/// Decodes a record of `weir.rejected`.
pub(super) fn rejection(json: &[u8]) -> Result<Rejection<'_>, RowError> {
    let r: RejectedJson<'_> = parse(json)?;
    let raw = BASE64
        .decode(r.raw.as_deref().unwrap_or_default())
        .map_err(|e| wrong("raw_not_base64", &e.to_string()))?;
    Ok(Rejection {
        identity: r.weir.identity(),
        edge: short("weir.edge", r.weir.edge.unwrap_or_default(), NAME_BYTES_MAX)?,
        origin: short("weir.topic", r.weir.topic.unwrap_or_default(), NAME_BYTES_MAX)?,
        origin_partition: r.weir.partition,
        origin_offset: r.weir.offset,
        stage: short("stage", r.stage, NAME_BYTES_MAX)?,
        reason: short("reason", r.reason, NAME_BYTES_MAX)?,
        detail: short("detail", r.detail.unwrap_or_default(), TEXT_BYTES_MAX)?,
        source: short("source", r.source.unwrap_or_default(), NAME_BYTES_MAX)?,
        source_topic: short("topic", r.topic.unwrap_or_default(), TEXT_BYTES_MAX)?,
        received: time("received", r.received)?,
        bytes: r.bytes.unwrap_or(raw.len() as u64),
        raw,
    })
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

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, RowError> {
    sonic_rs::from_slice(json).map_err(|e| wrong("row_malformed", &first_line(&e.to_string())))
}

/// sonic-rs adds a picture of the input below its message.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn wrong(reason: &'static str, detail: &str) -> RowError {
    RowError { reason, detail: detail.to_owned() }
}

fn short<'a>(name: &str, text: Cow<'a, str>, bytes_max: usize) -> Result<Cow<'a, str>, RowError> {
    if text.len() > bytes_max {
        return Err(wrong("too_long", &format!("{name} has {} bytes, at most {bytes_max}", text.len())));
    }
    Ok(text)
}

fn time(name: &str, ms: i64) -> Result<i64, RowError> {
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
