//! Decoding by description: what fits, what is refused and why, and what a record is.

use super::*;

const AGGREGATE: &str = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17,"edge":"gw-1",
"joined":true,"versions":{"devices":1}},"dims":{"devices":{"site":"Graz"}},"rule":"avg-10s","key":{"device":"pu\"mp-7"},
"start":1790000000000,"end":1790000010000,"revision":2,"count":10,"values":{"t":{"count":10,"mean":21.5}},
"completeness":0.5,"incomplete":"state_lost"}"#;
const LOSS: &str = r#"{"weir":{"partition":3,"topic":"weir.readings","offset":99},"reason":"unannounced",
"stream":"000102030405060708090a0b0c0d0e0f","topic":"weir.readings","partition":2,"from":17,"to":42,"count":26,
"noticed":1790000099000}"#;
const ALERT: &str = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17,"edge":"gw-1","rules":5,
"versions":{"devices":7}},"rule":"too-hot","rule_version":3,"kind":"repeat","severity":"high","key":"pump-7",
"device":"pump-7","episode":{"stream":"0f0102030405060708090a0b0c0d0e0f","partition":1,"number":12},
"since":1790000000000,"time":1790000009000,"repeat":2,"value":81,"limit":80.5,"message":"hot","values":{"t":81},
"tags":{"a":"b"},"dims":{},"received":1790000009042}"#;
const REJECTION: &str = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":2,"number":9,"edge":"gw-1",
"topic":"weir.edge-rejected"},"stage":"edge.decode","reason":"not_json","detail":"line 1","source":"mqtt",
"topic":"sensors/7","received":1790000000042,"bytes":11,"raw":"AAH/"}"#;

fn decode(topic: Topic, json: &str) -> Result<Row<'_>, RowError> {
    Row::decode(table(topic).unwrap(), json.as_bytes(), SinkName::Mysql).map(Option::unwrap)
}

#[test]
fn an_aggregate_has_all_its_columns() {
    let r = decode(Topic::Aggregates, AGGREGATE).unwrap();
    let wanted = Identity { stream: StreamId(std::array::from_fn(|i| i as u8)), partition: 3, number: 17 };
    assert_eq!(r.identity(), Some(wanted));
    let texts =
        ["edge", "rule", "key", "device", "values", "incomplete", "dims", "versions"].map(|n| r.text(n));
    assert_eq!(
        texts,
        [
            "gw-1",
            "avg-10s",
            r#"{"device":"pu\"mp-7"}"#,
            "pu\"mp-7",
            r#"{"t":{"count":10,"mean":21.5}}"#,
            "state_lost",
            r#"{"devices":{"site":"Graz"}}"#,
            r#"{"devices":1}"#
        ]
    );
    assert_eq!(
        ["start", "end", "revision", "count"].map(|n| r.integer(n).unwrap()),
        [1_790_000_000_000, 1_790_000_010_000, 2, 10]
    );
    assert_eq!(
        (r.get("part"), r.get("completeness"), r.get("joined")),
        (&Cell::Null, &Cell::Float(0.5), &Cell::Flag(true))
    );
    assert_eq!(r.time(), 1_790_000_000_000);
}

#[test]
fn a_window_result_is_edge_rule_key_times_and_part() {
    let id = |from: &str, to: &str| {
        let json = AGGREGATE.replace(from, to);
        decode(Topic::Aggregates, &json).unwrap().logical_id().unwrap()
    };
    let same = id("", "");
    assert_eq!(same, id("\"revision\":2", "\"revision\":3"));
    assert_eq!(same, id("\"number\":17", "\"number\":18"));
    assert_eq!(same, id("\"count\":10", "\"count\":11"));
    for (from, to) in [
        ("gw-1", "gw-2"),
        ("avg-10s", "avg-1s"),
        ("mp-7\"}", "mp-8\"}"),
        ("1790000000000", "1790000000001"),
        ("1790000010000", "1790000010001"),
        ("\"start\"", "\"part\":0,\"start\""),
    ] {
        assert_ne!(same, id(from, to), "{from}");
    }
    // It stands in MySQL and Elasticsearch: another value here would double every window result that is sent again.
    assert_eq!(u128::from_be_bytes(same), GOLDEN_AGGREGATE, "{:#x}", u128::from_be_bytes(same));
    let alert = decode(Topic::Alerts, ALERT).unwrap().logical_id().unwrap();
    assert_eq!(u128::from_be_bytes(alert), GOLDEN_ALERT, "{:#x}", u128::from_be_bytes(alert));
}

const GOLDEN_AGGREGATE: u128 = 0xab18_604c_8801_95f0_3042_5bd7_4b75_550c;
const GOLDEN_ALERT: u128 = 0x4387_0cea_bf63_6a5a_b5ae_269c_1e42_3a79;

#[test]
fn an_alert_has_all_its_columns() {
    let r = decode(Topic::Alerts, ALERT).unwrap();
    assert!(r.cells.iter().all(|cell| *cell != Cell::Null));
    assert_eq!((r.get("value"), r.get("limit")), (&Cell::Float(81.0), &Cell::Float(80.5)));
    let integers =
        ["rules", "rule_version", "repeat", "episode_partition", "episode_number", "since", "received"];
    let found = integers.map(|name| r.integer(name).unwrap());
    assert_eq!(found, [5, 3, 2, 1, 12, 1_790_000_000_000, 1_790_000_009_042]);
    let id =
        |from: &str, to: &str| decode(Topic::Alerts, &ALERT.replace(from, to)).unwrap().logical_id().unwrap();
    assert_eq!(id("", ""), id("\"number\":17", "\"number\":18"), "not the reading that made it");
    for (from, to) in [
        ("\"repeat\":2", "\"repeat\":3"),
        ("\"repeat\",", "\"recovered\","),
        ("\"number\":12", "\"number\":13"),
    ] {
        assert_ne!(id("", ""), id(from, to), "{from}");
    }
}

#[test]
fn a_loss_of_an_edge_and_one_that_the_cloud_found() {
    let r = decode(Topic::Losses, LOSS).unwrap();
    assert_eq!(
        (r.identity(), r.text("edge"), r.text("origin"), r.text("lost_topic")),
        (None, "", "weir.readings", "weir.readings")
    );
    let numbers =
        ["stream_partition", "origin_offset", "lost_partition", "lost_from", "lost_to", "lost_count"];
    assert_eq!(numbers.map(|name| r.integer(name).unwrap()), [3, 99, 2, 17, 42, 26]);
    assert_eq!((r.get("time_from"), r.time()), (&Cell::Null, 1_790_000_099_000));
    let bare = r#"{"weir":{"stream":"000102030405060708090a0b0c0d0e0f","partition":0,"number":4,"edge":"gw-1"},"edge":"gw-1",
        "reason":"state_lost","noticed":99}"#;
    let r = decode(Topic::Losses, bare).unwrap();
    assert_eq!(
        (r.identity().map(|i| i.number), r.get("lost_stream"), r.text("edge")),
        (Some(4), &Cell::Null, "gw-1")
    );
}

#[test]
fn a_rejection_with_and_without_identity() {
    let r = decode(Topic::Rejected, REJECTION).unwrap();
    assert_eq!(r.identity().map(|i| (i.partition, i.number)), Some((2, 9)));
    let texts = ["origin", "stage", "reason", "source", "source_topic"].map(|name| r.text(name));
    assert_eq!(texts, ["weir.edge-rejected", "edge.decode", "not_json", "mqtt", "sensors/7"]);
    assert_eq!((r.integer("bytes"), r.get("raw")), (Some(11), &Cell::Bytes(vec![0, 1, 255])));
    let bare = r#"{"weir":{"topic":"weir.readings","partition":1,"offset":77},"stage":"process","reason":"identity",
        "received":1}"#;
    let r = decode(Topic::Rejected, bare).unwrap();
    assert_eq!(
        (r.identity(), r.integer("stream_partition"), r.integer("origin_offset")),
        (None, Some(1), Some(77))
    );
    assert_eq!((r.integer("bytes"), r.get("raw")), (Some(0), &Cell::Bytes(Vec::new())));
    assert!(decode(Topic::Rejected, r#"{"stage":"a","reason":"b","received":1}"#).is_ok());
    let malformed = REJECTION.replace("0001020304", "zz01020304");
    assert_eq!(decode(Topic::Rejected, &malformed).unwrap().identity(), None);
}

#[test]
fn what_no_store_holds_is_refused_with_its_reason() {
    let reason = |topic, json: &str, from: &str, to: &str| {
        let changed = json.replace(from, to);
        assert_ne!(changed, json, "{from}");
        decode(topic, &changed).unwrap_err().reason
    };
    let aggregate = |from: &str, to: &str| reason(Topic::Aggregates, AGGREGATE, from, to);
    assert_eq!(aggregate("0001020304", "zz01020304"), "identity_missing");
    assert_eq!(aggregate("\"rule\":\"avg-10s\",", ""), "row_malformed");
    assert_eq!(aggregate("\"avg-10s\"", "null"), "row_malformed");
    assert_eq!(aggregate("avg-10s", &"x".repeat(256)), "too_long");
    assert_eq!(aggregate("1790000000000", "-1"), "time_out_of_range");
    assert_eq!(aggregate("\"revision\":2", "\"revision\":-2"), "row_malformed");
    assert_eq!(aggregate("{\"device\":\"pu\\\"mp-7\"}", "[1]"), "row_malformed");
    assert_eq!(aggregate("state_lost\"}", "state_lost\"}}"), "row_malformed");
    assert_eq!(aggregate("state_lost\"}", "state_lost\""), "row_malformed");
    assert_eq!(reason(Topic::Alerts, ALERT, "\"value\":81", "\"value\":\"hot\""), "row_malformed");
    assert_eq!(reason(Topic::Losses, LOSS, "\"partition\":2", "\"partition\":3000000000"), "row_malformed");
    assert_eq!(reason(Topic::Rejected, REJECTION, "AAH/", "A?"), "raw_not_base64");
    assert_eq!(decode(Topic::Losses, "").unwrap_err().reason, "row_malformed");
    assert_eq!(decode(Topic::Losses, "[]").unwrap_err().reason, "row_malformed");
    let losses = table(Topic::Losses).unwrap();
    let broken = Row::decode(losses, b"{\"reason\":\"\xff\"}", SinkName::Mysql).unwrap_err();
    assert_eq!(broken.reason, "row_malformed");
    let error = decode(Topic::Alerts, &ALERT.replace("\"value\":81", "\"value\":true")).unwrap_err();
    assert!(error.detail.starts_with("value: "), "{}", error.detail);
}

#[test]
fn a_record_of_any_topic_goes_to_all_stores_or_to_those_that_it_names() {
    for (topic, json) in [
        (Topic::Aggregates, AGGREGATE),
        (Topic::Losses, LOSS),
        (Topic::Alerts, ALERT),
        (Topic::Rejected, REJECTION),
    ] {
        let with = |stores: &str| json.replacen("\"partition\"", &format!("{stores}\"partition\""), 1);
        let goes = |stores: &str| {
            let json = with(stores);
            SinkName::ALL
                .map(|which| Row::decode(table(topic).unwrap(), json.as_bytes(), which).unwrap().is_some())
        };
        assert_eq!(goes(""), [true; 3]);
        assert_eq!(goes("\"stores\":null,"), [true; 3]);
        assert_eq!(goes("\"stores\":[\"clickhouse\",\"m\\u0079sql\"],"), [true, false, true]);
        assert_eq!(goes("\"stores\":[],"), [false; 3]);
        assert_eq!(decode(topic, &with("\"stores\":7,")).unwrap_err().reason, "row_malformed");
        // What goes elsewhere is nobody's dead letter here, whatever else is wrong with it.
        let wrong = with("\"stores\":[],").replace("\"reason\"", "\"x\"").replace("\"rule\"", "\"x\"");
        let got = Row::decode(table(topic).unwrap(), wrong.as_bytes(), SinkName::Mysql);
        assert!(got.unwrap().is_none());
    }
}
