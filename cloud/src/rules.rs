//! Rules: what analysts want done with the readings, compiled once and shared by all workers.
//!
//! Comes in: rows of the rule table and what rules may refer to. Goes out: an immutable [`RuleSet`], and for each row
//! that cannot be right a [`Refused`] that says where and what to do. The flow of a record: an [`Evaluator`] runs it
//! through the set ([`evaluate`]) into a [`Verdict`]: derive, filter, threshold, route, each by priority (lower first,
//! then id); masks go over everything that leaves. [`body`] and [`alert`] write what leaves; [`trip`] says when a rule
//! is to be switched off. [`spec`] documents what may stand in a row.
//! Rows come from MySQL: [`store`] follows them for the workers, [`cli`] shows and changes them. The rest is pure.
//! Guarantees: no clock, no network, no metrics; the same records in the same order give the same verdicts and
//! states ([`threshold`]), whatever the worker; a rule that fails on a record touches no other rule and no other record.
//! On failure: see [`Refused`] and [`Verdict::failures`].

use std::ops::Range;
use std::sync::Arc;

use weir_shared::expr::{Field, Names, Program, Scope};

pub(crate) mod cli;
pub(crate) mod store;

mod alert;
mod body;
mod evaluate;
mod json;
mod mask;
mod spec;
mod threshold;
mod trip;

pub(crate) use alert::{AlertContext, write_alert};
pub(crate) use body::{Malformed, write_body, write_dims};
pub(crate) use evaluate::{Alert, AlertKind, Counts, Evaluator, Origin, States, Verdict};
pub(crate) use mask::Masks;
pub(crate) use threshold::ThresholdState;
pub(crate) use trip::Trip;

use mask::Mask;
use threshold::Threshold;

/// Most rules that may be in force at once.
pub(crate) const RULES_MAX: usize = 1_000;
/// Longest id of a rule, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 128;
/// Shortest secret for hashes, in bytes.
pub(crate) const HASH_KEY_BYTES_MIN: usize = 16;

/// A row of the rule table.
#[derive(Clone, Debug)]
pub(crate) struct RuleRow {
    pub(crate) id: String,
    pub(crate) version: u32,
    pub(crate) kind: String,
    /// JSON, see [`spec`].
    pub(crate) spec: String,
    pub(crate) priority: i32,
    /// It was in force before: if it is a mask, it stays, whatever it refers to that is gone.
    pub(crate) stands: bool,
}

/// What rules may refer to.
#[derive(Clone, Default)]
pub(crate) struct Schema {
    /// Dimensions, each with its columns.
    pub(crate) dims: Vec<(String, Vec<String>)>,
    /// Further topics that routes may name.
    pub(crate) topics: Vec<String>,
    /// The secret of hashes.
    pub(crate) hash_key: Option<Vec<u8>>,
}

/// A row that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) id: String,
    pub(crate) version: u32,
    /// Everything that is wrong: member of the spec, column, nearest right word, way out.
    pub(crate) reason: String,
}

/// What a rule does. The order is that of a record's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Derive,
    Filter,
    Threshold,
    Route,
    Mask,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Derive, Self::Filter, Self::Threshold, Self::Route, Self::Mask];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Derive => "derive",
            Self::Filter => "filter",
            Self::Threshold => "threshold",
            Self::Route => "route",
            Self::Mask => "mask",
        }
    }
}

/// A compiled rule.
pub(crate) struct Rule {
    /// Its place in [`RuleSet::rules`].
    pub(crate) index: usize,
    pub(crate) id: Arc<str>,
    pub(crate) version: u32,
    pub(crate) kind: Kind,
    when: Option<Program>,
    action: Action,
}

enum Action {
    /// Name, its number, how it is computed.
    Derive(Vec<(Arc<str>, u32, Program)>),
    Filter(Program),
    Threshold(Box<Threshold>),
    Route(Route),
    Mask(Mask),
}

/// Where a record goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Only these stores; all where it is `None`.
    pub(crate) stores: Option<Vec<&'static str>>,
    /// Topics that get a copy.
    pub(crate) topics: Vec<String>,
    /// Whether `weir.enriched` gets it.
    pub(crate) enriched: bool,
}

/// The rules in force, in the order in which a record meets them.
#[derive(Default)]
pub(crate) struct RuleSet {
    rules: Vec<Rule>,
    names: Names,
    /// Where the rules of each kind stand, by [`Kind`].
    kinds: [Range<usize>; 5],
}

impl RuleSet {
    /// Compiles rows. Those that cannot be right are left out and told of.
    pub(crate) fn compile(rows: &[RuleRow], schema: &Schema) -> (Self, Vec<Refused>) {
        let scope = Scope { dims: schema.dims.clone(), any: false };
        let (mut set, mut refused) = (Self::default(), Vec::new());
        let mut rows: Vec<&RuleRow> = rows.iter().collect();
        rows.sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
        for row in rows {
            let rule = if set.rules.iter().any(|rule| *rule.id == *row.id) {
                Err(format!("id: another version of {:?} is active too", row.id))
            } else if set.rules.len() >= RULES_MAX {
                Err(format!("{RULES_MAX} rules are active, no more are taken; switch others off"))
            } else {
                spec::rule(row, schema, &scope, &mut set.names)
            };
            match rule {
                Ok(rule) => set.rules.push(rule),
                Err(reason) => refused.push(Refused { id: row.id.clone(), version: row.version, reason }),
            }
        }
        // Stable: within a kind by priority and id.
        set.rules.sort_by_key(|rule| rule.kind);
        for (index, rule) in set.rules.iter_mut().enumerate() {
            rule.index = index;
        }
        set.kinds = Kind::ALL.map(|kind| {
            let begin = set.rules.partition_point(|rule| rule.kind < kind);
            begin..set.rules.partition_point(|rule| rule.kind <= kind)
        });
        set.spread_masks();
        (set, refused)
    }

    /// Checks a row alone.
    pub(crate) fn check(row: &RuleRow, schema: &Schema) -> Result<(), Refused> {
        let scope = Scope { dims: schema.dims.clone(), any: false };
        spec::rule(row, schema, &scope, &mut Names::default()).map(drop).map_err(|reason| Refused {
            id: row.id.clone(),
            version: row.version,
            reason,
        })
    }

    /// All rules, in the order of their indices.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The route that a verdict chose; `None`: `weir.enriched` and all stores.
    pub(crate) fn route(&self, verdict: &Verdict) -> Option<&Route> {
        match &self.rules.get(verdict.route?)?.action {
            Action::Route(route) => Some(route),
            _ => None,
        }
    }

    /// The masks that a verdict laid on.
    pub(crate) fn masks<'a>(&'a self, verdict: &'a Verdict) -> Masks<'a> {
        Masks::new(self, &verdict.masks)
    }

    fn of(&self, kind: Kind) -> Range<usize> {
        self.kinds[kind as usize].clone()
    }

    /// What is computed of something masked is masked too: or a rule could show what another one hides.
    fn spread_masks(&mut self) {
        let (rest, masks) = self.rules.split_at_mut(self.kinds[Kind::Mask as usize].start);
        for mask in masks {
            let Action::Mask(mask) = &mut mask.action else { continue };
            // One pass over the rules for each link of the chain; each pass adds a field or is the last.
            loop {
                let derived = rest.iter().filter_map(|rule| match &rule.action {
                    Action::Derive(set) => Some((rule.when.as_ref(), set)),
                    _ => None,
                });
                // That a value is there tells what its condition looked at.
                let new: Vec<Field> = derived
                    .flat_map(|(when, set)| set.iter().map(move |derived| (when, derived)))
                    .filter(|(when, (_, _, program))| {
                        mask.hides(program) || when.is_some_and(|when| mask.hides(when))
                    })
                    .map(|(_, derived)| derived)
                    .map(|(name, ..)| Field::Value(name.to_string()))
                    .filter(|field| !mask.fields.contains(field))
                    .collect();
                if new.is_empty() {
                    break;
                }
                mask.fields.extend(new);
            }
        }
    }
}

#[cfg(test)]
mod tests;
