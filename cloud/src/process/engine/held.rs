//! Readings that wait for a row of a dimension with `missing = "hold"`.
//!
//! Comes in: a reading without its row, or behind one of its device that waits. Goes out: nothing now; later the reading,
//! as if it came then (joined, run through the rules), when its row has come, its time is over, or room is needed.
//! Guarantees: each leaves once and in the order of its device. The number of records, their bytes and their time are
//! bounded. On failure: of the receiver only; the state is then taken back with its cycle.

use std::sync::Arc;

use weir_shared::reading::Reading;
use weir_shared::record::Identity;

use super::{Cycle, Emit, Engine, Failure, Headers, Incoming, Refused, Whose, World};
use crate::process::Input;
use crate::process::join::{Found, Missing};
use crate::process::measures::Tally;
use crate::process::outputs::VALUE_BYTES_MAX;
use crate::process::state::State;
use crate::process::state::held::{Held, HeldReading, Why};

/// A reading that waits no longer.
pub(in crate::process) type Due = (Arc<HeldReading>, Why);

impl Engine {
    /// Readings of a partition that wait no longer with these tables and at this time, by the wall clock.
    pub(in crate::process) fn due(&mut self, world: &World, held: &mut Held, now_ms: i64) -> Vec<Due> {
        if held.is_empty() {
            return Vec::new();
        }
        // Not that of a cycle: these are no readings that came, and are not counted.
        let mut found = Found::default();
        let mut room = std::mem::take(&mut self.reading);
        let due = held.due(&world.tables, now_ms, &self.hold, |held| {
            let mut reading = std::mem::take(&mut room).recycled();
            let lacks = reading.check(held.body.as_bytes()).is_ok()
                && !world.tables.join(&reading, &mut self.dims, &mut found)
                && found.missing() == Some(Missing::Hold);
            room = reading.recycled();
            lacks
        });
        self.reading = room;
        due
    }
}

impl Cycle<'_> {
    /// Whether a reading has to wait; `joined` tells whether it has all its rows.
    #[inline]
    pub(super) fn waits(&self, reading: &Reading<'_>, joined: bool, state: &State) -> bool {
        (!joined && self.found.missing() == Some(Missing::Hold)) || state.held.has(&reading.device)
    }

    /// Lets a reading wait. When it cannot, or need not after room was made, says whether it has all its rows: then it goes
    /// on now.
    pub(super) fn hold(
        &mut self,
        record: &Incoming<'_>,
        (identity, edge): Whose<'_>,
        (reading, body, mut joined): (&Reading<'_>, &[u8], bool),
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<Option<bool>, Failure> {
        let body = std::str::from_utf8(body).expect("a reading that was checked is UTF-8");
        let held = HeldReading {
            device: (&*reading.device).into(),
            offset: record.offset,
            at: self.now_ms,
            timestamp_ms: record.timestamp_ms,
            stream: identity.stream,
            number: identity.number,
            edge: edge.into(),
            backlog: record.headers.backlog,
            body: body.into(),
        };
        // No broker would take it into the changelog.
        let too_large = held.bytes() > VALUE_BYTES_MAX;
        loop {
            let in_the_way = if too_large {
                state.held.of(&held.device)
            } else if state.held.has_room(&held, &self.engine.hold) {
                break;
            } else {
                state.held.oldest()
            };
            if in_the_way.is_empty() {
                break;
            }
            for other in in_the_way {
                self.release(record.partition, &(other, Why::Room), state, tally, emit)?;
            }
            joined = self.join(reading);
        }
        if too_large {
            tally.held += 1;
            tally.released[Why::Room as usize] += 1;
        } else if self.waits(reading, joined, state) {
            tally.held += 1;
            state.held.hold(held);
            return Ok(None);
        }
        Ok(Some(joined))
    }

    /// Processes a reading that waits no longer, as if it came now.
    ///
    /// # Errors
    /// Those of `emit`.
    pub(in crate::process) fn release(
        &mut self,
        partition: i32,
        (held, why): &Due,
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Failure> {
        state.held.release(held);
        tally.released[*why as usize] += 1;
        let record = Incoming {
            input: Input::Readings,
            partition,
            offset: held.offset,
            timestamp_ms: held.timestamp_ms,
            key: Some(held.device.as_bytes()),
            value: Some(held.body.as_bytes()),
            headers: Headers { backlog: held.backlog, ..Headers::default() },
        };
        let identity = Identity { stream: held.stream, partition, number: held.number };
        let whose = (identity, &*held.edge);
        match self.reading_now(&record, whose, held.body.as_bytes(), state, tally, emit) {
            Err(Refused::Record(refusal)) => self.reject(&record, Some(whose), &refusal, tally, emit),
            Err(Refused::Emit(failure)) => Err(failure),
            Ok(()) => Ok(()),
        }
    }
}
