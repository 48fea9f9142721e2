//! The edges of the fleet: streams, numbers, repeats, restarts. Pure: dice decide what happens.

use std::collections::{BTreeMap, VecDeque};

use rdkafka::message::{Header, OwnedHeaders};
use weir_shared::record::StreamId;
use weir_shared::wire;
use xxhash_rust::xxh3::xxh3_64;

use super::content::{self, Fate, Shape};
use super::{Issued, Kind, Size};
use crate::faults::dice::Dice;

/// Topic and partition.
pub(super) type Place = (&'static str, i32);

/// Records of a partition that an edge can send again.
const TAIL_MAX: usize = 60;
/// One record in so many is of this kind.
const POISON: u64 = 150;
const NAMELESS: u64 = 150;
const REJECTION: u64 = 80;
const WINDOW: u64 = 25;
const GAP: u64 = 1200;
/// Ticks between repeats of some edge, and between restarts, on average.
const REPEAT: u64 = 70;
const RESTART: u64 = 1000;

/// A record to be sent; without `issued` it was sent before.
pub(super) struct Letter {
    pub(super) place: Place,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Vec<u8>,
    pub(super) headers: OwnedHeaders,
    pub(super) issued: Option<Issued>,
}

/// What an edge keeps until it counts as delivered.
#[derive(Clone)]
struct Kept {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    headers: OwnedHeaders,
}

struct Played {
    name: String,
    stream: StreamId,
    next: BTreeMap<Place, u64>,
    /// Numbers of a place were passed over since its last record.
    holes: BTreeMap<Place, bool>,
    tails: BTreeMap<Place, VecDeque<Kept>>,
}

/// All edges.
pub(super) struct Fleets {
    size: Size,
    dice: Dice,
    edges: Vec<Played>,
    id: u64,
}

impl Fleets {
    pub(super) fn new(size: Size, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let edges = (0..size.edges).map(|n| Played::new(format!("fleet-{n}"), stream(&mut dice))).collect();
        Self { size, dice, edges, id: 0 }
    }

    /// What is sent in one tick.
    pub(super) fn tick(&mut self, readings: u64, shape: Shape, letters: &mut Vec<Letter>) {
        for _ in 0..readings {
            let number = self.dice.throw((0, self.size.devices - 1));
            self.reading(number, shape, letters);
            if self.dice.one_in(REJECTION) {
                self.other(Kind::Rejection, letters);
            }
            if self.dice.one_in(WINDOW) {
                self.other(Kind::Window, letters);
            }
            if self.dice.one_in(NAMELESS) {
                self.nameless(letters);
            }
            if self.dice.one_in(GAP) {
                self.gap(letters);
            }
        }
        let at = self.some_edge();
        if self.dice.one_in(REPEAT) {
            self.edges[at].repeat(letters);
        }
        if self.dice.one_in(RESTART) {
            let new = stream(&mut self.dice);
            self.edges[at].restart(new, letters);
        }
    }

    /// A reading into each partition: their ids.
    pub(super) fn canaries(&mut self, letters: &mut Vec<Letter>) -> Vec<u64> {
        let mut ids = Vec::new();
        for wanted in 0..self.size.partitions {
            let is_there =
                |n: &u64| wire::partition_of(content::device(*n).as_bytes(), self.size.partitions) == wanted;
            if let Some(number) = (0..self.size.devices).find(is_there) {
                while content::fate(self.id) != Fate::Kept {
                    self.id += 1;
                }
                ids.push(self.id);
                let value = content::reading(self.id, &content::device(number), Shape::Plain);
                self.id += 1;
                self.of_device(Kind::Reading, wire::READINGS, number, value, letters);
            }
        }
        ids
    }

    fn some_edge(&mut self) -> usize {
        let last = self.edges.len() as u64 - 1;
        usize::try_from(self.dice.throw((0, last))).unwrap_or(0)
    }

    fn reading(&mut self, number: u64, shape: Shape, letters: &mut Vec<Letter>) {
        let id = self.id;
        self.id += 1;
        if self.dice.one_in(POISON) {
            return self.of_device(Kind::Poison, wire::READINGS, number, content::poison(id), letters);
        }
        let kind = match (shape, content::fate(id)) {
            (Shape::Broken, _) => Kind::Poison,
            (_, Fate::Dropped) => Kind::Filtered,
            (_, Fate::Changed) => Kind::Changed,
            (_, Fate::Kept) => Kind::Reading,
        };
        let value = content::reading(id, &content::device(number), shape);
        self.of_device(kind, wire::READINGS, number, value, letters);
    }

    /// Each device has its edge.
    fn of_device(
        &mut self,
        kind: Kind,
        topic: &'static str,
        number: u64,
        value: String,
        letters: &mut Vec<Letter>,
    ) {
        let device = content::device(number);
        let place = (topic, wire::partition_of(device.as_bytes(), self.size.partitions));
        let at = usize::try_from(number % self.size.edges).unwrap_or(0);
        self.edges[at].send(kind, place, Some(device.into_bytes()), value.into_bytes(), letters);
    }

    fn other(&mut self, kind: Kind, letters: &mut Vec<Letter>) {
        let id = self.id;
        self.id += 1;
        if kind == Kind::Window {
            let number = self.dice.throw((0, self.size.devices - 1));
            let value = content::window(id, &content::device(number));
            return self.of_device(kind, wire::WINDOWS, number, value, letters);
        }
        let at = self.some_edge();
        let key = self.edges[at].name.clone().into_bytes();
        let place = (wire::EDGE_REJECTED, wire::partition_of(&key, self.size.partitions));
        self.edges[at].send(kind, place, Some(key), content::rejection(id).into_bytes(), letters);
    }

    fn nameless(&mut self, letters: &mut Vec<Letter>) {
        let value = format!("{{\"id\":\"{}\"}}", self.id).into_bytes();
        let key = format!("stranger-{}", self.id).into_bytes();
        self.id += 1;
        let place = (wire::READINGS, wire::partition_of(&key, self.size.partitions));
        let issued = Some(issued(Kind::Nameless, place, StreamId([0; 16]), 0, &value));
        letters.push(Letter { place, key: Some(key), value, headers: OwnedHeaders::new(), issued });
    }

    /// An edge gives up some numbers of a partition, and says so.
    fn gap(&mut self, letters: &mut Vec<Letter>) {
        let id = self.id;
        self.id += 1;
        let partition = i32::try_from(self.dice.throw((0, 99))).unwrap_or(0) % self.size.partitions;
        let (place, count, at) = ((wire::READINGS, partition), self.dice.throw((1, 5)), self.some_edge());
        let edge = &mut self.edges[at];
        // The first number of a stream is no hole to the cloud.
        let Some(next) = edge.next.get_mut(&place) else { return };
        let range = (*next, *next + count - 1);
        *next += count;
        edge.holes.insert(place, true);
        let key = edge.name.clone().into_bytes();
        let value = content::gap(id, &edge.name, edge.stream, place.0, place.1, range);
        let place = (wire::GAPS, wire::partition_of(&key, self.size.partitions));
        edge.send(Kind::Gap, place, Some(key), value.into_bytes(), letters);
    }
}

impl Played {
    fn new(name: String, stream: StreamId) -> Self {
        let (next, holes, tails) = Default::default();
        Self { name, stream, next, holes, tails }
    }

    fn send(
        &mut self,
        kind: Kind,
        place: Place,
        key: Option<Vec<u8>>,
        value: Vec<u8>,
        letters: &mut Vec<Letter>,
    ) {
        let next = self.next.entry(place).or_default();
        let number = *next;
        *next += 1;
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: wire::EDGE, value: Some(&self.name) })
            .insert(Header { key: wire::STREAM, value: Some(&self.stream.to_string()) })
            .insert(Header { key: wire::NUMBER, value: Some(&number.to_string()) });
        if kind == Kind::Control {
            headers = headers.insert(Header { key: wire::CONTROL, value: Some(wire::CLOSED) });
        }
        let mut issued = issued(kind, place, self.stream, number, &value);
        issued.shows_gap = self.holes.remove(&place).is_some();
        let tail = self.tails.entry(place).or_default();
        if tail.len() == TAIL_MAX {
            tail.pop_front();
        }
        tail.push_back(Kept { key: key.clone(), value: value.clone(), headers: headers.clone() });
        letters.push(Letter { place, key, value, headers, issued: Some(issued) });
    }

    /// As after an error: all that is not surely delivered, again, in order.
    fn repeat(&self, letters: &mut Vec<Letter>) {
        for (place, tail) in &self.tails {
            letters.extend(tail.iter().cloned().map(|Kept { key, value, headers }| Letter {
                place: *place,
                key,
                value,
                headers,
                issued: None,
            }));
        }
    }

    /// Starts again: sends what may not have arrived, then closes the old stream wherever it went.
    fn restart(&mut self, stream: StreamId, letters: &mut Vec<Letter>) {
        self.repeat(letters);
        let old = std::mem::replace(&mut self.stream, stream);
        for (place, next) in std::mem::take(&mut self.next) {
            let value = format!("{{\"stream\":\"{old}\",\"next\":{next}}}").into_bytes();
            self.send(Kind::Control, place, None, value, letters);
        }
    }
}

fn issued(kind: Kind, (topic, partition): Place, stream: StreamId, number: u64, value: &[u8]) -> Issued {
    let tail = value.get(1..).unwrap_or_default();
    let tail = (tail.len(), xxh3_64(tail));
    Issued { kind, topic, partition, offset: -1, stream, number, shows_gap: false, tail }
}

fn stream(dice: &mut Dice) -> StreamId {
    let (high, low) = (dice.throw((0, u64::MAX - 1)), dice.throw((0, u64::MAX - 1)));
    StreamId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_holes_but_those_announced() {
        let size = Size { edges: 3, devices: 50, rate: 0, partitions: 4 };
        let mut fleets = Fleets::new(size, 1);
        let mut letters = Vec::new();
        for _ in 0..5000 {
            fleets.tick(10, Shape::Plain, &mut letters);
        }
        let (mut next, mut repeats, mut kinds) = (BTreeMap::new(), 0, BTreeMap::new());
        for letter in letters {
            let Some(issued) = letter.issued else {
                repeats += 1;
                continue;
            };
            *kinds.entry(format!("{:?}", issued.kind)).or_insert(0) += 1;
            if issued.kind == Kind::Nameless {
                continue;
            }
            let next = next.entry((issued.stream, letter.place)).or_insert(0);
            assert_eq!(issued.number > *next, issued.shows_gap, "{issued:?}");
            *next = issued.number + 1;
        }
        assert!(repeats > 100 && kinds.len() == 9 && kinds.values().all(|n| *n > 10), "{repeats} {kinds:?}");
        assert_eq!(fleets.canaries(&mut Vec::new()).len(), 4);
    }
}
