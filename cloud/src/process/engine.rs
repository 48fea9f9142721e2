//! One record in; what is made of it out: dedupe, check, join, write.
//!
//! Comes in: a record with its headers, the state of its partition, the tables and rules of this cycle. Goes out: records
//! for the output topics, through [`Emit`].
//! Guarantees: each record is exactly one of enriched, filtered, rejected, repeat or control in its [`Tally`], or is held
//! and becomes one of them later ([`held`]). What a mask hides leaves in no form. Pure: no Kafka, no clock; the same records
//! with the same tables, rules and times give the same bytes.
//! On failure: of the receiver only; the cycle is then taken back.

mod aggregates;
mod held;
mod readings;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use weir_shared::reading::Reading;
use weir_shared::reading::strict::{self, Refusal};
use weir_shared::record::{DEVICE_BYTES_MAX, Identity, StreamId};
use weir_shared::wire;

use super::join::{Found, Snapshot};
use super::measures::Tally;
use super::outputs::{self, Letter, Loss, Origin, Raw, VALUE_BYTES_MAX};
use super::state::State;
use super::state::held::Limits;
use super::transaction::Failure;
use super::{Input, dedupe};
use crate::rules::store::Loaded;
use crate::rules::{Counts, Evaluator, Kind, Malformed, Verdict};
pub(super) use held::Due;

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
    /// Whether it has [`wire::BACKLOG`].
    pub(super) backlog: bool,
    /// Whether it has [`wire::RETRY`].
    pub(super) retry: bool,
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

/// A record to be produced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
}

/// Who takes the results.
pub(super) trait Emit {
    /// Takes one; its bytes are gone afterwards.
    fn emit(&mut self, out: Outgoing<'_>) -> Result<(), Failure>;
}

/// One version of everything that a cycle is computed with.
#[derive(Clone)]
pub(super) struct World {
    /// Dimension tables.
    pub(super) tables: Arc<Snapshot>,
    /// Rules in force.
    pub(super) rules: Arc<Loaded>,
}

/// What is kept from cycle to cycle: room, and compiled rules.
pub(super) struct Engine {
    evaluator: Evaluator,
    verdict: Verdict,
    /// Every mask, for what has no reading to ask their conditions of.
    all_masks: Verdict,
    alerts_by_severity: bool,
    hold: Limits,
    clock: Option<fn() -> Instant>,
    value: Vec<u8>,
    body: Vec<u8>,
    dims: Vec<u8>,
    masked_dims: Vec<u8>,
    /// Only its room is used again.
    reading: Reading<'static>,
}

impl Engine {
    /// Without rules yet.
    pub(super) fn new(alerts_by_severity: bool, hold: Limits) -> Self {
        Self {
            evaluator: Evaluator::new(Arc::default(), None),
            verdict: Verdict::default(),
            all_masks: Verdict::default(),
            alerts_by_severity,
            hold,
            clock: None,
            value: Vec::new(),
            body: Vec::new(),
            dims: Vec::new(),
            masked_dims: Vec::new(),
            reading: Reading::default(),
        }
    }

    /// Measures how long rules take, by this clock.
    pub(super) fn timed_by(self, clock: fn() -> Instant) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Begins a cycle with these tables and rules, at this time by the wall clock.
    pub(super) fn begin<'w>(&'w mut self, world: &'w World, now_ms: i64) -> Cycle<'w> {
        let set = &world.rules.set;
        if !Arc::ptr_eq(set, self.evaluator.set()) {
            self.evaluator = Evaluator::new(Arc::clone(set), self.clock);
            self.verdict = Verdict::default();
            let masks = set.rules().iter().filter(|rule| rule.kind == Kind::Mask);
            self.all_masks.masks = masks.map(|rule| rule.index).collect();
        }
        Cycle { engine: self, world, now_ms, found: Found::default() }
    }

    /// How the rules fared since the last time, by index.
    pub(super) fn take_counts(&mut self) -> Vec<Counts> {
        self.evaluator.take_counts()
    }
}

/// The records of one cycle on their way.
pub(super) struct Cycle<'w> {
    engine: &'w mut Engine,
    world: &'w World,
    now_ms: i64,
    found: Found<'w>,
}

/// Who a record is, and the name of its edge.
type Whose<'r> = (Identity, &'r str);

impl Cycle<'_> {
    /// The cycle has been committed.
    pub(super) fn commit(mut self) {
        self.found.count();
    }

    /// Processes a record.
    ///
    /// # Errors
    /// Those of `emit`.
    pub(super) fn process(
        &mut self,
        record: &Incoming<'_>,
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Failure> {
        tally.received += 1;
        let oldest = tally.oldest_ms.get_or_insert(record.timestamp_ms);
        *oldest = record.timestamp_ms.min(*oldest);
        state.passes(record.timestamp_ms);
        let whose = match identity(record) {
            Ok(whose) => whose,
            // Without an identity there is nothing to compare: its offset is all it has.
            Err(refusal) => return self.reject(record, None, &refusal, tally, emit),
        };
        // Its number was counted when it was rejected, and which dead letter is sent again is marked elsewhere.
        if record.headers.retry && record.headers.control.is_none() {
            tally.retried += 1;
        } else {
            match state.marks.accept(whose.0.stream, whose.0.number, record.timestamp_ms) {
                dedupe::Verdict::Repeat => {
                    tally.repeats += 1;
                    return Ok(());
                }
                dedupe::Verdict::Accept { expected, reopened } => {
                    tally.reopened += u64::from(reopened);
                    if whose.0.number > expected {
                        tally.missing = tally.missing.saturating_add(whose.0.number - expected);
                        self.lost(record, whose.1, whose.0.stream, expected..whose.0.number, emit)?;
                    }
                }
            }
        }
        if let Some(control) = record.headers.control {
            if let Some((stream, next)) = closed(control, record.value.unwrap_or_default())
                && let Some(expected) = state.marks.close(stream, next, record.timestamp_ms)
            {
                tally.missing = tally.missing.saturating_add(next - expected);
                self.lost(record, whose.1, stream, expected..next, emit)?;
            }
            tally.controls += 1;
            return Ok(());
        }
        let body = record.value.unwrap_or_default();
        let done = match record.input {
            Input::Readings => self.reading(record, whose, body, state, tally, emit),
            Input::EdgeRejected => self.forward(record, whose, body, emit),
            Input::Windows => self.aggregate(record, whose, body, emit),
            Input::Gaps => self.loss(record, whose, body, emit),
        };
        match done {
            Err(Refused::Record(refusal)) => self.reject(record, Some(whose), &refusal, tally, emit),
            Err(Refused::Emit(failure)) => Err(failure),
            Ok(()) => {
                match record.input {
                    // Counted where it is known what became of it.
                    Input::Readings => {}
                    Input::EdgeRejected => *tally.rejected.entry(FROM_EDGE).or_default() += 1,
                    Input::Windows | Input::Gaps => tally.enriched += 1,
                }
                Ok(())
            }
        }
    }

    fn loss(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        body: &[u8],
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        strict::object(body, &["weir"])?;
        outputs::loss(&mut self.engine.value, whose, body);
        fits(&self.engine.value)?;
        let value = &self.engine.value;
        Ok(emit.emit(Outgoing { topic: wire::LOSSES, key: short(record.key), value })?)
    }

    fn forward(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        body: &[u8],
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        strict::object(body, &["weir"])?;
        let masked = !self.engine.all_masks.masks.is_empty();
        let withheld;
        let body = if !masked {
            body
        } else {
            withheld = outputs::withheld(body)?;
            &withheld
        };
        outputs::forwarded(&mut self.engine.value, &origin(record, Some(whose)), body);
        fits(&self.engine.value)?;
        let value = &self.engine.value;
        // At the edge the key is the topic of the source, or the device.
        let key = if masked { None } else { short(record.key) };
        Ok(emit.emit(Outgoing { topic: wire::REJECTED, key, value })?)
    }

    fn reject(
        &mut self,
        record: &Incoming<'_>,
        whose: Option<Whose<'_>>,
        refusal: &Refusal,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Failure> {
        *tally.rejected.entry(refusal.reason).or_default() += 1;
        let masked = !self.engine.all_masks.masks.is_empty();
        let raw = record.value.unwrap_or_default();
        // What cannot be read cannot be masked.
        let raw = if masked { Raw::Withheld(raw.len()) } else { Raw::Shown(raw) };
        let letter = Letter { stage: "process", refusal, received_ms: record.timestamp_ms, raw };
        outputs::rejection(&mut self.engine.value, &origin(record, whose), &letter);
        let key = if masked { None } else { short(record.key) };
        emit.emit(Outgoing { topic: wire::REJECTED, key, value: &self.engine.value })
    }

    /// Tells of numbers that did not come before this record. Whether an edge announced them is for those to compare who
    /// have all of `weir.losses`: the announcement comes by another topic, sooner or later.
    fn lost(
        &mut self,
        record: &Incoming<'_>,
        edge: &str,
        stream: StreamId,
        missing: Range<u64>,
        emit: &mut impl Emit,
    ) -> Result<(), Failure> {
        let loss = Loss {
            reason: "observed",
            edge,
            stream: Some(stream),
            from: missing.start,
            to: missing.end - 1,
            noticed: record.timestamp_ms,
        };
        outputs::found_loss(&mut self.engine.value, &origin(record, None), &loss);
        let value = &self.engine.value;
        emit.emit(Outgoing { topic: wire::LOSSES, key: Some(edge.as_bytes()), value })
    }
}

/// Why a record was not passed on.
enum Refused {
    Record(Refusal),
    Emit(Failure),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Record(refusal)
    }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        Self::new("malformed", error.to_string())
    }
}

impl From<Malformed> for Refused {
    fn from(error: Malformed) -> Self {
        Self::Record(error.into())
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Emit(failure)
    }
}

/// Stream and next number of a [`wire::CLOSED`] record; `None` when it tells something else.
fn closed(control: &[u8], value: &[u8]) -> Option<(StreamId, u64)> {
    #[derive(Deserialize)]
    struct Closed<'a> {
        stream: &'a str,
        next: u64,
    }
    if control != wire::CLOSED {
        return None;
    }
    let closed: Closed<'_> = serde_json::from_slice(value).ok()?;
    Some((StreamId::from_hex(closed.stream.as_bytes())?, closed.next)).filter(|_| closed.next <= NUMBER_MAX)
}

fn fits(value: &[u8]) -> Result<(), Refusal> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let detail = format!("{} bytes with what weir adds; {VALUE_BYTES_MAX} are allowed", value.len());
    Err(Refusal::new("too_large", detail))
}

/// A key of any length may come; a long one would not fit beside the value.
fn short(key: Option<&[u8]>) -> Option<&[u8]> {
    key.filter(|key| key.len() <= DEVICE_BYTES_MAX)
}

fn origin<'a>(record: &Incoming<'_>, identity: Option<(Identity, &'a str)>) -> Origin<'a> {
    Origin { topic: record.input.topic(), partition: record.partition, offset: record.offset, identity }
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
