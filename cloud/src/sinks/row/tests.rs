//! Decoding: what fits, what is refused and why.

use super::*;

fn reading(json: &[u8]) -> Result<Reading<'_>, RowError> {
    super::reading(json, SinkName::Mysql).map(Option::unwrap)
}

const ENRICHED: &str = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17,"edge":"gw-1",
"joined":true,"versions":{"devices":1},"rules":17},"dims":{"devices":{"site":"Graz","line":3}},"device":"pump-7",
"time":1790000000000,"values":{"t":21.5,"n":3,"on":true,"mode":"au\"to\n","big":9007199254740993,"huge":18446744073709551615},
"tags":{"line":"3","odd":{"a":1}},"received":1790000000042,"clock":"trusted","unknown":[1,2]}"#;

#[test]
fn a_reading_keeps_its_objects_as_they_are() {
    let r = reading(ENRICHED.as_bytes()).unwrap();
    assert_eq!((r.identity.partition, r.identity.number), (3, 17));
    assert_eq!(r.identity.stream.to_hex(), *b"000102030405060708090a0b0c0d0e0f");
    assert_eq!((&*r.edge, r.joined, r.versions, r.rules), ("gw-1", true, r#"{"devices":1}"#, Some(17)));
    assert_eq!(r.dims, r#"{"devices":{"site":"Graz","line":3}}"#);
    assert_eq!(
        (&*r.device, r.time, r.received, &*r.clock),
        ("pump-7", 1_790_000_000_000, 1_790_000_000_042, "trusted")
    );
    assert!(r.values.starts_with(r#"{"t":21.5"#) && r.values.ends_with("18446744073709551615}"));
    let mut seen = Vec::new();
    values(r.values, |name, value| {
        seen.push(format!("{name}={value:?}"));
        Ok(())
    })
    .unwrap();
    assert_eq!(
        seen,
        [
            "t=Number(21.5)",
            "n=Number(3.0)",
            "on=Flag(true)",
            "mode=Text(\"au\\\"to\\n\")",
            "big=Integer(9007199254740993)",
            "huge=Number(1.8446744073709552e19)"
        ]
    );
    let mut tags = Vec::new();
    texts(r.tags, |name, text| {
        tags.push(format!("{name}={text}"));
        Ok(())
    })
    .unwrap();
    assert_eq!(tags, ["line=3", "odd={\"a\":1}"]);
}

#[test]
fn optional_members_have_their_defaults() {
    let json = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":0,"number":0},"device":"d",
        "time":5,"values":{},"dims":null}"#;
    let r = reading(json.as_bytes()).unwrap();
    assert_eq!(
        (r.received, &*r.clock, r.dims, r.tags, r.versions, r.joined, r.rules),
        (5, "", "{}", "{}", "{}", false, None)
    );
}

#[test]
fn what_no_store_holds_is_refused_with_its_reason() {
    let reason = |from: &str, to: &str| {
        let json = ENRICHED.replace(from, to);
        assert_ne!(json, ENRICHED, "{from}");
        reading(json.as_bytes()).unwrap_err().reason
    };
    assert_eq!(reason("\"pump-7\"", &format!("\"{}\"", "x".repeat(256))), "too_long");
    assert_eq!(reason("\"pump-7\"", "\"\""), "device_missing");
    assert_eq!(reason("\"pump-7\"", "7"), "row_malformed");
    assert_eq!(reason("1790000000000", "-1"), "time_out_of_range");
    assert_eq!(reason("1790000000042", "9914646400001"), "time_out_of_range");
    assert_eq!(reason("\"number\":17", "\"number\":-1"), "row_malformed");
    assert_eq!(reason("\"number\":17,", ""), "identity_missing");
    assert_eq!(reason("0001020304", "zz01020304"), "identity_missing");
    assert_eq!(reason("\"tags\":{", "\"tags\":[], \"x\":{"), "row_malformed");
    assert_eq!(reading(b"").unwrap_err().reason, "row_malformed");
    assert_eq!(reading(&ENRICHED.as_bytes()[..ENRICHED.len() - 1]).unwrap_err().reason, "row_malformed");
    assert_eq!(values(r#"{"a":[1]}"#, |_, _| Ok(())).unwrap_err().reason, "value_wrong_type");
    assert_eq!(values(r#"{"a":null}"#, |_, _| Ok(())).unwrap_err().reason, "value_wrong_type");
}

#[test]
fn a_record_goes_to_all_stores_or_to_those_that_it_names() {
    let goes = |stores: &str| {
        let json = ENRICHED.replace("\"joined\"", &format!("{stores}\"joined\""));
        SinkName::ALL.map(|which| super::reading(json.as_bytes(), which).unwrap().is_some())
    };
    assert_eq!(goes(""), [true; 3]);
    assert_eq!(goes("\"stores\":null,"), [true; 3]);
    assert_eq!(goes("\"stores\":[\"clickhouse\",\"mysql\"],"), [true, false, true]);
    assert_eq!(goes("\"stores\":[],"), [false; 3]);
    // What goes elsewhere is nobody's dead letter here, whatever else is wrong with it.
    let wrong = ENRICHED.replace("\"number\":17", "\"number\":17,\"stores\":[]").replace("pump-7", "");
    assert!(super::reading(wrong.as_bytes(), SinkName::Mysql).unwrap().is_none());
}
