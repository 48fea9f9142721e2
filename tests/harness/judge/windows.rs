//! Window results, judged in two ways.
//!
//! [`whole`]: from the numbers alone, with no engine: a tumbling window over a device must have counted every reading of
//! it, in the highest revision that came. [`Outputs`]: byte for byte against what the engine gives when it runs over the
//! same journal from its start (`weir-edge replay`). Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::marks::{Marks, Ruling};
use super::run::Run;
use super::tape::{Seen, What};
use weir_shared::wire;

/// Problems that are told.
const TOLD_MAX: usize = 5;

/// What is wrong with the windows of a run: rules over `device` with the aggregate `mean` of field `x`. A window counts
/// as due when a reading of its device came [`DUE_MS`] behind its end.
#[must_use]
pub fn whole(run: &Run, seen: &[Seen]) -> Vec<String> {
    let mut newest: BTreeMap<(String, String, i64, i64), (u64, Value)> = BTreeMap::new();
    let mut problems = Vec::new();
    for json in accepted(seen).filter_map(|(topic, _, value)| parse(topic, value)) {
        let text = |path: &str| json.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let at = (
            text("/rule"),
            text("/key/device"),
            json["start"].as_i64().unwrap_or_default(),
            json["end"].as_i64().unwrap_or_default(),
        );
        let revision = json["revision"].as_u64().unwrap_or_default();
        if newest.get(&at).is_some_and(|(known, _)| *known >= revision) {
            problems.push(format!("revision {revision} came twice: {json}"));
        } else {
            newest.insert(at, (revision, json));
        }
    }
    if newest.is_empty() {
        return vec!["no window came".to_owned()];
    }
    let mut expected: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    for number in 0..run.issued() {
        expected.entry(run.device(number)).or_default().push((run.time_ms(number), run.measured(number)));
    }
    for ((rule, device, start, end), (_, json)) in &newest {
        let Some(readings) = expected.get(device) else { continue };
        let inside = readings.iter().filter(|(time, _)| (*start..*end).contains(time)).map(|(_, x)| *x);
        let (count, sum) = inside.fold((0_u64, 0.0), |(count, sum), x| (count + 1, sum + x));
        let mean = json.pointer("/values/x/mean").and_then(Value::as_f64).unwrap_or(f64::NAN);
        let same_mean = ((mean - sum / count.max(1) as f64).abs()) < 1e-6;
        if json["count"] != count || !same_mean {
            problems.push(format!(
                "{rule} of {device} from {start}: {count} readings, mean {}: {json}",
                sum / count as f64
            ));
        }
    }
    problems.extend(absent(&expected, &newest));
    problems.truncate(TOLD_MAX);
    problems
}

/// A window is due when a reading came so long behind its end.
pub const DUE_MS: i64 = 3000;

type Newest = BTreeMap<(String, String, i64, i64), (u64, Value)>;

fn absent(expected: &BTreeMap<String, Vec<(i64, f64)>>, newest: &Newest) -> Vec<String> {
    let mut sizes: Vec<(String, i64)> =
        newest.keys().map(|(rule, _, start, end)| (rule.clone(), end - start)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut problems = Vec::new();
    for (rule, size) in sizes {
        for (device, readings) in expected {
            let last = readings.iter().map(|(time, _)| *time).max().unwrap_or_default();
            let mut starts: Vec<i64> =
                readings.iter().map(|(time, _)| time.div_euclid(size) * size).collect();
            starts.dedup();
            let due = starts.iter().filter(|start| **start + size + DUE_MS <= last);
            let gone = due.filter(|s| !newest.contains_key(&(rule.clone(), device.clone(), **s, **s + size)));
            problems.extend(gone.map(|start| format!("{rule} of {device} from {start} never came")));
        }
    }
    problems
}

/// What an engine gave, by topic and key, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs(BTreeMap<(String, String), Vec<String>>);

impl Outputs {
    /// From the lines of `weir-edge replay`: topic, key and value, with tabs between.
    #[must_use]
    pub fn replayed(text: &str) -> Self {
        let mut outputs = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, '\t');
            if let (Some(topic), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) {
                outputs.add(topic, key, value);
            }
        }
        outputs
    }

    /// From Kafka, repeats dropped.
    #[must_use]
    pub fn sent(seen: &[Seen]) -> Self {
        let mut outputs = Self::default();
        for (topic, key, value) in accepted(seen) {
            outputs.add(topic, &String::from_utf8_lossy(key), &String::from_utf8_lossy(value));
        }
        outputs
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Where the two differ.
    #[must_use]
    pub fn differences(sent: &Self, replayed: &Self) -> Vec<String> {
        let mut problems = Vec::new();
        let keys = sent.0.keys().chain(replayed.0.keys().filter(|key| !sent.0.contains_key(*key)));
        for (topic, key) in keys {
            let at = (topic.clone(), key.clone());
            let (ours, theirs) = (sent.0.get(&at), replayed.0.get(&at));
            let (ours, theirs) = (ours.map_or(&[][..], Vec::as_slice), theirs.map_or(&[][..], Vec::as_slice));
            if let Some(n) = (0..ours.len().max(theirs.len())).find(|&n| ours.get(n) != theirs.get(n)) {
                let (sent, replayed) = (ours.get(n), theirs.get(n));
                problems.push(format!("{topic} {key}, output {n}: sent {sent:?}, replayed {replayed:?}"));
            }
        }
        problems.truncate(TOLD_MAX);
        problems
    }

    fn add(&mut self, topic: &str, key: &str, value: &str) {
        self.0.entry((topic.to_owned(), key.to_owned())).or_default().push(value.to_owned());
    }
}

/// Topic, key and value of the windows and late readings, repeats dropped.
fn accepted(seen: &[Seen]) -> impl Iterator<Item = (&'static str, &[u8], &[u8])> {
    let mut marks = Marks::default();
    seen.iter().filter_map(move |record| {
        let (key, value) = match &record.what {
            What::Window(key, value) | What::Late(key, value) => (key, value),
            _ => return None,
        };
        let place = (record.stream, record.topic, record.partition);
        let counts = marks.rule(place, record.number) != Ruling::Repeat;
        counts.then_some((record.topic, key.as_slice(), value.as_slice()))
    })
}

fn parse(topic: &str, value: &[u8]) -> Option<Value> {
    if topic == wire::WINDOWS { serde_json::from_slice(value).ok() } else { None }
}
