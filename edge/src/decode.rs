//! Decoding: bytes from a source to readings and rejections.
//!
//! Comes in: the payload and topic of one message, with its arrival and origin. Goes out: for each reading in it either
//! the JSON that Kafka will get, with its device and time, or a [`Rejection`] with the raw bytes, or the word that a
//! rule left it out; never nothing.
//! On the way: parse ([`json`], [`csv`]) → accepted time range ([`times`]) → cleaning rules ([`clean`]) → encode.
//! Guarantees: no panic and memory bounded by the message, whatever the bytes; one bad reading rejects itself
//! alone; a number stays an integer if it was one. Pure: no clock, no I/O.

use std::borrow::Cow;

use weir_shared::clock::Now;
use weir_shared::{reading, record};

use crate::sources::Origin;

pub(crate) mod clean;
pub(crate) mod csv;
mod encode;
pub(crate) mod json;
pub(crate) mod rejection;
pub(crate) mod times;

pub(crate) use clean::Clean;
use rejection::reject;
pub(crate) use rejection::{Reason, Rejection};
use times::Times;

/// One message as a source hands it over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// Where it came in, for example an MQTT topic.
    pub topic: &'a str,
    /// Its bytes, unchanged.
    pub payload: &'a [u8],
    /// When it arrived.
    pub arrived: Now,
    /// What sort of source it came from.
    pub origin: Origin,
}

/// A reading, ready to be journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The Kafka key.
    pub device: String,
    /// Event time, ms since 1970.
    pub time: i64,
    /// The Kafka value, as in `weir_shared::wire`.
    pub value: Vec<u8>,
}

/// What one reading of a message became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// It is good.
    Reading(Reading),
    /// It is not, and why.
    Rejection(Rejection),
    /// It is good, but a rule leaves it out.
    Filtered,
}

/// Why a reading is refused, before it becomes a dead letter.
type Refused = (Reason, String);

/// The limits of all decoders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Largest message, or line of a file, in bytes.
    pub message_bytes_max: usize,
    /// Bytes of a message that a dead letter keeps.
    pub raw_bytes_max: usize,
    /// Largest record in bytes.
    pub record_bytes_max: usize,
}

/// How the bytes are to be read.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    /// One JSON value with these fields.
    Json(json::Mapping),
    /// Lines, each of them one JSON value with these fields.
    JsonLines(json::Mapping),
    /// Lines, each of them a row with these columns.
    Csv(csv::Columns),
}

/// How the messages of one source are to be read.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// Where things are.
    pub format: Format,
    /// Which event times are accepted.
    pub times: Times,
}

/// The one front door: decodes the messages of all sources.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    /// The same for all.
    pub limits: Limits,
    /// For MQTT.
    pub mqtt: Form,
    /// For files, by the index of their section.
    pub files: Vec<Form>,
    /// The rules, the same for all.
    pub clean: Clean,
}

impl Decoder {
    /// Decodes one message; `out` gets at least one result.
    pub(crate) fn decode(&self, input: &Input<'_>, mut out: impl FnMut(Decoded)) {
        let form = match input.origin {
            Origin::Mqtt => &self.mqtt,
            Origin::File { format, .. } => self.files.get(format).unwrap_or(&self.mqtt),
        };
        let job = Job { limits: &self.limits, clean: &self.clean, times: &form.times, input };
        match &form.format {
            Format::Json(mapping) => json::message(&job, mapping, &mut out),
            Format::JsonLines(mapping) => {
                lines(&job, 0, &mut out, |job, row, text, out| json::line(job, mapping, row, text, out));
            }
            Format::Csv(columns) => csv::message(&job, columns, &mut out),
        }
    }

    /// The dead letter of a reading that Kafka refused for good; its topic is not known any more, so it is the device.
    pub(crate) fn refused_by_kafka(&self, device: &str, value: &[u8], why: &str, now: Now) -> Rejection {
        let input = Input { topic: device, payload: value, arrived: now, origin: Origin::Mqtt };
        reject(&input, Reason::RefusedByKafka, why, value, None, self.limits.raw_bytes_max)
    }
}

/// One message with all that decides what becomes of it.
struct Job<'a> {
    limits: &'a Limits,
    clean: &'a Clean,
    times: &'a Times,
    input: &'a Input<'a>,
}

impl Job<'_> {
    fn reject(&self, refused: &Refused, raw: &[u8], index: Option<usize>) -> Decoded {
        let (reason, detail) = refused;
        Decoded::Rejection(reject(self.input, *reason, detail, raw, index, self.limits.raw_bytes_max))
    }

    /// A reading with all its parts known: rules, then JSON.
    fn finish(&self, mut reading: reading::Reading<'_>) -> Result<Decoded, Refused> {
        if !self.clean.apply(&mut reading)? {
            return Ok(Decoded::Filtered);
        }
        let mut value = Vec::with_capacity(64 + 32 * (reading.values.len() + reading.tags.len()));
        encode::reading(&mut value, &reading, self.input.arrived.trusted)?;
        self.sized(reading.device.into_owned(), reading.time, value)
    }

    fn sized(&self, device: String, time: i64, value: Vec<u8>) -> Result<Decoded, Refused> {
        if value.len() + device.len() > self.limits.record_bytes_max {
            let detail =
                format!("{} bytes as a record, at most {}", value.len(), self.limits.record_bytes_max);
            return Err((Reason::RecordTooLarge, detail));
        }
        Ok(Decoded::Reading(Reading { device, time, value }))
    }
}

/// A device name within its limits.
fn checked_device(device: Cow<'_, str>) -> Result<Cow<'_, str>, Refused> {
    if device.is_empty() || device.len() > record::DEVICE_BYTES_MAX {
        let detail = format!("{} bytes, from 1 to {} are taken", device.len(), record::DEVICE_BYTES_MAX);
        return Err((Reason::DeviceInvalid, detail));
    }
    Ok(device)
}

/// Hands on the lines of a message from the `skip`-th on, each with its row in the file; blank ones are nothing.
fn lines<F: FnMut(Decoded)>(
    job: &Job<'_>,
    skip: usize,
    out: &mut F,
    mut line: impl FnMut(&Job<'_>, u64, &str, &mut F),
) {
    let first = match job.input.origin {
        Origin::File { first_row, .. } => first_row,
        Origin::Mqtt => 1,
    };
    let mut any = false;
    for (index, raw) in job.input.payload.split(|b| *b == b'\n').skip(skip).enumerate() {
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if raw.trim_ascii().is_empty() {
            continue;
        }
        any = true;
        let row = first.saturating_add(index as u64);
        let max = job.limits.message_bytes_max;
        if raw.len() > max {
            out(job.reject(&(Reason::TooLarge, format!("row {row}: more than {max} bytes")), raw, None));
            continue;
        }
        match std::str::from_utf8(raw) {
            Ok(text) => line(job, row, text, out),
            Err(e) => {
                let detail = format!("row {row}: not UTF-8 from byte {}", e.valid_up_to());
                out(job.reject(&(Reason::InvalidUtf8, detail), raw, None));
            }
        }
    }
    if !any {
        out(job.reject(&(Reason::Empty, "no line in it".to_owned()), job.input.payload, None));
    }
}

/// Says in which row it was.
fn in_row(row: u64, refused: &Refused) -> Refused {
    (refused.0, format!("row {row}: {}", refused.1))
}

#[cfg(test)]
mod tests;
