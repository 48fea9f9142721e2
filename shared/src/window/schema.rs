//! Which fields a key has, and where each stands in its aggregates.
//!
//! Comes in: the values of readings. Goes out: the number of each field. Guarantees: keys with the same fields in the
//! same order share one list; a key's list only grows. On failure: past [`VALUES_MAX`] names a field is left out.

use std::sync::Arc;

use crate::reading::Reading;
use crate::record::VALUES_MAX;

/// Names of fields, each with a place.
#[derive(Debug, PartialEq)]
pub(super) struct Schema {
    pub(super) names: Vec<Box<str>>,
    /// `"name":{` of each, as JSON.
    pub(super) heads: Vec<Box<str>>,
    /// The order of the output.
    pub(super) order: Vec<u16>,
}

impl Schema {
    fn new(names: Vec<Box<str>>, sorted: bool) -> Self {
        let head = |name: &str| format!("{}:{{", serde_json::Value::from(name)).into_boxed_str();
        let mut order: Vec<u16> = (0..u16::try_from(names.len()).unwrap_or(u16::MAX)).collect();
        if sorted {
            order.sort_by_key(|&i| &names[usize::from(i)]);
        }
        Self { heads: names.iter().map(|name| head(name)).collect(), names, order }
    }
}

/// All lists of one rule.
#[derive(Debug)]
pub(super) struct Schemas {
    /// For a rule with names: those. Else the list of keys that have none yet.
    first: Arc<Schema>,
    all_fields: bool,
    /// In the order in which they came up.
    known: Vec<Arc<Schema>>,
    purge_at: usize,
    /// Where the fields of the last reading stood.
    hints: Vec<usize>,
}

impl Schemas {
    pub(super) fn new(fields: &[String], all_fields: bool) -> Self {
        let names = if all_fields { Vec::new() } else { fields.iter().map(|f| f.as_str().into()).collect() };
        Self {
            hints: vec![0; names.len()],
            first: Arc::new(Schema::new(names, all_fields)),
            all_fields,
            known: Vec::new(),
            purge_at: 64,
        }
    }

    /// What a new key begins with.
    pub(super) fn first(&self) -> Arc<Schema> {
        Arc::clone(&self.first)
    }

    /// The list of these names.
    pub(super) fn of(&mut self, names: &[&str]) -> Arc<Schema> {
        let same = |s: &&Arc<Schema>| s.names.iter().map(|n| &**n).eq(names.iter().copied());
        if let Some(schema) = std::iter::once(&self.first).chain(&self.known).find(same) {
            return Arc::clone(schema);
        }
        if self.known.len() >= self.purge_at {
            self.known.retain(|s| Arc::strong_count(s) > 1);
            self.purge_at = (2 * self.known.len()).max(64);
        }
        let schema = Schema::new(names.iter().map(|&n| n.into()).collect(), self.all_fields);
        let schema = Arc::new(schema);
        // Thousands of different lists are not worth looking through.
        if self.known.len() < 1024 {
            self.known.push(Arc::clone(&schema));
        }
        schema
    }

    /// Fills `found` with (field, index in the reading's values), growing the list where need be; how many were left out.
    pub(super) fn resolve(
        &mut self,
        schema: &mut Arc<Schema>,
        reading: &Reading<'_>,
        found: &mut Vec<(u16, u16)>,
    ) -> usize {
        found.clear();
        if !self.all_fields {
            for (field, (name, hint)) in (0..).zip(schema.names.iter().zip(&mut self.hints)) {
                let is = |at: usize| reading.values.get(at).is_some_and(|(n, _)| **n == **name);
                if !is(*hint) {
                    let Some(at) = (0..reading.values.len()).find(|&at| is(at)) else { continue };
                    *hint = at;
                }
                found.push((field, u16::try_from(*hint).unwrap_or(u16::MAX)));
            }
            return 0;
        }
        let mut missing = false;
        let mut guess = 0;
        for (at, (name, value)) in (0..).zip(&reading.values) {
            if value.number().is_none() {
                continue;
            }
            let is = |field: usize| schema.names.get(field).is_some_and(|n| **n == **name);
            let field = if is(guess) { Some(guess) } else { (0..schema.names.len()).find(|&f| is(f)) };
            match field {
                Some(field) => {
                    guess = field + 1;
                    found.push((u16::try_from(field).unwrap_or(u16::MAX), at));
                }
                None => missing = true,
            }
        }
        if missing { self.grow(schema, reading, found) } else { 0 }
    }

    #[cold]
    fn grow(
        &mut self,
        schema: &mut Arc<Schema>,
        reading: &Reading<'_>,
        found: &mut Vec<(u16, u16)>,
    ) -> usize {
        let mut names: Vec<&str> = schema.names.iter().map(|n| &**n).collect();
        let mut refused = 0;
        found.clear();
        for (at, (name, _)) in (0..).zip(&reading.values).filter(|(_, (_, value))| value.number().is_some()) {
            let name = &**name;
            let field = names.iter().position(|n| *n == name);
            if field.is_none() && names.len() == VALUES_MAX {
                refused += 1;
                continue;
            }
            let field = field.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            found.push((u16::try_from(field).unwrap_or(u16::MAX), at));
        }
        let grown = self.of(&names);
        *schema = grown;
        refused
    }
}
