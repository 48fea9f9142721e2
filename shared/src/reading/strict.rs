//! The strict look at a reading that came over the network: parsed once, and refused with a reason.
//!
//! Comes in: the bytes of a record. Goes out: the [`Reading`], or a [`Refusal`] for its dead letter.
//! Guarantees: what passes is one whole, valid JSON object in UTF-8; its device, time, values and tags have the shapes
//! that every store can hold, no name is there twice, and it has no member of ours. All of the text is looked at: what
//! is no JSON is always called so. Pure. On failure: the first thing that is wrong.

use std::borrow::Cow;

use super::scan::Scan;
use super::{NotAReading, Reading, Value};
use crate::record::{DEVICE_BYTES_MAX, NAME_BYTES_MAX, TIME_MS_MAX, TIME_MS_MIN, VALUES_MAX};

/// Up to this many names are compared each with each.
const COMPARED_MAX: usize = 24;

/// Why a record becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A word for counters and filters.
    pub reason: &'static str,
    /// What a person needs to know.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its explanation.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    fn not_json(error: NotAReading) -> Self {
        Self::new("not_json", error.to_string())
    }
}

impl<'a> Reading<'a> {
    /// Becomes the reading in this text, if every store can hold it.
    ///
    /// # Errors
    /// Why it is refused; what `self` holds then is meaningless.
    #[inline]
    pub fn check(&mut self, text: &'a [u8]) -> Result<(), Refusal> {
        self.values.clear();
        self.tags.clear();
        self.received = 0;
        let mut scan = begin(text)?;
        let mut seen = Seen::default();
        scan.object(|scan, name| self.member(scan, &name, &mut seen)).map_err(Refusal::not_json)?;
        scan.end().map_err(Refusal::not_json)?;
        self.finish(seen)
    }

    fn member(&mut self, scan: &mut Scan<'a>, name: &str, seen: &mut Seen) -> Result<(), NotAReading> {
        let twice = match name {
            "device" => {
                match scan.peek() {
                    b'"' => self.device = scan.text()?,
                    _ => seen.wrong_type(scan, "device_wrong_type", "device is {}")?,
                }
                std::mem::replace(&mut seen.device, true)
            }
            "time" => {
                self.time = seen.integer(scan, ["time_wrong_type", "time_out_of_range"], "time")?;
                std::mem::replace(&mut seen.time, true)
            }
            "received" => {
                self.received =
                    seen.integer(scan, ["received_wrong_type", "received_out_of_range"], "received")?;
                std::mem::replace(&mut seen.received, true)
            }
            "values" => {
                if scan.peek() == b'{' {
                    scan.object(|scan, name| self.value_member(scan, name, seen))?;
                } else {
                    seen.wrong_type(scan, "values_wrong_type", "values is {}, not an object")?;
                }
                std::mem::replace(&mut seen.values, true)
            }
            "tags" => {
                if scan.peek() == b'{' {
                    scan.object(|scan, name| self.tag_member(scan, name, seen))?;
                } else {
                    seen.wrong_type(scan, "tags_wrong_type", "tags is {}, not an object")?;
                }
                std::mem::replace(&mut seen.tags, true)
            }
            "weir" | "dims" => {
                seen.refuse(|| reserved(name));
                scan.skip()?;
                false
            }
            _ => {
                scan.skip()?;
                false
            }
        };
        if twice {
            seen.refuse(|| Refusal::new("field_twice", format!("{name:?} is there twice")));
        }
        Ok(())
    }

    fn value_member(
        &mut self,
        scan: &mut Scan<'a>,
        name: Cow<'a, str>,
        seen: &mut Seen,
    ) -> Result<(), NotAReading> {
        match scan.peek() {
            b'n' | b'[' | b'{' => {
                let kind = kind(scan.peek());
                seen.refuse(|| Refusal::new("value_wrong_type", format!("values: {name:?} is {kind}")));
                scan.skip()
            }
            _ => {
                let value = scan.value()?;
                // A hostile text may have a million of them: enough are kept to know that there are too many.
                if self.values.len() <= VALUES_MAX {
                    self.values.push((name, value));
                }
                Ok(())
            }
        }
    }

    fn tag_member(
        &mut self,
        scan: &mut Scan<'a>,
        name: Cow<'a, str>,
        seen: &mut Seen,
    ) -> Result<(), NotAReading> {
        if scan.peek() != b'"' {
            let kind = kind(scan.peek());
            seen.refuse(|| Refusal::new("tag_wrong_type", format!("tags: {name:?} is {kind}")));
            return scan.skip();
        }
        let text = scan.text()?;
        if self.tags.len() <= VALUES_MAX {
            self.tags.push((name, text));
        }
        Ok(())
    }

    fn finish(&self, seen: Seen) -> Result<(), Refusal> {
        if let Some(refusal) = seen.refusal {
            return Err(refusal);
        }
        let missing = |reason, what| Err(Refusal::new(reason, format!("the reading has no {what}")));
        if !seen.device {
            return missing("device_missing", "device");
        }
        if self.device.is_empty() || self.device.len() > DEVICE_BYTES_MAX {
            let length = self.device.len();
            let detail = format!("the device has {length} bytes; 1 to {DEVICE_BYTES_MAX} are allowed");
            return Err(Refusal::new("device_length", detail));
        }
        if self.device.contains('\0') {
            return Err(Refusal::new("device_wrong_character", "the device has a NUL character"));
        }
        if !seen.time {
            return missing("time_missing", "time");
        }
        if !seen.values {
            return missing("values_missing", "values");
        }
        let words = ["value_name", "values_too_many", "value_twice"];
        names("values", words, self.values.len(), || self.values.iter().map(|(name, _)| &**name))?;
        let words = ["tag_name", "tags_too_many", "tag_twice"];
        names("tags", words, self.tags.len(), || self.tags.iter().map(|(name, _)| &**name))
    }
}

/// Checks that a record is one JSON object without these members, which are ours; its others are its maker's business.
///
/// # Errors
/// Why it is not.
pub fn object(text: &[u8], ours: &[&str]) -> Result<(), Refusal> {
    let mut scan = begin(text)?;
    let mut found = None;
    let walk = scan.object(|scan, name| {
        found = found.or_else(|| ours.iter().find(|ours| **ours == name));
        scan.skip()
    });
    walk.and_then(|()| scan.end()).map_err(Refusal::not_json)?;
    found.map_or(Ok(()), |name| Err(reserved(name)))
}

/// A scan that stands at the beginning of an object.
fn begin(text: &[u8]) -> Result<Scan<'_>, Refusal> {
    if text.is_empty() {
        return Err(Refusal::new("empty", "the record has no value"));
    }
    let mut scan = Scan::new(text)
        .map_err(|e| Refusal::new("invalid_utf8", format!("not UTF-8 from byte {} on", e.at)))?;
    if scan.blank() == b'{' {
        return Ok(scan);
    }
    scan.skip().and_then(|()| scan.end()).map_err(Refusal::not_json)?;
    Err(Refusal::new("not_an_object", "the record is not a JSON object"))
}

/// What was there, and the first thing that was wrong.
#[derive(Default)]
struct Seen {
    device: bool,
    time: bool,
    received: bool,
    values: bool,
    tags: bool,
    refusal: Option<Refusal>,
}

impl Seen {
    fn refuse(&mut self, refusal: impl FnOnce() -> Refusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal());
        }
    }

    #[cold]
    fn wrong_type(
        &mut self,
        scan: &mut Scan<'_>,
        reason: &'static str,
        detail: &str,
    ) -> Result<(), NotAReading> {
        let kind = kind(scan.peek());
        self.refuse(|| Refusal::new(reason, detail.replace("{}", kind)));
        scan.skip()
    }

    /// A time in ms since 1970.
    #[inline]
    fn integer(
        &mut self,
        scan: &mut Scan<'_>,
        words: [&'static str; 2],
        what: &str,
    ) -> Result<i64, NotAReading> {
        if !matches!(scan.peek(), b'-' | b'0'..=b'9') {
            self.wrong_type(scan, words[0], &format!("{what} is {{}}, not ms since 1970"))?;
            return Ok(0);
        }
        let ms = match scan.value()? {
            Value::Unsigned(ms) => i64::try_from(ms).unwrap_or(i64::MAX),
            Value::Signed(ms) => ms,
            _ => {
                self.refuse(|| Refusal::new(words[0], format!("{what} is a float, not whole ms since 1970")));
                return Ok(0);
            }
        };
        if !(TIME_MS_MIN..=TIME_MS_MAX).contains(&ms) {
            self.refuse(|| {
                let range = format!("{TIME_MS_MIN} and {TIME_MS_MAX} ms since 1970");
                Refusal::new(words[1], format!("{what} {ms} is not within {range}"))
            });
        }
        Ok(ms)
    }
}

fn reserved(key: &str) -> Refusal {
    Refusal::new("reserved_field", format!("{key} is a member that weir itself adds"))
}

fn kind(first: u8) -> &'static str {
    match first {
        b'n' => "null",
        b't' | b'f' => "a bool",
        b'"' => "a string",
        b'[' => "an array",
        b'{' => "an object",
        _ => "a number",
    }
}

/// Elasticsearch refuses a document with a name twice, other stores take the last: so none may be.
#[inline]
fn names<'t, I: Iterator<Item = &'t str>>(
    what: &str,
    words: [&'static str; 3],
    count: usize,
    all: impl Fn() -> I,
) -> Result<(), Refusal> {
    if count > VALUES_MAX {
        return Err(Refusal::new(words[1], format!("{what}: more than {VALUES_MAX} members")));
    }
    if let Some(name) = all().find(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        let detail = format!("{what}: a name of {} bytes; 1 to {NAME_BYTES_MAX} are allowed", name.len());
        return Err(Refusal::new(words[0], detail));
    }
    let twice = if count <= COMPARED_MAX {
        all().enumerate().find(|(i, name)| all().take(*i).any(|other| other == *name)).map(|(_, name)| name)
    } else {
        let mut sorted: Vec<&str> = all().collect();
        sorted.sort_unstable();
        sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    };
    match twice {
        None => Ok(()),
        Some(name) => Err(Refusal::new(words[2], format!("{what}: {name:?} is there twice"))),
    }
}

#[cfg(test)]
mod tests;
