//! The engine: all rules, one clock.
//!
//! Comes in: readings in the order of the log, each with the clock at its arrival; ticks; losses; new rules.
//! Goes out: results in an order that follows from state and calls alone: what the clock makes due goes by (clock, rule,
//! key), before the reading that came with that clock. Guarantees: see [`super`]. On failure: nothing fails here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::entries::Changes;
use super::form::Form;
use super::key::Clock;
use super::lane::Lane;
use super::outputs::{Losses, Outputs};
use super::rule::Rule;
use super::{Filter, Limits};
use crate::reading::Reading;

/// The clock is held within what sums of a few never overflow.
const CLOCK_MS_MAX: i64 = 1 << 46;

/// Window rules over a stream of readings.
pub struct Engine {
    pub(super) limits: Limits,
    pub(super) lanes: Vec<Lane>,
    /// (Clock, rule, place of the key): never later than the key is due; those that it is not due at are passed over.
    heap: BinaryHeap<Reverse<(i64, u32, u32)>>,
    batch: Vec<(u32, u32)>,
    pub(super) clock: Clock,
    pub(super) losses: Losses,
    pub(super) changes: Changes,
}

impl Engine {
    /// An engine without state. `compile` makes the filter of a rule out of its text, which it must know to be right.
    ///
    /// # Errors
    /// The name of a rule that cannot be run, and why.
    pub fn new(rules: Vec<Rule>, limits: Limits, compile: &dyn Fn(&str) -> Filter) -> Result<Self, String> {
        let mut engine = Self {
            limits,
            lanes: Vec::new(),
            heap: BinaryHeap::new(),
            batch: Vec::new(),
            clock: Clock { now: 0, resumed: 0 },
            losses: Losses::default(),
            changes: Changes::default(),
        };
        engine.lanes = engine.make(rules, compile, Vec::new())?.0;
        Ok(engine)
    }

    /// The lanes of these rules, taken from `lanes` where the rule is the same; and those left over.
    fn make(
        &self,
        rules: Vec<Rule>,
        compile: &dyn Fn(&str) -> Filter,
        lanes: Vec<Lane>,
    ) -> Result<(Vec<Lane>, Vec<Lane>), String> {
        let forms: Vec<Form> = rules
            .into_iter()
            .map(|rule| {
                let name = rule.name.clone();
                let filter = rule.filter.as_deref().map(compile);
                Form::new(rule, self.limits, filter).map_err(|why| format!("window {name}: {why}"))
            })
            .collect::<Result<_, _>>()?;
        for (i, form) in forms.iter().enumerate() {
            if forms[..i].iter().any(|f| f.rule.name == form.rule.name) {
                return Err(format!("window {}: the name stands twice", form.rule.name));
            }
        }
        let mut old: Vec<Option<Lane>> = lanes.into_iter().map(Some).collect();
        let mut same = |form: &Form| {
            old.iter_mut()
                .find(|l| l.as_ref().is_some_and(|l| l.form.rule == form.rule))
                .and_then(Option::take)
        };
        let lanes = forms.into_iter().map(|form| same(&form).unwrap_or_else(|| Lane::new(form))).collect();
        Ok((lanes, old.into_iter().flatten().collect()))
    }

    /// The rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.lanes.iter().map(|lane| &lane.form.rule)
    }

    /// Takes in a reading that arrived at `clock_ms`. The clock never goes back: a lesser one counts as the greatest.
    pub fn reading(&mut self, reading: &Reading<'_>, clock_ms: i64, out: &mut Outputs) {
        self.tick(clock_ms, out);
        for (rule, lane) in (0..).zip(&mut self.lanes) {
            let Some(place) = lane.reading(reading, self.clock, &self.losses, out) else { continue };
            let Some((form, key)) = lane.key_mut(place) else { continue };
            self.changes.changed(rule, place, key);
            let due = key.due(form, self.clock.resumed);
            if due < key.scheduled {
                key.scheduled = due;
                self.heap.push(Reverse((due, rule, place)));
            }
        }
    }

    /// Does what is due by this clock.
    pub fn tick(&mut self, clock_ms: i64, out: &mut Outputs) {
        let now = clock_ms.clamp(self.clock.now, CLOCK_MS_MAX.max(self.clock.now));
        while let Some(&Reverse((at, ..))) = self.heap.peek()
            && at <= now
        {
            self.round(at, out);
        }
        self.clock.now = now;
    }

    /// All keys that stand at one clock. Those that are not due move on and leave no trace.
    fn round(&mut self, at: i64, out: &mut Outputs) {
        let mut batch = std::mem::take(&mut self.batch);
        while let Some(&Reverse((clock, rule, place))) = self.heap.peek()
            && clock == at
        {
            self.heap.pop();
            batch.push((rule, place));
        }
        let id = |&(rule, place): &(u32, u32)| self.lanes[rule as usize].key(place).map(|key| &key.id);
        batch.sort_by(|a, b| (a.0, id(a)).cmp(&(b.0, id(b))));
        for (rule, place) in batch.drain(..) {
            let lane = &mut self.lanes[rule as usize];
            let Some((form, key)) = lane.key_mut(place).filter(|(_, key)| key.scheduled == at) else {
                continue;
            };
            if key.due(form, self.clock.resumed) <= at {
                self.changes.changed(rule, place, key);
                let clock = Clock { now: at, ..self.clock };
                if !lane.fire(place, clock, &self.losses, out) {
                    if let Some(key) = lane.remove(place) {
                        self.changes.gone(&lane.form.rule.name, &key.id);
                    }
                    continue;
                }
            }
            let Some((form, key)) = lane.key_mut(place) else { continue };
            key.scheduled = key.due(form, self.clock.resumed).max(at + 1);
            if key.scheduled < i64::MAX {
                self.heap.push(Reverse((key.scheduled, rule, place)));
            }
        }
        self.batch = batch;
    }

    /// The source was away: silence counts from here on.
    pub fn resumed(&mut self, clock_ms: i64) {
        self.clock.resumed = self.clock.resumed.max(clock_ms.min(CLOCK_MS_MAX));
    }

    /// The clock at which a tick would close a window or drop state; `None` if no clock would.
    pub fn deadline(&mut self) -> Option<i64> {
        while let Some(&Reverse((at, rule, place))) = self.heap.peek() {
            if let Some((form, key)) = self.lanes[rule as usize].key_mut(place)
                && key.scheduled == at
            {
                let due = key.due(form, self.clock.resumed);
                if due <= at {
                    return Some(at);
                }
                key.scheduled = due;
                if due < i64::MAX {
                    self.heap.push(Reverse((due, rule, place)));
                }
            }
            // What was pushed is greater: the one looked at is still on top.
            self.heap.pop();
        }
        None
    }

    /// Readings were lost: all open windows say so, and those that start before the clock of now and are yet to be sent.
    pub fn incomplete(&mut self, why: &'static str) {
        let why = self.losses.reason(why);
        self.losses.last = Some((self.clock.now.max(self.clock.resumed), why));
        for (rule, lane) in (0..).zip(&mut self.lanes) {
            for place in lane.sorted() {
                let Some((form, key)) = lane.key_mut(place) else { continue };
                key.mark(form, why);
                self.changes.changed(rule, place, key);
            }
        }
    }

    /// Goes over to other rules. One that is the same as before keeps its state; the open windows of the others are sent as
    /// they are, marked `rules_changed`; so are the first windows of new rules, which start before the clock of now.
    ///
    /// # Errors
    /// As [`Self::new`]; nothing has changed then.
    pub fn switch(
        &mut self,
        rules: Vec<Rule>,
        compile: &dyn Fn(&str) -> Filter,
        out: &mut Outputs,
    ) -> Result<(), String> {
        self.make(rules.clone(), compile, Vec::new())?;
        self.changes.settle(&mut self.lanes);
        let lanes = std::mem::take(&mut self.lanes);
        let old: Vec<Rule> = lanes.iter().map(|lane| lane.form.rule.clone()).collect();
        let (lanes, gone) = self.make(rules, compile, lanes)?;
        self.lanes = lanes;
        let why = self.losses.reason("rules_changed");
        for lane in self.lanes.iter_mut().filter(|lane| !old.contains(&lane.form.rule)) {
            lane.begun = Some((self.clock.now, why));
        }
        for mut lane in gone {
            lane.flush(why, &self.losses, out);
            for place in lane.sorted() {
                if let Some(key) = lane.key(place) {
                    self.changes.gone(&lane.form.rule.name, &key.id);
                }
            }
        }
        self.schedule_all();
        Ok(())
    }

    /// Puts all keys on the heap anew.
    pub(super) fn schedule_all(&mut self) {
        self.heap.clear();
        for (rule, lane) in (0..).zip(&mut self.lanes) {
            for place in lane.sorted() {
                let Some((form, key)) = lane.key_mut(place) else { continue };
                key.scheduled = key.due(form, self.clock.resumed);
                if key.scheduled < i64::MAX {
                    self.heap.push(Reverse((key.scheduled, rule, place)));
                }
            }
        }
    }

    /// How many keys there are, of all rules.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.lanes.iter().map(Lane::len).sum()
    }

    /// Whether there is no state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys() == 0
    }
}
