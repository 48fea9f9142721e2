//! One record in, at most one record out: dedupe, check, join, write.
//!
//! Comes in: a record with its headers, the marks of its partition, the dimension tables. Goes out: topic, key and
//! headers of the result, its value in a buffer that is used again.
//! Guarantees: each record is exactly one of enriched, rejected, repeat or control in its [`Tally`]. Pure: no Kafka, no clock.

use std::borrow::Cow;

use weir_shared::record::{DEVICE_BYTES_MAX, Identity};
use weir_shared::wire;

use super::Input;
use super::dedupe::{Marks, Verdict};
use super::join::Dimensions;
use super::measures::Tally;
use super::outputs::{self, Origin, VALUE_BYTES_MAX};
use super::reading::{self, Refusal};

/// Reason under which dead letters that the edges made are counted here.
const FROM_EDGE: &str = "from_edge";
/// Highest number: what a signed 64-bit column holds.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// The headers that carry the identity, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Headers<'a> {
    /// [`wire::EDGE`]
    pub(super) edge: Option<&'a [u8]>,
    /// [`wire::STREAM`]
    pub(super) stream: Option<&'a [u8]>,
    /// [`wire::NUMBER`]
    pub(super) number: Option<&'a [u8]>,
    /// [`wire::CONTROL`]
    pub(super) control: Option<&'a [u8]>,
}

/// A record of an input topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) input: Input,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Kafka's timestamp, ms since 1970.
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

/// A record to be produced; its value is [`Engine::value`].
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'static str,
    pub(super) key: Option<Cow<'a, [u8]>>,
    /// Headers to pass on: all three, or none.
    pub(super) headers: Option<[(&'static str, &'a [u8]); 3]>,
}

/// Turns records into results.
pub(super) struct Engine<'a> {
    dimensions: &'a Dimensions,
    value: Vec<u8>,
    dims: Vec<u8>,
    /// Rows found and not found in each dimension table since the last commit.
    looked_up: Vec<(u64, u64)>,
}

impl<'a> Engine<'a> {
    /// With the tables that readings are joined with.
    pub(super) fn new(dimensions: &'a Dimensions) -> Self {
        let looked_up = vec![(0, 0); dimensions.len()];
        Self { dimensions, value: Vec::new(), dims: Vec::new(), looked_up }
    }

    /// Value of the last result.
    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }

    /// The cycle has been committed.
    pub(super) fn commit(&mut self) {
        self.dimensions.count(&self.looked_up);
        self.abort();
    }

    /// The cycle was taken back.
    pub(super) fn abort(&mut self) {
        self.looked_up.fill((0, 0));
    }

    /// Processes a record; `None` is a repeat, or a control record.
    pub(super) fn process<'r>(
        &mut self,
        record: &Incoming<'r>,
        marks: &mut Marks,
        tally: &mut Tally,
    ) -> Option<Outgoing<'r>> {
        tally.received += 1;
        let identity = match identity(record) {
            Ok(identity) => identity,
            // Without an identity there is nothing to compare: its offset is all it has.
            Err(refusal) => return Some(self.reject(record, None, &refusal, tally)),
        };
        match marks.accept(identity.0.stream, identity.0.number) {
            Verdict::Accept { missing } => tally.missing += missing,
            Verdict::Repeat => {
                tally.repeats += 1;
                return None;
            }
        }
        if record.headers.control.is_some() {
            tally.controls += 1;
            return None;
        }
        let body = record.value.unwrap_or_default();
        let done = match record.input {
            Input::Readings => self.enrich(identity, body),
            Input::EdgeRejected => self.forward(record, identity, body),
        };
        Some(match done {
            Err(refusal) => self.reject(record, Some(identity), &refusal, tally),
            Ok(device) => {
                let (topic, key) = match device {
                    Some(device) => {
                        tally.enriched += 1;
                        (wire::ENRICHED, Some(bytes_of(device)))
                    }
                    None => {
                        *tally.rejected.entry(FROM_EDGE).or_default() += 1;
                        (wire::REJECTED, record.key.map(Cow::Borrowed))
                    }
                };
                Outgoing { topic, key, headers: pass_on(record) }
            }
        })
    }

    fn enrich<'r>(
        &mut self,
        (id, edge): (Identity, &str),
        body: &'r [u8],
    ) -> Result<Option<Cow<'r, str>>, Refusal> {
        let device = reading::device(body)?;
        let joined = self.dimensions.join(&device, &mut self.dims, &mut self.looked_up);
        outputs::enriched(&mut self.value, (id, edge), joined, self.dimensions.versions(), &self.dims, body);
        fits(&self.value).map(|()| Some(device))
    }

    fn forward<'r>(
        &mut self,
        record: &Incoming<'_>,
        identity: (Identity, &str),
        body: &[u8],
    ) -> Result<Option<Cow<'r, str>>, Refusal> {
        reading::dead_letter(body)?;
        outputs::forwarded(&mut self.value, &origin(record, Some(identity)), body);
        fits(&self.value).map(|()| None)
    }

    fn reject<'r>(
        &mut self,
        record: &Incoming<'r>,
        identity: Option<(Identity, &str)>,
        refusal: &Refusal,
        tally: &mut Tally,
    ) -> Outgoing<'r> {
        *tally.rejected.entry(refusal.reason).or_default() += 1;
        let raw = record.value.unwrap_or_default();
        outputs::rejection(&mut self.value, &origin(record, identity), refusal, record.timestamp_ms, raw);
        let headers = identity.and_then(|_| pass_on(record));
        // A key of any length may come; a long one would not fit beside the value.
        let key = record.key.filter(|key| key.len() <= DEVICE_BYTES_MAX).map(Cow::Borrowed);
        Outgoing { topic: wire::REJECTED, key, headers }
    }
}

fn fits(value: &[u8]) -> Result<(), Refusal> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("{} bytes with what weir adds; {VALUE_BYTES_MAX} are allowed", value.len());
    Err(Refusal::new("too_large", detail))
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn origin<'a>(record: &Incoming<'_>, identity: Option<(Identity, &'a str)>) -> Origin<'a> {
    Origin { topic: record.input.topic(), partition: record.partition, offset: record.offset, identity }
}

fn pass_on<'r>(record: &Incoming<'r>) -> Option<[(&'static str, &'r [u8]); 3]> {
    let Headers { edge, stream, number, .. } = record.headers;
    Some([(wire::EDGE, edge?), (wire::STREAM, stream?), (wire::NUMBER, number?)])
}

/// Who the record says it is, and the name of its edge.
fn identity<'r>(record: &Incoming<'r>) -> Result<(Identity, &'r str), Refusal> {
    let refuse = |what: &str| Refusal::new("no_identity", what);
    let Headers { edge, stream, number, .. } = record.headers;
    let (Some(stream), Some(number)) = (stream, number) else {
        return Err(refuse("the headers stream and number are missing or cannot be read"));
    };
    let identity = wire::identity(stream, number, record.partition)
        .filter(|id| id.number < NUMBER_MAX)
        .ok_or_else(|| refuse("the headers stream and number are no identity"))?;
    let edge = edge
        .and_then(|edge| std::str::from_utf8(edge).ok())
        .filter(|edge| !edge.is_empty() && edge.len() <= DEVICE_BYTES_MAX && !edge.contains('\0'))
        .ok_or_else(|| refuse("the header edge is missing or no name"))?;
    Ok((identity, edge))
}

#[cfg(test)]
mod tests;
