//! The engine against the model, restored at any point, and single cases by hand.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::reading::Value;

mod cases;
mod exact;
mod model;

use model::{Given, Model, Out};

#[derive(Clone, Debug)]
enum Call {
    /// Ms later; then the reading, whose time lies so far from the clock.
    Reading(i64, i64, Given),
    Tick(i64),
    Resumed,
    Incomplete,
    /// Written down and restored.
    Restart,
    /// What changed is put aside.
    Save,
}

fn given() -> impl Strategy<Value = Given> {
    let value = prop_oneof![8 => (-40..400_i32).prop_map(|v| Some(f64::from(v) / 8.0)), 1 => Just(None)];
    let tag = prop_oneof![9 => (0..2_u8).prop_map(Some), 1 => Just(None)];
    (0..4_u8, tag, value).prop_map(|(device, tag, value)| Given { device, tag, time: 0, value })
}

fn call() -> impl Strategy<Value = Call> {
    let early = prop_oneof![6 => -6..3_i64, 3 => -40..3_i64, 1 => -200..200_i64];
    prop_oneof![
        24 => (0..4_i64, early, given()).prop_map(|(later, off, given)| Call::Reading(later, off, given)),
        3 => (0..60_i64).prop_map(Call::Tick),
        1 => Just(Call::Resumed),
        1 => Just(Call::Incomplete),
        2 => Just(Call::Restart),
        2 => Just(Call::Save),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let count = (1..9_u32, 1..9_u32);
    prop_oneof![
        2 => (1..30_u64).prop_map(|size| Kind::Tumbling { size: Span::Ms(size) }),
        3 => (1..12_u64, 1..30_u64).prop_map(|(slide, more)| Kind::Sliding {
            size: Span::Ms(slide + more),
            slide: Span::Ms(slide)
        }),
        2 => (1..12_u64, 0..20_u64).prop_map(|(gap, more)| Kind::Session { gap_ms: gap, length_ms_max: gap + more }),
        1 => (1..9_u32).prop_map(|n| Kind::Count { n }),
        2 => count.prop_map(|(slide, more)| Kind::SlidingCount { n: slide + more, slide }),
    ]
}

const AGGREGATES: [Aggregate; 12] = [
    Aggregate::Last,
    Aggregate::Count,
    Aggregate::Sum,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Mean,
    Aggregate::Stddev,
    Aggregate::Percentile(50_000),
    Aggregate::Percentile(99_900),
    Aggregate::Distinct,
    Aggregate::First,
    Aggregate::Rate,
];

fn rule() -> impl Strategy<Value = Rule> {
    let basis =
        prop_oneof![4 => Just(Basis::Event), 1 => Just(Basis::Ingestion), 1 => Just(Basis::Processing)];
    let lateness = prop_oneof![1 => Just(0_u64), 1 => 1..40_u64];
    let aggregates = proptest::sample::subsequence(AGGREGATES.to_vec(), 1..=12);
    let flags = (any::<bool>(), any::<bool>());
    (kind(), basis, 0..20_u64, 0..50_u64, lateness, aggregates, flags).prop_map(
        |(kind, basis, delay_ms, idle_ms, lateness_ms, aggregates, (by_device, all))| {
            let key = if by_device { "device" } else { "line" };
            let fields = if all { "*" } else { "t" };
            Rule {
                basis,
                delay_ms,
                idle_ms,
                lateness_ms,
                aggregates,
                key: vec![key.to_owned()],
                fields: vec![fields.to_owned()],
                ..Rule::new("", kind)
            }
        },
    )
}

fn reading(given: Given) -> Reading<'static> {
    let values = given.value.map(|v| ("t".into(), Value::Float(v)));
    let tags = given.tag.map(|tag| ("line".into(), format!("line{tag}").into()));
    Reading {
        device: format!("d{}", given.device).into(),
        time: given.time,
        values: values.into_iter().chain([("mode".into(), Value::Text("x".into()))]).collect(),
        tags: tags.into_iter().collect(),
        received: 0,
    }
}

fn no_filter(_: &str) -> Filter {
    Box::new(|_| true)
}

/// All outputs as text.
fn texts(out: &mut Outputs) -> Vec<String> {
    let text = |output: Output<'_>| match output {
        Output::Window { key, json } => format!("{key} {}", std::str::from_utf8(json).unwrap()),
        Output::Late { rule, device, watermark } => format!("late {rule} {device} {watermark}"),
    };
    let texts = out.iter().map(text).collect();
    out.clear();
    texts
}

/// An engine that is called as it should be: straight on, or restored now and then.
struct Run {
    engine: Engine,
    rules: Vec<Rule>,
    limits: Limits,
    saved: BTreeMap<Vec<u8>, Vec<u8>>,
    out: Outputs,
    all: Vec<String>,
}

impl Run {
    fn new(rules: &[Rule], limits: Limits) -> Self {
        let engine = Engine::new(rules.to_vec(), limits, &no_filter).unwrap();
        let rules = rules.to_vec();
        Self { engine, rules, limits, saved: BTreeMap::new(), out: Outputs::default(), all: Vec::new() }
    }

    fn save(&mut self) {
        for (key, value) in self.engine.changed() {
            match value {
                Some(value) => drop(self.saved.insert(key, value)),
                None => drop(self.saved.remove(&key)),
            }
        }
        let saved: Vec<_> = self.saved.clone().into_iter().collect();
        assert_eq!(saved, self.engine.snapshot(), "what changed adds up to a snapshot");
    }

    fn restore(&mut self) {
        let entries: Vec<_> = self.saved.clone().into_iter().collect();
        self.engine = Engine::restore(self.rules.clone(), self.limits, &no_filter, entries.clone()).unwrap();
        assert_eq!(self.engine.snapshot(), entries);
    }

    fn take(&mut self) {
        let texts = texts(&mut self.out);
        self.all.extend(texts);
    }

    /// Ticks once more just before something is due: nothing may come of it.
    fn tick_early(&mut self, clock: i64) {
        while let Some(deadline) = self.engine.deadline().filter(|d| *d <= clock) {
            self.engine.tick(deadline - 1, &mut self.out);
            assert!(self.out.is_empty(), "something came before the deadline");
            self.engine.tick(deadline, &mut self.out);
            self.take();
        }
        self.engine.tick(clock, &mut self.out);
        assert!(self.out.is_empty(), "something came that no deadline told of");
    }
}

fn check(rules: &[Rule], sent: &model::Sent, text: &str) {
    let (key, json) = text.split_once(' ').unwrap();
    let json: Json = serde_json::from_str(json).unwrap();
    let rule = &rules[sent.rule];
    assert_eq!((key, &json["rule"]), (&*sent.key, &Json::from(&*rule.name)), "{text}");
    assert_eq!(json["key"][&rule.key[0]], Json::from(&*sent.key));
    let whole =
        [&json["start"], &json["end"], &json["revision"], &json["count"]].map(|v| v.as_i64().unwrap());
    let wanted = [sent.start, sent.end, sent.revision.cast_signed(), sent.readings.len() as i64];
    assert_eq!(whole, wanted, "{rule:?} {text}");
    assert_eq!(json["incomplete"] == "lost", sent.incomplete, "{text}");
    let any = sent.readings.iter().any(|r| r.value.is_some());
    for &aggregate in &rule.aggregates {
        let found = json["values"]["t"].get(aggregate.to_string()).and_then(Json::as_f64);
        let wanted = if any { exact::aggregate(aggregate, &sent.readings) } else { None };
        let tolerance = if matches!(aggregate, Aggregate::Percentile(_)) { 0.010_000_1 } else { 1e-9 };
        // Values are eighths below 50: sums are exact, and so small ones are compared absolutely.
        let near = |(f, w): (f64, f64)| (f - w).abs() <= tolerance * w.abs().max(1e-3);
        let same = found.zip(wanted).map_or(found == wanted, near);
        assert!(same, "{aggregate}: {found:?}, wanted {wanted:?} of {:?}", sent.readings);
    }
}

/// The straight run equals the model; the restored ones and the one with more ticks equal the straight run.
fn compare(rules: &[Rule], limits: Limits, calls: &[Call]) {
    let mut runs: Vec<Run> = (0..4).map(|_| Run::new(rules, limits)).collect();
    let mut model = Model::new(rules.to_vec(), limits.keep_ms);
    let mut clock = 1_000;
    for call in calls {
        if let Call::Reading(later, ..) | Call::Tick(later) = call {
            clock += later;
            runs[3].tick_early(clock);
        }
        for (i, run) in runs.iter_mut().enumerate() {
            match call {
                Call::Reading(_, off, given) => {
                    let given = Given { time: clock + off, ..*given };
                    run.engine.reading(&reading(given), clock, &mut run.out);
                }
                Call::Tick(_) => run.engine.tick(clock, &mut run.out),
                Call::Resumed => run.engine.resumed(clock),
                Call::Incomplete => run.engine.incomplete("lost"),
                Call::Restart if i == 1 => {
                    run.saved = run.engine.snapshot().into_iter().collect();
                    run.restore();
                }
                Call::Restart if i == 2 => {
                    run.save();
                    run.restore();
                }
                Call::Save if i == 2 => run.save(),
                Call::Restart | Call::Save => {}
            }
            run.take();
        }
        match call {
            Call::Reading(_, off, given) => model.reading(Given { time: clock + off, ..*given }, clock),
            Call::Tick(_) => model.tick(clock),
            Call::Resumed => model.resumed(clock),
            Call::Incomplete => model.incomplete(),
            Call::Restart | Call::Save => {}
        }
    }
    for run in &runs[1..] {
        assert_eq!(run.all, runs[0].all);
    }
    for (out, text) in model.out.iter().zip(&runs[0].all) {
        match out {
            Out::Window(sent) => check(rules, sent, text),
            Out::Late { rule, watermark } => {
                let (name, ..) = text.strip_prefix("late ").unwrap().split_once(' ').unwrap();
                let told = text.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
                assert_eq!((name, told), (&*rules[*rule].name, *watermark), "{text}");
            }
        }
    }
    assert_eq!(model.out.len(), runs[0].all.len(), "{:?}", runs[0].all.last());
    if limits.keep_ms > 100_000 {
        revisions_go_up_by_one(rules, &runs[0].all);
    }
}

fn revisions_go_up_by_one(rules: &[Rule], texts: &[String]) {
    let mut seen = BTreeMap::new();
    for text in texts.iter().filter(|t| !t.starts_with("late ")) {
        let json: Json = serde_json::from_str(text.split_once(' ').unwrap().1).unwrap();
        let rule = rules.iter().find(|r| json["rule"] == *r.name).unwrap();
        if matches!(rule.kind, Kind::Count { .. } | Kind::SlidingCount { .. }) {
            continue;
        }
        let name = ["rule", "key", "start", "end"].map(|member| json[member].to_string());
        let revision = json["revision"].as_i64().unwrap();
        assert_eq!(seen.insert(name, revision).map_or(0, |r| r + 1), revision, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_model_and_itself_restored(
        mut rules in prop::collection::vec(rule(), 1..3),
        calls in prop::collection::vec(call(), 1..120),
        forgets in any::<bool>(),
    ) {
        (0..).zip(&mut rules).for_each(|(i, rule)| rule.name = format!("r{i}"));
        let keep_ms = if forgets { 70 } else { 1_000_000 };
        compare(&rules, Limits { keep_ms, ..Limits::default() }, &calls);
    }
}
