//! A record's way through the rules.
//!
//! Comes in: a reading, its business data, where it comes from, the states of its partition. Goes out: a [`Verdict`] and
//! the changed states. Guarantees: nothing is allocated for a record that no rule matches; conditions see the record
//! unmasked; a record that a filter drops raises no alert and takes no route, but masks lie on it, for its dead letters.
//! On failure: a rule that fails on a record does nothing to it but [`Verdict::failures`] (a dead letter of stage
//! `rule` each); the other rules go on. A mask that fails applies.

use std::sync::Arc;
use std::time::Instant;

use weir_shared::expr::{Columns, Derived, Failure, Filled, Program, Record, Row};
use weir_shared::reading::{Reading, Value};
use weir_shared::record::{Identity, NAME_BYTES_MAX, VALUES_MAX};

use super::threshold::{Severity, ThresholdState};
use super::{Action, Kind, Rule, RuleSet};

/// Longest text that a rule may derive, in bytes: the largest that all stores hold in a column.
const TEXT_BYTES_MAX: usize = 32_000;

/// Of one record in so many it is measured how long each rule takes.
const TIMED_EVERY: u32 = 256;

/// The states of thresholds of a partition, staged by the caller. A rule is known by id and version, not by its index.
pub(crate) trait States {
    /// The state of a key, if there is one.
    fn get(&self, rule: &Rule, key: &str) -> Option<ThresholdState>;
    /// Keeps a state, or forgets it.
    fn set(&mut self, rule: &Rule, key: &str, state: Option<ThresholdState>);
}

/// Where a record comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) identity: Identity,
    /// It was held back while newer ones were sent: thresholds leave it out.
    pub(crate) backlog: bool,
}

/// What is told of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlertKind {
    First,
    Repeat(u32),
    Recovered,
}

/// An alert; [`super::write_alert`] writes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alert {
    /// Index of the rule.
    pub(crate) rule: usize,
    pub(crate) kind: AlertKind,
    pub(crate) severity: Severity,
    /// As it is; what leaves may be masked.
    pub(crate) key: String,
    pub(crate) value: f64,
    /// Event time of the reading that began the episode.
    pub(crate) since: i64,
    /// That reading.
    pub(crate) episode: Identity,
}

/// What the rules say of a record.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Index of the filter that dropped it.
    pub(crate) filtered: Option<usize>,
    /// New values, each name once.
    pub(crate) derived: Vec<Derived>,
    /// Indices of the masks that lie on it, by priority; see [`RuleSet::masks`].
    pub(crate) masks: Vec<usize>,
    /// Index of its route; see [`RuleSet::route`].
    pub(crate) route: Option<usize>,
    pub(crate) alerts: Vec<Alert>,
    /// Indices of rules that failed on it, and why, in words that quote nothing of it.
    pub(crate) failures: Vec<(usize, String)>,
}

impl Verdict {
    fn clear(&mut self) {
        self.filtered = None;
        self.derived.clear();
        self.masks.clear();
        self.route = None;
        self.alerts.clear();
        self.failures.clear();
    }

    /// Whether the body that leaves differs from the one that came.
    pub(crate) fn changes_body(&self) -> bool {
        !self.derived.is_empty() || !self.masks.is_empty()
    }
}

/// How a rule fared. Evaluated = matched + failed + skipped + those whose condition was false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Records it looked at.
    pub(crate) evaluated: u64,
    /// It dropped, derived, told, chose or masked.
    pub(crate) matched: u64,
    pub(crate) failed: u64,
    /// Records that lack what it looks at.
    pub(crate) skipped: u64,
    /// Thresholds: records from a backlog, or older than the state. They are not evaluated.
    pub(crate) left_out: u64,
    /// Thresholds: episodes that `quiet_ms` kept back.
    pub(crate) suppressed: u64,
    /// Time that it took, in ns: that of the measured records, as often as there are others.
    pub(crate) time_ns: u64,
}

/// Runs records through a set; one per worker.
pub(crate) struct Evaluator {
    set: Arc<RuleSet>,
    row: Row,
    counts: Vec<Counts>,
    /// What one rule derives, until all of it is there.
    fresh: Vec<(u32, Derived)>,
    /// By which rules are timed; without it none is.
    clock: Option<fn() -> Instant>,
    /// Records until the next one that is measured.
    untimed: u32,
}

impl Evaluator {
    /// With a clock, the rules are timed.
    pub(crate) fn new(set: Arc<RuleSet>, clock: Option<fn() -> Instant>) -> Self {
        let counts = vec![Counts::default(); set.rules.len()];
        Self { set, row: Row::default(), counts, fresh: Vec::new(), clock, untimed: 0 }
    }

    /// The rules it runs.
    pub(crate) fn set(&self) -> &Arc<RuleSet> {
        &self.set
    }

    /// How the rules fared since the last time, by index.
    pub(crate) fn take_counts(&mut self) -> Vec<Counts> {
        let fresh = vec![Counts::default(); self.counts.len()];
        std::mem::replace(&mut self.counts, fresh)
    }

    /// Runs one record. `verdict` is overwritten.
    pub(crate) fn run(
        &mut self,
        reading: &Reading<'_>,
        dims: &dyn Columns,
        origin: &Origin,
        states: &mut dyn States,
        verdict: &mut Verdict,
    ) {
        verdict.clear();
        if self.set.rules.is_empty() {
            return;
        }
        let set = Arc::clone(&self.set);
        let filled = self.row.fill(&set.names, &Record { reading, derived: &[], dims });
        self.untimed = self.untimed.checked_sub(1).unwrap_or(TIMED_EVERY - 1);
        let clock = self.clock.filter(|_| self.untimed == TIMED_EVERY - 1);
        let mut pass = Pass { evaluator: self, reading, dims, filled, verdict, clock };
        for rule in &set.rules[set.of(Kind::Derive)] {
            pass.timed(rule, Pass::derive);
        }
        for rule in &set.rules[set.of(Kind::Filter)] {
            if pass.timed(rule, Pass::filter) {
                break;
            }
        }
        if pass.verdict.filtered.is_none() {
            for rule in &set.rules[set.of(Kind::Threshold)] {
                pass.timed(rule, |pass, rule| pass.threshold(rule, origin, states));
            }
            for rule in &set.rules[set.of(Kind::Route)] {
                if pass.timed(rule, Pass::route) {
                    break;
                }
            }
        }
        for rule in &set.rules[set.of(Kind::Mask)] {
            pass.timed(rule, Pass::mask);
        }
        let Pass { filled, .. } = pass;
        self.row.recycle(filled);
    }
}

/// One record on its way.
struct Pass<'e, 'a> {
    evaluator: &'e mut Evaluator,
    reading: &'a Reading<'a>,
    dims: &'a dyn Columns,
    filled: Filled<'a>,
    verdict: &'e mut Verdict,
    /// When this record is one that is measured.
    clock: Option<fn() -> Instant>,
}

impl Pass<'_, '_> {
    fn record(&self) -> Record<'_> {
        Record { reading: self.reading, derived: &self.verdict.derived, dims: self.dims }
    }

    /// Runs one rule.
    #[inline]
    fn timed<T>(&mut self, rule: &Rule, run: impl FnOnce(&mut Self, &Rule) -> T) -> T {
        let Some(clock) = self.clock else { return run(self, rule) };
        let began = clock();
        let done = run(self, rule);
        let took = clock().saturating_duration_since(began).as_nanos();
        let took = u64::try_from(took).unwrap_or(u64::MAX).saturating_mul(u64::from(TIMED_EVERY));
        let sum = &mut self.evaluator.counts[rule.index].time_ns;
        *sum = sum.saturating_add(took);
        done
    }

    fn matched(&mut self, rule: &Rule) {
        self.evaluator.counts[rule.index].matched += 1;
    }

    fn fail(&mut self, rule: &Rule, why: String) {
        self.evaluator.counts[rule.index].failed += 1;
        self.verdict.failures.push((rule.index, why));
    }

    /// Counts a rule, asks its condition, then what it wants to know. `None`: not for this record.
    #[inline]
    fn look<T>(&mut self, rule: &Rule, ask: impl FnOnce(&Self) -> Result<T, Failure>) -> Option<T> {
        self.evaluator.counts[rule.index].evaluated += 1;
        let result = match self.when(rule) {
            Ok(true) => ask(self),
            Ok(false) => return None,
            Err(failure) => Err(failure),
        };
        match result {
            Ok(result) => Some(result),
            Err(Failure::Missing) => {
                self.evaluator.counts[rule.index].skipped += 1;
                None
            }
            Err(Failure::Wrong(why)) => {
                self.fail(rule, why);
                None
            }
        }
    }

    #[inline]
    fn when(&self, rule: &Rule) -> Result<bool, Failure> {
        rule.when.as_ref().map_or(Ok(true), |when| self.boolean(when))
    }

    #[inline]
    fn boolean(&self, program: &Program) -> Result<bool, Failure> {
        program.boolean(&self.filled, &self.record())
    }

    fn filter(&mut self, rule: &Rule) -> bool {
        let Action::Filter(drop) = &rule.action else { return false };
        if self.look(rule, |pass| pass.boolean(drop)) != Some(true) {
            return false;
        }
        self.matched(rule);
        self.verdict.filtered = Some(rule.index);
        true
    }

    fn derive(&mut self, rule: &Rule) {
        let Action::Derive(set) = &rule.action else { return };
        let mut fresh = std::mem::take(&mut self.evaluator.fresh);
        fresh.clear();
        let whole = self.look(rule, |pass| {
            for (name, number, program) in set {
                let value = program.value(&pass.filled, &pass.record())?;
                if matches!(&value, Value::Text(text) if text.len() > TEXT_BYTES_MAX) {
                    let why = format!("{}: a text of more than {TEXT_BYTES_MAX} bytes", program.text());
                    return Err(Failure::Wrong(why));
                }
                fresh.push((*number, (Arc::clone(name), value)));
            }
            let new = |name: &str| pass.record().value(name).is_none();
            let new = fresh.iter().filter(|(_, (name, _))| new(name)).count();
            if new > 0 && pass.record().values() + new > VALUES_MAX {
                return Err(Failure::Wrong(format!("the record would have more than {VALUES_MAX} values")));
            }
            Ok(())
        });
        if whole.is_some() {
            self.matched(rule);
            for (number, (name, value)) in fresh.drain(..) {
                self.filled.set(number, value.clone());
                match self.verdict.derived.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = value,
                    None => self.verdict.derived.push((name, value)),
                }
            }
        }
        self.evaluator.fresh = fresh;
    }

    fn route(&mut self, rule: &Rule) -> bool {
        if self.look(rule, |_| Ok(true)) != Some(true) {
            return false;
        }
        self.matched(rule);
        self.verdict.route = Some(rule.index);
        true
    }

    fn threshold(&mut self, rule: &Rule, origin: &Origin, states: &mut dyn States) {
        let Action::Threshold(threshold) = &rule.action else { return };
        if origin.backlog {
            self.evaluator.counts[rule.index].left_out += 1;
            return;
        }
        let value = self.look(rule, |pass| {
            let value = threshold.value.number(&pass.filled, &pass.record())?;
            // Only whether there is a key: it is borrowed again below.
            match threshold.key_number {
                Some(number) if pass.filled.text(number).is_none() => Err(Failure::Missing),
                _ => Ok(value),
            }
        });
        let Some(value) = value else { return };
        let key = match threshold.key_number {
            None => std::borrow::Cow::Borrowed(&*self.reading.device),
            Some(number) => self.filled.text(number).unwrap_or_default(),
        };
        if key.len() > NAME_BYTES_MAX {
            let why = format!("a key of {} bytes; {NAME_BYTES_MAX} are allowed", key.len());
            return self.fail(rule, why);
        }
        let before = states.get(rule, &key);
        let step = threshold.limits.step(before, self.reading.time, value, origin.identity);
        if step.state != before {
            states.set(rule, &key, step.state);
        }
        let counts = &mut self.evaluator.counts[rule.index];
        counts.suppressed += u64::from(step.suppressed);
        if step.left_out {
            counts.left_out += 1;
            counts.evaluated -= 1;
        }
        if let Some((kind, since, episode)) = step.told {
            counts.matched += 1;
            let (severity, key) = (threshold.severity, key.into_owned());
            let alert = Alert { rule: rule.index, kind, severity, key, value, since, episode };
            self.verdict.alerts.push(alert);
        }
    }

    fn mask(&mut self, rule: &Rule) {
        self.evaluator.counts[rule.index].evaluated += 1;
        match self.when(rule) {
            Ok(false) => return,
            Ok(true) | Err(Failure::Missing) => self.matched(rule),
            // Hidden is better than shown.
            Err(Failure::Wrong(why)) => self.fail(rule, why),
        }
        self.verdict.masks.push(rule.index);
    }
}
