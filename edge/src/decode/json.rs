//! The JSON decoder with its field mapping.
//!
//! Comes in: a message (or a line of a file) that is one JSON object, or an array of objects with one reading each.
//! Goes out: readings as the JSON of `weir.readings`, or rejections. Guarantees: parsed once (an array: once into its
//! elements, each element once); strings are borrowed where they hold no escapes; without rules, what was parsed is
//! written with nothing in between. On failure: the reason, where, and the raw bytes.

use std::borrow::Cow;

use weir_shared::config::Section;
use weir_shared::reading::{Reading, Value};

use super::times::Written;
use super::{Decoded, Job, Reason, Refused, checked_device, encode, in_row};

mod node;

use node::{Field, Node};

/// Most readings in one message: more would let one message grow a hundredfold in dead letters.
const READINGS_MAX: usize = 4096;

/// Where in a message things are. A path is a list of names; an empty one means "nowhere".
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    /// Path of the device.
    pub device: Vec<String>,
    /// Level of the topic that is the device, from 1; 0 for none.
    pub device_topic_level: usize,
    /// The device where neither says it; empty for none.
    pub device_name: String,
    /// Path of the event time; empty for the time of arrival.
    pub time: Vec<String>,
    /// How times are written.
    pub written: Written,
    /// Path of the object of values.
    pub values: Vec<String>,
    /// Fields that are values, where `values` is empty; when this is empty too, all but the others.
    pub value_fields: Vec<String>,
    /// Path of the object of tags.
    pub tags: Vec<String>,
}

impl Mapping {
    /// Takes `device_field`, `time_field`, `time_unit`, `time_zone`, `values_field`, `value_fields` and `tags_field`;
    /// the other ways to a device are the caller's.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let path = |key| {
            let text = section.string(key);
            if text.is_empty() { Vec::new() } else { text.split('.').map(str::to_owned).collect() }
        };
        Self {
            device: path("device_field"),
            device_topic_level: 0,
            device_name: String::new(),
            time: path("time_field"),
            written: Written::read(section),
            values: path("values_field"),
            value_fields: section.strings("value_fields"),
            tags: path("tags_field"),
        }
    }

    fn is_value(&self, name: &str) -> bool {
        if self.value_fields.is_empty() {
            let others = [&self.device, &self.time, &self.tags];
            !others.iter().any(|path| path.first().is_some_and(|first| first == name))
        } else {
            self.value_fields.iter().any(|field| field == name)
        }
    }
}

/// Decodes a message that is one JSON value.
pub(super) fn message<F: FnMut(Decoded)>(job: &Job<'_>, mapping: &Mapping, out: &mut F) {
    let payload = job.input.payload;
    let max = job.limits.message_bytes_max;
    let done = if payload.is_empty() {
        Err((Reason::Empty, "no bytes".to_owned()))
    } else if payload.len() > max {
        Err((Reason::TooLarge, format!("{} bytes, at most {max} are taken", payload.len())))
    } else {
        std::str::from_utf8(payload)
            .map_err(|e| (Reason::InvalidUtf8, format!("not UTF-8 from byte {}", e.valid_up_to())))
            .and_then(|text| readings(job, mapping, text, out, Refused::clone))
    };
    if let Err(refused) = done {
        out(job.reject(&refused, payload, None));
    }
}

/// Decodes a line that is one JSON value.
pub(super) fn line<F: FnMut(Decoded)>(job: &Job<'_>, mapping: &Mapping, row: u64, text: &str, out: &mut F) {
    if let Err(refused) = readings(job, mapping, text, out, |refused| in_row(row, refused)) {
        out(job.reject(&in_row(row, &refused), text.as_bytes(), None));
    }
}

fn readings<F: FnMut(Decoded)>(
    job: &Job<'_>,
    mapping: &Mapping,
    text: &str,
    out: &mut F,
    place: impl Fn(&Refused) -> Refused,
) -> Result<(), Refused> {
    match parse(text)? {
        Node::Array(elements) => {
            if elements.is_empty() || elements.len() > READINGS_MAX {
                let detail = format!("{} readings, from 1 to {READINGS_MAX} are taken", elements.len());
                return Err((Reason::ReadingsCount, detail));
            }
            for (index, element) in elements.into_iter().enumerate() {
                let decoded = parse(element.get()).and_then(|node| reading(job, mapping, &node));
                out(decoded.unwrap_or_else(|refused| {
                    job.reject(&place(&refused), element.get().as_bytes(), Some(index))
                }));
            }
        }
        node => out(reading(job, mapping, &node)?),
    }
    Ok(())
}

fn reading(job: &Job<'_>, mapping: &Mapping, node: &Node<'_>) -> Result<Decoded, Refused> {
    if !matches!(node, Node::Object(_)) {
        return Err((Reason::NotAnObject, format!("{}, not an object", node.kind())));
    }
    let device = checked_device(device(job, mapping, node)?)?;
    let time = time(job, mapping, node)?;
    let nothing = Node::Object(Vec::new());
    let values = if mapping.values.is_empty() { node } else { object(node, &mapping.values)? };
    let tags = match node.at(&mapping.tags) {
        Some(tags @ Node::Object(_)) if !mapping.tags.is_empty() => tags,
        None | Some(Node::Null) => &nothing,
        _ if mapping.tags.is_empty() => &nothing,
        Some(other) => {
            return Err((Reason::TagWrongType, format!("tags are {}, not an object", other.kind())));
        }
    };
    let wanted = |name: &str| !mapping.values.is_empty() || mapping.is_value(name);
    let arrived = &job.input.arrived;
    if job.clean.is_empty() {
        let mut value = Vec::with_capacity(job.input.payload.len().min(job.limits.record_bytes_max) + 96);
        encode::head(&mut value, &device, time);
        write_values(&mut value, values.fields(), wanted)?;
        write_tags(&mut value, tags.fields())?;
        encode::tail(&mut value, arrived.wall_ms, arrived.trusted);
        return job.sized(device.into_owned(), time, value);
    }
    let values = values.fields().iter().filter(|(name, value)| wanted(name) && !matches!(value, Node::Null));
    let values = values.map(|(name, value)| Ok((borrow(name), value_of(name, value)?)));
    let tags =
        tags.fields().iter().map(|(name, value)| Ok((borrow(name), Cow::Borrowed(tag_of(name, value)?))));
    job.finish(Reading {
        device,
        time,
        values: values.collect::<Result<_, Refused>>()?,
        tags: tags.collect::<Result<_, Refused>>()?,
        received: arrived.wall_ms,
    })
}

fn write_values(
    out: &mut Vec<u8>,
    fields: &[Field<'_>],
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Refused> {
    let mut members = encode::Members::open(out, b",\"values\":{");
    for (name, node) in fields.iter().filter(|(name, _)| wanted(name)) {
        if matches!(node, Node::Null) {
            continue;
        }
        members.name(name)?;
        match node {
            Node::Bool(v) => members.bool(*v),
            Node::Unsigned(v) => members.unsigned(*v),
            Node::Signed(v) => members.signed(*v),
            Node::Float(v) => members.float(*v),
            Node::String(v) => members.text(name, v)?,
            other => return Err(wrong_type(name, other)),
        }
    }
    members.close_values()?;
    encode::unique(fields)
}

fn write_tags(out: &mut Vec<u8>, fields: &[Field<'_>]) -> Result<(), Refused> {
    let mut members = encode::Members::open(out, b",\"tags\":{");
    for (name, node) in fields {
        let tag = tag_of(name, node)?;
        members.name(name)?;
        members.tag(tag);
    }
    members.close();
    encode::unique(fields)
}

fn value_of<'n>(name: &str, node: &'n Node<'_>) -> Result<Value<'n>, Refused> {
    Ok(match node {
        Node::Bool(v) => Value::Bool(*v),
        Node::Unsigned(v) => Value::Unsigned(*v),
        Node::Signed(v) => Value::Signed(*v),
        Node::Float(v) => Value::Float(*v),
        Node::String(v) => Value::Text(borrow(v)),
        other => return Err(wrong_type(name, other)),
    })
}

fn tag_of<'n>(name: &str, node: &'n Node<'_>) -> Result<&'n str, Refused> {
    match node {
        Node::String(v) => Ok(v),
        other => Err((Reason::TagWrongType, format!("{name} is {}, not a string", other.kind()))),
    }
}

fn borrow(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

fn wrong_type(name: &str, node: &Node<'_>) -> Refused {
    (Reason::ValueWrongType, format!("{name} is {}", node.kind()))
}

fn device<'n>(job: &Job<'n>, mapping: &'n Mapping, node: &'n Node<'_>) -> Result<Cow<'n, str>, Refused> {
    let found = if mapping.device.is_empty() { None } else { node.at(&mapping.device) };
    match found {
        Some(Node::String(s)) => Ok(borrow(s)),
        Some(Node::Unsigned(n)) => Ok(Cow::Owned(n.to_string())),
        Some(Node::Signed(n)) => Ok(Cow::Owned(n.to_string())),
        None | Some(Node::Null) => match mapping.device_topic_level {
            0 if !mapping.device_name.is_empty() => Ok(Cow::Borrowed(&mapping.device_name)),
            0 => Err((Reason::DeviceMissing, format!("no {}", mapping.device.join(".")))),
            level => job.input.topic.split('/').nth(level - 1).map(Cow::Borrowed).ok_or_else(|| {
                (Reason::DeviceMissing, format!("no level {level} in topic {}", job.input.topic))
            }),
        },
        Some(other) => Err((Reason::DeviceInvalid, format!("device is {}", other.kind()))),
    }
}

fn time(job: &Job<'_>, mapping: &Mapping, node: &Node<'_>) -> Result<i64, Refused> {
    if mapping.time.is_empty() {
        return Ok(job.input.arrived.wall_ms);
    }
    let written = &mapping.written;
    let time = match node.at(&mapping.time) {
        None | Some(Node::Null) => {
            return Err((Reason::TimeMissing, format!("no {}", mapping.time.join("."))));
        }
        Some(Node::Unsigned(n)) => written.integer(i64::try_from(*n).unwrap_or(i64::MAX)),
        Some(Node::Signed(n)) => written.integer(*n),
        Some(Node::Float(n)) => written.float(*n)?,
        Some(Node::String(s)) => written.text(s)?,
        Some(other) => return Err(written.invalid(other.kind())),
    };
    job.times.accept(time, &job.input.arrived)
}

fn object<'n, 'a>(node: &'n Node<'a>, path: &[String]) -> Result<&'n Node<'a>, Refused> {
    match node.at(path) {
        Some(object @ Node::Object(_)) => Ok(object),
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
