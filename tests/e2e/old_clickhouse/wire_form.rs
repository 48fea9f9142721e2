//! The bytes that the sink writes, as a server reads them that was never told what they mean: each kind of column, with
//! and without NULL, read back by SQL as what was sent.

use anyhow::ensure;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use weir_harness::oracle::Oracle;
use weir_shared::wire;

use super::{ASK, Scene};

/// Topic and value. All of the edge `wire`.
pub(super) const RECORDS: [(&str, &str); 6] = [
    (
        wire::ENRICHED,
        r#"{"weir":{"stream":"00fe02030405060708090a0b0c0d0eff","partition":3,"number":18446744073709551615,"edge":"wire",
        "joined":true,"rules":9,"versions":{"devices":2}},"dims":{"devices":{"site":"Graz"}},"device":"ü' \\ \t",
        "time":1790000000001,"received":1790000000042,"clock":"wild","values":{"half":-0.5,"huge":-1e300,
        "exact":9007199254740993,"low":-9223372036854775807,"yes":true,"no":false,"text":"a\tb\nc","none":""},
        "tags":{"t":"v","empty":""}}"#,
    ),
    (
        wire::REJECTED,
        r#"{"weir":{"edge":"wire","topic":"weir.readings","partition":2,"offset":77},"stage":"s","reason":"r","detail":"d",
        "source":"mqtt","topic":"t","received":1790000000003,"bytes":300,"raw":"AP+AYQ=="}"#,
    ),
    (
        wire::AGGREGATES,
        r#"{"weir":{"stream":"00fe02030405060708090a0b0c0d0eff","partition":1,"number":2,"edge":"wire","joined":true},
        "dims":{},"rule":"r","part":5,"key":{"device":"d"},"start":1790000000000,"end":1790000010000,"revision":3,
        "count":4,"values":{"v":{"max":1}},"completeness":0.25,"incomplete":"late"}"#,
    ),
    (
        wire::AGGREGATES,
        r#"{"weir":{"stream":"00fe02030405060708090a0b0c0d0eff","partition":1,"number":3,"edge":"wire"},"rule":"s",
        "key":{"device":"d"},"start":1790000000000,"end":1790000010000,"revision":0}"#,
    ),
    (
        wire::LOSSES,
        r#"{"weir":{"topic":"weir.readings","partition":1,"offset":5},"edge":"wire","reason":"r",
        "stream":"00fe02030405060708090a0b0c0d0eff","topic":"l","partition":2,"from":17,"to":42,"time_from":7,
        "noticed":1790000000005}"#,
    ),
    (
        wire::ALERTS,
        r#"{"weir":{"stream":"00fe02030405060708090a0b0c0d0eff","partition":1,"number":4,"edge":"wire","rules":7,
        "versions":{}},"rule":"hot","rule_version":3,"kind":"first","severity":"high","key":"k","device":"d",
        "episode":{"stream":"0f0e0d0c0b0a09080706050403020100","partition":0,"number":1},"since":1790000000000,
        "time":1790000009000,"repeat":0,"value":-1.5,"message":"m","values":{},"tags":{},"dims":{},
        "received":1790000009042}"#,
    ),
];

/// A select, and the one row that it must give.
fn wanted() -> [(&'static str, Value); 6] {
    let stream = "00FE02030405060708090A0B0C0D0EFF";
    [
        (
            "hex(stream) AS s, stream_partition, number, device, time, received, clock, numbers, integers, flags, texts, \
             tags, dims, versions, joined, rules FROM weir_readings",
            json!({"s": stream, "stream_partition": 3, "number": "18446744073709551615", "device": "ü' \\ \t",
                "time": "1790000000001", "received": "1790000000042", "clock": "wild",
                "numbers": [[["half", -0.5], ["huge", -1e300]]],
                "integers": [[["exact", "9007199254740993"], ["low", "-9223372036854775807"]]],
                "flags": [[["yes", 1], ["no", 0]]], "texts": [[["text", "a\tb\nc"], ["none", ""]]],
                "tags": [[["t", "v"], ["empty", ""]]], "dims": "{\"devices\":{\"site\":\"Graz\"}}",
                "versions": "{\"devices\":2}", "joined": 1, "rules": "9"}),
        ),
        (
            "stream, stream_partition, number, origin, origin_offset, received, bytes, hex(raw) AS h FROM weir_rejected",
            json!({"stream": null, "stream_partition": 2, "number": null, "origin": "weir.readings",
                "origin_offset": "77", "received": "1790000000003", "bytes": "300", "h": "00FF8061"}),
        ),
        (
            "part, completeness, start, `end`, revision, count, values, incomplete, joined FROM weir_aggregates \
             WHERE rule = 'r' AND",
            json!({"part": "5", "completeness": 0.25, "start": "1790000000000", "end": "1790000010000", "revision": "3",
                "count": "4", "values": "{\"v\":{\"max\":1}}", "incomplete": "late", "joined": 1}),
        ),
        (
            "part, completeness, revision, count, values, incomplete, joined FROM weir_aggregates_latest \
             WHERE rule = 's' AND",
            json!({"part": null, "completeness": null, "revision": "0", "count": "0", "values": "{}",
                "incomplete": "", "joined": 0}),
        ),
        (
            "stream, stream_partition, number, origin_offset, hex(assumeNotNull(lost_stream)) AS l, lost_partition, \
             lost_from, lost_to, lost_count, time_from, time_to, noticed FROM weir_losses",
            json!({"stream": null, "stream_partition": 1, "number": null, "origin_offset": "5", "l": stream,
                "lost_partition": 2, "lost_from": "17", "lost_to": "42", "lost_count": null, "time_from": "7",
                "time_to": null, "noticed": "1790000000005"}),
        ),
        (
            "hex(episode_stream) AS e, episode_number, value, limit, since, message FROM weir_alerts",
            json!({"e": "0F0E0D0C0B0A09080706050403020100", "episode_number": "1", "value": -1.5, "limit": null,
                "since": "1790000000000", "message": "m"}),
        ),
    ]
}

/// Puts the records into Kafka.
pub(super) fn send(scene: &Scene) -> anyhow::Result<()> {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", scene.brokers()).set("acks", "all").create()?;
    for (topic, json) in RECORDS {
        producer.send(BaseRecord::to(topic).key("wire").payload(json)).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(ASK)?)
}

/// Reads the rows back and compares them.
pub(super) fn is_read_back(oracle: &Oracle) -> anyhow::Result<()> {
    for (select, wanted) in wanted() {
        let filter = if select.ends_with("AND") { "" } else { "WHERE" };
        let answer =
            oracle.in_clickhouse(&format!("SELECT {select} {filter} edge = 'wire' FORMAT JSONEachRow"))?;
        let found: Value = serde_json::from_str(&answer)?;
        ensure!(found == wanted, "{select}:\n{found}\nand not\n{wanted}");
    }
    Ok(())
}
