//! What is sent again is what was rejected; what cannot be is refused with its reason.

use serde_json::{Value, json};

use super::*;

const STREAM: &str = "000102030405060708090a0b0c0d0e0f";

fn letter(stage: &str, topic: &str, raw: &[u8]) -> Value {
    json!({
        "weir": {"stream": STREAM, "partition": 3, "number": 17, "edge": "gw \"1\"", "topic": topic, "offset": 99},
        "stage": stage, "reason": "r", "detail": "d", "received": 5, "bytes": raw.len(), "raw": BASE64.encode(raw),
    })
}

fn again(letter: &Value) -> Result<Again, Refused> {
    let json = letter.to_string();
    Letter::read(json.as_bytes()).and_then(|letter| letter.again())
}

#[test]
fn what_the_processor_refused_goes_back_as_it_came() {
    let raw = b"\xff{\"device\":\x00";
    let got = again(&letter("process", wire::READINGS, raw)).unwrap();
    assert_eq!((got.topic, got.partition, &got.value[..]), (wire::READINGS, Some(3), &raw[..]));
    let header = |name| got.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &value[..]).unwrap();
    assert_eq!(header(wire::EDGE), b"gw \"1\"");
    assert_eq!(header(wire::RETRY), b"");
    assert_eq!(header(wire::BACKLOG), b"");
    let identity = wire::identity(header(wire::STREAM), header(wire::NUMBER), 3).unwrap();
    assert_eq!((identity.stream.to_string(), identity.number), (STREAM.to_owned(), 17));
    for input in Input::ALL {
        assert_eq!(again(&letter("process", input.topic(), raw)).unwrap().topic, input.topic());
    }
}

#[test]
fn what_a_store_refused_goes_to_that_store_alone_and_keeps_its_bytes() {
    let before = format!("{{ \"weir\" : {{\"stream\":\"{STREAM}\", \"number\":17 }} ,\"n\": 1.50}} ");
    let got = again(&letter("sink.mysql", wire::ENRICHED, before.as_bytes())).unwrap();
    let want = before.replace("17 }", "17 ,\"stores\":[\"mysql\"]}");
    assert_eq!((String::from_utf8(got.value).unwrap(), got.topic), (want, wire::ENRICHED));
    assert_eq!((got.partition, got.headers.len()), (None, 0));
}

#[test]
fn stores_that_a_rule_chose_are_replaced() {
    for chosen in ["null", "[]", "[\"clickhouse\", \"mysql\"]"] {
        let before =
            format!("{{\"weir\":{{\"stream\":\"s\",\"stores\": {chosen},\"number\":17}},\"x\":{{}}}}");
        let got = again(&letter("sink.clickhouse", wire::ALERTS, before.as_bytes())).unwrap();
        let want = before.replace(chosen, "[\"clickhouse\"]");
        assert_eq!(String::from_utf8(got.value).unwrap(), want);
    }
}

#[test]
fn a_loss_that_the_cloud_found_is_known_by_its_place() {
    let raw = br#"{"weir":{"partition":3,"topic":"weir.readings","offset":99},"count":1}"#;
    let mut letter = letter("sink.elasticsearch", wire::LOSSES, raw);
    letter["weir"].as_object_mut().unwrap().remove("stream");
    let value: Value = serde_json::from_slice(&again(&letter).unwrap().value).unwrap();
    assert_eq!((&value["weir"]["stores"], &value["weir"]["offset"]), (&json!(["elasticsearch"]), &json!(99)));
}

#[test]
fn what_cannot_be_sent_again_is_refused_with_its_reason() {
    let enriched = br#"{"weir":{"stream":"s","number":1}}"#;
    let process = letter("process", wire::READINGS, b"{");
    let sink = letter("sink.mysql", wire::ENRICHED, enriched);
    let with = |letter: &Value, pointer: &str, value: Value| {
        let mut letter = letter.clone();
        *letter.pointer_mut(pointer).unwrap() = value;
        again(&letter).unwrap_err()
    };
    assert_eq!(with(&process, "/weir/number", Value::Null), Refused::NoIdentity);
    assert_eq!(with(&process, "/weir/stream", json!("xyz")), Refused::NoIdentity);
    assert_eq!(with(&process, "/weir/edge", json!("")), Refused::NoIdentity);
    assert_eq!(with(&process, "/weir/partition", json!(-1)), Refused::NoIdentity);
    assert_eq!(with(&process, "/bytes", json!(2)), Refused::CutShort { kept: 1, bytes: 2 });
    assert_eq!(
        with(&sink, "/bytes", json!(700_000)),
        Refused::CutShort { kept: enriched.len(), bytes: 700_000 }
    );
    assert_eq!(with(&process, "/raw", json!("")), Refused::Withheld { bytes: 1 });
    assert_eq!(with(&sink, "/raw", json!("")), Refused::Withheld { bytes: enriched.len() as u64 });
    assert_eq!(with(&process, "/stage", json!("edge.decode")), Refused::Edge);
    assert_eq!(with(&process, "/stage", json!("rule")), Refused::Rule);
    assert_eq!(with(&process, "/stage", json!("sink.oracle")), Refused::Stage("sink.oracle".into()));
    let mut partly = sink.clone();
    partly["partly"] = json!(true);
    assert_eq!(again(&partly), Err(Refused::Partly));
    assert_eq!(with(&process, "/weir/topic", json!("__offsets")), Refused::Topic("__offsets".into()));
    assert_eq!(with(&sink, "/weir/topic", json!(wire::READINGS)), Refused::Topic(wire::READINGS.into()));
    assert!(matches!(with(&process, "/raw", json!("?")), Refused::NoLetter(_)));
    for raw in [&b"{"[..], b"{}", b"[]", br#"{"weir":7}"#, br#"{"weir":{},"weir":{}}"#] {
        assert_eq!(again(&letter("sink.mysql", wire::ENRICHED, raw)), Err(Refused::NoOutput));
    }
    let unknown = again(&letter("sink.mysql", wire::ENRICHED, br#"{"weir":{"stream":"s"}}"#));
    assert_eq!(unknown, Err(Refused::NoIdentity));
    assert!(matches!(Letter::read(b"not json"), Err(Refused::NoLetter(_))));
}

#[test]
fn the_device_is_the_key_of_a_reading() {
    let of = |topic| {
        let json = letter("process", topic, b"").to_string();
        Letter::read(json.as_bytes()).unwrap().device(Some(b"pump-7")).map(str::to_owned)
    };
    assert_eq!(of(wire::READINGS).as_deref(), Some("pump-7"));
    assert_eq!(of(wire::ENRICHED).as_deref(), Some("pump-7"));
    assert_eq!(of(wire::GAPS), None);
}
