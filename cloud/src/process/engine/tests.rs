//! Every record ends as exactly one of enriched, filtered, rejected, repeat or control, whatever it is; [`held`]: sooner or
//! later.

mod held;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::rules::{RuleRow, RuleSet, Schema};

const STREAM: &[u8] = b"000102030405060708090a0b0c0d0e0f";
const HOLD: Limits = Limits { ms: 1_000, records_max: 4, bytes_max: 1 << 20 };
const READING: &[u8] = br#"{"device":"d","time":5,"values":{"t":1},"more":[1]}"#;
const WINDOW: &[u8] =
    br#"{"rule":"r","key":{"device":"d"},"start":0,"end":9,"revision":1,"count":2,"values":{}}"#;

fn record<'a>(input: Input, number: &'a [u8], value: &'a [u8]) -> Incoming<'a> {
    let headers =
        Headers { edge: Some(b"gw-1"), stream: Some(STREAM), number: Some(number), ..Headers::default() };
    Incoming {
        input,
        partition: 2,
        offset: 40,
        timestamp_ms: 99,
        key: Some(b"k"),
        value: Some(value),
        headers,
    }
}

const GRAZ: &[(&str, &str, &str)] = &[("devices", "d", r#"{"site":"Graz"}"#)];

/// One result: topic, key, value.
type Sent = (String, Option<Vec<u8>>, Value);

#[derive(Default)]
struct Taken(Vec<Sent>);

impl Emit for Taken {
    fn emit(&mut self, out: Outgoing<'_>) -> Result<(), Failure> {
        assert!(out.value.len() <= VALUE_BYTES_MAX && out.key.is_none_or(|key| key.len() < 300));
        let value = serde_json::from_slice(out.value).unwrap();
        self.0.push((out.topic.to_owned(), out.key.map(<[u8]>::to_vec), value));
        Ok(())
    }
}

/// An engine with the state of one partition.
struct Bench {
    engine: Engine,
    world: World,
    state: State,
    tally: Tally,
}

impl Bench {
    fn new(tables: &[(&str, &str, &str)], rules: &[(&str, &str, &str)]) -> Self {
        let tables = Arc::new(Snapshot::of(tables));
        let rows: Vec<_> = rules
            .iter()
            .map(|(id, kind, spec)| RuleRow {
                id: (*id).to_owned(),
                version: 3,
                kind: (*kind).to_owned(),
                spec: (*spec).to_owned(),
                priority: 0,
                stands: false,
            })
            .collect();
        let schema = Schema { dims: tables.schema(), topics: vec!["t".to_owned()], hash_key: None };
        let (set, refused) = RuleSet::compile(&rows, &schema);
        assert!(refused.is_empty(), "{refused:?}");
        let number = if rules.is_empty() { 0 } else { 9 };
        let world = World { tables, rules: Arc::new(Loaded { number, set: Arc::new(set) }) };
        Self { engine: Engine::new(true, HOLD), world, state: State::default(), tally: Tally::default() }
    }

    fn give(&mut self, record: &Incoming<'_>) -> Vec<Sent> {
        let mut taken = Taken::default();
        let mut cycle = self.engine.begin(&self.world, 0);
        cycle.process(record, &mut self.state, &mut self.tally, &mut taken).unwrap();
        taken.0
    }

    /// Gives a record that makes exactly one.
    fn one(&mut self, record: &Incoming<'_>) -> Sent {
        let mut sent = self.give(record);
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn balances(&self) -> bool {
        let t = &self.tally;
        let rejected: u64 = t.rejected.values().sum();
        let gone = t.enriched + t.filtered + rejected + t.repeats + t.controls;
        t.received + t.released.iter().sum::<u64>() == gone + t.held
    }
}

#[test]
fn a_reading_is_enriched_once() {
    let mut bench = Bench::new(GRAZ, &[]);
    let reading = record(Input::Readings, b"17", READING);
    let (topic, key, v) = bench.one(&reading);
    assert_eq!((topic.as_str(), key.as_deref()), (wire::ENRICHED, Some(&b"d"[..])));
    assert_eq!(v["weir"]["versions"]["devices"], 7);
    assert_eq!((&v["weir"]["joined"], &v["weir"]["number"]), (&Value::Bool(true), &17.into()));
    assert_eq!((&v["dims"]["devices"]["site"], &v["more"][0]), (&"Graz".into(), &1.into()));
    assert!(bench.give(&reading).is_empty());
    let unknown = record(Input::Readings, b"18", br#"{"device":"x","time":5,"values":{}}"#);
    assert_eq!(bench.one(&unknown).2["weir"]["joined"], false);
    assert_eq!((bench.tally.received, bench.tally.enriched, bench.tally.repeats), (3, 2, 1));
}

#[test]
fn missing_numbers_are_told_exactly() {
    let mut bench = Bench::new(&[], &[]);
    bench.one(&record(Input::Readings, b"17", READING));
    let sent = bench.give(&record(Input::Readings, b"20", READING));
    let (topic, key, v) = &sent[0];
    assert_eq!((topic.as_str(), key.as_deref()), (wire::LOSSES, Some(&b"gw-1"[..])));
    assert_eq!((&v["from"], &v["to"], &v["count"]), (&18.into(), &19.into(), &2.into()));
    assert_eq!((v["reason"].as_str(), v["edge"].as_str()), (Some("observed"), Some("gw-1")));
    assert_eq!(v["stream"].as_str().map(str::as_bytes), Some(STREAM));
    assert_eq!((&v["weir"]["topic"], &v["weir"]["offset"]), (&"weir.readings".into(), &40.into()));
    assert_eq!((sent.len(), sent[1].0.as_str()), (2, wire::ENRICHED));
    assert_eq!(bench.tally.missing, 2);
}

#[test]
fn a_retry_asks_no_mark_and_moves_none() {
    let mut bench = Bench::new(&[], &[]);
    let poison = record(Input::Readings, b"17", b"{");
    assert_eq!(bench.one(&poison).0, wire::REJECTED);
    let retry = |number, value| {
        let mut retry = record(Input::Readings, number, value);
        retry.headers.retry = true;
        retry
    };
    assert_eq!(bench.one(&retry(b"17", READING)).0, wire::ENRICHED, "its number was counted before");
    assert_eq!(bench.one(&retry(b"90", b"{")).0, wire::REJECTED);
    assert!(bench.give(&poison).is_empty(), "without the header it is a repeat");
    bench.one(&record(Input::Readings, b"18", READING));
    let tally = &bench.tally;
    assert_eq!((tally.received, tally.retried, tally.repeats, tally.missing), (5, 2, 1, 0));
    assert_eq!((tally.enriched, tally.rejected.values().sum()), (2, 2_u64));
    let told = [br#"{"stream":""#, STREAM, br#"","next":19}"#].concat();
    let mut closed = retry(b"19", &told);
    closed.headers.control = Some(wire::CLOSED);
    assert!(bench.give(&closed).is_empty() && bench.give(&closed).is_empty());
    assert_eq!((bench.tally.controls, bench.tally.repeats), (1, 2), "a control record is never retried");
}

#[test]
fn a_control_record_is_counted_once_and_closes_its_stream() {
    let mut bench = Bench::new(&[], &[]);
    bench.one(&record(Input::Readings, b"18", READING));
    let told = [br#"{"stream":""#, STREAM, br#"","next":19}"#].concat();
    let mut closed = record(Input::Readings, b"0", &told);
    closed.headers.stream = Some(b"ffffffffffffffffffffffffffffffff");
    closed.headers.control = Some(wire::CLOSED);
    assert!(bench.give(&closed).is_empty() && bench.give(&closed).is_empty());
    assert_eq!((bench.tally.received, bench.tally.controls, bench.tally.repeats), (3, 1, 1));
    assert!(bench.give(&record(Input::Readings, b"18", READING)).is_empty(), "its mark is still there");
    assert_eq!(bench.tally.reopened, 0);
    bench.one(&record(Input::Readings, b"19", READING));
    assert_eq!((bench.tally.missing, bench.tally.reopened), (0, 1));
    // What was lost at the end shows with the close alone.
    let told = [br#"{"stream":""#, STREAM, br#"","next":25}"#].concat();
    closed.value = Some(&told);
    closed.headers.number = Some(b"1");
    let (topic, _, v) = bench.one(&closed);
    assert_eq!((topic.as_str(), &v["from"], &v["to"]), (wire::LOSSES, &20.into(), &24.into()));
    assert_eq!(v["stream"].as_str().map(str::as_bytes), Some(STREAM));
    let told = [br#"{"stream":""#, STREAM, br#"","next":18446744073709551615}"#].concat();
    closed.value = Some(&told);
    closed.headers.number = Some(b"2");
    assert!(bench.give(&closed).is_empty(), "no number is that high");
}

#[test]
fn window_results_are_joined_and_gaps_passed_on() {
    let mut bench = Bench::new(GRAZ, &[]);
    let (topic, key, v) = bench.one(&record(Input::Windows, b"0", WINDOW));
    assert_eq!((topic.as_str(), key.as_deref()), (wire::AGGREGATES, Some(&b"k"[..])));
    assert_eq!((&v["dims"]["devices"]["site"], &v["revision"]), (&"Graz".into(), &1.into()));
    let (topic, _, v) = bench.one(&record(Input::Gaps, b"1", br#"{"edge":"gw-1","from":3,"to":4}"#));
    assert_eq!((topic.as_str(), &v["weir"]["number"], &v["to"]), (wire::LOSSES, &1.into(), &4.into()));
    for (number, wrong) in [
        (
            &b"2"[..],
            r#"{"rule":"r","key":{"device":7},"start":0,"end":9,"revision":1,"count":2,"values":{}}"#,
        ),
        (b"3", r#"{"rule":"r","key":{},"start":9,"end":0,"revision":1,"count":2,"values":{}}"#),
        (b"4", r#"{"rule":"r","key":{},"start":0,"end":9,"count":2,"values":{}}"#),
        (b"5", r#"{"dims":{},"rule":"r"}"#),
    ] {
        assert_eq!(bench.one(&record(Input::Windows, number, wrong.as_bytes())).0, wire::REJECTED);
    }
}

fn topics(sent: &[Sent]) -> Vec<&str> {
    sent.iter().map(|(topic, ..)| topic.as_str()).collect()
}

#[test]
fn rules_derive_filter_and_route() {
    let rules = [
        ("f", "filter", r#"{"drop":"values.t < 0.0"}"#),
        ("d", "derive", r#"{"set":{"u":"values.t * 2"},"when":"dims.devices.site == 'Graz'"}"#),
        ("r", "route", r#"{"when":"values.t > 50","stores":["mysql"],"topics":["t"],"enriched":true}"#),
        ("n", "route", r#"{"when":"values.t == 7","enriched":false,"topics":["t"]}"#),
    ];
    let mut bench = Bench::new(GRAZ, &rules);
    let of = |t: i32| format!(r#"{{"device":"d","time":5,"values":{{"t":{t}}}}}"#);
    let (topic, _, v) = bench.one(&record(Input::Readings, b"0", of(1).as_bytes()));
    assert_eq!((topic.as_str(), &v["values"]["u"]), (wire::ENRICHED, &2.0.into()));
    assert_eq!((&v["weir"]["rules"], v["weir"].get("stores")), (&9.into(), None));
    let sent = bench.give(&record(Input::Readings, b"1", of(60).as_bytes()));
    assert_eq!(topics(&sent), [wire::ENRICHED, "t"]);
    assert_eq!((&sent[0].2, &sent[0].2["weir"]["stores"]), (&sent[1].2, &serde_json::json!(["mysql"])));
    assert!(bench.give(&record(Input::Readings, b"2", of(-1).as_bytes())).is_empty());
    assert_eq!(bench.one(&record(Input::Readings, b"3", of(7).as_bytes())).0, "t");
    assert_eq!((bench.tally.enriched, bench.tally.filtered), (3, 1));
    assert!(bench.balances());
}

#[test]
fn a_threshold_tells_and_its_state_outlives_a_restart() {
    let rules =
        [("hot", "threshold", r#"{"value":"values.t","above":80,"clear_below":75,"severity":"high"}"#)];
    let mut bench = Bench::new(GRAZ, &rules);
    let of = |time: i32, t: i32| format!(r#"{{"device":"d","time":{time},"values":{{"t":{t}}}}}"#);
    let sent = bench.give(&record(Input::Readings, b"0", of(1, 90).as_bytes()));
    assert_eq!(topics(&sent), [wire::ENRICHED, wire::ALERTS, wire::ALERTS_HIGH]);
    assert_eq!((&sent[1].2["kind"], &sent[1].2["rule"]), (&"first".into(), &"hot".into()));
    let entries: Vec<_> = bench.state.staged().collect();
    let mut restarted = Bench::new(GRAZ, &rules);
    for (key, value) in &entries {
        restarted.state.restore(key, value.as_deref()).unwrap();
    }
    assert_eq!(restarted.state.rules.len(), 1);
    for bench in [&mut bench, &mut restarted] {
        let sent = bench.give(&record(Input::Readings, b"1", of(2, 85).as_bytes()));
        assert_eq!(topics(&sent), [wire::ENRICHED], "told already");
        let sent = bench.give(&record(Input::Readings, b"2", of(3, 70).as_bytes()));
        assert_eq!(sent[1].2["kind"], "recovered");
        assert_eq!(sent[1].2["episode"]["number"], 0);
    }
    // Another set without the rule: its states go, with tombstones.
    bench.state.commit();
    bench.world.rules = Bench::new(GRAZ, &[("f", "filter", r#"{"drop":"false"}"#)]).world.rules;
    bench.give(&record(Input::Readings, b"3", of(4, 70).as_bytes()));
    bench.state.tidy();
    let gone = bench.state.staged().filter(|(key, value)| key.starts_with(b"rule/") && value.is_none());
    assert_eq!(gone.count(), 1);
}

#[test]
fn an_alert_is_told_although_its_reading_is_too_large() {
    let rules = [("hot", "threshold", r#"{"value":"values.t","above":80,"key":"tags.x"}"#)];
    let mut bench = Bench::new(&[], &rules);
    let of = |x: &str, pad: usize| {
        let pad = "p".repeat(pad);
        format!(r#"{{"device":"d","time":5,"values":{{"t":90}},"tags":{{"x":"{x}"}},"pad":"{pad}"}}"#)
    };
    let sent = bench.give(&record(Input::Readings, b"0", of("a", VALUE_BYTES_MAX).as_bytes()));
    assert_eq!(topics(&sent), [wire::ALERTS, wire::ALERTS_MEDIUM, wire::REJECTED]);
    assert_eq!(sent[2].2["reason"], "too_large");
    // A key that no state and no record can have is the rule's failure, and does not stop the partition.
    let sent = bench.give(&record(Input::Readings, b"1", of(&"k".repeat(400_000), 0).as_bytes()));
    assert_eq!(topics(&sent), [wire::ENRICHED, wire::REJECTED]);
    assert_eq!(sent[1].2["reason"], "rule_failed");
    assert!(bench.balances());
}

#[test]
fn a_rule_that_fails_harms_nothing_else() {
    let rules = [("bad", "filter", r#"{"drop":"values.t > 3"}"#), ("d", "derive", r#"{"set":{"u":"1"}}"#)];
    let mut bench = Bench::new(&[], &rules);
    let body = br#"{"device":"d","time":5,"values":{"t":"text"}}"#;
    let sent = bench.give(&record(Input::Readings, b"0", body));
    assert_eq!(topics(&sent), [wire::ENRICHED, wire::REJECTED]);
    assert_eq!(sent[0].2["values"]["u"], 1);
    assert_eq!((&sent[1].2["stage"], &sent[1].2["reason"]), (&"rule".into(), &"rule_failed".into()));
    assert!(sent[1].2["detail"].as_str().unwrap().starts_with("rule bad version 3: "), "{:?}", sent[1].2);
    assert!(bench.balances() && bench.tally.rule_failures == 1);
}

/// Whatever leaves: readings, alerts, dead letters of every kind, window results.
#[test]
fn what_is_masked_leaves_in_no_form() {
    let rules = [
        (
            "m",
            "mask",
            r#"{"fields":["values.name","device","dims.devices.owner"],"method":"keep_last","keep":1}"#,
        ),
        ("bad", "filter", r#"{"drop":"values.name > 3"}"#),
        ("hot", "threshold", r#"{"value":"values.t","above":1,"message":"{values.name} at {device}"}"#),
    ];
    let tables: &[(&str, &str, &str)] = &[("devices", "secret-d", r#"{"owner":"secret-o"}"#)];
    let mut bench = Bench::new(tables, &rules);
    let reading = br#"{"device":"secret-d","time":5,"values":{"t":2,"name":"secret-n"}}"#;
    let window = br#"{"rule":"r","key":{"device":"secret-d"},"start":0,"end":9,"revision":1,"count":2,
        "values":{"name":{"last":"secret-n"}}}"#;
    let letter = br#"{"stage":"edge.decode","reason":"not_json","detail":"t is \"secret\"","source":"mqtt",
        "topic":"secret-d","received":5,"bytes":3,"raw":"secret-raw"}"#;
    let mut sent = bench.give(&record(Input::Readings, b"0", reading));
    assert!(topics(&sent).contains(&wire::ALERTS) && topics(&sent).contains(&wire::REJECTED));
    let twice = br#"{"device":"secret-d","time":5,"values":{"name":"secret-n"},"weir":1}"#;
    for (input, number, body) in [
        (Input::Readings, b"1", &twice[..]),
        (Input::Readings, b"2", b"secret-n"),
        (Input::Windows, b"3", window),
        (Input::EdgeRejected, b"4", letter),
    ] {
        let mut record = record(input, number, body);
        record.key = Some(b"secret-d");
        sent.append(&mut bench.give(&record));
    }
    assert_eq!(sent.len(), 8, "{:?}", topics(&sent));
    for (topic, key, value) in &sent {
        let raw = value["raw"].as_str().map(|raw| BASE64.decode(raw).unwrap()).unwrap_or_default();
        let texts = [value.to_string().into_bytes(), key.clone().unwrap_or_default(), raw];
        for text in texts.map(|text| String::from_utf8(text).unwrap()) {
            assert!(!text.contains("secret"), "{topic}: {text}");
        }
    }
    let aggregate = &sent[6].2;
    assert_eq!((&aggregate["key"]["device"], &aggregate["values"]), (&"***d".into(), &serde_json::json!({})));
    assert!(bench.balances());
}

#[test]
fn a_dead_letter_of_the_edge_goes_on_with_its_key() {
    let mut bench = Bench::new(&[], &[]);
    let body = br#"{"stage":"edge.decode","reason":"not_json","topic":"sensors/7","raw":""}"#;
    let (topic, key, v) = bench.one(&record(Input::EdgeRejected, b"0", body));
    assert_eq!((topic.as_str(), key.as_deref()), (wire::REJECTED, Some(&b"k"[..])));
    assert_eq!((&v["weir"]["topic"], &v["topic"]), (&"weir.edge-rejected".into(), &"sensors/7".into()));
    assert_eq!(v["stage"], "edge.decode");
    assert_eq!(bench.tally.rejected[FROM_EDGE], 1);
}

#[test]
fn poison_becomes_a_dead_letter_with_its_reason() {
    let mut bench = Bench::new(&[], &[]);
    let long_key = vec![b'k'; 300];
    let large =
        [&READING[..READING.len() - 1], br#","x":""#, &vec![b'x'; VALUE_BYTES_MAX], br#""}"#].concat();
    let cases: [(&str, Incoming<'_>); 7] = [
        ("no_identity", Incoming { headers: Headers::default(), ..record(Input::Readings, b"", READING) }),
        ("no_identity", record(Input::Readings, b"x1", READING)),
        ("no_identity", record(Input::Readings, b"9223372036854775807", READING)),
        ("empty", Incoming { value: None, ..record(Input::Readings, b"1", READING) }),
        ("not_json", Incoming { key: Some(&long_key), ..record(Input::Readings, b"2", b"{") }),
        ("too_large", record(Input::Readings, b"3", &large)),
        ("not_an_object", record(Input::EdgeRejected, b"4", b"[]")),
    ];
    for (reason, record) in &cases {
        let (topic, _, v) = bench.one(record);
        assert_eq!(topic, wire::REJECTED);
        assert_eq!((v["reason"].as_str(), v["stage"].as_str()), (Some(*reason), Some("process")));
        assert_eq!((&v["weir"]["offset"], &v["received"]), (&40.into(), &99.into()));
    }
    assert_eq!((bench.tally.received, bench.tally.rejected.values().sum::<u64>()), (7, 7));
    // A poison record with an identity moves the mark: sent again it is a repeat.
    assert!(bench.give(&cases[3].1).is_empty());
}

proptest! {
    #[test]
    fn the_books_balance(records in prop::collection::vec(
        (0usize..INPUT_KINDS, prop_oneof![(0u64..9).prop_map(|n| n.to_string()), "[x9]{0,25}"],
         prop_oneof![Just(READING.to_vec()), Just(WINDOW.to_vec()),
            prop::collection::vec(any::<u8>(), 0..20)]), 0..40)
    ) {
        let mut bench = Bench::new(&[], &[]);
        let (mut sent, mut losses) = (0, 0);
        for (input, number, body) in &records {
            for (_, _, v) in bench.give(&record(Input::ALL[*input], number.as_bytes(), body)) {
                if v["reason"] == "observed" { losses += v["count"].as_u64().unwrap() } else { sent += 1 }
            }
        }
        let tally = &bench.tally;
        let rejected: u64 = tally.rejected.values().sum();
        prop_assert_eq!(tally.received, records.len() as u64);
        prop_assert!(bench.balances());
        prop_assert_eq!(sent, tally.enriched + rejected);
        prop_assert_eq!(losses, tally.missing);
    }
}

const INPUT_KINDS: usize = Input::ALL.len();
