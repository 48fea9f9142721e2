//! Readings of one partition that wait for a row of a dimension, each device's in order.
//!
//! Comes in: a reading whose row is missing, and every later one of its device. Goes out: those whose row has come, or
//! whose time is over, oldest device first.
//! Guarantees: changes wait for the commit of their cycle, [`Held::abort`] leaves no trace of them; of one device nothing
//! goes before what came earlier; records and bytes are bounded by the caller, who asks [`Held::has_room`].
//! Pure: time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use weir_shared::record::StreamId;

use crate::process::join::Snapshot;

/// Tables that change all the time are looked at this often.
const LOOK_EVERY_MS: u64 = 100;
/// Most that one partition lets go in one cycle because of a row or of time; more goes with the next.
const RELEASE_RECORDS_MAX: usize = 5_000;
/// The same in bytes.
const RELEASE_BYTES_MAX: usize = 4 << 20;
/// What an entry has beside its texts, in the changelog; in memory it is about as much.
const ENTRY_BYTES: usize = 256;

/// The keys `hold_…` of `[process]`, for each partition.
#[derive(Clone, Copy, Debug)]
pub(in crate::process) struct Limits {
    /// How long a reading waits.
    pub(in crate::process) ms: u64,
    /// Most readings.
    pub(in crate::process) records_max: usize,
    /// Most bytes of them, as [`HeldReading::bytes`] counts.
    pub(in crate::process) bytes_max: usize,
}

/// Why a reading waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Why {
    /// Nothing that it has to wait for is missing.
    Joined,
    /// It waited long enough.
    Time,
    /// Others need the room.
    Room,
}

impl Why {
    /// All of them, in the order of their discriminants.
    pub(in crate::process) const ALL: [Self; 3] = [Self::Joined, Self::Time, Self::Room];

    /// For the metric.
    pub(in crate::process) const fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Time => "time",
            Self::Room => "room",
        }
    }
}

/// A reading that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::process) struct HeldReading {
    pub(in crate::process) device: Arc<str>,
    /// In the input topic.
    pub(in crate::process) offset: i64,
    /// Since when it waits, by the wall clock, ms since 1970.
    pub(in crate::process) at: i64,
    /// Kafka's, ms since 1970.
    pub(in crate::process) timestamp_ms: i64,
    pub(in crate::process) stream: StreamId,
    pub(in crate::process) number: u64,
    pub(in crate::process) edge: Box<str>,
    pub(in crate::process) backlog: bool,
    /// Its JSON, byte for byte.
    pub(in crate::process) body: Box<str>,
}

impl HeldReading {
    /// Most bytes that it takes in the changelog, where its JSON stands as a JSON text.
    pub(in crate::process) fn bytes(&self) -> usize {
        let written = |byte: u8| match byte {
            b'"' | b'\\' => 2,
            0..=0x1f => 6,
            _ => 1,
        };
        let texts = [&*self.device, &*self.edge, &*self.body];
        ENTRY_BYTES + texts.into_iter().flat_map(str::bytes).map(written).sum::<usize>()
    }
}

/// What a cycle did with a reading.
#[derive(Debug)]
enum Change {
    /// It waits from now on.
    Came(Arc<HeldReading>),
    /// It waits no longer.
    Went(Arc<HeldReading>),
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::process) struct Held {
    /// As they are in this cycle, by offset.
    devices: HashMap<Arc<str>, BTreeMap<i64, Arc<HeldReading>>, RandomState>,
    /// Offset of each device's oldest → device.
    heads: BTreeMap<i64, Arc<str>>,
    records: usize,
    bytes: usize,
    /// By this cycle, by offset.
    changed: BTreeMap<i64, Change>,
    /// The tables in which nothing was found for any of those that are held.
    looked: Weak<Snapshot>,
    looked_at: i64,
}

impl Held {
    /// Whether none waits.
    #[inline]
    pub(in crate::process) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Readings that wait.
    pub(in crate::process) fn len(&self) -> usize {
        self.records
    }

    /// Whether a reading of this device waits, so that later ones have to.
    #[inline]
    pub(in crate::process) fn has(&self, device: &str) -> bool {
        !self.is_empty() && self.devices.contains_key(device)
    }

    /// Whether one more may wait.
    pub(in crate::process) fn has_room(&self, reading: &HeldReading, limits: &Limits) -> bool {
        self.records < limits.records_max && self.bytes + reading.bytes() <= limits.bytes_max
    }

    /// All readings of the device that waits longest.
    pub(in crate::process) fn oldest(&self) -> Vec<Arc<HeldReading>> {
        self.heads.values().next().map_or_else(Vec::new, |device| self.of(device))
    }

    /// All readings of a device, in order.
    pub(in crate::process) fn of(&self, device: &str) -> Vec<Arc<HeldReading>> {
        self.devices.get(device).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// This one waits from now on.
    pub(in crate::process) fn hold(&mut self, reading: HeldReading) {
        let reading = Arc::new(reading);
        self.changed.insert(reading.offset, Change::Came(Arc::clone(&reading)));
        self.put(reading);
    }

    /// This one waits no longer.
    pub(in crate::process) fn release(&mut self, reading: &Arc<HeldReading>) {
        let removed = self.remove(&reading.device, reading.offset);
        debug_assert!(removed, "only what is held is released");
        match self.changed.get(&reading.offset) {
            // Nothing of it is in the changelog.
            Some(Change::Came(_)) => drop(self.changed.remove(&reading.offset)),
            _ => drop(self.changed.insert(reading.offset, Change::Went(Arc::clone(reading)))),
        }
    }

    /// Those that wait no longer, each with the reason, in the order in which they go; `lacks` tells whether a reading
    /// lacks a row that it has to wait for. Nothing is looked at but when the tables changed or a time is over.
    pub(in crate::process) fn due(
        &mut self,
        tables: &Arc<Snapshot>,
        now: i64,
        limits: &Limits,
        mut lacks: impl FnMut(&HeldReading) -> bool,
    ) -> Vec<(Arc<HeldReading>, Why)> {
        let mut due = Vec::new();
        let mut bytes = 0;
        let changed = !std::ptr::eq(self.looked.as_ptr(), Arc::as_ptr(tables));
        let looks = changed && now.abs_diff(self.looked_at) >= LOOK_EVERY_MS;
        for (head, device) in &self.heads {
            for (offset, reading) in &self.devices[device] {
                // Also when the clock was set back: rather early than very late.
                let late = now.abs_diff(reading.at) >= limits.ms;
                if !looks && !late && offset == head {
                    // The heads of all others came later.
                    return due;
                }
                if due.len() >= RELEASE_RECORDS_MAX || bytes >= RELEASE_BYTES_MAX {
                    return due;
                }
                let why = match lacks(reading) {
                    false => Why::Joined,
                    true if late => Why::Time,
                    true => break,
                };
                bytes += reading.bytes();
                due.push((Arc::clone(reading), why));
            }
        }
        if looks {
            self.looked = Arc::downgrade(tables);
            self.looked_at = now;
        }
        due
    }

    /// What this cycle changed: device, offset, and the reading if it waits from now on.
    pub(in crate::process) fn staged(&self) -> impl Iterator<Item = (&str, i64, Option<&HeldReading>)> {
        self.changed.iter().map(|(offset, change)| match change {
            Change::Came(reading) => (&*reading.device, *offset, Some(&**reading)),
            Change::Went(reading) => (&*reading.device, *offset, None),
        })
    }

    /// The transaction that carries what is staged has been committed.
    pub(in crate::process) fn commit(&mut self) {
        self.changed.clear();
    }

    /// The transaction was aborted.
    pub(in crate::process) fn abort(&mut self) {
        for change in std::mem::take(&mut self.changed).into_values() {
            match change {
                Change::Came(reading) => {
                    self.remove(&reading.device, reading.offset);
                }
                Change::Went(reading) => self.put(reading),
            }
        }
        // What was found must be found again.
        self.looked = Weak::new();
        self.looked_at = 0;
    }

    /// An entry of the changelog; `None` is a tombstone.
    pub(in crate::process) fn restore(&mut self, device: &str, offset: i64, reading: Option<HeldReading>) {
        self.remove(device, offset);
        if let Some(reading) = reading {
            self.put(Arc::new(reading));
        }
    }

    fn put(&mut self, reading: Arc<HeldReading>) {
        self.records += 1;
        self.bytes += reading.bytes();
        let readings = self.devices.entry(Arc::clone(&reading.device)).or_default();
        let old_head = readings.keys().next().copied();
        if old_head.is_none_or(|head| reading.offset < head) {
            old_head.map(|head| self.heads.remove(&head));
            self.heads.insert(reading.offset, Arc::clone(&reading.device));
        }
        readings.insert(reading.offset, reading);
    }

    /// Whether it was there.
    fn remove(&mut self, device: &str, offset: i64) -> bool {
        let Some(readings) = self.devices.get_mut(device) else { return false };
        let Some(reading) = readings.remove(&offset) else { return false };
        self.records -= 1;
        self.bytes -= reading.bytes();
        self.heads.remove(&offset);
        match readings.keys().next() {
            Some(head) => drop(self.heads.insert(*head, reading.device.clone())),
            None => drop(self.devices.remove(device)),
        }
        true
    }
}

#[cfg(test)]
mod tests;
