//! The CSV decoder against good and bad rows.

use proptest::prelude::*;
use weir_shared::clock::Now;

use super::super::times::Times;
use super::super::{Clean, Decoder, Form, Format, Input, Limits};
use super::*;
use crate::sources::Origin;
use crate::sources::file::Mark;

fn columns() -> Columns {
    let text = |s: &str| s.to_owned();
    Columns {
        delimiter: b',',
        names: vec![],
        device: text("device"),
        device_name: String::new(),
        time: text("time"),
        written: Written { seconds: false, zone: Some(jiff::tz::TimeZone::UTC) },
        tags: vec![text("line")],
        values: vec![],
    }
}

fn run(columns: Columns, payload: &[u8]) -> Vec<Decoded> {
    let limits = Limits { message_bytes_max: 4096, raw_bytes_max: 1024, record_bytes_max: 2048 };
    let form = Form { format: Format::Csv(columns), times: Times::default() };
    let decoder = Decoder { limits, mqtt: form.clone(), files: vec![form], clean: Clean::default() };
    let arrived = Now { wall_ms: 1_790_000_000_042, mono_ns: 5, trusted: true };
    let mark = Mark { file: 1, offset: 1, row: 1 };
    let origin = Origin::File { format: 0, first_row: 7, mark };
    let mut out = Vec::new();
    decoder.decode(&Input { topic: "/data/a.csv", payload, arrived, origin }, |d| out.push(d));
    out
}

fn shown(columns: Columns, payload: &str) -> Vec<String> {
    let show = |decoded| match decoded {
        Decoded::Reading(r) => {
            let text = String::from_utf8(r.value).unwrap();
            text.split(",\"received\"").next().unwrap().to_owned()
        }
        Decoded::Rejection(r) => {
            let letter: serde_json::Value = serde_json::from_slice(&r.value).unwrap();
            assert_eq!(letter["source"], "file");
            format!("{}: {}", r.reason.as_str(), letter["detail"].as_str().unwrap())
        }
        Decoded::Filtered => "filtered".to_owned(),
    };
    run(columns, payload.as_bytes()).into_iter().map(show).collect()
}

#[test]
fn rows_become_readings_with_types() {
    let text = "\u{feff}time,device,t,n,on,mode,line,\r\n\
                2026-09-21 12:13:20,pump 1,21.50,-3,true,\"a \"\"b\"\", c\",L1,x\r\n\
                1789992800000, \"p2\" ,,18446744073709551615,false, 007 ,,\n\n\
                2026-09-21T14:13:20+02:00,p3,1e3,-0.5,True,.5,,";
    let want = [
        r#"{"device":"pump 1","time":1789992800000,"values":{"t":21.5,"n":-3,"on":true,"mode":"a \"b\", c"},"tags":{"line":"L1"}"#,
        r#"{"device":"p2","time":1789992800000,"values":{"n":18446744073709551615,"on":false,"mode":"007"},"tags":{}"#,
        r#"{"device":"p3","time":1789992800000,"values":{"t":1000.0,"n":-0.5,"on":"True","mode":".5"},"tags":{}"#,
    ];
    assert_eq!(shown(columns(), text), want);
}

#[test]
fn a_row_that_holds_a_cr_is_several_in_one() {
    let text = "device,time,t\na,1,2\ra,2,3\nb,1,2\r\nc,1,\"2\r3\"\r\n";
    let named = Columns {
        names: vec!["t".to_owned()],
        device_name: "d".to_owned(),
        time: String::new(),
        ..columns()
    };
    let got = shown(columns(), text);
    assert!(got[0].starts_with("not_csv: row 7: a CR in it"), "{got:?}");
    assert_eq!(got.len(), 3, "quoted, it is text: {got:?}");
    let got = shown(named, "1\r2\r");
    assert!(
        got.len() == 1 && got[0].starts_with("not_csv: row 7: a CR in it"),
        "not the text 1\\r2: {got:?}"
    );
}

#[test]
fn columns_can_be_named_and_chosen() {
    let named = Columns {
        delimiter: b';',
        names: ["at", "a", "b"].map(str::to_owned).to_vec(),
        device_name: "meter".to_owned(),
        time: "at".to_owned(),
        written: Written { seconds: true, zone: None },
        values: vec!["b".to_owned()],
        ..columns()
    };
    let want = r#"{"device":"meter","time":1789992800500,"values":{"b":2},"tags":{}"#;
    assert_eq!(shown(named, "1789992800.5;1;2\n"), [want]);
}

#[test]
fn one_bad_row_rejects_itself_alone() {
    let text = "time,device,t\n1,a,1\n2,b\n3,c,\"x\n4,d,\"x\"y\n5,,1\n,f,1\nsoon,g,1\n8,h,\n9,i,1e999\n10,j,NaN\n11,k,5\n";
    let got = shown(columns(), text);
    let want = [
        "{\"device\":\"a\"",
        "not_csv: row 8: 2 fields, the header has 3",
        "not_csv: row 9: a quote that does not end",
        "not_csv: row 10: something after a closing quote",
        "device_missing: row 11: no device",
        "time_missing: row 12: no time",
        "time_invalid: row 13: \"soon\": ",
        "values_missing: row 14: no value in it",
        "value_not_finite: row 15: t is 1e999",
        "value_not_finite: t is NaN",
        "{\"device\":\"k\"",
    ];
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for (got, want) in got.iter().zip(want) {
        let got = got.replace("row 16: ", "");
        assert!(got.starts_with(want), "{got} {want}");
    }
}

#[test]
fn a_header_that_cannot_be_right_rejects_its_message() {
    assert_eq!(shown(columns(), "t,t\n1,2\n"), ["not_csv: column t stands twice"]);
    assert_eq!(shown(columns(), "a,\"b\n1,2\n"), ["not_csv: a quote that does not end"]);
    let many = ",".repeat(COLUMNS_MAX);
    assert_eq!(shown(columns(), &many), ["not_csv: 1025 columns, at most 1024 are taken"]);
    assert_eq!(shown(columns(), "a,b\n \n"), ["empty: no line in it"]);
    assert_eq!(run(columns(), b"a,\xff\n1,2\n").len(), 1);
    let out = run(columns(), b"device,t\n\xff,1\na,2\n");
    assert!(matches!(&out[0], Decoded::Rejection(r) if r.reason == Reason::InvalidUtf8));
    let long = format!("device,t\na,{}\n", "1".repeat(5000));
    assert_eq!(shown(columns(), &long), ["too_large: row 7: more than 4096 bytes"]);
}

proptest! {
    #[test]
    fn never_panics_and_never_gives_nothing(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!run(columns(), &payload).is_empty());
    }

    #[test]
    fn one_result_for_each_row(rows in prop::collection::vec(r#"[0-9a-z",é .-]{0,20}"#, 1..20)) {
        let payload = format!("time,device,t\n{}", rows.join("\n"));
        let full = rows.iter().filter(|row| !row.trim().is_empty()).count();
        prop_assert_eq!(run(columns(), payload.as_bytes()).len(), full.max(1));
    }

    #[test]
    fn a_field_comes_back_as_it_went_in(fields in prop::collection::vec("[ -~é]{0,10}", 1..6)) {
        let row: Vec<String> = fields.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
        let row = row.join(",");
        let got: Result<Vec<_>, Refused> = Fields::new(&row, b',').collect();
        prop_assert_eq!(got.unwrap(), fields);
    }
}
