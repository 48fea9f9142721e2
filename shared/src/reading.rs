//! A reading as the engines see it: device, event time, values and tags, borrowed from its JSON.
//!
//! Comes in: the JSON of `weir.readings` (see [`crate::wire`]), in any order of members and with members that this
//! version does not know. Goes out: a [`Reading`]. Guarantees: a number stays an integer if it was one; strings are
//! borrowed where they hold no escapes; memory is bounded by the text. Pure.
//! On failure: why the text is no reading, and where.

use std::borrow::Cow;

mod scan;
pub mod strict;

use scan::Scan;

use crate::record::VALUES_MAX;

/// Why a text is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {why}")]
pub struct NotAReading {
    /// Where, in bytes from 0.
    pub at: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// A value of a reading.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// An integer from 0 on.
    Unsigned(u64),
    /// A negative integer.
    Signed(i64),
    /// A finite float.
    Float(f64),
    /// A text.
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// As a number, where it is one. Integers beyond 2⁵³ lose their last digits.
    #[must_use]
    pub const fn number(&self) -> Option<f64> {
        match self {
            Self::Unsigned(v) => Some(*v as f64),
            Self::Signed(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading<'a> {
    /// Who measured.
    pub device: Cow<'a, str>,
    /// Event time, ms since 1970.
    pub time: i64,
    /// What was measured, in the order of the text.
    pub values: Vec<(Cow<'a, str>, Value<'a>)>,
    /// What else is known.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// When the edge got it, ms since 1970.
    pub received: i64,
}

impl<'a> Reading<'a> {
    /// The value with this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value<'a>> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The tag with this name.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(n, _)| n == name).map(|(_, v)| &**v)
    }

    /// An empty reading of another text, with the room of this one.
    #[must_use]
    pub fn recycled<'b>(mut self) -> Reading<'b> {
        self.values.clear();
        self.tags.clear();
        // An empty list of the same layout is collected in place: its room is kept.
        let value = |_| (Cow::Borrowed(""), Value::Bool(false));
        let tag = |_| (Cow::Borrowed(""), Cow::Borrowed(""));
        Reading {
            device: Cow::Borrowed(""),
            time: 0,
            values: self.values.into_iter().map(value).collect(),
            tags: self.tags.into_iter().map(tag).collect(),
            received: 0,
        }
    }

    /// Becomes the reading in this text. Members that are not known are passed over; `tags` and `received` may be missing.
    ///
    /// # Errors
    /// Why the text is no reading; what `self` holds then is meaningless.
    pub fn parse(&mut self, text: &'a [u8]) -> Result<(), NotAReading> {
        self.values.clear();
        self.tags.clear();
        self.received = 0;
        let mut scan = Scan::new(text)?;
        let (mut device, mut time, mut values) = (false, false, false);
        scan.object(|scan, name| {
            match &*name {
                "device" => {
                    self.device = scan.text()?;
                    device = true;
                }
                "time" => {
                    self.time = scan.integer()?;
                    time = true;
                }
                "values" => {
                    self.values.clear();
                    scan.object(|scan, name| {
                        scan.room(self.values.len() < VALUES_MAX)?;
                        self.values.push((name, scan.value()?));
                        Ok(())
                    })?;
                    values = true;
                }
                "tags" => {
                    self.tags.clear();
                    scan.object(|scan, name| {
                        scan.room(self.tags.len() < VALUES_MAX)?;
                        self.tags.push((name, scan.text()?));
                        Ok(())
                    })?;
                }
                "received" => self.received = scan.integer()?,
                _ => scan.skip()?,
            }
            Ok(())
        })?;
        scan.end()?;
        for (there, why) in
            [(device, "device is missing"), (time, "time is missing"), (values, "values are missing")]
        {
            if !there {
                return Err(NotAReading { at: text.len(), why });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
