//! The engine as one would write it without a thought for speed: it keeps every reading, goes through the clock
//! millisecond by millisecond, and computes each result from the readings themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::window::rule::divisor;
use crate::window::{Basis, Kind, Rule, Span};

mod sessions;

use sessions::{Session, bounds, forgotten};

/// A reading: device, tag, event time, value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Given {
    pub(super) device: u8,
    pub(super) tag: Option<u8>,
    pub(super) time: i64,
    pub(super) value: Option<f64>,
}

/// A result.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) rule: usize,
    pub(super) key: String,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) revision: u64,
    pub(super) incomplete: bool,
    pub(super) readings: Vec<Given>,
}

#[derive(Clone, Debug)]
pub(super) enum Out {
    Window(Sent),
    Late { rule: usize, watermark: i64 },
}

pub(super) struct Model {
    rules: Vec<Rule>,
    keep_ms: i64,
    clock: i64,
    resumed: i64,
    loss: Option<i64>,
    keys: BTreeMap<(usize, String), Key>,
    pub(super) out: Vec<Out>,
}

#[derive(Default)]
struct Key {
    readings: Vec<Given>,
    devices: BTreeMap<u8, (i64, i64)>,
    last: Option<(i64, i64)>,
    watermark: Option<i64>,
    /// By start and end: revision, incomplete.
    sent: BTreeMap<(i64, i64), (u64, bool)>,
    /// Panes or chunks that are marked.
    marked: BTreeSet<i64>,
    sessions: Vec<Session>,
    before: Option<(i64, i64)>,
}

const NEVER: i64 = -1_000_000;

fn spans(rule: &Rule) -> Option<(i64, i64, i64)> {
    let (size, slide) = match rule.kind {
        Kind::Tumbling { size: Span::Ms(size) } => (size, size),
        Kind::Sliding { size: Span::Ms(size), slide: Span::Ms(slide) } => (size, slide),
        _ => return None,
    };
    Some((size.cast_signed(), slide.cast_signed(), divisor(size, slide).cast_signed()))
}

/// Windows of an aligned rule that have readings, by start.
fn windows(rule: &Rule, readings: &[Given]) -> BTreeSet<(i64, i64)> {
    let Some((size, slide, _)) = spans(rule) else { return BTreeSet::new() };
    let of = |r: &Given| {
        let last = r.time.div_euclid(slide) * slide;
        (0..=size / slide).map(move |i| last - i * slide)
    };
    let with = |r: &Given| of(r).filter(|s| (*s..s + size).contains(&r.time)).collect::<Vec<_>>();
    readings.iter().flat_map(with).map(|start| (start, start + size)).collect()
}

impl Key {
    fn silent(&self, rule: &Rule, clock: i64, resumed: i64) -> i64 {
        let Some((time, arrival)) = self.last else { return NEVER };
        let silent = clock - arrival.max(resumed);
        if silent >= rule.idle_ms.cast_signed() { time + silent } else { time }
    }

    /// The watermark at this clock, and whether a device went idle by it.
    fn reached(&mut self, rule: &Rule, clock: i64, resumed: i64, many: bool) -> (i64, bool) {
        let now = match rule.basis {
            Basis::Processing => clock,
            Basis::Ingestion => self.silent(rule, clock, resumed),
            Basis::Event => {
                let idle = |arrival: i64| arrival.max(resumed) + rule.idle_ms.cast_signed() <= clock;
                let active: Vec<i64> = self.devices.values().filter(|d| !idle(d.1)).map(|d| d.0).collect();
                let least = active.iter().min().copied().filter(|_| many);
                least.unwrap_or_else(|| self.silent(rule, clock, resumed)) - rule.delay_ms.cast_signed()
            }
        };
        let idle = |d: &(i64, i64)| d.1.max(resumed) + rule.idle_ms.cast_signed() <= clock;
        let went = many && rule.basis == Basis::Event && self.devices.values().any(idle);
        (self.watermark.unwrap_or(NEVER).max(now), went)
    }

    fn settle(&mut self, rule: &Rule, clock: i64, resumed: i64, many: bool) -> i64 {
        let (reached, _) = self.reached(rule, clock, resumed, many);
        self.devices.retain(|_, d| d.1.max(resumed) + rule.idle_ms.cast_signed() > clock);
        self.watermark = Some(reached);
        reached
    }

    /// The watermarks at which something that is held closes or goes.
    fn held(&self, rule: &Rule) -> Vec<i64> {
        let watermark = self.watermark.unwrap_or(NEVER);
        let lateness = rule.lateness_ms.cast_signed();
        if let Some((size, slide, _)) = spans(rule) {
            let open =
                windows(rule, &self.readings).into_iter().map(|(_, end)| end).filter(|e| *e > watermark);
            let gone = |r: &Given| r.time.div_euclid(slide) * slide + size + lateness;
            return open.chain(self.readings.iter().map(gone).filter(|e| *e > watermark)).collect();
        }
        let session =
            |s: &Session| s.fixed.map_or_else(|| bounds(rule, s).1, |bounds| forgotten(rule, bounds));
        self.sessions.iter().map(session).collect()
    }
}

impl Model {
    pub(super) fn new(rules: Vec<Rule>, keep_ms: u64) -> Self {
        let keep_ms = keep_ms.cast_signed();
        Self { rules, keep_ms, clock: 0, resumed: 0, loss: None, keys: BTreeMap::new(), out: Vec::new() }
    }

    pub(super) fn tick(&mut self, to: i64) {
        while self.clock < to {
            self.clock += 1;
            let names: Vec<_> = self.keys.keys().cloned().collect();
            for name in names {
                self.look(&name);
            }
        }
    }

    /// What the clock does to a key: nothing, unless a window closes or goes, or a device that is waited for went idle.
    fn look(&mut self, name: &(usize, String)) {
        let rule = self.rules[name.0].clone();
        let key = self.keys.get_mut(name).unwrap();
        let many = !rule.key.iter().any(|k| k == "device");
        let held = key.held(&rule);
        let (reached, went) = key.reached(&rule, self.clock, self.resumed, many);
        if (went && !held.is_empty()) || held.iter().any(|work| *work <= reached) {
            let before = key.watermark.unwrap_or(NEVER);
            key.settle(&rule, self.clock, self.resumed, many);
            self.close(name, before);
        }
        let key = &self.keys[name];
        let empty = if counted(&rule) { self.chunks_held(name) == 0 } else { key.held(&rule).is_empty() };
        let keep = if rule.basis == Basis::Event || counted(&rule) { self.keep_ms } else { 0 };
        if empty && key.last.is_some_and(|(_, arrival)| arrival + keep <= self.clock) {
            self.keys.remove(name);
        }
    }

    fn chunks_held(&self, name: &(usize, String)) -> usize {
        let total = self.keys[name].readings.len();
        match self.rules[name.0].kind {
            Kind::Count { n } => total % n as usize,
            Kind::SlidingCount { n, slide } if n == slide => total % n as usize,
            _ => total,
        }
    }

    fn close(&mut self, name: &(usize, String), before: i64) {
        let rule = self.rules[name.0].clone();
        let key = self.keys.get_mut(name).unwrap();
        let now = key.watermark.unwrap_or(NEVER);
        let ended: Vec<_> =
            windows(&rule, &key.readings).into_iter().filter(|w| before < w.1 && w.1 <= now).collect();
        ended.into_iter().for_each(|(start, end)| self.send(name, start, end));
        for at in 0..self.keys[name].sessions.len() {
            let session = &self.keys[name].sessions[at];
            if session.fixed.is_none() && bounds(&rule, session).1 <= now {
                self.send_session(name, at);
            }
        }
        let key = self.keys.get_mut(name).unwrap();
        key.sessions.retain(|s| s.fixed.is_none_or(|bounds| forgotten(&rule, bounds) > now));
    }

    fn send(&mut self, name: &(usize, String), start: i64, end: i64) {
        let rule = &self.rules[name.0];
        let (.., pane) = spans(rule).unwrap();
        let key = self.keys.get_mut(name).unwrap();
        let readings: Vec<_> =
            key.readings.iter().filter(|r| (start..end).contains(&r.time)).copied().collect();
        let marked = key.marked.iter().any(|p| (start..end).contains(&(p * pane)));
        let (revision, incomplete) = match key.sent.get(&(start, end)) {
            Some((revision, incomplete)) => (revision + 1, *incomplete || marked),
            None => (0, marked || self.loss.is_some_and(|clock| start <= clock)),
        };
        key.sent.insert((start, end), (revision, incomplete));
        let (rule, key) = name.clone();
        self.out.push(Out::Window(Sent { rule, key, start, end, revision, incomplete, readings }));
    }

    pub(super) fn reading(&mut self, given: Given, clock: i64) {
        self.tick(clock);
        for index in 0..self.rules.len() {
            let rule = self.rules[index].clone();
            let mut given = given;
            if rule.basis != Basis::Event {
                given.time = self.clock;
            }
            let by_device = rule.key.iter().any(|k| k == "device");
            let key = match (by_device, given.tag) {
                (true, _) => format!("d{}", given.device),
                (false, Some(tag)) => format!("line{tag}"),
                (false, None) => continue,
            };
            let name = (index, key);
            let key = self.keys.entry(name.clone()).or_default();
            let before = key.watermark.unwrap_or(NEVER);
            key.settle(&rule, self.clock, self.resumed, !by_device);
            self.close(&name, before);
            self.place(&name, &rule, given);
            let key = self.keys.get_mut(&name).unwrap();
            let device = key.devices.entry(given.device).or_insert((given.time, self.clock));
            *device = (device.0.max(given.time), self.clock);
            // A device that is alone in its key keeps its time while it is idle.
            let own = if by_device || rule.basis != Basis::Event || counted(&rule) {
                key.last.map_or(given.time, |l| l.0.max(given.time))
            } else {
                device.0
            };
            key.last = Some((own, self.clock));
            let before = key.watermark.unwrap_or(NEVER);
            key.settle(&rule, self.clock, self.resumed, !by_device);
            self.close(&name, before);
        }
    }

    fn place(&mut self, name: &(usize, String), rule: &Rule, given: Given) {
        let lateness = rule.lateness_ms.cast_signed();
        let key = self.keys.get_mut(name).unwrap();
        let watermark = key.watermark.unwrap_or(NEVER);
        if spans(rule).is_some() {
            let mine = windows(rule, &[given]);
            if mine.iter().all(|(_, end)| end + lateness <= watermark) {
                self.out.push(Out::Late { rule: name.0, watermark });
                return;
            }
            key.readings.push(given);
            let again = |&(_, end): &(i64, i64)| end <= watermark && end + lateness > watermark;
            mine.into_iter().filter(again).for_each(|(start, end)| self.send(name, start, end));
        } else if let Kind::Session { gap_ms, length_ms_max } = rule.kind {
            self.place_in_session(name, rule, given, gap_ms.cast_signed(), length_ms_max.cast_signed());
        } else {
            key.readings.push(given);
            self.count(name, rule);
        }
    }

    fn count(&mut self, name: &(usize, String), rule: &Rule) {
        let (n, slide) = match rule.kind {
            Kind::Count { n } => (n as usize, n as usize),
            Kind::SlidingCount { n, slide } => (n as usize, slide as usize),
            _ => return,
        };
        let key = self.keys.get_mut(name).unwrap();
        let total = key.readings.len();
        if total < n || !total.is_multiple_of(slide) {
            return;
        }
        let readings = key.readings[total - n..].to_vec();
        let start = readings.iter().map(|r| r.time).min().unwrap();
        let mut end = readings.iter().map(|r| r.time).max().unwrap() + 1;
        if let Some((_, last)) = key.before.filter(|b| b.0 == start) {
            end = end.max(last + 1);
        }
        key.before = Some((start, end));
        let marked = (total - n..total).any(|i| key.marked.contains(&((i / chunk(rule)) as i64)));
        let incomplete = marked || self.loss.is_some_and(|clock| start <= clock);
        let (rule, key) = name.clone();
        self.out.push(Out::Window(Sent { rule, key, start, end, revision: 0, incomplete, readings }));
    }

    pub(super) fn resumed(&mut self, clock: i64) {
        self.resumed = self.resumed.max(clock);
    }

    pub(super) fn incomplete(&mut self) {
        self.loss = Some(self.clock.max(self.resumed));
        for ((rule, _), key) in &mut self.keys {
            let rule = &self.rules[*rule];
            let watermark = key.watermark.unwrap_or(NEVER);
            if let Some((size, slide, pane)) = spans(rule) {
                let open = |r: &&Given| r.time.div_euclid(slide) * slide + size > watermark;
                key.marked.extend(key.readings.iter().filter(open).map(|r| r.time.div_euclid(pane)));
            }
            key.sessions.iter_mut().filter(|s| s.fixed.is_none()).for_each(|s| s.marked = true);
            if counted(rule) {
                key.marked.extend((0..key.readings.len()).map(|i| (i / chunk(rule)) as i64));
            }
        }
    }
}

fn counted(rule: &Rule) -> bool {
    matches!(rule.kind, Kind::Count { .. } | Kind::SlidingCount { .. })
}

fn chunk(rule: &Rule) -> usize {
    match rule.kind {
        Kind::Count { n } => n as usize,
        Kind::SlidingCount { n, slide } => divisor(u64::from(n), u64::from(slide)) as usize,
        _ => 1,
    }
}
