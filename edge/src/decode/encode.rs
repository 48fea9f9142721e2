//! Writing a reading as the JSON of `weir.readings`.
//!
//! Comes in: device, time, values and tags. Goes out: bytes appended to a buffer. Guarantees: names are unique, not
//! empty and bounded; numbers keep their type. On failure: the reason; the buffer's content is then meaningless.

use std::collections::HashSet;

use serde_json::ser;
use weir_shared::reading::{Reading, Value};
use weir_shared::record;

use super::{Reason, Refused};

/// From this many names on, a set finds repeats faster than looking at all pairs.
const PAIRS_MAX: usize = 16;

/// A whole reading.
pub(super) fn reading(out: &mut Vec<u8>, reading: &Reading<'_>, trusted: bool) -> Result<(), Refused> {
    head(out, &reading.device, reading.time);
    let mut values = Members::open(out, b",\"values\":{");
    for (name, value) in &reading.values {
        values.name(name)?;
        match value {
            Value::Bool(v) => values.bool(*v),
            Value::Unsigned(v) => values.unsigned(*v),
            Value::Signed(v) => values.signed(*v),
            Value::Float(v) => values.float(*v),
            Value::Text(v) => values.text(name, v)?,
        }
    }
    values.close_values()?;
    unique(&reading.values)?;
    let mut tags = Members::open(out, b",\"tags\":{");
    for (name, tag) in &reading.tags {
        tags.name(name)?;
        tags.tag(tag);
    }
    tags.close();
    unique(&reading.tags)?;
    tail(out, reading.received, trusted);
    Ok(())
}

pub(super) fn head(out: &mut Vec<u8>, device: &str, time: i64) {
    out.extend_from_slice(b"{\"device\":");
    string(out, device);
    out.extend_from_slice(b",\"time\":");
    integer(out, time);
}

pub(super) fn tail(out: &mut Vec<u8>, received: i64, trusted: bool) {
    out.extend_from_slice(b",\"received\":");
    integer(out, received);
    out.extend_from_slice(if trusted { b",\"clock\":\"trusted\"}" } else { b",\"clock\":\"untrusted\"}" });
}

/// An object that is being written: values or tags.
pub(super) struct Members<'o> {
    out: &'o mut Vec<u8>,
    count: usize,
}

impl<'o> Members<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>, head: &[u8]) -> Self {
        out.extend_from_slice(head);
        Self { out, count: 0 }
    }

    pub(super) fn name(&mut self, name: &str) -> Result<(), Refused> {
        if name.is_empty() || name.len() > record::NAME_BYTES_MAX {
            let detail =
                format!("a name of {} bytes, from 1 to {} are taken", name.len(), record::NAME_BYTES_MAX);
            return Err((Reason::NamesInvalid, detail));
        }
        if self.count == record::VALUES_MAX {
            return Err((Reason::NamesInvalid, format!("more than {} values or tags", record::VALUES_MAX)));
        }
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
        string(self.out, name);
        self.out.push(b':');
        Ok(())
    }

    pub(super) fn bool(&mut self, v: bool) {
        self.out.extend_from_slice(if v { b"true" } else { b"false" });
    }

    pub(super) fn unsigned(&mut self, v: u64) {
        integer(self.out, v);
    }

    pub(super) fn signed(&mut self, v: i64) {
        integer(self.out, v);
    }

    pub(super) fn float(&mut self, v: f64) {
        ser::Formatter::write_f64(&mut ser::CompactFormatter, self.out, v).expect("a buffer takes all");
    }

    pub(super) fn text(&mut self, name: &str, v: &str) -> Result<(), Refused> {
        if matches!(v, "NaN" | "Infinity" | "-Infinity") {
            return Err((Reason::ValueNotFinite, format!("{name} is {v}")));
        }
        string(self.out, v);
        Ok(())
    }

    pub(super) fn tag(&mut self, v: &str) {
        string(self.out, v);
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    pub(super) fn close_values(self) -> Result<(), Refused> {
        if self.count == 0 {
            return Err((Reason::ValuesMissing, "no value in it".to_owned()));
        }
        self.close();
        Ok(())
    }
}

/// A name that stands twice would be refused by Elasticsearch and be two rows of a map in ClickHouse.
pub(super) fn unique<N: AsRef<str>, V>(fields: &[(N, V)]) -> Result<(), Refused> {
    let name = |i: usize| fields[i].0.as_ref();
    let twice = if fields.len() <= PAIRS_MAX {
        (1..fields.len()).find(|&i| (0..i).any(|k| name(k) == name(i)))
    } else {
        let mut seen = HashSet::with_capacity(fields.len());
        (0..fields.len()).find(|&i| !seen.insert(name(i)))
    };
    twice.map_or(Ok(()), |i| Err((Reason::NamesInvalid, format!("{} stands twice", name(i)))))
}

/// Nearly no text holds anything to escape: those are copied whole.
fn string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().fold(false, |found, b| found | (b < 0x20) | (b == b'"') | (b == b'\\')) {
        serde_json::to_writer(out, text).expect("a text into a buffer is always JSON");
    } else {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn integer(out: &mut Vec<u8>, v: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes());
}
