//! The window rules: `[[window]]`.
//!
//! Comes in: the sections and the flows. Goes out: rules that the engine can run, each with its flow. Guarantees: names
//! are unique; what only some kinds of windows have is refused elsewhere by the rule's own check. Pure.

use weir_shared::config::Section;
use weir_shared::window::{Aggregate, Basis, Kind, Rule, Span};

use crate::flow::Flow;
use crate::windows::rules::{self, FlowRule};

/// Every key of a `[[window]]` with its default.
const REFERENCE: &str = r#"
name = ""
flow = "default"
kind = "tumbling"
size = "10s"
slide = "1s"
gap = "30s"
count = 100
slide_count = 10
zone = "UTC"
time = "event"
key = ["device"]
filter = ""
fields = ["*"]
aggregates = ["count", "mean", "min", "max", "stddev"]
delay = "5s"
idle = "30s"
lateness = "0s"
expected_interval_ms = 0
"#;

const KINDS: [&str; 5] = ["tumbling", "sliding", "session", "count", "sliding_count"];
const TIMES: [(&str, Basis); 3] =
    [("event", Basis::Event), ("ingestion", Basis::Ingestion), ("processing", Basis::Processing)];
/// Ten years.
const LONG_MS: i64 = 316_224_000_000;

pub(super) fn read(root: &Section<'_>, flows: &[Flow]) -> Vec<FlowRule> {
    let rules = root.each("window", REFERENCE, |s| rule(s, flows));
    for (i, FlowRule { rule, .. }) in rules.iter().enumerate() {
        if rules[..i].iter().any(|other| other.rule.name == rule.name) {
            root.problem("window", &format!("two rules are called {:?}", rule.name));
        }
    }
    rules
}

fn rule(s: &Section<'_>, flows: &[Flow]) -> FlowRule {
    let flow = s.string("flow");
    if !flows.iter().any(|f| f.name == flow) {
        let known: Vec<_> = flows.iter().map(|f| &*f.name).collect();
        s.problem("flow", &format!("no such flow; there are {}", known.join(", ")));
    }
    let name = s.required("name", "the name of the rule, which stands in its results");
    let ms = |key, least| super::duration_ms(s, key, least..=LONG_MS).unsigned_abs();
    let count = |key| u32::try_from(s.integer(key, 1..=1_000_000)).unwrap_or(1);
    let (size, slide) = (s.string("size"), s.string("slide"));
    let (size_ms, slide_ms, gap_ms) = (ms("size", 1), ms("slide", 1), ms("gap", 1));
    let (n, slide_n) = (count("count"), count("slide_count"));
    let kind = match s.choice("kind", &KINDS) {
        0 => Kind::Tumbling { size: span(&size, size_ms) },
        1 => Kind::Sliding { size: span(&size, size_ms), slide: span(&slide, slide_ms) },
        2 => Kind::Session { gap_ms, length_ms_max: size_ms.max(gap_ms) },
        3 => Kind::Count { n },
        _ => Kind::SlidingCount { n, slide: slide_n },
    };
    let mut aggregates = Vec::new();
    for text in s.strings("aggregates") {
        match text.parse::<Aggregate>() {
            Ok(aggregate) => aggregates.push(aggregate),
            Err(why) => s.problem("aggregates", &why),
        }
    }
    let filter = Some(s.string("filter")).filter(|text| !text.is_empty());
    let zone = Some(s.string("zone")).filter(|zone| zone != "UTC" && !zone.is_empty());
    let expected = s.integer("expected_interval_ms", 0..=LONG_MS.unsigned_abs());
    let rule = Rule {
        name,
        kind,
        zone,
        basis: TIMES[s.choice("time", &TIMES.map(|(word, _)| word))].1,
        key: s.strings("key"),
        delay_ms: ms("delay", 0),
        idle_ms: ms("idle", 1),
        lateness_ms: ms("lateness", 0),
        filter,
        fields: s.strings("fields"),
        aggregates,
        expected_interval_ms: Some(expected).filter(|ms| *ms > 0),
    };
    if !rule.name.is_empty()
        && let Err(why) = rules::check(&rule)
    {
        let key = why.split([':', ' ']).next().unwrap_or("kind");
        let known = ["name", "zone", "key", "filter", "fields", "aggregates", "kind", "expected_interval_ms"];
        s.problem(known.iter().find(|k| **k == key).unwrap_or(&"kind"), &why);
    }
    FlowRule { flow, rule }
}

/// Whole days are days of the zone.
fn span(text: &str, ms: u64) -> Span {
    match u32::try_from(ms / 86_400_000) {
        Ok(days) if text.ends_with('d') => Span::Days(days),
        _ => Span::Ms(ms),
    }
}
