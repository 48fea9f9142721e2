//! The decoder as a whole: time range, rules, and lines of files.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weir_shared::config;

use super::json::Mapping;
use super::*;
use crate::sources::file::Mark;

const NOW: i64 = 1_790_000_000_000;

fn decoder(rules: &str, times: Times) -> Decoder {
    let path = |s: &str| vec![s.to_owned()];
    let (device, time) = (path("d"), path("ts"));
    let mapping = Mapping { device, time, values: path("v"), tags: path("tags"), ..Mapping::default() };
    let form = |format| Form { format, times };
    Decoder {
        limits: Limits { message_bytes_max: 1000, raw_bytes_max: 1024, record_bytes_max: 2048 },
        mqtt: form(Format::Json(mapping.clone())),
        files: vec![form(Format::JsonLines(mapping))],
        clean: config::check("x", rules, "clean = []\n", Clean::read).unwrap(),
    }
}

fn run(decoder: &Decoder, payload: &[u8], origin: Origin) -> Vec<Decoded> {
    let arrived = Now { wall_ms: NOW, mono_ns: 5, trusted: true };
    let mut out = Vec::new();
    decoder.decode(&Input { topic: "t", payload, arrived, origin }, |d| out.push(d));
    out
}

fn file() -> Origin {
    Origin::File { format: 0, first_row: 3, mark: Mark { file: 1, offset: 2, row: 3 } }
}

fn reason(decoded: &Decoded) -> Reason {
    match decoded {
        Decoded::Rejection(r) => r.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rules_and_range_reject_one_reading_alone() {
    let rules = "[[clean]]\nwhen = 'device == \"a\"'\nrequire = ['t']\nranges = ['t=..100']\nset = ['u=values.t * 2']\n\
                 [[clean]]\nwhen = 'device == \"b\"'\nfilter = 'values.t > 0'\n";
    let times = Times { past_ms: Some(1000), future_ms: Some(1000), clamp: false };
    let decoder = decoder(rules, times);
    let one = |device: &str, ahead: i64, values: &str| {
        format!(r#"{{"d":"{device}","ts":{},"v":{{{values}}}}}"#, NOW + ahead)
    };
    let all = [
        one("a", 0, r#""t":5"#),
        one("a", -1001, r#""t":5"#),
        one("a", 1001, r#""t":5"#),
        one("a", 0, r#""x":5"#),
        one("a", 0, r#""t":101"#),
        one("b", 0, r#""t":0"#),
        one("b", 0, r#""x":0"#),
        one("c", 0, r#""x":{}"#),
        one("c", 1000, r#""x":null,"y":1"#),
    ];
    let out = run(&decoder, format!("[{}]", all.join(",")).as_bytes(), Origin::Mqtt);
    let Decoded::Reading(first) = &out[0] else { panic!("{out:?}") };
    let want = format!(r#"{{"device":"a","time":{NOW},"values":{{"t":5,"u":10.0}},"tags":{{}},"received""#);
    assert!(String::from_utf8_lossy(&first.value).starts_with(&want), "{first:?}");
    assert_eq!(first.time, NOW);
    let reasons = [
        Reason::ClockPast,
        Reason::ClockFuture,
        Reason::ValueRequired,
        Reason::ValueOutOfRange,
        Reason::ExpressionFailed,
        Reason::ValueWrongType,
    ];
    let rejected = [1, 2, 3, 4, 6, 7].map(|i| reason(&out[i]));
    assert_eq!(rejected, reasons);
    assert_eq!(out[5], Decoded::Filtered);
    assert!(matches!(&out[8], Decoded::Reading(r) if r.time == NOW + 1000 && r.device == "c"), "{out:?}");
    let reached: BTreeSet<_> = reasons.into_iter().chain([Reason::NotCsv]).collect();
    assert!(Reason::ALL[18..].iter().all(|reason| reached.contains(reason)), "a new reason needs its test");
}

#[test]
fn with_and_without_rules_the_json_is_the_same() {
    let payload = br#"{"d":"p\"7","ts":1,"v":{"i":-3,"big":18446744073709551615,"f":21.50,"b":true,"s":"\u00e9"},"tags":{"l":"3"}}"#;
    let (without, with) = (decoder("", Times::default()), decoder("[[clean]]", Times::default()));
    assert_eq!(run(&without, payload, Origin::Mqtt), run(&with, payload, Origin::Mqtt));
}

#[test]
fn what_a_rule_makes_of_a_reading_is_checked_like_any_other() {
    let payload = br#"{"d":"a","ts":1,"v":{"t":1,"u":2}}"#;
    let reject = |rule: &str| {
        let decoder = decoder(&format!("[[clean]]\n{rule}"), Times::default());
        reason(&run(&decoder, payload, Origin::Mqtt)[0])
    };
    assert_eq!(reject("rename = ['t=u']"), Reason::NamesInvalid);
    assert_eq!(reject("drop = ['t', 'u']"), Reason::ValuesMissing);
    assert_eq!(reject("set = ['t=\"NaN\"']"), Reason::ValueNotFinite);
    let long = format!("set = ['t=\"{}\"']", "x".repeat(2000));
    assert_eq!(reject(&long), Reason::RecordTooLarge);
}

#[test]
fn each_line_of_a_file_is_a_message() {
    let text = b"{\"d\":\"a\",\"ts\":1,\"v\":{\"x\":1}}\r\n\n[{\"d\":\"b\",\"ts\":1,\"v\":{\"x\":1}},{}]\nnonsense\n\xff\n";
    let out = run(&decoder("", Times::default()), text, file());
    assert!(matches!((&out[0], &out[1]), (Decoded::Reading(_), Decoded::Reading(_))), "{out:?}");
    let letter = |decoded: &Decoded| {
        let Decoded::Rejection(r) = decoded else { panic!("{decoded:?}") };
        let letter: serde_json::Value = serde_json::from_slice(&r.value).unwrap();
        format!("{} {} {} {}", letter["source"], letter["reason"], letter["index"], letter["detail"])
    };
    assert_eq!(letter(&out[2]), r#""file" "device_missing" 1 "row 5: no d""#);
    assert_eq!(letter(&out[3]), r#""file" "not_json" null "row 6: expected ident at line 1 column 2""#);
    assert_eq!(letter(&out[4]), r#""file" "invalid_utf8" null "row 7: not UTF-8 from byte 0""#);
    assert_eq!(out.len(), 5);
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_gives_nothing(
        payload in r#"[\[{]?(\{"d":"a","ts":[0-9]{1,20},"v":\{"t":(-?[0-9]{1,3}(\.5)?|"x"|true)\}\}|[\n,{}]|\]|é|NaN){0,8}"#,
    ) {
        let rules = "[[clean]]\nfilter = 'values.t > 5'\ntypes = ['t=number']\nranges = ['t=..50 clamp']\nset = ['u=values.t / 3']";
        let decoder = decoder(rules, Times { past_ms: Some(1), future_ms: Some(1), clamp: true });
        for origin in [Origin::Mqtt, file()] {
            prop_assert!(!run(&decoder, payload.as_bytes(), origin).is_empty());
        }
    }
}
