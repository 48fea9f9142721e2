//! The scanner against `serde_json`, and single cases by hand.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

fn parse(text: &str) -> Result<Reading<'_>, NotAReading> {
    let mut reading = Reading::default();
    reading.parse(text.as_bytes()).map(|()| reading)
}

/// A reading whose only value is this.
fn value(text: &str) -> Option<Value<'static>> {
    let whole = format!(r#"{{"device":"d","time":1,"values":{{"v":{text}}}}}"#);
    let reading = parse(&whole).ok()?;
    Some(match reading.value("v")?.clone() {
        Value::Text(text) => Value::Text(text.into_owned().into()),
        Value::Bool(v) => Value::Bool(v),
        Value::Unsigned(v) => Value::Unsigned(v),
        Value::Signed(v) => Value::Signed(v),
        Value::Float(v) => Value::Float(v),
    })
}

#[test]
fn what_our_edge_writes_is_read_and_borrowed() {
    let text = r#"{"device":"pump-7","time":1790000000000,"values":{"t":21.5,"on":true,"n":-3,"m":"auto"},
        "tags":{"line":"3"},"received":1790000000042,"clock":"trusted"}"#;
    let reading = parse(text).unwrap();
    assert_eq!(
        (&*reading.device, reading.time, reading.received),
        ("pump-7", 1_790_000_000_000, 1_790_000_000_042)
    );
    let values = [Value::Float(21.5), Value::Bool(true), Value::Signed(-3), Value::Text("auto".into())];
    assert!(reading.values.iter().map(|v| &v.1).eq(&values));
    assert_eq!(reading.tag("line"), Some("3"));
    assert!(matches!(&reading.values[3].1, Value::Text(Cow::Borrowed(_))));
}

#[test]
fn any_order_and_unknown_members_are_taken() {
    let text = r#" {"x":[1,{"y":[],"z":{}},"]"],"values":{"a\u0062":1},"w":null,"time":5,"device":"\"d\"","v":-1e9} "#;
    let reading = parse(text).unwrap();
    assert_eq!((&*reading.device, reading.time, reading.received), ("\"d\"", 5, 0));
    assert_eq!(reading.value("ab"), Some(&Value::Unsigned(1)));
}

#[test]
fn what_is_no_reading_is_refused_with_the_place() {
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(65), "]".repeat(65));
    for (text, at, why) in [
        ("", 0, "an object is wanted"),
        (r#"{"device":"d","time":1}"#, 23, "values are missing"),
        (r#"{"device":7}"#, 10, "a string is wanted"),
        (r#"{"device":"d","time":1.5}"#, 21, "an integer is wanted"),
        (r#"{"time":9223372036854775808}"#, 8, "an integer is wanted"),
        (r#"{"values":{"a":null}}"#, 15, "a number, a bool or a string is wanted"),
        (r#"{"values":{"a":01}}"#, 15, "no number"),
        (r#"{"device":"d"} x"#, 15, "more behind the object"),
        (r#"{"x":[1}}"#, 7, "a comma or a closing bracket is wanted"),
        (r#"{"x":{"y":1]}"#, 11, "a comma or a closing bracket is wanted"),
        (r#"{"x":[,1]}"#, 6, "no JSON value"),
        (r#"{"x":{1:2}}"#, 6, "a string is wanted"),
        (r#"{"x":[1,]}"#, 8, "no JSON value"),
        ("{\"a\tb\":1}", 1, "a string without end, or with a control character"),
        ("{\"a\\n\tb\":1}", 1, "a string with a wrong escape or control character"),
        (&deep, 69, "nested too deep"),
    ] {
        assert_eq!(parse(text).unwrap_err(), NotAReading { at, why }, "{text}");
    }
    assert_eq!(Reading::default().parse(b"{\"\xff").unwrap_err().at, 2);
    let many: Vec<String> = (0..501).map(|i| format!("\"v{i}\":1")).collect();
    let text = format!(r#"{{"device":"d","time":1,"values":{{{}}}}}"#, many.join(","));
    assert!(parse(&text).unwrap_err().why.contains("500"));
}

#[test]
fn numbers_keep_their_type_and_are_rounded_right() {
    for (text, wanted) in [
        ("0", Value::Unsigned(0)),
        ("-0", Value::Float(-0.0)),
        ("999999999999999999", Value::Unsigned(999_999_999_999_999_999)),
        ("18446744073709551615", Value::Unsigned(u64::MAX)),
        ("18446744073709551616", Value::Float(18_446_744_073_709_551_616.0)),
        ("-9223372036854775808", Value::Signed(i64::MIN)),
        ("9007199254740993.0", Value::Float(9_007_199_254_740_992.0)),
        ("2.2250738585072011e-308", Value::Float(2.225_073_858_507_201e-308)),
    ] {
        assert_eq!(value(text), Some(wanted), "{text}");
    }
    for text in ["1e999", "-", "1.", ".5", "1e", "+1", "0x1", "NaN", "1.e5", "--1"] {
        assert_eq!(value(text), None, "{text}");
    }
}

#[test]
fn the_room_is_kept() {
    let text = String::from(r#"{"device":"d","time":1,"values":{"a":1,"b":2,"c":3}}"#);
    let mut reading = Reading::default();
    reading.parse(text.as_bytes()).unwrap();
    let room = (reading.values.as_ptr() as usize, reading.values.capacity());
    let reading: Reading<'static> = reading.recycled();
    assert_eq!((reading.values.as_ptr() as usize, reading.values.capacity()), room);
    assert_eq!(reading, Reading::default());
}

fn json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<f64>().prop_filter_map("finite", |v| v.is_finite().then(|| Json::from(v).to_string())),
        any::<i64>().prop_map(|v| v.to_string()),
        any::<u64>().prop_map(|v| v.to_string()),
        "-?[0-9]{1,22}(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
    ];
    prop_oneof![
        3 => number,
        1 => "\\PC{0,12}".prop_map(|text| Json::from(text).to_string()),
        1 => "\"[a-z\\\\u0-9d\"]{0,8}\"",
        1 => "[\\[\\]{}:,\"\\\\ntrue0-9. -]{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is a number, a bool or a string for `serde_json` is the same here, and nothing else is a value.
    #[test]
    fn values_are_those_of_serde_json(text in json()) {
        let whole = format!(r#"{{"v":{text}}}"#);
        let wanted = serde_json::from_str::<Json>(&whole).ok().and_then(|json| match json.get("v")? {
            _ if json.as_object()?.len() > 1 => None,
            Json::Bool(v) => Some(Value::Bool(*v)),
            Json::String(v) => Some(Value::Text(v.clone().into())),
            Json::Number(v) => v.as_u64().map(Value::Unsigned)
                .or_else(|| v.as_i64().map(Value::Signed))
                .or_else(|| v.as_f64().map(Value::Float)),
            _ => None,
        });
        // Text that holds more members is not one value.
        if wanted.is_none() && text.contains(',') {
            return Ok(());
        }
        let found = value(&text);
        match (&found, &wanted) {
            // serde_json rounds within one unit in the last place; the library's own parser is exact.
            (Some(Value::Float(found)), Some(Value::Float(wanted))) => {
                prop_assert!((found - wanted).abs() <= wanted.abs() * 1e-15 + 1e-320, "{found} {wanted}");
                prop_assert_eq!(*found, text.trim().parse::<f64>().unwrap());
            }
            _ => prop_assert_eq!(found, wanted),
        }
    }

    /// What is passed over is what `serde_json` takes.
    #[test]
    fn what_is_passed_over_is_json(text in json(), before in 0..4_usize, after in 0..4_usize) {
        let text = format!("{}{text}{}", "[".repeat(before), "]".repeat(after));
        let whole = format!(r#"{{"x":{text},"device":"d","time":1,"values":{{}}}}"#);
        let wanted = serde_json::from_str::<Json>(&whole).is_ok();
        prop_assert_eq!(parse(&whole).is_ok(), wanted, "{}", whole);
    }

    /// Cut or changed bytes never bring it down.
    #[test]
    fn nothing_brings_it_down(cut in 0..120_usize, at in 0..120_usize, byte: u8) {
        let mut text = br#"{"device":"d\u00e9","time":1,"values":{"a":1.5e3,"b":"x"},"tags":{"l":"m"},"x":[{}],"received":2}"#.to_vec();
        text.truncate(cut);
        if let Some(b) = text.get_mut(at) {
            *b = byte;
        }
        let _ = Reading::default().parse(&text);
    }
}
