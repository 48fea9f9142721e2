//! One rule with its keys.
//!
//! Comes in: readings, the clock. Goes out: results, and when which key wants to be looked at.
//! Guarantees: a key is found by one hash of its bytes; nothing that goes out follows the order of the table.
//! On failure: what is not taken in is counted.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::codec::Corrupt;
use super::codec::Cursor;
use super::entry::{Entry, Placed};
use super::form::Form;
use super::key::{Clock, Key};
use super::outputs::{Emit, Losses, Outputs};
use super::rule::Basis;
use super::schema::Schemas;
use crate::reading::Reading;
use crate::record::{TIME_MS_MAX, TIME_MS_MIN};

const HASHER: FixedState = FixedState::with_seed(0x5765_6972);

/// One rule with its keys.
pub(super) struct Lane {
    pub(super) form: Form,
    /// The clock at which the rule took the place of others, and that as a reason.
    pub(super) begun: Option<(i64, u8)>,
    schemas: Schemas,
    places: HashTable<u32>,
    keys: Vec<Option<Key>>,
    free: Vec<u32>,
    id: Vec<u8>,
    found: Vec<(u16, u16)>,
}

fn hash(id: &[u8]) -> u64 {
    HASHER.hash_one(id)
}

impl Lane {
    pub(super) fn new(form: Form) -> Self {
        Self {
            schemas: Schemas::new(&form.rule.fields, form.rule.all_fields()),
            form,
            begun: None,
            places: HashTable::new(),
            keys: Vec::new(),
            free: Vec::new(),
            id: Vec::new(),
            found: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn key(&self, place: u32) -> Option<&Key> {
        self.keys.get(place as usize)?.as_ref()
    }

    pub(super) fn key_mut(&mut self, place: u32) -> Option<(&Form, &mut Key)> {
        Some((&self.form, self.keys.get_mut(place as usize)?.as_mut()?))
    }

    /// The places of all keys, ordered by key.
    pub(super) fn sorted(&self) -> Vec<u32> {
        let mut places: Vec<(&[u8], u32)> =
            self.keys.iter().zip(0..).filter_map(|(key, place)| Some((&*key.as_ref()?.id, place))).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect()
    }

    fn find(&self, id: &[u8]) -> Option<u32> {
        let same = |place: &u32| self.key(*place).is_some_and(|key| *key.id == *id);
        self.places.find(hash(id), same).copied()
    }

    fn insert(&mut self, key: Key) -> u32 {
        let hashed = hash(&key.id);
        let place = if let Some(place) = self.free.pop() {
            self.keys[place as usize] = Some(key);
            place
        } else {
            self.keys.push(Some(key));
            u32::try_from(self.keys.len() - 1).expect("the limit of keys is below 2³²")
        };
        let keys = &self.keys;
        self.places.insert_unique(hashed, place, |&p| {
            hash(&keys[p as usize].as_ref().expect("a place in the table holds a key").id)
        });
        place
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Key> {
        let key = self.keys.get_mut(place as usize)?.take()?;
        if let Ok(found) = self.places.find_entry(hash(&key.id), |&p| p == place) {
            found.remove();
        }
        self.free.push(place);
        Some(key)
    }

    /// Takes a reading in; the place of its key, if anything of it changed.
    pub(super) fn reading(
        &mut self,
        reading: &Reading<'_>,
        clock: Clock,
        losses: &Losses,
        out: &mut Outputs,
    ) -> Option<u32> {
        let by_clock = self.form.rule.basis != Basis::Event;
        let time = if by_clock { clock.now } else { reading.time };
        if !(TIME_MS_MIN..=TIME_MS_MAX).contains(&time) {
            out.counts.times_refused += 1;
            return None;
        }
        let wanted = self.form.filter.as_ref().is_none_or(|filter| filter(reading));
        if !wanted {
            out.counts.filtered += 1;
            if by_clock {
                return None;
            }
        }
        let mut id = std::mem::take(&mut self.id);
        let keyed = self.form.key_of(reading, &mut id);
        let place = if keyed { self.place(&id, wanted, out) } else { None };
        self.id = id;
        out.counts.unkeyed += u64::from(!keyed && wanted);
        let place = place?;
        let Self { form, begun, schemas, keys, found, .. } = self;
        let key = keys[place as usize].as_mut().expect("a place in the table holds a key");
        let mut before = key.go_on(form, clock);
        let mut schema = std::sync::Arc::clone(&key.schema);
        if wanted {
            out.counts.fields_refused += schemas.resolve(&mut schema, reading, found) as u64;
        }
        let mut emit = Emit { form, key: &[], schema: &schema, losses, begun: *begun, out };
        let id = std::mem::take(&mut key.id);
        emit.key = &id;
        key.close(&mut emit, before);
        if wanted {
            match key.add(&mut emit, &Entry { time, reading, fields: found }) {
                Placed::Entered => {}
                Placed::Late => emit.out.late(&form.rule.name, &reading.device, key.watermark),
                Placed::Refused => emit.out.counts.windows_refused += 1,
            }
        }
        let kept = key.see(form, &reading.device, time, clock.now);
        before = key.go_on(form, clock);
        key.close(&mut emit, before);
        out.counts.devices_refused += u64::from(!kept && wanted);
        key.id = id;
        key.schema = schema;
        Some(place)
    }

    fn place(&mut self, id: &[u8], wanted: bool, out: &mut Outputs) -> Option<u32> {
        let place = self.find(id);
        if place.is_some() || !wanted {
            return place;
        }
        if self.places.len() >= self.form.limits.keys_max {
            out.counts.keys_refused += 1;
            return None;
        }
        Some(self.insert(Key::new(&self.form, id, self.schemas.first())))
    }

    /// The clock reached the time at which a key is due. False if it is to be forgotten.
    pub(super) fn fire(&mut self, place: u32, clock: Clock, losses: &Losses, out: &mut Outputs) -> bool {
        let begun = self.begun;
        let Some((form, key)) = self.key_mut(place) else { return false };
        let before = key.go_on(form, clock);
        let id = std::mem::take(&mut key.id);
        let schema = std::sync::Arc::clone(&key.schema);
        key.close(&mut Emit { form, key: &id, schema: &schema, losses, begun, out }, before);
        key.id = id;
        key.windows.len() > 0 || key.forgotten_at(form) > clock.now
    }

    /// Sends all open windows, as the rule goes.
    pub(super) fn flush(&mut self, why: u8, losses: &Losses, out: &mut Outputs) {
        let begun = self.begun;
        for place in self.sorted() {
            let Some((form, key)) = self.key_mut(place) else { continue };
            key.mark(form, why);
            let id = std::mem::take(&mut key.id);
            let schema = std::sync::Arc::clone(&key.schema);
            key.flush(&mut Emit { form, key: &id, schema: &schema, losses, begun, out });
            key.id = id;
        }
    }

    /// Takes a key back that was written down.
    pub(super) fn restore(&mut self, id: &[u8], state: &[u8]) -> Result<u32, Corrupt> {
        if self.form.parts(id).is_none() || self.find(id).is_some() {
            return Err(Corrupt("no key of the rule, or a second one"));
        }
        let key = Key::decode(&self.form, &mut self.schemas, id, &mut Cursor(state))?;
        Ok(self.insert(key))
    }
}
