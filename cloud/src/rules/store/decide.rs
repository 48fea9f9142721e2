//! Which versions are in force: the decision, pure.
//!
//! Comes in: what is wanted (`weir_rules_active`), the stored versions, what was in force before (the latest row of
//! `weir_rules_sets`), and a compiler. Goes out: the versions in force, why others are not, and what to say of each.
//! Guarantees: it depends on nothing but these, so every process that decides from the same rows decides the same. A
//! wanted version that is refused, missing or not due yet leaves in force what was in force before, if that still
//! compiles; a rule that is not wanted is not in force. On failure: none; a refusal is a result.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::Xxh3;

use crate::rules::{Refused, RuleRow};

/// Id → version.
pub(super) type Force = BTreeMap<String, u32>;
/// One version of one rule.
pub(super) type Key = (String, u32);
/// Stored versions.
pub(super) type Rows = BTreeMap<Key, RuleRow>;

/// A row of `weir_rules_active` that is not off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) version: u32,
    /// As the server wrote it; only compared.
    pub(super) changed_at: String,
    /// From when, UTC; `None`: at once.
    pub(super) effective_at: Option<String>,
    /// Whether that has come.
    pub(super) due: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) force: Force,
    /// Why a version that was tried is not in force.
    pub(super) refused: BTreeMap<Key, String>,
}

/// What a process says of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In force.
    Active,
    /// Its time is to come.
    Waiting,
    /// It cannot be used.
    Refused,
    /// It failed too often and was taken out in this process.
    Tripped,
}

impl State {
    /// The word in `weir_rules_status`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Tripped => "tripped",
        }
    }
}

/// Decides afresh: each wanted version if it is due and compiles, else the one before.
pub(super) fn decide<T>(
    wanted: &[Wanted],
    rows: &Rows,
    previous: &Force,
    compile: impl Fn(&[RuleRow]) -> (T, Vec<Refused>),
) -> (Decision, T) {
    let candidates = wanted.iter().map(|w| {
        let new = w.due.then_some(w.version);
        let before = previous.get(&w.id).copied().filter(|v| Some(*v) != new);
        (w.id.clone(), new.into_iter().chain(before).collect())
    });
    choose(candidates, rows, previous, compile)
}

/// What of the set in force can stay: nothing is added, so processes that cannot run different rules do not take turns
/// for ever.
fn narrow<T>(
    rows: &Rows,
    previous: &Force,
    compile: impl Fn(&[RuleRow]) -> (T, Vec<Refused>),
) -> (Decision, T) {
    choose(previous.iter().map(|(id, version)| (id.clone(), vec![*version])), rows, previous, compile)
}

/// Takes over what was decided, as far as it can be run here; with the reasons that this process has against what is
/// wanted and not in force.
pub(super) fn take_over<T>(
    wanted: &[Wanted],
    rows: &Rows,
    previous: &Force,
    compile: impl Fn(&[RuleRow]) -> (T, Vec<Refused>),
) -> (Decision, T) {
    let (afresh, set) = decide(wanted, rows, previous, &compile);
    if afresh.force == *previous {
        return (afresh, set);
    }
    let (mut decision, set) = narrow(rows, previous, compile);
    for (key, why) in afresh.refused {
        decision.refused.entry(key).or_insert(why);
    }
    (decision, set)
}

/// Takes the first candidate of each rule with which the whole compiles.
fn choose<T>(
    candidates: impl Iterator<Item = (String, Vec<u32>)>,
    rows: &Rows,
    previous: &Force,
    compile: impl Fn(&[RuleRow]) -> (T, Vec<Refused>),
) -> (Decision, T) {
    let mut refused = BTreeMap::new();
    let mut candidates: BTreeMap<String, Vec<u32>> = candidates
        .map(|(id, mut versions)| {
            versions.retain(|version| {
                let there = rows.contains_key(&(id.clone(), *version));
                if !there {
                    refused.insert((id.clone(), *version), no_such_version());
                }
                there
            });
            (id, versions)
        })
        .collect();
    loop {
        candidates.retain(|_, versions| !versions.is_empty());
        let force: Force = candidates.iter().map(|(id, versions)| (id.clone(), versions[0])).collect();
        let (set, problems) = compile(&rows_of(&force, rows, previous));
        let mut fewer = false;
        for problem in problems {
            if let Some(versions) = candidates.get_mut(&problem.id)
                && versions.first() == Some(&problem.version)
            {
                versions.remove(0);
                fewer = true;
                refused.insert((problem.id, problem.version), problem.reason);
            }
        }
        // Each round takes at least one candidate away.
        if !fewer {
            return (Decision { force, refused }, set);
        }
    }
}

fn no_such_version() -> String {
    "weir_rules has no such version".to_owned()
}

/// The stored rows of a set, in the order of ids; those that are not stored are left out. `previous` was in force before.
pub(super) fn rows_of(force: &Force, rows: &Rows, previous: &Force) -> Vec<RuleRow> {
    let row = |(id, version): (&String, &u32)| {
        let stored = rows.get(&(id.clone(), *version))?.clone();
        Some(RuleRow { stands: previous.get(id) == Some(version), ..stored })
    };
    force.iter().filter_map(row).collect()
}

/// What a process says of every wanted version, and of those that are in force in their stead.
pub(super) fn verdicts(
    wanted: &[Wanted],
    decision: &Decision,
    tripped: &BTreeMap<Key, String>,
) -> BTreeMap<Key, (State, String)> {
    let mut all = BTreeMap::new();
    for w in wanted {
        let key = (w.id.clone(), w.version);
        let in_force = decision.force.get(&w.id).copied();
        let stays = match in_force {
            Some(version) => format!("version {version} stays in force"),
            None => "no version of it is in force".to_owned(),
        };
        let verdict = if in_force == Some(w.version) {
            (State::Active, String::new())
        } else if let Some(why) = decision.refused.get(&key) {
            (State::Refused, format!("{why}; {stays}"))
        } else if w.due {
            (
                State::Refused,
                format!("a process cannot run it, or another rule of its set: their rows say why; {stays}"),
            )
        } else {
            let from = w.effective_at.as_deref().unwrap_or("later");
            (State::Waiting, format!("from {from} UTC; {stays}"))
        };
        if let Some(version) = in_force.filter(|version| *version != w.version) {
            let why = format!("in the place of version {}, which is {}", w.version, verdict.0.word());
            all.insert((w.id.clone(), version), (State::Active, why));
        }
        all.insert(key, verdict);
    }
    for (key, why) in tripped {
        if let Some(verdict) = all.get_mut(key).filter(|v| v.0 == State::Active) {
            *verdict = (State::Tripped, why.clone());
        }
    }
    all
}

/// Hash of what is wanted: another one asks for a decision.
pub(super) fn hash_of_wanted(wanted: &[Wanted], rows: &Rows) -> String {
    let mut hasher = Hasher::default();
    for w in wanted {
        hasher.version(&w.id, w.version, rows.get(&(w.id.clone(), w.version)));
        hasher.0.update(&[u8::from(w.due)]);
    }
    hasher.hex()
}

/// Hash of what is in force, with the content of each version.
pub(super) fn hash_of_force(force: &Force, rows: &Rows) -> String {
    let mut hasher = Hasher::default();
    for (id, version) in force {
        hasher.version(id, *version, rows.get(&(id.clone(), *version)));
    }
    hasher.hex()
}

#[derive(Default)]
struct Hasher(Xxh3);

impl Hasher {
    fn version(&mut self, id: &str, version: u32, row: Option<&RuleRow>) {
        self.text(id);
        self.0.update(&version.to_le_bytes());
        self.0.update(&[u8::from(row.is_some())]);
        if let Some(row) = row {
            self.text(&row.kind);
            self.text(&row.spec);
            self.0.update(&row.priority.to_le_bytes());
        }
    }

    /// With its length, so that no two sequences of texts look alike.
    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn hex(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}

/// `[["id",version],…]`
pub(super) fn to_json(force: &Force) -> String {
    serde_json::to_string(&force.iter().collect::<Vec<_>>()).expect("texts and numbers become JSON")
}

/// Reads [`to_json`].
pub(super) fn from_json(text: &str) -> Result<Force, serde_json::Error> {
    Ok(serde_json::from_str::<Vec<Key>>(text)?.into_iter().collect())
}

/// Ids that are in one of the two and not the same in the other, for the log.
pub(super) fn changed(before: &Force, after: &Force) -> Vec<String> {
    let ids: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |version: Option<&u32>| version.map_or_else(|| "off".to_owned(), u32::to_string);
    ids.into_iter()
        .filter(|id| before.get(*id) != after.get(*id))
        .map(|id| format!("{id} {} → {}", shown(before.get(id)), shown(after.get(id))))
        .collect()
}

#[cfg(test)]
mod tests;
