//! The engine's state as entries: one per key of a rule, and one for the engine itself.
//!
//! Comes in: an engine, or entries. Goes out: the other. Guarantees: an engine made of the entries of another does the
//! same as that one from there on, byte for byte; entries that changed, put over those given before, are those of a
//! snapshot. The key of an entry: `0` for the engine; `1`, length (2 bytes, big-endian) and name of the rule, key.
//! Its value begins with the version. On failure: entries that no engine wrote are refused, none are taken in part.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::{Corrupt, Cursor, put_bytes, put_length, put_signed};
use super::engine::Engine;
use super::key::Key;
use super::lane::Lane;
use super::rule::Rule;
use super::{Filter, Limits};

const VERSION: u8 = 1;
const OF_ENGINE: u8 = 0;
const OF_KEY: u8 = 1;

/// A key and its value, or that it is gone.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// What changed since it was last asked for. Nothing is noted before that.
#[derive(Debug, Default)]
pub(super) struct Changes {
    noted: bool,
    /// (Rule, place of the key).
    keys: Vec<(u32, u32)>,
    gone: BTreeSet<Vec<u8>>,
    /// Entries of keys whose rule stands elsewhere by now.
    settled: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Changes {
    #[inline]
    pub(super) fn changed(&mut self, rule: u32, place: u32, key: &mut Key) {
        if self.noted && !key.changed {
            key.changed = true;
            self.keys.push((rule, place));
        }
    }

    pub(super) fn gone(&mut self, rule: &str, id: &[u8]) {
        if self.noted {
            let name = entry_key(rule, id);
            self.settled.remove(&name);
            self.gone.insert(name);
        }
    }

    /// Writes down what changed so far, before rules change their places.
    pub(super) fn settle(&mut self, lanes: &mut [Lane]) {
        for (rule, place) in std::mem::take(&mut self.keys) {
            let lane = &mut lanes[rule as usize];
            let Some((form, key)) = lane.key_mut(place) else { continue };
            // A place that was given to another key stands here twice.
            if std::mem::take(&mut key.changed) {
                self.settled.insert(entry_key(&form.rule.name, &key.id), value(key));
            }
        }
    }
}

fn entry_key(rule: &str, id: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rule.len()).expect("a rule's name is checked to be short");
    [&[OF_KEY], &length.to_be_bytes()[..], rule.as_bytes(), id].concat()
}

fn value(key: &Key) -> Vec<u8> {
    let mut out = vec![VERSION];
    key.encode(&mut out);
    out
}

impl Engine {
    /// What changed since this was last called, by key; the first time, everything. `None` for what is gone.
    /// Who calls it once must go on calling it: what changed is kept until then.
    pub fn changed(&mut self) -> impl Iterator<Item = Change> + use<> {
        let mut all = BTreeMap::new();
        if self.changes.noted {
            self.changes.settle(&mut self.lanes);
            all.extend(std::mem::take(&mut self.changes.gone).into_iter().map(|key| (key, None)));
            let settled = std::mem::take(&mut self.changes.settled);
            all.extend(settled.into_iter().map(|(key, value)| (key, Some(value))));
            all.insert(vec![OF_ENGINE], Some(self.own_value()));
        } else {
            self.changes.noted = true;
            all.extend(self.snapshot().into_iter().map(|(key, value)| (key, Some(value))));
        }
        all.into_iter()
    }

    /// All entries, by key.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries = vec![(vec![OF_ENGINE], self.own_value())];
        for lane in &self.lanes {
            let keys = lane.sorted().into_iter().filter_map(|place| lane.key(place));
            entries.extend(keys.map(|key| (entry_key(&lane.form.rule.name, &key.id), value(key))));
        }
        entries.sort_unstable();
        entries
    }

    /// An engine with this state, which these very rules made. What changes from here on is noted for [`Self::changed`].
    ///
    /// # Errors
    /// Rules that cannot be run; entries that no engine with these rules wrote.
    pub fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        rules: Vec<Rule>,
        limits: Limits,
        compile: &dyn Fn(&str) -> Filter,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, RestoreError> {
        let mut engine = Self::new(rules, limits, compile).map_err(RestoreError::Rules)?;
        let mut whole = false;
        for (key, value) in entries {
            let mut key = Cursor(key.as_ref());
            let mut value = Cursor(value.as_ref());
            let kind = key.byte()?;
            if value.byte()? != VERSION {
                return Err(Corrupt("a version that is not known").into());
            }
            match kind {
                OF_ENGINE => {
                    whole = true;
                    engine.restore_own(&mut value)?;
                }
                OF_KEY => {
                    let (length, rest) =
                        key.0.split_first_chunk::<2>().ok_or(Corrupt("the name of a rule is missing"))?;
                    let (name, id) = rest
                        .split_at_checked(usize::from(u16::from_be_bytes(*length)))
                        .ok_or(Corrupt("the name of a rule is cut short"))?;
                    let lane = engine.lanes.iter_mut().find(|l| l.form.rule.name.as_bytes() == name);
                    lane.ok_or(Corrupt("a rule that is not there"))?.restore(id, value.0)?;
                }
                _ => return Err(Corrupt("an entry of unknown kind").into()),
            }
        }
        if !whole && !engine.is_empty() {
            return Err(Corrupt("the engine's own entry is missing").into());
        }
        engine.changes.noted = true;
        engine.schedule_all();
        Ok(engine)
    }

    fn own_value(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_signed(&mut out, self.clock.now);
        put_signed(&mut out, self.clock.resumed);
        put_length(&mut out, self.losses.reasons.len());
        self.losses.reasons.iter().for_each(|reason| put_bytes(&mut out, reason.as_bytes()));
        let (clock, why) = self.losses.last.unwrap_or((0, 0));
        out.push(why);
        put_signed(&mut out, clock);
        let begun = self.lanes.iter().filter_map(|lane| Some((&lane.form.rule.name, lane.begun?)));
        put_length(&mut out, begun.clone().count());
        for (rule, (clock, why)) in begun {
            put_bytes(&mut out, rule.as_bytes());
            put_signed(&mut out, clock);
            out.push(why);
        }
        out
    }

    fn restore_own(&mut self, value: &mut Cursor<'_>) -> Result<(), Corrupt> {
        self.clock.now = value.time()?;
        self.clock.resumed = value.time()?;
        let reasons = (0..value.length(1)?).map(|_| value.text().map(Box::from));
        self.losses.reasons = reasons.collect::<Result<_, _>>()?;
        let (why, clock) = (value.byte()?, value.time()?);
        self.losses.last = (why > 0).then_some((clock, why));
        for _ in 0..value.length(3)? {
            let name = value.text()?;
            let lane = self.lanes.iter_mut().find(|lane| lane.form.rule.name == name);
            lane.ok_or(Corrupt("a rule that is not there"))?.begun = Some((value.time()?, value.byte()?));
        }
        value.end()
    }
}

/// Why an engine cannot be made of entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The rules cannot be run.
    #[error("{0}")]
    Rules(String),
    /// The entries are damaged, or of other rules.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}
