//! Expressions against a reading: what they see, what they refuse, and that nothing hostile harms.

use proptest::prelude::*;

use super::*;

fn reading() -> Reading<'static> {
    let value = |name: &'static str, value| (name.into(), value);
    Reading {
        device: "pump-7".into(),
        time: 1_790_000_000_123,
        values: vec![
            value("t", Value::Float(21.5)),
            value("n", Value::Unsigned(75)),
            value("neg", Value::Signed(-3)),
            value("on", Value::Bool(true)),
            value("mode", Value::Text("auto".into())),
            value("a-b", Value::Unsigned(4)),
        ],
        tags: vec![("line".into(), "3".into())],
        received: 1_790_000_001_000,
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    Expression::compile(text).map_err(|p| p.to_string())?.boolean(&reading())
}

fn value(text: &str) -> Result<Value<'static>, String> {
    Expression::compile(text).map_err(|p| p.to_string())?.value(&reading())
}

#[test]
fn conditions_see_the_reading() {
    for text in [
        "values.t > 20 && values.mode == 'auto'",
        "values['a-b'] == 4 && values.n == 75 && values.neg < 0 && values.on",
        "device.startsWith('pump') && tags.line == '3' && device.size() == 6",
        "has(values.t) && !has(values.none) && 't' in values && !('x' in tags) && size(values) == 6",
        "time % 1000 == 123 && received - time == 877",
        "time / 1000 * 1000 < time",
        "[values.t, values.n].all(x, x > 20.0) && [1, 2].exists(x, x == 2)",
        "values.t in [21.5, 22.5] && int(values.n) % 2 == 1",
        "math.abs(values.neg) == 3 && math.greatest(values.t, 30.0) == 30 && math.round(values.t) == 22",
        "has(values.none) ? values.none > 3 : true",
    ] {
        assert_eq!(boolean(text), Ok(true), "{text}");
    }
}

#[test]
fn integers_become_floats_where_they_meet_values() {
    for (text, want) in [
        ("values.n * 2", 150.0),
        ("(values.n - 32) / 1.8", (75.0 - 32.0) / 1.8),
        ("2 * (1 + 2) * values.t", 129.0),
        ("values.n / 2", 37.5),
        ("-(3) + values.n", 72.0),
        ("values.t * size(device)", 129.0),
        ("(values.on ? 1 : 2) * values.t", 21.5),
        ("1 - values['t']", -20.5),
    ] {
        assert_eq!(value(text), Ok(Value::Float(want)), "{text}");
    }
    assert_eq!(value("time / 1000"), Ok(Value::Unsigned(1_790_000_000)));
    assert_eq!(value("1 - 4"), Ok(Value::Signed(-3)));
    assert_eq!(value("values.on"), Ok(Value::Bool(true)));
    assert_eq!(value("values.mode + '-' + tags.line"), Ok(Value::Text("auto-3".into())));
}

#[test]
fn what_a_reading_lacks_is_its_own_error() {
    for (text, want) in [
        ("values.none > 3", "values.none > 3: the reading has no none; has(values.none) asks for it"),
        ("values.mode * 2 > 3", "values.mode * 2 > 3: cannot mul operands of these types"),
        ("values.t", "values.t: gives double, not true or false"),
        ("time % (time - time) == 0", "time % (time - time) == 0: division by zero"),
    ] {
        assert_eq!(boolean(text), Err(want.to_owned()), "{text}");
    }
    assert_eq!(value("values.t / 0"), Err("values.t / 0: gives inf".to_owned()));
    assert_eq!(value("[1]"), Err("[1]: gives list, not a number, bool or text".to_owned()));
    assert_eq!(value("values"), Err("values: gives map, not a number, bool or text".to_owned()));
}

#[test]
fn what_cannot_be_right_is_refused_with_its_column() {
    for (text, column, want) in [
        ("", 1, "is empty"),
        ("1 + t > 3", 5, "\"t\" is not known; values are values.t"),
        ("values.t >", 11, "ends too early"),
        ("values.mode.matches('a')", 20, "no function \"matches\""),
        ("true && shout(device)", 14, "no function \"shout\""),
        ("math.log(values.t) > 1.0", 9, "no function \"log\""),
        ("values.all(k, true)", 11, "loops go over a list in the text"),
        ("[1].all(x, [1].all(y, true))", 19, "a loop in a loop"),
        ("b'x' == b'x'", 1, "bytes are not known"),
        ("Foo{a: 1} == 2", 4, "structures are not known"),
    ] {
        let problem = Expression::compile(text).unwrap_err();
        assert!(problem.message.contains(want), "{text}: {problem}");
        assert_eq!(problem.column, column, "{text}: {problem}");
    }
}

#[test]
fn hostile_texts_are_refused_or_harmless() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("!", ""),
        ("-", ""),
        ("1+", ""),
        ("a.", ""),
        ("1?2:", ""),
        ("has(", ")"),
        ("{1:", "}"),
        ("device+", ""),
        ("true||", ""),
        ("size(", ")"),
        ("values.t-", ""),
        ("device[", "]"),
        ("'", ""),
        ("\\", ""),
        ("1,", ""),
        ("1 in ", ""),
        ("é", ""),
        ("x ", ""),
        ("'a' ", ""),
        ("1\n", ""),
        (",", ""),
        ("a:", ""),
    ] {
        for n in [40, 60, 390, 5000, TEXT_BYTES_MAX / (open.len() + close.len())] {
            let text = format!("{}1{}", open.repeat(n), close.repeat(n));
            if let Ok(expression) = Expression::compile(&text) {
                drop(expression.value(&reading()));
            }
        }
    }
}

#[test]
fn limits_are_said() {
    for (text, want) in [
        (format!("{}1{}", "(".repeat(49), ")".repeat(49)), "column 49: brackets more than 48 deep"),
        (format!("1{}", "+1".repeat(401)), "column 802: more than 400 signs of operators"),
        (format!("1{}", " in 1".repeat(401)), "more than 400 signs of operators"),
        (format!("1{}", "+1".repeat(60)), "operations deep"),
        ("1".repeat(4097), "column 1: 4097 bytes, at most 4096 are taken"),
    ] {
        let problem = Expression::compile(&text).map(drop).unwrap_err().to_string();
        assert!(problem.contains(want), "{text}: {problem}");
    }
}

#[test]
fn expressions_can_be_sent_to_a_thread() {
    let expression = Expression::compile("values.t > 20.0").unwrap();
    assert!(std::thread::spawn(move || expression.boolean(&reading())).join().unwrap().unwrap());
}

proptest! {
    #[test]
    fn nothing_panics(text in r#"((values|tags)(\.t|\['n'\])?|device|time|[0-9]{1,20}|[-+*/%<>!?:.,(){}\[\]]|&&|==|'x'|has\(|int\(|true| in |math\.abs\(){1,12}"#) {
        if let Ok(expression) = Expression::compile(&text) {
            drop(expression.value(&reading()));
            drop(expression.boolean(&reading()));
        }
    }
}
