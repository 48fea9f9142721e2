//! The JSON decoder with its field mapping.
//!
//! Comes in: a message that is one JSON object, or an array of objects with one reading each. Goes out: readings as
//! the JSON of `weir.readings`, or rejections. Guarantees: parsed once (an array: once into its elements, each
//! element once); strings are borrowed where they hold no escapes. On failure: the reason, where, and the raw bytes.

use serde_json::value::RawValue;
use weir_shared::clock::Now;
use weir_shared::record;

use super::rejection::reject;
use super::{Decoded, Input, Reading, Reason, Rejection};

mod encode;
mod node;

use node::Node;

/// Most readings in one message: more would let one message grow a hundredfold in dead letters.
const READINGS_MAX: usize = 4096;

/// Where in a message things are. A path is a list of names; an empty one means "nowhere".
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    /// Path of the device.
    pub device: Vec<String>,
    /// Level of the topic that is the device, from 1; 0 for none.
    pub device_topic_level: usize,
    /// Path of the event time; empty for the time of arrival.
    pub time: Vec<String>,
    /// Path of the object of values.
    pub values: Vec<String>,
    /// Fields that are values, where `values` is empty; when this is empty too, all but the others.
    pub value_fields: Vec<String>,
    /// Path of the object of tags.
    pub tags: Vec<String>,
}

/// Decodes JSON messages with one mapping and one set of limits.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    /// Where things are.
    pub mapping: Mapping,
    /// Largest message in bytes.
    pub message_bytes_max: usize,
    /// Bytes of a message that a dead letter keeps.
    pub raw_bytes_max: usize,
    /// Largest record in bytes.
    pub record_bytes_max: usize,
}

/// Why a reading is refused, before it becomes a dead letter.
type Refused = (Reason, String);

impl Decoder {
    /// Decodes one message; `out` gets at least one result.
    pub(crate) fn decode(&self, input: &Input<'_>, mut out: impl FnMut(Decoded)) {
        if let Err((reason, detail)) = self.decode_message(input, &mut out) {
            let rejection = reject(input, reason, &detail, input.payload, None, self.raw_bytes_max);
            out(Decoded::Rejection(rejection));
        }
    }

    /// The dead letter of a reading that Kafka refused for good; its topic is not known any more, so it is the device.
    pub(crate) fn refused_by_kafka(&self, device: &str, value: &[u8], why: &str, now: Now) -> Rejection {
        let input = Input { topic: device, payload: value, arrived: now };
        reject(&input, Reason::RefusedByKafka, why, value, None, self.raw_bytes_max)
    }

    fn decode_message(&self, input: &Input<'_>, out: &mut impl FnMut(Decoded)) -> Result<(), Refused> {
        let payload = input.payload;
        if payload.is_empty() {
            return Err((Reason::Empty, "no bytes".to_owned()));
        }
        if payload.len() > self.message_bytes_max {
            let max = self.message_bytes_max;
            return Err((Reason::TooLarge, format!("{} bytes, at most {max} are taken", payload.len())));
        }
        let text = std::str::from_utf8(payload)
            .map_err(|e| (Reason::InvalidUtf8, format!("not UTF-8 from byte {}", e.valid_up_to())))?;
        match parse(text)? {
            Node::Array(elements) => {
                if elements.is_empty() || elements.len() > READINGS_MAX {
                    let detail = format!("{} readings, from 1 to {READINGS_MAX} are taken", elements.len());
                    return Err((Reason::ReadingsCount, detail));
                }
                for (index, element) in elements.into_iter().enumerate() {
                    out(self.decode_element(input, element, index));
                }
            }
            node => out(Decoded::Reading(self.reading(input, &node)?)),
        }
        Ok(())
    }

    fn decode_element(&self, input: &Input<'_>, element: &RawValue, index: usize) -> Decoded {
        match parse(element.get()).and_then(|node| self.reading(input, &node)) {
            Ok(reading) => Decoded::Reading(reading),
            Err((reason, detail)) => {
                let raw = element.get().as_bytes();
                Decoded::Rejection(reject(input, reason, &detail, raw, Some(index), self.raw_bytes_max))
            }
        }
    }

    fn reading(&self, input: &Input<'_>, node: &Node<'_>) -> Result<Reading, Refused> {
        let Node::Object(fields) = node else {
            return Err((Reason::NotAnObject, format!("{}, not an object", node.kind())));
        };
        let device = self.device(input, node)?;
        let time = self.time(input, node)?;
        let mut value = Vec::with_capacity(input.payload.len() + 96);
        encode::head(&mut value, &device, time);
        match (self.mapping.values.is_empty(), self.mapping.value_fields.is_empty()) {
            (false, _) => encode::values(&mut value, object(node, &self.mapping.values)?, |_| true)?,
            (true, false) => {
                encode::values(&mut value, fields, |n| self.mapping.value_fields.iter().any(|f| f == n))?;
            }
            (true, true) => encode::values(&mut value, fields, |n| !self.is_mapped(n))?,
        }
        match node.at(&self.mapping.tags) {
            Some(Node::Object(tags)) if !self.mapping.tags.is_empty() => encode::tags(&mut value, tags)?,
            None | Some(Node::Null) => encode::tags(&mut value, &[])?,
            _ if self.mapping.tags.is_empty() => encode::tags(&mut value, &[])?,
            Some(other) => {
                return Err((Reason::TagWrongType, format!("tags are {}, not an object", other.kind())));
            }
        }
        encode::tail(&mut value, input.arrived.wall_ms, input.arrived.trusted);
        if value.len() + device.len() > self.record_bytes_max {
            let detail = format!("{} bytes as a record, at most {}", value.len(), self.record_bytes_max);
            return Err((Reason::RecordTooLarge, detail));
        }
        Ok(Reading { device, value })
    }

    fn is_mapped(&self, name: &str) -> bool {
        let m = &self.mapping;
        [&m.device, &m.time, &m.tags].iter().any(|path| path.first().is_some_and(|first| first == name))
    }

    fn device(&self, input: &Input<'_>, node: &Node<'_>) -> Result<String, Refused> {
        let found = if self.mapping.device.is_empty() { None } else { node.at(&self.mapping.device) };
        let device = match found {
            Some(Node::String(s)) => s.as_ref().to_owned(),
            Some(Node::Unsigned(n)) => n.to_string(),
            Some(Node::Signed(n)) => n.to_string(),
            None | Some(Node::Null) => match self.mapping.device_topic_level {
                0 => return Err((Reason::DeviceMissing, format!("no {}", self.mapping.device.join(".")))),
                level => input.topic.split('/').nth(level - 1).map(str::to_owned).ok_or_else(|| {
                    (Reason::DeviceMissing, format!("no level {level} in topic {}", input.topic))
                })?,
            },
            Some(other) => return Err((Reason::DeviceInvalid, format!("device is {}", other.kind()))),
        };
        if device.is_empty() || device.len() > record::DEVICE_BYTES_MAX {
            let detail = format!("{} bytes, from 1 to {} are taken", device.len(), record::DEVICE_BYTES_MAX);
            return Err((Reason::DeviceInvalid, detail));
        }
        Ok(device)
    }

    fn time(&self, input: &Input<'_>, node: &Node<'_>) -> Result<i64, Refused> {
        if self.mapping.time.is_empty() {
            return Ok(input.arrived.wall_ms);
        }
        let invalid = |what: &str| (Reason::TimeInvalid, format!("{what}, neither integer ms nor RFC 3339"));
        let time = match node.at(&self.mapping.time) {
            None | Some(Node::Null) => {
                return Err((Reason::TimeMissing, format!("no {}", self.mapping.time.join("."))));
            }
            Some(Node::Unsigned(n)) => i64::try_from(*n).unwrap_or(i64::MAX),
            Some(Node::Signed(n)) => *n,
            Some(Node::String(s)) => {
                s.parse::<jiff::Timestamp>().map_err(|e| invalid(&format!("{s:?}: {e}")))?.as_millisecond()
            }
            Some(other) => return Err(invalid(other.kind())),
        };
        if !(record::TIME_MS_MIN..=record::TIME_MS_MAX).contains(&time) {
            return Err((Reason::TimeOutOfRange, format!("{time} ms is not from 1970 to 2261")));
        }
        Ok(time)
    }
}

fn object<'n, 'a>(node: &'n Node<'a>, path: &[String]) -> Result<&'n [node::Field<'a>], Refused> {
    match node.at(path) {
        Some(Node::Object(fields)) => Ok(fields),
        None | Some(Node::Null) => Err((Reason::ValuesMissing, format!("no {}", path.join(".")))),
        Some(other) => {
            Err((Reason::ValueWrongType, format!("{} is {}, not an object", path.join("."), other.kind())))
        }
    }
}

fn parse(text: &str) -> Result<Node<'_>, Refused> {
    serde_json::from_str(text).map_err(|error| {
        // serde_json stops at the first byte that cannot go on; NaN and infinities are what Python and JavaScript
        // programs write there, and a number too large for a float reads as an infinity.
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
        let at = line.floor_char_boundary(error.column().saturating_sub(1));
        let rest = line[at..].trim_start_matches('-');
        let infinite = rest.starts_with("NaN") || rest.starts_with("Infinity");
        let not_finite = infinite || error.to_string().contains("number out of range");
        (if not_finite { Reason::ValueNotFinite } else { Reason::NotJson }, error.to_string())
    })
}

#[cfg(test)]
mod tests;
