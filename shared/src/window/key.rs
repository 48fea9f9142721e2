//! One key of one rule: its devices, its watermark, its windows.
//!
//! Comes in: readings of the key, the clock. Goes out: results, and the clock at which it wants to be looked at.
//! Guarantees: the watermark never goes back. It is the least of the greatest event times of the devices that are not
//! idle, less the delay; when all are idle, the time of the one that sent last goes on with the clock. What a look at
//! the clock does, and when it is due, follows from the state that is written down, never from looks in between.

use std::sync::Arc;

use super::codec::{Corrupt, Cursor, put_bytes, put_length, put_signed};
use super::counts::Counts;
use super::devices::Devices;
use super::entry::{Entry, Placed};
use super::form::Form;
use super::outputs::Emit;
use super::panes::Panes;
use super::rule::{Basis, Kind};
use super::schema::{Schema, Schemas};
use super::sessions::Sessions;

/// Before all times: year 1.
const BEFORE_ALL: i64 = -62_135_596_800_000;

/// One key.
pub(super) struct Key {
    pub(super) id: Box<[u8]>,
    pub(super) schema: Arc<Schema>,
    /// The greatest event time of the device that sent last, and when it did.
    time: i64,
    arrival: i64,
    devices: Option<Box<Devices>>,
    pub(super) watermark: i64,
    pub(super) windows: Windows,
    /// The watermark at which the windows have something to do.
    next: i64,
    /// Where it stands in the engine's heap: never later than it is due.
    pub(super) scheduled: i64,
    /// Whether it is on the list of changed ones.
    pub(super) changed: bool,
}

/// The windows of a key.
pub(super) enum Windows {
    Panes(Panes),
    Sessions(Sessions),
    Counts(Box<Counts>),
}

/// The clock, and since when silence counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: i64,
    pub(super) resumed: i64,
}

impl Key {
    pub(super) fn new(form: &Form, id: &[u8], schema: Arc<Schema>) -> Self {
        let windows = match form.rule.kind {
            Kind::Tumbling { .. } | Kind::Sliding { .. } => Windows::Panes(Panes::default()),
            Kind::Session { .. } => Windows::Sessions(Sessions::default()),
            Kind::Count { .. } | Kind::SlidingCount { .. } => Windows::Counts(Box::new(Counts::new())),
        };
        let devices = form.rule.basis == Basis::Event && form.ends_by_time() && !form.one_device();
        Self {
            id: id.into(),
            schema,
            time: BEFORE_ALL,
            arrival: BEFORE_ALL,
            devices: devices.then(Box::default),
            watermark: BEFORE_ALL,
            windows,
            next: i64::MAX,
            scheduled: i64::MAX,
            changed: false,
        }
    }

    /// A reading of `device` arrived; false if there is no room to keep its device.
    pub(super) fn see(&mut self, form: &Form, device: &str, time: i64, now: i64) -> bool {
        let mut kept = true;
        let greatest = match &mut self.devices {
            Some(devices) => {
                devices.see(device, time, now, form.limits.devices_per_key_max).unwrap_or_else(|| {
                    kept = false;
                    time
                })
            }
            None => self.time.max(time),
        };
        if kept || self.arrival == BEFORE_ALL {
            (self.time, self.arrival) = (greatest, now);
        }
        kept
    }

    /// Brings the watermark to where the clock and the readings put it.
    pub(super) fn go_on(&mut self, form: &Form, clock: Clock) -> i64 {
        let before = self.watermark;
        let reached = match form.rule.basis {
            Basis::Processing => clock.now,
            Basis::Ingestion => self.idle_time(form, clock),
            Basis::Event => {
                if let Some(devices) = &mut self.devices
                    && clock.now.saturating_sub(form.idle) >= clock.resumed
                {
                    devices.expire(clock.now.saturating_sub(form.idle));
                }
                let least = self.devices.as_ref().and_then(|d| d.least_time());
                least.unwrap_or_else(|| self.idle_time(form, clock)) - form.delay
            }
        };
        self.watermark = before.max(reached);
        before
    }

    /// The time of the device that sent last, going on with the clock if it is idle.
    fn idle_time(&self, form: &Form, clock: Clock) -> i64 {
        let silent = clock.now - self.arrival.max(clock.resumed);
        if self.arrival != BEFORE_ALL && silent >= form.idle { self.time + silent } else { self.time }
    }

    /// Puts a reading into its windows.
    pub(super) fn add(&mut self, emit: &mut Emit<'_>, entry: &Entry<'_>) -> Placed {
        let windows = self.windows.len();
        let placed = match &mut self.windows {
            Windows::Panes(panes) => panes.add(emit, self.watermark, entry),
            Windows::Sessions(sessions) => {
                let placed = sessions.add(emit, self.watermark, entry);
                self.next = sessions.next(emit.form);
                return placed;
            }
            Windows::Counts(counts) => counts.add(emit, entry),
        };
        if self.windows.len() != windows {
            self.next = self.windows.next(emit.form, self.watermark);
        }
        placed
    }

    /// Closes what the watermark has passed since it stood at `before`.
    pub(super) fn close(&mut self, emit: &mut Emit<'_>, before: i64) {
        if self.next > self.watermark {
            return;
        }
        match &mut self.windows {
            Windows::Panes(panes) => panes.close(emit, before, self.watermark),
            Windows::Sessions(sessions) => sessions.close(emit, self.watermark),
            Windows::Counts(_) => {}
        }
        self.next = self.windows.next(emit.form, self.watermark);
    }

    /// The clock at which something is to be done.
    pub(super) fn due(&self, form: &Form, resumed: i64) -> i64 {
        if self.windows.len() == 0 {
            return self.forgotten_at(form);
        }
        if self.next == i64::MAX {
            return i64::MAX;
        }
        if form.rule.basis == Basis::Processing {
            return self.next;
        }
        if let Some(arrival) = self.devices.as_ref().and_then(|d| d.least_arrival()) {
            return arrival.max(resumed).saturating_add(form.idle);
        }
        let delay = if form.rule.basis == Basis::Event { form.delay } else { 0 };
        self.arrival.max(resumed).saturating_add(form.idle.max(self.next + delay - self.time))
    }

    /// When a key without windows is forgotten: at once where times cannot come again.
    pub(super) fn forgotten_at(&self, form: &Form) -> i64 {
        let again = form.rule.basis == Basis::Event || !form.ends_by_time();
        let keep = if again { i64::try_from(form.limits.keep_ms).unwrap_or(i64::MAX) } else { 0 };
        self.arrival.saturating_add(keep)
    }

    pub(super) fn mark(&mut self, form: &Form, why: u8) {
        match &mut self.windows {
            Windows::Panes(panes) => panes.mark(form, self.watermark, why),
            Windows::Sessions(sessions) => sessions.mark(why),
            Windows::Counts(counts) => counts.mark(why),
        }
    }

    /// Sends all open windows as they are.
    pub(super) fn flush(&mut self, emit: &mut Emit<'_>) {
        match &mut self.windows {
            Windows::Panes(panes) => panes.flush(emit, self.watermark),
            Windows::Sessions(sessions) => sessions.flush(emit),
            Windows::Counts(counts) => counts.flush(emit),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_length(out, self.schema.names.len());
        self.schema.names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
        put_signed(out, self.time);
        put_signed(out, self.arrival);
        put_signed(out, self.watermark);
        if let Some(devices) = &self.devices {
            devices.encode(out);
        }
        match &self.windows {
            Windows::Panes(panes) => panes.encode(out),
            Windows::Sessions(sessions) => sessions.encode(out),
            Windows::Counts(counts) => counts.encode(out),
        }
    }

    pub(super) fn decode(
        form: &Form,
        schemas: &mut Schemas,
        id: &[u8],
        cursor: &mut Cursor<'_>,
    ) -> Result<Self, Corrupt> {
        let names = (0..cursor.length(1)?).map(|_| cursor.text()).collect::<Result<Vec<_>, _>>()?;
        let all = form.rule.all_fields();
        if names.len() > crate::record::VALUES_MAX || (!all && form.rule.fields != names) {
            return Err(Corrupt("fields are not those of the rule"));
        }
        let mut key = Self::new(form, id, schemas.of(&names));
        (key.time, key.arrival, key.watermark) = (cursor.time()?, cursor.time()?, cursor.time()?);
        if key.devices.is_some() {
            key.devices = Some(Box::new(Devices::decode(cursor)?));
        }
        key.windows = match key.windows {
            Windows::Panes(_) => Windows::Panes(Panes::decode(form, names.len(), cursor)?),
            Windows::Sessions(_) => Windows::Sessions(Sessions::decode(form, names.len(), cursor)?),
            Windows::Counts(_) => Windows::Counts(Box::new(Counts::decode(form, names.len(), cursor)?)),
        };
        cursor.end()?;
        key.next = key.windows.next(form, key.watermark);
        Ok(key)
    }
}

impl Windows {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Panes(panes) => panes.len(),
            Self::Sessions(sessions) => sessions.len(),
            Self::Counts(counts) => counts.len(),
        }
    }

    fn next(&self, form: &Form, watermark: i64) -> i64 {
        match self {
            Self::Panes(panes) => panes.next(form, watermark),
            Self::Sessions(sessions) => sessions.next(form),
            Self::Counts(_) => i64::MAX,
        }
    }
}
