//! The decoder against good and bad messages; every reason is reached.

use base64::Engine;
use proptest::prelude::*;

use weir_shared::clock::Now;

use super::super::times::Times;
use super::super::*;
use super::*;
use crate::sources::Origin;

fn decoder() -> Decoder {
    let path = |s: &str| vec![s.to_owned()];
    let mapping = Mapping {
        device: path("device"),
        time: path("ts"),
        values: path("values"),
        tags: path("tags"),
        ..Mapping::default()
    };
    let limits = Limits { message_bytes_max: 4096, raw_bytes_max: 1024, record_bytes_max: 2048 };
    let mqtt = Form { format: Format::Json(mapping), times: Times::default() };
    Decoder { limits, mqtt, files: vec![], clean: Clean::default() }
}

fn mapping(decoder: &mut Decoder) -> &mut Mapping {
    let Format::Json(mapping) = &mut decoder.mqtt.format else { panic!("this one is JSON") };
    mapping
}

fn run(decoder: &Decoder, payload: &[u8]) -> Vec<Decoded> {
    let arrived = Now { wall_ms: 1_790_000_000_042, mono_ns: 5, trusted: true };
    let mut out = Vec::new();
    decoder
        .decode(&Input { topic: "sensors/hall/7", payload, arrived, origin: Origin::Mqtt }, |d| out.push(d));
    out
}

fn reading(decoder: &Decoder, payload: &str) -> String {
    match run(decoder, payload.as_bytes()).remove(0) {
        Decoded::Reading(r) => String::from_utf8(r.value).unwrap(),
        Decoded::Rejection(r) => panic!("{}", String::from_utf8_lossy(&r.value)),
        Decoded::Filtered => panic!("filtered"),
    }
}

#[test]
fn a_reading_keeps_types_and_order() {
    let json = r#"{"tags":{"line":"3"},"device":"pump \"7\"","ts":1790000000000,
        "values":{"i":-3,"big":18446744073709551615,"f":21.50,"e":1e3,"one":1.0,"b":true,"s":"é\u0001","n":null}}"#;
    assert_eq!(
        reading(&decoder(), json),
        concat!(
            r#"{"device":"pump \"7\"","time":1790000000000,"values":{"i":-3,"big":18446744073709551615,"f":21.5,"#,
            r#""e":1000.0,"one":1.0,"b":true,"s":"é\u0001"},"tags":{"line":"3"},"received":1790000000042,"#,
            r#""clock":"trusted"}"#
        )
    );
}

#[test]
fn devices_times_and_values_come_from_where_the_mapping_says() {
    let mut d = decoder();
    mapping(&mut d).device_topic_level = 2;
    mapping(&mut d).values = vec![];
    mapping(&mut d).time = vec!["meta".into(), "at".into()];
    let got = reading(&d, r#"{"meta":{"at":"2026-09-21T14:13:20.5+02:00"},"t":1}"#);
    assert!(got.starts_with(r#"{"device":"hall","time":1789992800500,"values":{"t":1}"#), "{got}");
    mapping(&mut d).time = vec![];
    mapping(&mut d).value_fields = vec!["b".into()];
    let got = reading(&d, r#"{"a":{"nested":[]},"b":2,"device":12}"#);
    assert!(got.starts_with(r#"{"device":"12","time":1790000000042,"values":{"b":2},"tags":{}"#), "{got}");
}

#[test]
fn one_bad_reading_rejects_itself_alone() {
    let out = run(&decoder(), br#"[{"device":"a","ts":1,"values":{"x":1}}, {"device":"b" },{"device":"c","ts":2,"values":{"x":2}}]"#);
    assert_eq!(out.len(), 3);
    let Decoded::Rejection(bad) = &out[1] else { panic!("{out:?}") };
    let letter: serde_json::Value = serde_json::from_slice(&bad.value).unwrap();
    assert_eq!(letter["reason"], "time_missing");
    assert_eq!(letter["index"], 1);
    let raw = base64::engine::general_purpose::STANDARD.decode(letter["raw"].as_str().unwrap()).unwrap();
    assert_eq!(raw, br#"{"device":"b" }"#);
    assert!(matches!(&out[2], Decoded::Reading(r) if r.device == "c"));
}

#[test]
fn every_reason_is_given() {
    let long = format!(r#"{{"device":"{}","ts":1,"values":{{"x":1}}}}"#, "d".repeat(256));
    let many: Vec<String> = (0..3000).map(|_| "0".to_owned()).collect();
    let large = format!(r#"{{"device":"a","ts":1,"values":{{"x":"{}"}}}}"#, "x".repeat(2100));
    let cases: Vec<(Reason, Vec<u8>)> = vec![
        (Reason::Empty, b"".to_vec()),
        (Reason::TooLarge, vec![b'x'; 4097]),
        (Reason::InvalidUtf8, b"{\"device\":\"\xff\"}".to_vec()),
        (Reason::NotJson, b"temperature=21".to_vec()),
        (Reason::NotJson, br#"{"device":"a","ts":1,"values":{"x":1}} x"#.to_vec()),
        (Reason::NotAnObject, b"17".to_vec()),
        (Reason::ReadingsCount, b"[]".to_vec()),
        (Reason::NotAnObject, format!("[{}]", many[..2].join(",")).into_bytes()),
        (Reason::DeviceMissing, br#"{"ts":1,"values":{"x":1}}"#.to_vec()),
        (Reason::DeviceInvalid, br#"{"device":{},"ts":1,"values":{"x":1}}"#.to_vec()),
        (Reason::DeviceInvalid, br#"{"device":"","ts":1,"values":{"x":1}}"#.to_vec()),
        (Reason::DeviceInvalid, long.into_bytes()),
        (Reason::TimeMissing, br#"{"device":"a","values":{"x":1}}"#.to_vec()),
        (Reason::TimeInvalid, br#"{"device":"a","ts":1.5,"values":{"x":1}}"#.to_vec()),
        (Reason::TimeInvalid, br#"{"device":"a","ts":"yesterday","values":{"x":1}}"#.to_vec()),
        (Reason::TimeOutOfRange, br#"{"device":"a","ts":-1,"values":{"x":1}}"#.to_vec()),
        (Reason::TimeOutOfRange, br#"{"device":"a","ts":18446744073709551615,"values":{"x":1}}"#.to_vec()),
        (Reason::ValuesMissing, br#"{"device":"a","ts":1}"#.to_vec()),
        (Reason::ValuesMissing, br#"{"device":"a","ts":1,"values":{"x":null}}"#.to_vec()),
        (Reason::ValueWrongType, br#"{"device":"a","ts":1,"values":[1]}"#.to_vec()),
        (Reason::ValueWrongType, br#"{"device":"a","ts":1,"values":{"x":{"y":1}}}"#.to_vec()),
        (Reason::ValueNotFinite, br#"{"device":"a","ts":1,"values":{"x":NaN}}"#.to_vec()),
        (Reason::ValueNotFinite, br#"{"device":"a","ts":1,"values":{"x":-Infinity}}"#.to_vec()),
        (Reason::ValueNotFinite, br#"{"device":"a","ts":1,"values":{"x":1e999}}"#.to_vec()),
        (Reason::ValueNotFinite, br#"{"device":"a","ts":1,"values":{"x":"NaN"}}"#.to_vec()),
        (Reason::TagWrongType, br#"{"device":"a","ts":1,"values":{"x":1},"tags":{"t":1}}"#.to_vec()),
        (Reason::NamesInvalid, br#"{"device":"a","ts":1,"values":{"x":1,"x":2}}"#.to_vec()),
        (Reason::NamesInvalid, br#"{"device":"a","ts":1,"values":{"":1}}"#.to_vec()),
        (Reason::RecordTooLarge, large.into_bytes()),
    ];
    let mut reached = std::collections::BTreeSet::new();
    for (reason, payload) in &cases {
        for decoded in run(&decoder(), payload) {
            let Decoded::Rejection(r) = decoded else { panic!("{}", String::from_utf8_lossy(payload)) };
            assert_eq!(r.reason, *reason, "{}", String::from_utf8_lossy(payload));
            reached.insert(r.reason);
        }
    }
    assert_eq!(
        reached.into_iter().collect::<Vec<_>>(),
        Reason::ALL[..17],
        "the others: see the decoder's tests"
    );
}

#[test]
fn a_dead_letter_keeps_the_first_part_of_large_raw_bytes_and_says_their_number() {
    let out = run(&decoder(), &[b'x'; 5000]);
    let Decoded::Rejection(r) = &out[0] else { panic!("{out:?}") };
    let letter: serde_json::Value = serde_json::from_slice(&r.value).unwrap();
    assert_eq!(letter["bytes"], 5000);
    assert_eq!(letter["raw"].as_str().unwrap().len(), 1368);
}

proptest! {
    #[test]
    fn never_panics_and_never_gives_nothing(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!run(&decoder(), &payload).is_empty());
    }

    #[test]
    fn near_json_never_panics(payload in r#"[\[{]("[a-z]{0,3}"[:,]|[0-9eE.-]{0,4}|[\]}]|NaN|null|\\u[0-9a-f]{4}|é){0,30}"#) {
        prop_assert!(!run(&decoder(), payload.as_bytes()).is_empty());
    }
}
