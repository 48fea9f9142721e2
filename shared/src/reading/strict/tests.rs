//! What passes, and the reason of everything that does not.

use proptest::prelude::*;

use super::*;

fn reason(text: &str) -> &'static str {
    match Reading::default().check(text.as_bytes()) {
        Ok(()) => "ok",
        Err(refusal) => {
            assert!(!refusal.detail.is_empty() && !refusal.detail.contains('\n'), "{refusal:?}");
            refusal.reason
        }
    }
}

#[test]
fn a_reading_passes_with_its_device() {
    let text = r#" {"x":{"deep":[1,{"y":null}]},"device":"pump-7","time":1790000000000,
        "values":{"t":21.5,"on":true,"mode":"auto","n":18446744073709551615,"e":-1.5e-7},
        "tags":{"line":"3"},"received":1790000000042,"clock":"trusted"} "#;
    let mut reading = Reading::default();
    reading.check(text.as_bytes()).unwrap();
    assert!(matches!(reading.device, Cow::Borrowed("pump-7")));
    let mut parsed = Reading::default();
    parsed.parse(text.as_bytes()).unwrap();
    assert_eq!(reading, parsed, "both ways of reading see the same");
    reading.check(br#"{"device":"p\u00e4","time":0,"values":{}}"#).unwrap();
    assert_eq!(reading.device, "pä");
    assert!(reading.tags.is_empty() && reading.received == 0);
}

#[test]
fn every_refusal_has_its_reason() {
    let reading = |device: &str, time: &str, values: &str| {
        format!(r#"{{"device":{device},"time":{time},"values":{values}}}"#)
    };
    let long = format!("\"{}\"", "d".repeat(256));
    let name = format!("{{\"{}\":1}}", "n".repeat(256));
    let members = |n: usize| {
        let list: Vec<_> = (0..n).map(|i| format!("\"v{i}\":{i}")).collect();
        format!("{{{}}}", list.join(","))
    };
    let many = format!("{{\"v7\":0,{}", &members(100)[1..]);
    let cases = [
        ("ok", reading("\"d\"", "1", "{\"a\":1}")),
        ("ok", reading("\"d\"", "1", &members(500))),
        ("empty", String::new()),
        ("not_json", "{\"device\":".to_owned()),
        ("not_json", "hello".to_owned()),
        ("not_json", reading("\"d\"", "1", "{\"a\":NaN}")),
        ("not_json", reading("\"d\"", "01", "{}")),
        ("not_json", reading("\"d\"", "1", "{\"a\":1}") + "x"),
        ("not_json", reading("\"d\"", "1", "{\"a\":1,}")),
        ("not_an_object", "[1]".to_owned()),
        ("not_an_object", "17".to_owned()),
        ("not_an_object", "\"text\"".to_owned()),
        ("not_an_object", "null".to_owned()),
        ("device_missing", r#"{"time":1,"values":{}}"#.to_owned()),
        ("device_wrong_type", reading("7", "1", "{}")),
        ("device_length", reading("\"\"", "1", "{}")),
        ("device_length", reading(&long, "1", "{}")),
        ("device_wrong_character", reading("\"a\\u0000\"", "1", "{}")),
        ("time_missing", r#"{"device":"d","values":{}}"#.to_owned()),
        ("time_wrong_type", reading("\"d\"", "\"now\"", "{}")),
        ("time_wrong_type", reading("\"d\"", "1.5", "{}")),
        ("time_out_of_range", reading("\"d\"", "-1", "{}")),
        ("time_out_of_range", reading("\"d\"", "9214646400001", "{}")),
        ("received_wrong_type", r#"{"device":"d","time":1,"values":{},"received":"x"}"#.to_owned()),
        ("received_out_of_range", r#"{"device":"d","time":1,"values":{},"received":-5}"#.to_owned()),
        ("values_missing", r#"{"device":"d","time":1}"#.to_owned()),
        ("values_wrong_type", reading("\"d\"", "1", "[1]")),
        ("value_wrong_type", reading("\"d\"", "1", "{\"a\":null}")),
        ("value_wrong_type", reading("\"d\"", "1", "{\"a\":{\"b\":1}}")),
        ("value_name", reading("\"d\"", "1", "{\"\":1}")),
        ("value_name", reading("\"d\"", "1", &name)),
        ("values_too_many", reading("\"d\"", "1", &members(501))),
        ("value_twice", reading("\"d\"", "1", "{\"a\":1,\"b\":2,\"a\":3}")),
        ("value_twice", reading("\"d\"", "1", &many)),
        ("tag_wrong_type", r#"{"device":"d","time":1,"values":{},"tags":{"a":1}}"#.to_owned()),
        ("tags_wrong_type", r#"{"device":"d","time":1,"values":{},"tags":"a"}"#.to_owned()),
        ("field_twice", r#"{"device":"d","device":"e","time":1,"values":{}}"#.to_owned()),
        ("reserved_field", r#"{"weir":1,"device":"d","time":1,"values":{}}"#.to_owned()),
        ("reserved_field", r#"{"device":"d","time":1,"values":{},"dims":{}}"#.to_owned()),
    ];
    for (want, text) in cases {
        assert_eq!(reason(&text), want, "{text:.200}");
    }
    let error = Reading::default().check(b"{\"device\":\"\xff\"}").unwrap_err();
    assert_eq!(error.reason, "invalid_utf8");
}

/// Deep nesting must neither pass nor overflow the stack, wherever it stands.
#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        let at = |field: &str, n| format!(r#"{{"device":"d","time":1,"values":{{}},"{field}":{}}}"#, deep(n));
        assert_eq!(reason(&at("x", 60)), "ok");
        for field in ["x", "device", "values", "tags", "weir"] {
            assert_eq!(reason(&at(field, 300_000)), "not_json", "{field}");
        }
        assert_eq!(reason(&deep(300_000)), "not_json");
        assert_eq!(reason(&open.repeat(300_000)), "not_json");
    }
}

#[test]
fn an_object_without_our_member() {
    assert_eq!(object(br#"{"stage":"edge.decode","device":1,"dims":3}"#, &["weir"]), Ok(()));
    assert_eq!(object(b"{}", &["weir"]), Ok(()));
    assert_eq!(object(br#"{"stage":"x","weir":{}}"#, &["weir"]).unwrap_err().reason, "reserved_field");
    assert_eq!(object(b"[]", &["weir"]).unwrap_err().reason, "not_an_object");
    assert_eq!(object(b"", &["weir"]).unwrap_err().reason, "empty");
}

proptest! {
    /// No input panics, and whatever passes is JSON to another parser too.
    #[test]
    fn what_passes_is_json(text in r#"(\{"device":"[a-z\\"]{0,3}","time":-?[0-9]{1,3}(\.[0-9])?,"values":(\{("[ab]":([0-9]{1,2}|true|null|"x"),?){0,3}\}|[0-9])\})|.{0,20}"#) {
        if Reading::default().check(text.as_bytes()).is_ok() {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert!(value["device"].is_string() && value["time"].is_i64() && value["values"].is_object());
        }
    }
}
