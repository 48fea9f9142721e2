//! Every record ends as exactly one of enriched, rejected or repeat, whatever it is.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const STREAM: &[u8] = b"000102030405060708090a0b0c0d0e0f";
const READING: &[u8] = br#"{"device":"d","time":5,"values":{"t":1},"more":[1]}"#;

fn record<'a>(input: Input, number: &'a [u8], value: &'a [u8]) -> Incoming<'a> {
    let headers = Headers { edge: Some(b"gw-1"), stream: Some(STREAM), number: Some(number), control: None };
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

fn value(engine: &Engine<'_>) -> Value {
    serde_json::from_slice(engine.value()).unwrap()
}

#[test]
fn a_reading_is_enriched_once() {
    let dimensions = Dimensions::of(&[("devices", "d", r#"{"site":"Graz"}"#)]);
    let (mut engine, mut marks, mut tally) = (Engine::new(&dimensions), Marks::default(), Tally::default());
    let reading = record(Input::Readings, b"17", READING);
    let out = engine.process(&reading, &mut marks, &mut tally).unwrap();
    assert_eq!((out.topic, out.key.as_deref()), (wire::ENRICHED, Some(&b"d"[..])));
    assert_eq!(out.headers.unwrap()[2], (wire::NUMBER, &b"17"[..]));
    let v = value(&engine);
    assert_eq!(v["weir"]["versions"]["devices"], 7);
    assert_eq!((&v["weir"]["joined"], &v["weir"]["number"]), (&Value::Bool(true), &17.into()));
    assert_eq!((&v["dims"]["devices"]["site"], &v["more"][0]), (&"Graz".into(), &1.into()));
    assert!(engine.process(&reading, &mut marks, &mut tally).is_none());
    let unknown = record(Input::Readings, b"20", br#"{"device":"x","time":5,"values":{}}"#);
    engine.process(&unknown, &mut marks, &mut tally).unwrap();
    assert_eq!(value(&engine)["weir"]["joined"], false);
    assert_eq!((tally.received, tally.enriched, tally.repeats, tally.missing), (3, 2, 1, 2));
}

#[test]
fn a_control_record_is_counted_once_and_makes_nothing() {
    let dimensions = Dimensions::of(&[]);
    let (mut engine, mut marks, mut tally) = (Engine::new(&dimensions), Marks::default(), Tally::default());
    let mut closed =
        record(Input::Readings, b"18", br#"{"stream":"00000000000000000000000000000000","next":5}"#);
    closed.headers.control = Some(wire::CLOSED);
    assert!(engine.process(&closed, &mut marks, &mut tally).is_none());
    assert!(engine.process(&closed, &mut marks, &mut tally).is_none());
    assert_eq!((tally.received, tally.controls, tally.repeats), (2, 1, 1));
    assert!(engine.process(&record(Input::Readings, b"19", READING), &mut marks, &mut tally).is_some());
    assert_eq!(tally.missing, 0, "its number counts");
}

#[test]
fn a_dead_letter_of_the_edge_goes_on_with_key_and_headers() {
    let dimensions = Dimensions::of(&[]);
    let (mut engine, mut marks, mut tally) = (Engine::new(&dimensions), Marks::default(), Tally::default());
    let body = br#"{"stage":"edge.decode","reason":"not_json","topic":"sensors/7","raw":""}"#;
    let out = engine.process(&record(Input::EdgeRejected, b"0", body), &mut marks, &mut tally).unwrap();
    assert_eq!((out.topic, out.key.as_deref()), (wire::REJECTED, Some(&b"k"[..])));
    assert!(out.headers.is_some());
    let v = value(&engine);
    assert_eq!((&v["weir"]["topic"], &v["topic"]), (&"weir.edge-rejected".into(), &"sensors/7".into()));
    assert_eq!(v["stage"], "edge.decode");
    assert_eq!(tally.rejected[FROM_EDGE], 1);
}

#[test]
fn poison_becomes_a_dead_letter_with_its_reason() {
    let dimensions = Dimensions::of(&[]);
    let (mut engine, mut marks, mut tally) = (Engine::new(&dimensions), Marks::default(), Tally::default());
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
        let out = engine.process(record, &mut marks, &mut tally).unwrap();
        assert_eq!(out.topic, wire::REJECTED);
        assert_eq!(out.headers.is_some(), *reason != "no_identity");
        assert!(engine.value().len() <= VALUE_BYTES_MAX && out.key.is_none_or(|key| key.len() < 300));
        let v = value(&engine);
        assert_eq!((v["reason"].as_str(), v["stage"].as_str()), (Some(*reason), Some("process")));
        assert_eq!((&v["weir"]["offset"], &v["received"]), (&40.into(), &99.into()));
    }
    assert_eq!((tally.received, tally.rejected.values().sum::<u64>()), (7, 7));
    // A poison record with an identity moves the mark: sent again it is a repeat.
    assert!(engine.process(&cases[3].1, &mut marks, &mut tally).is_none());
}

proptest! {
    #[test]
    fn the_books_balance(records in prop::collection::vec(
        (any::<bool>(), prop_oneof![(0u64..9).prop_map(|n| n.to_string()), "[x9]{0,25}"],
         prop_oneof![Just(READING.to_vec()), prop::collection::vec(any::<u8>(), 0..20)]), 0..40)
    ) {
        let dimensions = Dimensions::of(&[]);
        let (mut engine, mut marks, mut tally) = (Engine::new(&dimensions), Marks::default(), Tally::default());
        let mut sent = 0;
        for (readings, number, body) in &records {
            let input = if *readings { Input::Readings } else { Input::EdgeRejected };
            if engine.process(&record(input, number.as_bytes(), body), &mut marks, &mut tally).is_some() {
                sent += 1;
                prop_assert!(serde_json::from_slice::<Value>(engine.value()).is_ok());
            }
        }
        let rejected: u64 = tally.rejected.values().sum();
        prop_assert_eq!(tally.received, records.len() as u64);
        prop_assert_eq!(tally.received, tally.enriched + rejected + tally.repeats + tally.controls);
        prop_assert_eq!(sent, tally.enriched + rejected);
    }
}
