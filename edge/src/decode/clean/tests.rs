//! Rules against readings, and what is said of rules that cannot be right.

use proptest::prelude::*;
use weir_shared::config;

use super::*;

fn clean(text: &str) -> Result<Clean, String> {
    config::check("edge.toml", text, "clean = []\n", Clean::read).map_err(|p| p.to_string())
}

fn reading() -> Reading<'static> {
    let value = |name: &'static str, value| (name.into(), value);
    Reading {
        device: "pump".into(),
        time: 5,
        values: vec![
            value("t", Value::Unsigned(212)),
            value("u", Value::Float(2.5)),
            value("s", Value::Text(" 7.0 ".into())),
            value("on", Value::Unsigned(1)),
        ],
        ..Reading::default()
    }
}

type Values = Vec<(String, Value<'static>)>;

fn run(text: &str) -> Result<Option<Values>, Refused> {
    let mut reading = reading();
    let kept = clean(&format!("[[clean]]\n{text}")).unwrap().apply(&mut reading)?;
    let values = reading.values.into_iter().map(|(name, value)| (name.into_owned(), value));
    Ok(kept.then(|| values.collect()))
}

fn one(text: &str, name: &str) -> Option<Value<'static>> {
    let values = run(text).unwrap().unwrap();
    values.into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

#[test]
fn a_rule_does_all_its_keys_in_order() {
    let values =
        run("rename = ['t=temperature']\nrequire = ['temperature']\ntypes = ['s=integer', 'on=bool']\n\
         set = ['temperature=(values.temperature - 32) / 1.8', 'power=values.u * values.s']\n\
         ranges = ['temperature=..50 clamp', 'power=0..10 drop']\ndrop = ['u']\n");
    let want = [("temperature", Value::Float(50.0)), ("s", Value::Unsigned(7)), ("on", Value::Bool(true))];
    assert_eq!(values.unwrap().unwrap(), want.map(|(name, value)| (name.to_owned(), value)));
}

#[test]
fn conditions_choose() {
    assert_eq!(run("filter = 'values.t < 100.0'"), Ok(None));
    assert_eq!(run("when = 'values.t > 1000.0'\nfilter = 'false'").unwrap().unwrap().len(), 4);
    assert_eq!(run("when = 'device == \"pump\"'\nfilter = 'false'"), Ok(None));
    let two = "drop = ['t']\n[[clean]]\nfilter = 'has(values.t)'";
    assert_eq!(run(two), Ok(None), "the second sees what the first left");
}

#[test]
fn what_a_rule_cannot_take_is_rejected_with_its_number() {
    for (text, reason, want) in [
        ("require = ['x']", Reason::ValueRequired, "rule 1: no x"),
        ("types = ['u=integer']", Reason::ValueWrongType, "rule 1: u is 2.5, not integer"),
        ("types = ['t=bool']", Reason::ValueWrongType, "rule 1: t is 212, not bool"),
        ("ranges = ['t=0..100']", Reason::ValueOutOfRange, "rule 1: t is 212, from 0 to 100 are taken"),
        ("ranges = ['s=0..100 clamp']", Reason::ValueWrongType, "rule 1: s is \" 7.0 \", not a number"),
        ("filter = 'values.x > 1'", Reason::ExpressionFailed, "rule 1: values.x > 1: the reading has no x"),
        ("[[clean]]\nset = ['y=values.u / 0']", Reason::ExpressionFailed, "rule 2: values.u / 0: gives inf"),
    ] {
        let (got, detail) = run(text).unwrap_err();
        assert_eq!(got, reason, "{text}");
        assert!(detail.starts_with(want), "{detail}");
    }
}

#[test]
fn values_keep_what_they_are_where_nothing_must_change() {
    assert_eq!(one("ranges = ['t=0..100 clamp']", "t"), Some(Value::Unsigned(100)));
    assert_eq!(one("ranges = ['t=0..99.5 clamp']", "t"), Some(Value::Float(99.5)));
    assert_eq!(one("ranges = ['t=0..100 drop', 's=0..1 drop']", "s"), None);
    assert_eq!(one("types = ['t=number', 's=number']", "s"), Some(Value::Float(7.0)));
    assert_eq!(one("types = ['t=text']", "t"), Some(Value::Text("212".into())));
    assert_eq!(one("types = ['absent=text']\nranges = ['absent=0..1']", "t"), Some(Value::Unsigned(212)));
}

#[test]
fn wrong_rules_are_refused_with_their_places() {
    let text = "[[clean]]\nfilter = 'values.t >'\nset = ['x=tt + 1', 'nothing']\nranges = ['t=5..1', 't=a..b']\n\
                [[clean]]\ntypes = ['t=float']\nrename = ['=x']\nwehn = ''\n";
    let shown = clean(text).unwrap_err();
    for want in [
        "edge.toml:2:10: clean[0].filter: \"values.t >\", column 11: ",
        "edge.toml:3:7: clean[0].set: \"tt + 1\", column 1: \"tt\" is not known; values are values.tt",
        "edge.toml:3:7: clean[0].set: \"nothing\": must be \"name=expression\"",
        "edge.toml:4:10: clean[0].ranges: \"t=5..1\": must be \"name=min..max",
        "edge.toml:6:9: clean[1].types: \"t=float\": must be",
        "edge.toml:7:10: clean[1].rename: \"=x\": must be",
        "clean[1].wehn: unknown key; did you mean \"when\"?",
        "8 problems",
    ] {
        assert!(shown.contains(want), "{want}\n{shown}");
    }
}

proptest! {
    #[test]
    fn no_value_makes_a_rule_panic(
        text in "[ -~é]{0,80}", float in any::<f64>().prop_filter("finite", |v| v.is_finite()), integer in any::<i64>(),
    ) {
        let rules = "[[clean]]\ntypes = ['a=integer']\n[[clean]]\nranges = ['a=-5..5 clamp']\n\
                     [[clean]]\nset = ['a=values.a * 2', 'b=string(values.a) + device']\n[[clean]]\ntypes = ['a=text']";
        let clean = clean(rules).unwrap();
        for value in [Value::Text(text.clone().into()), Value::Float(float), Value::Signed(integer), Value::Bool(true)] {
            let mut reading = Reading { values: vec![("a".into(), value)], ..Reading::default() };
            drop(clean.apply(&mut reading));
        }
    }
}
