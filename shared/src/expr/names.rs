//! Names that expressions look at, numbered once, and their values, looked up once for each record.
//!
//! Comes in: names while expressions are compiled, then records. Goes out: a value for each number.
//! Guarantees: a record is passed over once, however many expressions look at it; nothing is allocated for records that
//! look like the one before. Pure; cannot fail.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Record;
use super::path::Field;
use crate::reading::Value;

/// The number of a name that nobody looks at.
const NOBODY: u32 = u32::MAX;

/// Numbered names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    values: HashMap<Box<str>, u32>,
    tags: HashMap<Box<str>, u32>,
    dims: Vec<(Box<str>, Box<str>, u32)>,
    count: u32,
}

impl Names {
    /// The number of a value, tag or column; `None` for anything else.
    pub fn number(&mut self, field: &Field) -> Option<u32> {
        let next = self.count;
        let number = match field {
            Field::Value(name) => *self.values.entry(name.as_str().into()).or_insert(next),
            Field::Tag(name) => *self.tags.entry(name.as_str().into()).or_insert(next),
            Field::Column(d, c) => {
                let known = self.dims.iter().find(|(a, b, _)| **a == **d && **b == **c).map(|(_, _, n)| *n);
                known.unwrap_or_else(|| {
                    self.dims.push((d.as_str().into(), c.as_str().into(), next));
                    next
                })
            }
            Field::Device | Field::AnyValue | Field::AnyTag => return None,
        };
        self.count += u32::from(number == next);
        Some(number)
    }
}

/// The value of a name. Numbers are floats, as everywhere in expressions.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slot<'a> {
    Missing,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
}

impl<'a> Slot<'a> {
    fn of(value: &'a Value<'_>) -> Self {
        match value {
            Value::Bool(v) => Self::Bool(*v),
            Value::Text(v) => Self::Text(Cow::Borrowed(v)),
            Value::Unsigned(v) => Self::Number(*v as f64),
            Value::Signed(v) => Self::Number(*v as f64),
            Value::Float(v) => Self::Number(*v),
        }
    }

    fn from(value: Value<'a>) -> Self {
        match value {
            Value::Text(v) => Self::Text(v),
            other => Slot::of(&other).with_static(),
        }
    }

    /// For what is no text.
    fn with_static<'b>(&self) -> Slot<'b> {
        match self {
            Self::Bool(v) => Slot::Bool(*v),
            Self::Number(v) => Slot::Number(*v),
            Self::Missing | Self::Text(_) => Slot::Missing,
        }
    }
}

/// Names in the order of the record before, with their numbers.
#[derive(Debug, Default)]
struct Shape(Vec<(String, u32)>);

impl Shape {
    /// The number of the name at a place.
    #[inline]
    fn number(&mut self, place: usize, name: &str, names: &HashMap<Box<str>, u32>) -> u32 {
        if let Some((last, number)) = self.0.get(place)
            && last == name
        {
            return *number;
        }
        self.learn(place, name, names)
    }

    #[cold]
    fn learn(&mut self, place: usize, name: &str, names: &HashMap<Box<str>, u32>) -> u32 {
        let number = names.get(name).copied().unwrap_or(NOBODY);
        match self.0.get_mut(place) {
            Some((last, n)) => {
                last.clear();
                last.push_str(name);
                *n = number;
            }
            None => self.0.push((name.to_owned(), number)),
        }
        number
    }
}

/// Room for the values of a record, used again for the next one. For one set of [`Names`] only.
#[derive(Debug, Default)]
pub struct Row {
    slots: Vec<Slot<'static>>,
    values: Shape,
    tags: Shape,
}

/// A record's values, numbered.
#[derive(Debug)]
pub struct Filled<'a> {
    pub(super) device: &'a str,
    pub(super) time: i64,
    pub(super) received: i64,
    pub(super) slots: Vec<Slot<'a>>,
}

impl Row {
    /// Looks up all names; of the record its derived values are left out: see [`Filled::set`].
    pub fn fill<'a>(&mut self, names: &Names, record: &Record<'a>) -> Filled<'a> {
        let reading = record.reading;
        let mut slots = recycled(std::mem::take(&mut self.slots));
        slots.resize(names.count as usize, Slot::Missing);
        if !names.values.is_empty() {
            for (place, (name, value)) in reading.values.iter().enumerate() {
                let number = self.values.number(place, name, &names.values);
                // Of two with the same name the first counts.
                if let Some(slot @ Slot::Missing) = slots.get_mut(number as usize) {
                    *slot = Slot::of(value);
                }
            }
        }
        if !names.tags.is_empty() {
            for (place, (name, tag)) in reading.tags.iter().enumerate() {
                let number = self.tags.number(place, name, &names.tags);
                if let Some(slot @ Slot::Missing) = slots.get_mut(number as usize) {
                    *slot = Slot::Text(Cow::Borrowed(tag));
                }
            }
        }
        for (dimension, column, number) in &names.dims {
            if let Some(value) = record.dims.column(dimension, column) {
                slots[*number as usize] = Slot::from(value);
            }
        }
        Filled { device: &reading.device, time: reading.time, received: reading.received, slots }
    }

    /// Takes the room back.
    pub fn recycle(&mut self, filled: Filled<'_>) {
        self.slots = recycled(filled.slots);
    }
}

impl Filled<'_> {
    /// A derived value takes the place of what was there.
    pub fn set(&mut self, number: u32, value: Value<'static>) {
        if let Some(slot) = self.slots.get_mut(number as usize) {
            *slot = Slot::from(value);
        }
    }

    /// The text of a tag or column, or the digits of a number.
    #[must_use]
    pub fn text(&self, number: u32) -> Option<Cow<'_, str>> {
        match self.slots.get(number as usize)? {
            Slot::Missing => None,
            Slot::Bool(v) => Some(Cow::Borrowed(if *v { "true" } else { "false" })),
            Slot::Number(v) => Some(Cow::Owned(v.to_string())),
            Slot::Text(v) => Some(Cow::Borrowed(v)),
        }
    }
}

/// An empty list with the room of another: a list of the same layout is collected in place.
fn recycled<'b>(mut slots: Vec<Slot<'_>>) -> Vec<Slot<'b>> {
    slots.clear();
    slots.into_iter().map(|_| Slot::Missing).collect()
}
