//! The window rules: `[[window]]`.
//!
//! Comes in: the sections and the flows. Goes out: rules that the engine can run, each with its flow. Guarantees: names
//! are unique and not those of the edge's own rules; all problems of a rule come at once. Pure.

use weir_shared::config::Section;
use weir_shared::window::{Aggregate, Basis, Kind, Rule, Span};

use crate::flow::Flow;
use crate::ingest;
use crate::windows::rules::{self, FlowRule};

/// Every key of a `[[window]]` with its default.
const REFERENCE: &str = r#"
name = ""
flow = "default"
kind = "tumbling"
size = ""
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
/// Of windows that are aligned, where nothing else is said.
const SIZE_MS: u64 = 10_000;
/// Ten years.
const LONG_MS: i64 = 316_224_000_000;
const DAY_MS: u64 = 86_400_000;

pub(super) fn read(root: &Section<'_>, flows: &[Flow]) -> Vec<FlowRule> {
    let rules = root.each("window", REFERENCE, |s| rule(s, flows));
    for (i, FlowRule { rule, .. }) in rules.iter().enumerate() {
        if !rule.name.is_empty() && rules[..i].iter().any(|other| other.rule.name == rule.name) {
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
    super::check_name(s, &name);
    if name == ingest::ROLL_UP {
        s.problem("name", &format!("{name:?} is reserved for what the policy roll_up sends; choose another"));
    }
    let ms = |key, least| super::duration_ms(s, key, least..=LONG_MS).unsigned_abs();
    let aggregates = aggregates(s);
    let filter = Some(s.string("filter")).filter(|text| !text.is_empty());
    let zone = Some(s.string("zone")).filter(|zone| zone != "UTC" && !zone.is_empty());
    let expected = s.integer("expected_interval_ms", 0..=LONG_MS.unsigned_abs());
    let rule = Rule {
        name,
        kind: kind(s),
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
    for (key, why) in rules::problems(&rule) {
        s.problem(key, &why);
    }
    FlowRule { flow, rule }
}

fn kind(s: &Section<'_>) -> Kind {
    let count = |key| u32::try_from(s.integer(key, 1..=1_000_000)).unwrap_or(1);
    let (size, slide) = (span(s, "size"), span(s, "slide").unwrap_or(Span::Ms(1000)));
    let gap_ms = super::duration_ms(s, "gap", 1..=LONG_MS).unsigned_abs();
    let (n, slide_n) = (count("count"), count("slide_count"));
    let aligned = size.unwrap_or(Span::Ms(SIZE_MS));
    match s.choice("kind", &KINDS) {
        0 => Kind::Tumbling { size: aligned },
        1 => Kind::Sliding { size: aligned, slide },
        2 => {
            let longest = size.map_or(LONG_MS.unsigned_abs(), ms_of);
            if longest < gap_ms {
                let why = format!(
                    "a session's longest, at least its gap of {gap_ms} ms; or leave it out: no limit"
                );
                s.problem("size", &why);
            }
            Kind::Session { gap_ms, length_ms_max: longest.max(gap_ms) }
        }
        3 => Kind::Count { n },
        _ => Kind::SlidingCount { n, slide: slide_n },
    }
}

/// What can be computed; empty where something was wrong with one of them.
fn aggregates(s: &Section<'_>) -> Vec<Aggregate> {
    let texts = s.strings("aggregates");
    if texts.is_empty() {
        s.problem("aggregates", "at least one, for example \"mean\"");
    }
    if texts.len() > rules::AGGREGATES_MAX {
        s.problem("aggregates", &format!("at most {}, these are {}", rules::AGGREGATES_MAX, texts.len()));
        return Vec::new();
    }
    let mut aggregates = Vec::new();
    for text in &texts {
        match text.parse::<Aggregate>() {
            Ok(aggregate) => aggregates.push(aggregate),
            Err(why) => s.problem("aggregates", &why),
        }
    }
    if aggregates.len() < texts.len() { Vec::new() } else { aggregates }
}

/// A length; whole days are days of the zone. `None` for an empty text.
fn span(s: &Section<'_>, key: &str) -> Option<Span> {
    let parse = |text: &str| match super::parse_duration(text) {
        _ if text.is_empty() => Some(None),
        Some(ms) if (1..=LONG_MS).contains(&ms) => Some(Some((ms.unsigned_abs(), text.ends_with('d')))),
        _ => None,
    };
    let want =
        format!("a duration with its unit, for example \"10s\" (ms, s, m, h, d), from 1 to {LONG_MS} ms");
    let (ms, days) = s.parsed(key, &want, parse)?;
    Some(match u32::try_from(ms / DAY_MS) {
        Ok(whole) if days => Span::Days(whole),
        _ => Span::Ms(ms),
    })
}

fn ms_of(span: Span) -> u64 {
    match span {
        Span::Ms(ms) => ms,
        Span::Days(days) => u64::from(days) * DAY_MS,
    }
}
