//! Decoding: what fits, what is refused and why.

use super::*;

const ENRICHED: &str = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17,"edge":"gw-1",
"joined":true,"versions":{"devices":1}},"dims":{"devices":{"site":"Graz","line":3}},"device":"pump-7",
"time":1790000000000,"values":{"t":21.5,"n":3,"on":true,"mode":"au\"to\n","big":9007199254740993,"huge":18446744073709551615},
"tags":{"line":"3","odd":{"a":1}},"received":1790000000042,"clock":"trusted","unknown":[1,2]}"#;

#[test]
fn a_reading_keeps_its_objects_as_they_are() {
    let r = reading(ENRICHED.as_bytes()).unwrap();
    assert_eq!((r.identity.partition, r.identity.number), (3, 17));
    assert_eq!(r.identity.stream.to_hex(), *b"000102030405060708090a0b0c0d0e0f");
    assert_eq!((&*r.edge, r.joined, r.versions), ("gw-1", true, r#"{"devices":1}"#));
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
        (r.received, &*r.clock, r.dims, r.tags, r.versions, r.joined),
        (5, "", "{}", "{}", "{}", false)
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
fn a_rejection_with_and_without_identity() {
    let json = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":2,"number":9,"edge":"gw-1",
        "topic":"weir.edge-rejected"},"stage":"edge.decode","reason":"not_json","detail":"line 1","source":"mqtt",
        "topic":"sensors/7","received":1790000000042,"bytes":11,"raw":"AAH/"}"#;
    let r = rejection(json.as_bytes()).unwrap();
    assert_eq!(r.identity.map(|i| (i.partition, i.number)), Some((2, 9)));
    assert_eq!((&*r.origin, &*r.stage, &*r.reason), ("weir.edge-rejected", "edge.decode", "not_json"));
    assert_eq!(
        (&*r.source, &*r.source_topic, r.bytes, &r.raw[..]),
        ("mqtt", "sensors/7", 11, &[0, 1, 255][..])
    );
    let bare = r#"{"weir":{"topic":"weir.readings","partition":1,"offset":77},"stage":"process","reason":"identity",
        "received":1}"#;
    let r = rejection(bare.as_bytes()).unwrap();
    assert_eq!((r.identity, r.origin_partition, r.origin_offset), (None, Some(1), Some(77)));
    assert_eq!((r.bytes, r.raw.len()), (0, 0));
    assert!(rejection(br#"{"stage":"a","reason":"b","received":1}"#).is_ok());
    let not_base64 = json.replace("AAH/", "A?");
    assert_eq!(rejection(not_base64.as_bytes()).unwrap_err().reason, "raw_not_base64");
}
