//! The devices of a key that may hold several.
//!
//! Comes in: who sent what time, and when. Goes out: the least of the greatest times of those that are not idle.
//! Guarantees: a reading costs a few steps of a sorted set, however many devices there are. On failure: a device beyond the
//! limit is not taken in, and does not hold the key back.

use std::collections::{BTreeSet, HashMap};

use super::codec::{Corrupt, Cursor, put_bytes, put_length, put_signed};

/// Devices that are not idle.
#[derive(Debug, Default)]
pub(super) struct Devices {
    places: HashMap<Box<str>, u32, foldhash::fast::FixedState>,
    /// By place; the free ones are in `free`.
    seen: Vec<Device>,
    free: Vec<u32>,
    by_time: BTreeSet<(i64, u32)>,
    by_arrival: BTreeSet<(i64, u32)>,
}

#[derive(Debug, Default)]
struct Device {
    name: Box<str>,
    time: i64,
    arrival: i64,
}

impl Devices {
    /// A device sent `time`; its greatest time, or `None` if there is no room for it.
    pub(super) fn see(&mut self, name: &str, time: i64, arrival: i64, most: usize) -> Option<i64> {
        let Some(&place) = self.places.get(name) else {
            return (self.places.len() < most).then(|| self.insert(name, time, arrival));
        };
        let device = &mut self.seen[place as usize];
        if time > device.time {
            self.by_time.remove(&(device.time, place));
            self.by_time.insert((time, place));
            device.time = time;
        }
        if arrival > device.arrival {
            self.by_arrival.remove(&(device.arrival, place));
            self.by_arrival.insert((arrival, place));
            device.arrival = arrival;
        }
        Some(device.time)
    }

    fn insert(&mut self, name: &str, time: i64, arrival: i64) -> i64 {
        let device = Device { name: name.into(), time, arrival };
        let place = match self.free.pop() {
            Some(place) => {
                self.seen[place as usize] = device;
                place
            }
            None => {
                self.seen.push(device);
                u32::try_from(self.seen.len() - 1).expect("the limit of devices is far below 2³²")
            }
        };
        self.places.insert(name.into(), place);
        self.by_time.insert((time, place));
        self.by_arrival.insert((arrival, place));
        time
    }

    /// Drops those whose last reading arrived at `until` or before.
    pub(super) fn expire(&mut self, until: i64) {
        while let Some(&(arrival, place)) = self.by_arrival.first()
            && arrival <= until
        {
            let device = std::mem::take(&mut self.seen[place as usize]);
            self.by_arrival.pop_first();
            self.by_time.remove(&(device.time, place));
            self.places.remove(&device.name);
            self.free.push(place);
        }
    }

    /// The least of their greatest times.
    pub(super) fn least_time(&self) -> Option<i64> {
        self.by_time.first().map(|d| d.0)
    }

    /// When the one that has been silent longest sent its last reading.
    pub(super) fn least_arrival(&self) -> Option<i64> {
        self.by_arrival.first().map(|d| d.0)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut devices: Vec<_> = self.places.values().map(|&place| &self.seen[place as usize]).collect();
        devices.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        put_length(out, devices.len());
        for device in devices {
            put_bytes(out, device.name.as_bytes());
            put_signed(out, device.time);
            put_signed(out, device.arrival);
        }
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let mut devices = Self::default();
        for _ in 0..cursor.length(3)? {
            let name = cursor.text()?;
            let (time, arrival) = (cursor.time()?, cursor.time()?);
            if devices.places.contains_key(name) {
                return Err(Corrupt("a device stands twice"));
            }
            devices.insert(name, time, arrival);
        }
        Ok(devices)
    }
}
