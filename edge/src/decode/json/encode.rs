//! Writing a reading as the JSON of `weir.readings`.
//!
//! Comes in: device, time, values and tags. Goes out: bytes appended to a buffer. Guarantees: names are unique, not
//! empty and bounded; numbers keep their type. On failure: the reason; the buffer's content is then meaningless.

use std::collections::HashSet;

use serde_json::ser;
use weir_shared::record;

use super::super::Reason;
use super::Refused;
use super::node::{Field, Node};

/// From this many names on, a set finds repeats faster than looking at all pairs.
const PAIRS_MAX: usize = 16;

pub(super) fn head(out: &mut Vec<u8>, device: &str, time: i64) {
    out.extend_from_slice(b"{\"device\":");
    string(out, device);
    out.extend_from_slice(b",\"time\":");
    number(out, &time);
}

pub(super) fn values(
    out: &mut Vec<u8>,
    fields: &[Field<'_>],
    wanted: impl Fn(&str) -> bool,
) -> Result<(), Refused> {
    out.extend_from_slice(b",\"values\":{");
    let mut count = 0;
    for (name, node) in fields.iter().filter(|(name, _)| wanted(name)) {
        if matches!(node, Node::Null) {
            continue;
        }
        name_to(out, &mut count, name)?;
        match node {
            Node::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
            Node::Unsigned(v) => number(out, v),
            Node::Signed(v) => number(out, v),
            Node::Float(v) => number(out, v),
            Node::String(v) if matches!(v.as_ref(), "NaN" | "Infinity" | "-Infinity") => {
                return Err((Reason::ValueNotFinite, format!("{name} is {v}")));
            }
            Node::String(v) => string(out, v),
            other => return Err((Reason::ValueWrongType, format!("{name} is {}", other.kind()))),
        }
    }
    if count == 0 {
        return Err((Reason::ValuesMissing, "no value in it".to_owned()));
    }
    out.push(b'}');
    unique(fields)
}

pub(super) fn tags(out: &mut Vec<u8>, fields: &[Field<'_>]) -> Result<(), Refused> {
    out.extend_from_slice(b",\"tags\":{");
    let mut count = 0;
    for (name, node) in fields {
        let Node::String(v) = node else {
            return Err((Reason::TagWrongType, format!("{name} is {}, not a string", node.kind())));
        };
        name_to(out, &mut count, name)?;
        string(out, v);
    }
    out.push(b'}');
    unique(fields)
}

pub(super) fn tail(out: &mut Vec<u8>, received: i64, trusted: bool) {
    out.extend_from_slice(b",\"received\":");
    number(out, &received);
    out.extend_from_slice(if trusted { b",\"clock\":\"trusted\"}" } else { b",\"clock\":\"untrusted\"}" });
}

fn name_to(out: &mut Vec<u8>, count: &mut usize, name: &str) -> Result<(), Refused> {
    if name.is_empty() || name.len() > record::NAME_BYTES_MAX {
        let detail =
            format!("a name of {} bytes, from 1 to {} are taken", name.len(), record::NAME_BYTES_MAX);
        return Err((Reason::NamesInvalid, detail));
    }
    if *count == record::VALUES_MAX {
        return Err((Reason::NamesInvalid, format!("more than {} values or tags", record::VALUES_MAX)));
    }
    if *count > 0 {
        out.push(b',');
    }
    *count += 1;
    string(out, name);
    out.push(b':');
    Ok(())
}

/// A name that stands twice would be refused by Elasticsearch and be two rows of a map in ClickHouse.
fn unique(fields: &[Field<'_>]) -> Result<(), Refused> {
    let twice = if fields.len() <= PAIRS_MAX {
        (1..fields.len()).find(|&i| fields[..i].iter().any(|(name, _)| *name == fields[i].0))
    } else {
        let mut seen = HashSet::with_capacity(fields.len());
        fields.iter().position(|(name, _)| !seen.insert(name))
    };
    twice.map_or(Ok(()), |i| Err((Reason::NamesInvalid, format!("{} stands twice", fields[i].0))))
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text into a buffer is always JSON");
}

fn number(out: &mut Vec<u8>, number: &impl serde::Serialize) {
    let mut serializer = ser::Serializer::new(out);
    number.serialize(&mut serializer).expect("a finite number into a buffer is always JSON");
}
