//! Cleaning: rules that every reading passes before it is journaled.
//!
//! Comes in: a reading with its parts known. Goes out: the same reading with values renamed, converted, computed,
//! clamped or dropped, or the word that it is left out. The rules apply one after the other, and each in the order of
//! its keys: `when`, `filter`, `rename`, `require`, `types`, `set`, `ranges`, `drop`.
//! Guarantees: compiled once at start; no rule, no cost. Pure.
//! On failure: a rule that has no result for a reading rejects that reading alone, with the reason and the rule.

use std::borrow::Cow;

use weir_shared::config::Section;
use weir_shared::expr::Expression;
use weir_shared::reading::{Reading, Value};

use super::{Reason, Refused};

mod config;
mod convert;

use convert::{Range, Type};

/// All rules, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clean(Vec<Rule>);

/// One rule; what is empty does nothing.
#[derive(Clone, Debug, Default)]
struct Rule {
    /// Its number from 1, for messages.
    number: usize,
    /// For which readings; for all without it.
    when: Option<Expression>,
    /// Which of these stay; all without it.
    filter: Option<Expression>,
    /// Old and new names.
    rename: Vec<(String, String)>,
    /// Values that must be there.
    require: Vec<String>,
    /// What values must be, or become.
    types: Vec<(String, Type)>,
    /// Values to compute.
    set: Vec<(String, Expression)>,
    /// Where values must lie.
    ranges: Vec<(String, Range)>,
    /// Values to leave out.
    drop: Vec<String>,
}

impl Clean {
    /// Takes the `[[clean]]` tables of the root section.
    pub(crate) fn read(root: &Section<'_>) -> Self {
        let mut number = 0;
        Self(root.each("clean", config::RULE, |section| {
            number += 1;
            config::rule(section, number)
        }))
    }

    /// Whether there is no rule.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies all rules; false when the reading is to be left out.
    pub(super) fn apply(&self, reading: &mut Reading<'_>) -> Result<bool, Refused> {
        for rule in &self.0 {
            let applied = rule.apply(reading);
            match applied.map_err(|(reason, detail)| (reason, format!("rule {}: {detail}", rule.number))) {
                Ok(true) => {}
                other => return other,
            }
        }
        Ok(true)
    }
}

impl Rule {
    fn apply(&self, reading: &mut Reading<'_>) -> Result<bool, Refused> {
        let failed = |why| (Reason::ExpressionFailed, why);
        if let Some(when) = &self.when
            && !when.boolean(reading).map_err(failed)?
        {
            return Ok(true);
        }
        if let Some(filter) = &self.filter
            && !filter.boolean(reading).map_err(failed)?
        {
            return Ok(false);
        }
        for (name, _) in reading.values.iter_mut() {
            if let Some((_, new)) = self.rename.iter().find(|(old, _)| old == name) {
                *name = Cow::Owned(new.clone());
            }
        }
        if let Some(name) = self.require.iter().find(|name| reading.value(name).is_none()) {
            return Err((Reason::ValueRequired, format!("no {name}")));
        }
        for (name, wanted) in &self.types {
            if let Some(value) = value_mut(reading, name) {
                wanted.convert(value).map_err(|why| (Reason::ValueWrongType, format!("{name} {why}")))?;
            }
        }
        for (name, expression) in &self.set {
            let result = expression.value(reading).map_err(failed)?;
            match value_mut(reading, name) {
                Some(value) => *value = result,
                None => reading.values.push((Cow::Owned(name.clone()), result)),
            }
        }
        for (name, range) in &self.ranges {
            let Some(value) = value_mut(reading, name) else { continue };
            if !range.keep(name, value)? {
                reading.values.retain(|(n, _)| n != name);
            }
        }
        if !self.drop.is_empty() {
            reading.values.retain(|(name, _)| !self.drop.iter().any(|drop| drop == name));
        }
        Ok(true)
    }
}

fn value_mut<'r, 'a>(reading: &'r mut Reading<'a>, name: &str) -> Option<&'r mut Value<'a>> {
    reading.values.iter_mut().find(|(n, _)| n == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
