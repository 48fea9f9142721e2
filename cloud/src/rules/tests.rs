//! Rules over records: what each kind does, what is refused and why, what fails and what does not.

use std::collections::HashMap;
use std::sync::Arc;

use weir_shared::expr::Columns;
use weir_shared::reading::{Reading, Value};
use weir_shared::record::{Identity, StreamId};

use super::*;

mod bench;
mod outputs;

fn row(id: &str, kind: &str, spec: &str) -> RuleRow {
    RuleRow {
        id: id.to_owned(),
        version: 3,
        kind: kind.to_owned(),
        spec: spec.to_owned(),
        priority: 0,
        stands: false,
    }
}

fn schema() -> Schema {
    Schema {
        dims: vec![("devices".to_owned(), vec!["site".to_owned(), "owner".to_owned()])],
        topics: vec!["weir.site-graz".to_owned()],
        hash_key: Some(b"0123456789abcdef".to_vec()),
    }
}

fn set(rows: &[RuleRow]) -> Arc<RuleSet> {
    let (set, refused) = RuleSet::compile(rows, &schema());
    assert_eq!(refused, []);
    Arc::new(set)
}

/// Business data of a device: site and owner.
struct Dims(Option<[&'static str; 2]>);

impl Columns for Dims {
    fn column(&self, dimension: &str, column: &str) -> Option<Value<'_>> {
        let [site, owner] = self.0.filter(|_| dimension == "devices")?;
        match column {
            "site" => Some(Value::Text(site.into())),
            "owner" => Some(Value::Text(owner.into())),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Memory(HashMap<(usize, String), ThresholdState>);

impl States for Memory {
    fn get(&self, rule: &Rule, key: &str) -> Option<ThresholdState> {
        if self.0.is_empty() { None } else { self.0.get(&(rule.index, key.to_owned())).copied() }
    }
    fn set(&mut self, rule: &Rule, key: &str, state: Option<ThresholdState>) {
        match state {
            Some(state) => self.0.insert((rule.index, key.to_owned()), state),
            None => self.0.remove(&(rule.index, key.to_owned())),
        };
    }
}

const ORIGIN: Origin =
    Origin { identity: Identity { stream: StreamId([0xab; 16]), partition: 3, number: 17 }, backlog: false };

fn reading(json: &str) -> Reading<'_> {
    let mut reading = Reading::default();
    reading.parse(json.as_bytes()).unwrap();
    reading
}

const BODY: &str = r#"{"device":"pump-7","time":1000,"values":{"t":90,"name":"Maier","n":1.50},"tags":{"line":"3"},"received":1042}"#;

fn run(set: &Arc<RuleSet>, body: &str) -> (Verdict, Vec<Counts>) {
    let mut evaluator = Evaluator::new(Arc::clone(set), None);
    let mut verdict = Verdict::default();
    let dims = Dims(Some(["Graz", "Huber"]));
    evaluator.run(&reading(body), &dims, &ORIGIN, &mut Memory::default(), &mut verdict);
    (verdict, evaluator.take_counts())
}

#[test]
fn rules_are_met_by_kind_then_priority_then_id() {
    let with = |id, kind, spec, priority| RuleRow { priority, ..row(id, kind, spec) };
    let set = set(&[
        with("z", "mask", r#"{"fields":["tags.line"],"method":"drop"}"#, -9),
        with("b", "derive", r#"{"set":{"y":"values.x + 1"}}"#, 5),
        with("c", "derive", r#"{"set":{"x":"values.t"}}"#, 4),
        with("a", "derive", r#"{"set":{"z":"values.y + 1"}}"#, 5),
        with("f", "filter", r#"{"drop":"values.y > 1000.0"}"#, 0),
    ]);
    let ids: Vec<&str> = set.rules().iter().map(|rule| &*rule.id).collect();
    assert_eq!(ids, ["c", "a", "b", "f", "z"]);
    let (verdict, counts) = run(&set, BODY);
    let derived: Vec<(&str, &Value<'_>)> = verdict.derived.iter().map(|(n, v)| (&**n, v)).collect();
    // "a" comes before "b" and finds no y.
    assert_eq!(derived, [("x", &Value::Float(90.0)), ("y", &Value::Float(91.0))]);
    assert_eq!((counts[1].evaluated, counts[1].skipped, counts[1].failed), (1, 1, 0));
    assert!(!set.is_empty() && RuleSet::default().is_empty());
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&set);
}

#[test]
fn one_record_in_so_many_tells_how_long_its_rules_take() {
    /// Each look is 3 µs after the one before.
    fn clock() -> std::time::Instant {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let micros = 3 * LOOKS.fetch_add(1, Ordering::Relaxed);
        *BEGAN.get_or_init(weir_shared::clock::instant) + std::time::Duration::from_micros(micros)
    }
    let set =
        set(&[row("a", "derive", r#"{"set":{"x":"values.t"}}"#), row("f", "filter", r#"{"drop":"false"}"#)]);
    let mut evaluator = Evaluator::new(Arc::clone(&set), Some(clock));
    let dims = Dims(Some(["Graz", "Huber"]));
    for _ in 0..2 * 256 {
        let verdict = &mut Verdict::default();
        evaluator.run(&reading(BODY), &dims, &ORIGIN, &mut Memory::default(), verdict);
    }
    let times: Vec<u64> = evaluator.take_counts().iter().map(|counts| counts.time_ns).collect();
    assert_eq!(times, [2 * 256 * 3000; 2]);
}

#[test]
fn a_filter_drops_and_raises_no_alert() {
    let rows = [
        row("cold", "filter", r#"{"drop":"values.t < 0","when":"tags.line == '3'"}"#),
        row("hot", "threshold", r#"{"value":"values.t","below":50}"#),
        row(
            "graz",
            "route",
            r#"{"when":"dims.devices.site == 'Graz'","stores":["mysql"],"topics":["weir.site-graz"]}"#,
        ),
        row("rest", "route", r#"{"topics":["weir.site-graz"],"enriched":false}"#),
    ];
    let set = set(&rows);
    let (verdict, counts) = run(&set, &BODY.replace("90", "-1"));
    assert_eq!((verdict.filtered, verdict.route, verdict.alerts.len()), (Some(0), None, 0));
    assert_eq!((counts[0].matched, counts[1].evaluated), (1, 0));
    let (verdict, _) = run(&set, &BODY.replace("90", "1"));
    assert_eq!((verdict.filtered, verdict.alerts.len()), (None, 1));
    let route = set.route(&verdict).unwrap();
    assert_eq!(
        (route.stores.as_deref(), route.enriched),
        (Some(&["mysql"][..]), true),
        "the first route wins"
    );
    assert_eq!(route.topics, ["weir.site-graz"]);
}

#[test]
fn missing_things_skip_and_wrong_ones_fail_that_rule_alone() {
    let set = set(&[
        row("1-missing", "filter", r#"{"drop":"values.none > 3"}"#),
        row("2-wrong", "filter", r#"{"drop":"values.name > 3"}"#),
        row("3-nothing", "derive", r#"{"set":{"a":"values.t","b":"values.t / 0"}}"#),
        row("4-right", "filter", r#"{"drop":"values.none > 3 || values.t == 90"}"#),
    ]);
    let (verdict, counts) = run(&set, BODY);
    let index = |id: &str| set.rules().iter().position(|rule| &*rule.id == id).unwrap();
    assert_eq!(verdict.filtered, Some(index("4-right")));
    assert_eq!(verdict.derived, [], "all of a rule's values or none");
    let failed: Vec<(usize, &str)> = verdict.failures.iter().map(|(i, why)| (*i, why.as_str())).collect();
    assert_eq!(failed[0], (index("3-nothing"), "values.t / 0: gives inf"));
    assert_eq!(failed[1].0, index("2-wrong"));
    assert!(failed[1].1.starts_with("values.name > 3: ") && !failed[1].1.contains("Maier"), "{failed:?}");
    assert_eq!((counts[index("1-missing")].skipped, counts[index("2-wrong")].failed), (1, 1));
}

#[test]
fn thresholds_keep_their_state_by_key_and_leave_backlogs_out() {
    let set = set(&[row(
        "hot",
        "threshold",
        r#"{"value":"values.t","above":80,"clear_below":75,"for_ms":10,"key":"tags.line","severity":"high"}"#,
    )]);
    let (mut evaluator, mut states) = (Evaluator::new(Arc::clone(&set), None), Memory::default());
    let mut verdict = Verdict::default();
    let mut step = |time: i64, line: &str, t: i64, backlog: bool| {
        let json =
            format!(r#"{{"device":"d","time":{time},"values":{{"t":{t}}},"tags":{{"line":"{line}"}}}}"#);
        let origin = Origin { backlog, ..ORIGIN };
        evaluator.run(&reading(&json), &Dims(None), &origin, &mut states, &mut verdict);
        let told = verdict.alerts.iter().map(|a| (a.key.clone(), a.kind, a.since)).collect::<Vec<_>>();
        (told, evaluator.take_counts()[0])
    };
    assert_eq!(step(0, "a", 81, false).0, []);
    assert_eq!(step(5, "b", 81, false).0, []);
    let (told, counts) = step(9, "a", 10, true);
    assert_eq!((told, counts.left_out, counts.evaluated), (vec![], 1, 0));
    assert_eq!(step(10, "a", 81, false).0, [("a".to_owned(), AlertKind::First, 0)]);
    let (told, counts) = step(9, "a", 10, false);
    assert_eq!((told, counts.left_out, counts.evaluated), (vec![], 1, 0));
    assert_eq!(step(14, "b", 70, false).0, []);
    assert_eq!(step(20, "a", 70, false).0, [("a".to_owned(), AlertKind::Recovered, 0)]);
    assert_eq!(states.0.len(), 1, "b is forgotten");
}

/// Kind, spec, part of the reason.
fn refuses(cases: &[(&str, &str, &str)]) {
    for (kind, spec, want) in cases {
        let refused = RuleSet::check(&row("r", kind, spec), &schema()).unwrap_err();
        assert!(refused.reason.contains(want), "{spec}: {}\nwanted: {want}", refused.reason);
        assert_eq!((refused.id.as_str(), refused.version), ("r", 3));
        assert_eq!(RuleSet::compile(&[row("r", kind, spec)], &schema()).1, [refused]);
    }
}

#[test]
fn filters_and_derivations_that_cannot_be_right_are_refused_with_place_and_way_out() {
    refuses(&[
        ("filtre", "{}", "kind: \"filtre\" is not known; did you mean \"filter\"?"),
        ("filter", "[]", "spec: is not a JSON object"),
        ("filter", r#"{"drop":"#, "spec: EOF while parsing a value at line 1 column 8"),
        ("filter", "{}", "drop: is missing; write \"drop\":\"values.t < -40.0\""),
        ("filter", r#"{"drop":"true","drop":"true"}"#, "\"drop\" is there twice"),
        ("filter", r#"{"drop":"true","wehn":"true"}"#, "wehn: unknown member; did you mean \"when\"?"),
        ("filter", r#"{"drop":3}"#, "drop: an expression in quotes is wanted"),
        ("filter", r#"{"drop":"1 + t > 3"}"#, "drop: column 5: \"t\" is not known; values are values.t"),
        ("filter", r#"{"drop":"values.t * 2"}"#, "drop: column"),
        (
            "filter",
            r#"{"drop":"true","when":"dims.devices.sit == 'a'"}"#,
            "no column \"sit\"; did you mean \"site\"?",
        ),
        (
            "filter",
            r#"{"drop":"dims.device.site == 'a'"}"#,
            "no dimension \"device\"; did you mean \"devices\"?",
        ),
        ("derive", "{}", "set: is missing"),
        ("derive", r#"{"set":{}}"#, "set: 0 values; 1 to 64 are allowed"),
        ("derive", r#"{"set":{"a":"1","a":"2"}}"#, "\"a\" is there twice"),
        ("derive", r#"{"set":{"":"1"}}"#, "set: the name \"\" has not 1 to 255 bytes"),
        ("derive", r#"{"set":{"a":"[1]"}}"#, "set.a: column"),
        ("derive", r#"{"set":3}"#, "set: an object of names and expressions is wanted"),
    ]);
}

#[test]
fn thresholds_that_cannot_be_right_are_refused_with_place_and_way_out() {
    refuses(&[
        ("threshold", "{}", "value: is missing"),
        ("threshold", r#"{"value":"values.t"}"#, "above: one of above and below is wanted"),
        (
            "threshold",
            r#"{"value":"values.t","above":1,"below":2}"#,
            "above: one of above and below is wanted",
        ),
        ("threshold", r#"{"value":"values.t > 1","above":1}"#, "gives true or false; a number is wanted"),
        ("threshold", r#"{"value":"values.t","above":1,"clear_below":2}"#, "clear_below: is more than above"),
        ("threshold", r#"{"value":"values.t","below":1,"clear_above":0}"#, "clear_above: is less than below"),
        ("threshold", r#"{"value":"values.t","above":1,"clear_above":0}"#, "clear_above: goes with below"),
        ("threshold", r#"{"value":"values.t","below":1,"clear_below":0}"#, "clear_below: goes with above"),
        ("threshold", r#"{"value":"values.t","above":1,"for_ms":-1}"#, "for_ms: a whole number from 0 to"),
        ("threshold", r#"{"value":"values.t","above":"1"}"#, "above: a number is wanted"),
        (
            "threshold",
            r#"{"value":"values.t","above":1,"severity":"hihg"}"#,
            "severity: \"hihg\" is not known; did you mean \"high\"?",
        ),
        ("threshold", r#"{"value":"values.t","above":1,"key":"values.t"}"#, "key: a value is no key"),
        (
            "threshold",
            r#"{"value":"values.t","above":1,"key":"line"}"#,
            "key: \"line\" is no field; write device",
        ),
        (
            "threshold",
            r#"{"value":"values.t","above":1,"message":"a {valu} b"}"#,
            "message: \"valu\" is no field",
        ),
        ("threshold", r#"{"value":"values.t","above":1,"message":"a {b"}"#, "message: column 3: { without }"),
    ]);
}

#[test]
fn routes_and_masks_that_cannot_be_right_are_refused_with_place_and_way_out() {
    refuses(&[
        ("route", r#"{"stores":["mysq"]}"#, "stores: \"mysq\" is no store; did you mean \"mysql\"?"),
        ("route", r#"{"stores":["mysql","mysql"]}"#, "stores: \"mysql\" is there twice"),
        ("route", r#"{"stores":"mysql"}"#, "stores: a list of texts is wanted"),
        (
            "route",
            r#"{"topics":["weir.site-gratz"]}"#,
            "topics: \"weir.site-gratz\" is not configured; did you mean \"weir.site-graz\"?",
        ),
        ("route", r#"{"enriched":false}"#, "enriched: the records would go nowhere; write a filter"),
        (
            "route",
            r#"{"enriched":false,"stores":["mysql"],"topics":["weir.site-graz"]}"#,
            "stores: stores read weir.enriched",
        ),
        ("route", r#"{"enriched":1}"#, "enriched: true or false is wanted"),
        ("mask", r#"{"method":"drop"}"#, "fields: 0 of them; 1 to 64 are wanted"),
        (
            "mask",
            r#"{"fields":["user"],"method":"drop"}"#,
            "fields: \"user\" is no field; write device, values.x",
        ),
        (
            "mask",
            r#"{"fields":["tags.a"],"method":"hsah"}"#,
            "method: \"hsah\" is not known; did you mean \"hash\"?",
        ),
        ("mask", r#"{"fields":["device"],"method":"drop"}"#, "method: a record needs its device; hash it"),
        ("mask", r#"{"fields":["tags.a"],"method":"keep_last"}"#, "keep: is missing"),
        ("mask", r#"{"fields":["tags.a"],"method":"drop","keep":3}"#, "keep: goes with"),
        ("mask", r#"{"fields":["dims.devices.x"],"method":"drop"}"#, "\"devices\" has no column \"x\""),
    ]);
}

#[test]
fn all_problems_of_a_rule_are_told_at_once() {
    let spec = r#"{"value":"t","above":"x","for_ms":1.5,"kye":"device"}"#;
    let reason = RuleSet::check(&row("r", "threshold", spec), &schema()).unwrap_err().reason;
    for want in [
        "value: column 1",
        "above: a number",
        "for_ms: a whole",
        "kye: unknown member; did you mean \"key\"?",
    ] {
        assert!(reason.contains(want), "{reason}");
    }
}

#[test]
fn limits_of_sets_are_said() {
    let filter = |id: &str| row(id, "filter", r#"{"drop":"values.t > 1"}"#);
    let refused = |rows: &[RuleRow]| RuleSet::compile(rows, &schema()).1;
    assert!(
        refused(&[filter("a"), filter("a")])[0].reason.contains("another version of \"a\" is active too")
    );
    let many: Vec<RuleRow> = (0..=RULES_MAX).map(|n| filter(&format!("{n:05}"))).collect();
    let many = refused(&many);
    assert_eq!((many.len(), many[0].id.as_str()), (1, "01000"));
    assert!(many[0].reason.contains("1000 rules are active"));
    assert!(refused(&[filter("")])[0].reason.contains("1 to 128 are allowed"));
    let long = format!(r#"{{"drop":"true"{}}}"#, " ".repeat(17_000));
    assert!(refused(&[row("a", "filter", &long)])[0].reason.contains("at most 16384 are taken"));
    let hash = row("a", "mask", r#"{"fields":["tags.a"],"method":"hash"}"#);
    for (key, want) in
        [(None, "hash needs a secret"), (Some(vec![1; 15]), "has 15 bytes, at least 16 are wanted")]
    {
        let schema = Schema { hash_key: key, ..schema() };
        assert!(RuleSet::check(&hash, &schema).unwrap_err().reason.contains(want));
    }
}
