//! The body of a reading as it leaves: with what was derived, without what is masked.
//!
//! Comes in: the original JSON and a verdict. Goes out: JSON. Guarantees: everything that no rule touches stays byte for
//! byte, white space and unknown members included; a derived value takes the place of one with its name, or stands at
//! the end; a masked field is hidden wherever it stands, also twice, also with escapes in its name. Pure.
//! On failure: [`Malformed`]: the text is no JSON object, so nothing may leave.

use std::borrow::Cow;
use std::ops::Range;

use weir_shared::expr::Derived;
use weir_shared::reading::{Reading, Value};

use super::mask::{Masks, Method, text_of};

/// The text is not the JSON object that it was checked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the JSON of a record cannot be taken apart")]
pub(crate) struct Malformed;

/// Writes the body of `reading`, whose JSON is `original`. `out` is overwritten.
pub(crate) fn write_body(
    out: &mut Vec<u8>,
    original: &[u8],
    reading: &Reading<'_>,
    derived: &[Derived],
    masks: Masks<'_>,
) -> Result<(), Malformed> {
    out.clear();
    let text = std::str::from_utf8(original).map_err(|_| Malformed)?;
    let top = members(text, 0)?;
    let mut object = Object::begin(out, text, &top);
    for member in &top.members {
        match &*member.name {
            "device" => match masks.device(&reading.device) {
                Some(masked) => object.replace(member, |out| write_text(out, &masked)),
                None => object.keep(member),
            },
            "values" => {
                let inner = members(text, member.value.start)?;
                object.nest(member, |out| values(out, text, &inner, reading, derived, masks));
            }
            "tags" => {
                let inner = members(text, member.value.start)?;
                object.nest(member, |out| {
                    let mut tags = Object::begin(out, text, &inner);
                    for tag in &inner.members {
                        match masks.tag(&tag.name) {
                            None => tags.keep(tag),
                            Some(method) => tags.mask(tag, method, reading.tag(&tag.name)),
                        }
                    }
                    tags.end();
                });
            }
            _ => object.keep(member),
        }
    }
    object.end();
    out.extend_from_slice(&text.as_bytes()[top.whole.end..]);
    Ok(())
}

fn values(
    out: &mut Vec<u8>,
    text: &str,
    inner: &Members<'_>,
    reading: &Reading<'_>,
    derived: &[Derived],
    masks: Masks<'_>,
) {
    let mut object = Object::begin(out, text, inner);
    for member in &inner.members {
        let fresh = derived.iter().find(|(name, _)| **name == *member.name).map(|(_, value)| value);
        match (masks.value(&member.name), fresh) {
            (None, None) => object.keep(member),
            (None, Some(value)) => object.replace(member, |out| write_value(out, value)),
            (Some(method), fresh) => {
                let value = fresh.or_else(|| reading.value(&member.name)).map(text_of);
                object.mask(member, method, value.as_deref());
            }
        }
    }
    for (name, value) in derived.iter().filter(|(name, _)| inner.members.iter().all(|m| *m.name != **name)) {
        match masks.value(name) {
            None => object.add(name, |out| write_value(out, value)),
            Some(method) => {
                if let Some(masked) = method.apply(&text_of(value)) {
                    object.add(name, |out| write_text(out, &masked));
                }
            }
        }
    }
    object.end();
}

/// Writes business data, a JSON object of dimensions and their columns, without what is masked.
pub(crate) fn write_dims(out: &mut Vec<u8>, original: &[u8], masks: Masks<'_>) -> Result<(), Malformed> {
    out.clear();
    let text = std::str::from_utf8(original).map_err(|_| Malformed)?;
    let top = members(text, 0)?;
    let mut object = Object::begin(out, text, &top);
    for dimension in &top.members {
        let inner = members(text, dimension.value.start)?;
        object.nest(dimension, |out| {
            let mut columns = Object::begin(out, text, &inner);
            for column in &inner.members {
                match masks.column(&dimension.name, &column.name) {
                    None => columns.keep(column),
                    Some(method) => {
                        let raw = &text[column.value.clone()];
                        let value = serde_json::from_str::<String>(raw);
                        columns.mask(column, method, Some(value.as_deref().unwrap_or(raw)));
                    }
                }
            }
            columns.end();
        });
    }
    object.end();
    Ok(())
}

/// Writes a value.
pub(super) fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Value::Unsigned(v) => out.extend_from_slice(itoa::Buffer::new().format(*v).as_bytes()),
        Value::Signed(v) => out.extend_from_slice(itoa::Buffer::new().format(*v).as_bytes()),
        Value::Float(v) => serde_json::to_writer(out, v).expect("a number into memory"),
        Value::Text(v) => write_text(out, v),
    }
}

/// Writes a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string into memory");
}

/// A member of an object.
struct Member<'a> {
    name: Cow<'a, str>,
    /// From behind the comma before to the comma after.
    all: Range<usize>,
    value: Range<usize>,
}

/// The members of an object.
struct Members<'a> {
    members: Vec<Member<'a>>,
    /// With its brackets.
    whole: Range<usize>,
}

/// Writes an object anew.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    text: &'a str,
    first: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>, text: &'a str, of: &Members<'_>) -> Self {
        // White space before the outermost one.
        if out.is_empty() {
            out.extend_from_slice(&text.as_bytes()[..of.whole.start]);
        }
        out.push(b'{');
        Self { out, text, first: true }
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    fn keep(&mut self, member: &Member<'_>) {
        self.comma();
        self.out.extend_from_slice(&self.text.as_bytes()[member.all.clone()]);
    }

    fn replace(&mut self, member: &Member<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        self.nest(member, write);
    }

    fn nest(&mut self, member: &Member<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        self.comma();
        self.out.extend_from_slice(&self.text.as_bytes()[member.all.start..member.value.start]);
        write(self.out);
        self.out.extend_from_slice(&self.text.as_bytes()[member.value.end..member.all.end]);
    }

    fn mask(&mut self, member: &Member<'_>, method: &Method, value: Option<&str>) {
        if let Some(masked) = value.and_then(|value| method.apply(value)) {
            self.replace(member, |out| write_text(out, &masked));
        }
    }

    fn add(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.comma();
        write_text(self.out, name);
        self.out.push(b':');
        write(self.out);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// Takes the object that begins at or after `at` apart.
fn members(text: &str, at: usize) -> Result<Members<'_>, Malformed> {
    let mut scan = Scan { bytes: text.as_bytes(), at };
    scan.blank();
    let begin = scan.at;
    scan.take(b'{')?;
    let mut members = Vec::new();
    let mut start = scan.at;
    scan.blank();
    if scan.take(b'}').is_ok() {
        return Ok(Members { members, whole: begin..scan.at });
    }
    loop {
        scan.blank();
        let name = scan.at;
        scan.string()?;
        let name = &text[name..scan.at];
        let inner = &name[1..name.len() - 1];
        let name = if inner.contains('\\') {
            Cow::Owned(serde_json::from_str(name).map_err(|_| Malformed)?)
        } else {
            Cow::Borrowed(inner)
        };
        scan.blank();
        scan.take(b':')?;
        scan.blank();
        let value = scan.at;
        scan.skip()?;
        let value = value..scan.at;
        scan.blank();
        members.push(Member { name, all: start..scan.at, value });
        if scan.take(b',').is_ok() {
            start = scan.at;
            continue;
        }
        scan.take(b'}')?;
        return Ok(Members { members, whole: begin..scan.at });
    }
}

/// Goes through JSON that was checked; what is not JSON may pass, but never beyond the end.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Malformed> {
        self.take(b'"')?;
        loop {
            match self.peek().ok_or(Malformed)? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                // An escaped character is ASCII, so this is no middle of one.
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(Malformed)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(Malformed)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b',' | b':' => return Err(Malformed),
                _ => {
                    let plain = |b: &u8| {
                        !matches!(
                            b,
                            b',' | b':' | b'}' | b']' | b'{' | b'[' | b'"' | b' ' | b'\n' | b'\r' | b'\t'
                        )
                    };
                    let length = self.bytes[self.at..].iter().take_while(|b| plain(b)).count();
                    self.at += length;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}
