//! Tables of the user's own: their description, what is refused of it, and the rows that records come to.

use super::super::config::SinksConfig;
use super::*;
use weir_shared::record::Identity;

const REFERENCE: &str = concat!(include_str!("../../../../deploy/weir-cloud.toml"), "\n[[sink.table]]\n");

/// Two tables of `weir.enriched`: `power` appends and computes, `newest` keeps one row per device; one of a routed topic.
const TABLES: &str = r#"
[[sink.table]]
name = "power"
topic = "weir.enriched"
when = "values.power > 0.0"
[[sink.table.column]]
name = "device"
[[sink.table.column]]
name = "time"
type = "time"
[[sink.table.column]]
name = "kw"
type = "float64"
value = "values.power / 1000.0"
[[sink.table.column]]
name = "site"
from = "dims.devices.site"
default = "nowhere"
[[sink.table.column]]
name = "note"
from = "tags.note"
type = "text"
null = true
[[sink.table.column]]
name = "rounds"
type = "int64"
value = "values.rounds * 2"
default = -1
[[sink.table]]
name = "newest"
topic = "weir.enriched"
rows = "latest"
key = "device"
version = "version"
[[sink.table.column]]
name = "device"
[[sink.table.column]]
name = "version"
type = "time"
from = "time"
[[sink.table.column]]
name = "all"
type = "json"
from = "values"
[[sink.table]]
name = "apart"
topic = "hall.readings"
stores = ["mysql", "clickhouse"]
[[sink.table.column]]
name = "time"
type = "time"
[[sink.table.column]]
name = "stream"
from = "weir.stream"
"#;

fn read(text: &str) -> Result<OwnTables, String> {
    let routed = ["hall.readings".to_owned()];
    let read = weir_shared::config::check("c.toml", text, REFERENCE, |root| SinksConfig::read(root, &routed));
    read.map(|config| config.own).map_err(|e| e.to_string())
}

pub(in crate::sinks) fn tables() -> OwnTables {
    read(TABLES).unwrap_or_else(|problems| panic!("{problems}"))
}

fn own(name: &str) -> &'static OwnTable {
    tables().0.iter().find(|own| own.name == name).unwrap()
}

fn cells(name: &str, json: &str) -> Result<Option<Vec<Cell<'static>>>, RowError> {
    let json: &'static str = json.to_owned().leak();
    let row = Decoder::new(own(name)).decode(json.as_bytes(), SinkName::Mysql)?;
    Ok(row.map(|row| row.cells))
}

fn reading(values: &str, more: &str) -> String {
    format!(
        r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17{more}}},
        "dims":{{"devices":{{"site":"Gr\u00e4z","line":3}}}},"device":"pump-7","time":1790000000000,"values":{values}}}"#
    )
}

#[test]
fn a_row_has_members_results_and_defaults() {
    let text = |text: &str| Cell::Text(text.to_owned().into());
    let got = cells("power", &reading(r#"{"power":1500,"rounds":21}"#, "")).unwrap().unwrap();
    let time = Cell::Time(1_790_000_000_000);
    assert_eq!(
        got,
        [text("pump-7"), time.clone(), Cell::Float(1.5), text("Gräz"), Cell::Null, Cell::Int(42)]
    );
    let less = reading(r#"{"power":1}"#, "")
        .replace("devices", "other")
        .replace("\"dims\"", "\"tags\":{\"note\":\"n\"},\"dims\"");
    let got = cells("power", &less).unwrap().unwrap();
    assert_eq!(got, [text("pump-7"), time, Cell::Float(0.001), text("nowhere"), text("n"), Cell::Int(-1)]);
}

#[test]
fn what_is_not_wanted_is_no_row_and_what_cannot_be_one_is_said() {
    for values in [r#"{"power":0}"#, r#"{"other":1}"#] {
        assert_eq!(cells("power", &reading(values, "")), Ok(None), "{values}");
    }
    assert_eq!(cells("power", &reading(r#"{"power":1}"#, r#","stores":["clickhouse"]"#)), Ok(None));
    let refused = |json: &str| cells("power", json).unwrap_err();
    let fraction = refused(&reading(r#"{"power":1,"rounds":0.3}"#, ""));
    let wanted = ("value_wrong_type", "column rounds: is not an integer of 64 bits");
    assert_eq!((fraction.reason, &*fraction.detail), wanted);
    let text = refused(&reading(r#"{"power":"much"}"#, ""));
    assert!(text.reason == "value_wrong_type" && text.detail.starts_with("when: "), "{text}");
    let late = refused(&reading(r#"{"power":1}"#, "").replace("1790000000000", "-1"));
    assert_eq!((late.reason, &*late.detail), ("time_out_of_range", "column time: it is -1"));
    let long = refused(&reading(r#"{"power":1}"#, "").replace("pump-7", &"x".repeat(256)));
    assert_eq!((long.reason, &*long.detail), ("too_long", "column device: it has 256 bytes, at most 255"));
    let missing = refused(&reading(r#"{"power":1}"#, "").replace("\"device\"", "\"devices\""));
    assert_eq!((missing.reason, &*missing.detail), ("value_missing", "column device: device is missing"));
    assert_eq!(refused("{").reason, "row_malformed");
}

#[test]
fn what_a_row_is_depends_on_its_record_or_its_key_alone() {
    let mut batch = super::super::batch::Batch::default();
    let topic = own("power").topic;
    for offset in [5, 6] {
        batch.push(super::super::batch::Part { topic, partition: 1 }, offset, 0, b"");
    }
    let id = |name: &str, record: usize, json: &str| {
        let json: &'static str = json.to_owned().leak();
        let row = Decoder::new(own(name)).decode(json.as_bytes(), SinkName::Mysql).unwrap().unwrap();
        own(name).row_id(&batch.records()[record], &row)
    };
    let (one, other) = (reading(r#"{"power":1}"#, ""), reading(r#"{"power":2}"#, "").replace("17", "18"));
    assert_eq!(id("power", 0, &one), id("power", 1, &one), "the reading, wherever it stands");
    assert_ne!(id("power", 0, &one), id("power", 0, &other));
    assert_eq!(id("newest", 0, &one), id("newest", 1, &other), "the key alone");
    assert_ne!(id("newest", 0, &one), id("newest", 0, &one.replace("pump-7", "pump-8")));
    let nobody = one.replace("stream", "steam");
    assert_ne!(id("power", 0, &nobody), id("power", 1, &nobody), "without identity: the position");
    let row = Decoder::new(own("power")).decode(one.as_bytes(), SinkName::Mysql).unwrap().unwrap();
    assert_eq!(row.identity.map(|Identity { partition, number, .. }| (partition, number)), Some((3, 17)));
}

#[test]
fn a_row_that_is_replaced_has_a_version_and_no_month() {
    let json = reading(r#"{"a":[1, 2],"b":null}"#, "");
    let row = Decoder::new(own("newest")).decode(json.as_bytes(), SinkName::Mysql).unwrap().unwrap();
    assert_eq!((row.time(own("newest")), row.version(own("newest"))), (None, Some(1_790_000_000_000)));
    assert_eq!(row.cells[2], Cell::Text(r#"{"a":[1, 2],"b":null}"#.into()));
}

#[test]
fn a_sink_reads_the_topics_that_have_a_table_in_its_store() {
    let names = |which| tables().topics(which).into_iter().map(Topic::name).collect::<Vec<_>>();
    let fixed = Topic::ALL.map(Topic::name);
    assert_eq!(names(SinkName::Elasticsearch), fixed);
    assert_eq!(names(SinkName::Mysql), [&fixed[..], &["hall.readings"]].concat());
    let tables = tables();
    assert_eq!(tables.topic("hall.readings").map(Topic::index), Some(5));
    let of = |topic| tables.targets(topic, SinkName::Mysql).map(Target::name).collect::<Vec<_>>();
    assert_eq!(of(Topic::Enriched), ["weir_readings", "power", "newest"]);
    assert_eq!(of(tables.topic("hall.readings").unwrap()), ["apart"]);
}

#[test]
fn a_window_result_has_its_numbers_by_their_path() {
    let text = "[[sink.table]]\nname = 'means'\ntopic = 'weir.aggregates'\nstores = 'mysql'\ntime = 'begun'\n\
        [[sink.table.column]]\nname = 'begun'\ntype = 'time'\nfrom = 'start'\n\
        [[sink.table.column]]\nname = 'mean'\ntype = 'float64'\nfrom = 'values.t.mean'\n\
        [[sink.table.column]]\nname = 'half'\ntype = 'float64'\nvalue = \"values['t.mean'] / 2.0\"\n\
        [[sink.table.column]]\nname = 'who'\nvalue = 'device'\n";
    let own = &read(text).unwrap().0[0];
    let json = r#"{"weir":{},"rule":"r","key":{"device":"d"},"start":5,"end":9,"values":{"t":{"mean":21.5,"count":2}}}"#;
    let row = Decoder::new(own).decode(json.as_bytes(), SinkName::Mysql).unwrap().unwrap();
    assert_eq!(row.cells, [Cell::Time(5), Cell::Float(21.5), Cell::Float(10.75), Cell::Text("d".into())]);
}

#[test]
fn all_problems_come_at_once_with_their_places() {
    let text = "[[sink.table]]\nname = 'Power'\ntopic = 'weir.enrichd'\nstores = ['mysqul']\nwhen = 'values.p >'\n\
        key = 'a'\ntime = 'tim'\ncolum = 1\n[[sink.table.column]]\nname = 'time'\ntype = 'int64'\n\
        from = 'a'\nvalue = 'values.a'\n[[sink.table.column]]\nname = 'time'\ntype = 'json'\nvalue = \"device\"\n\
        [[sink.table.column]]\nname = 'n'\ntype = 'uint64'\ndefault = -1\nnull = true\n\
        [[sink.table.column]]\nname = 'v'\nfrom = 'value.v'\n\
        [[sink.table]]\nname = 'weir_x'\ntopic = 'weir.alerts'\nrows = 'latest'\n\
        [[sink.table.column]]\nname = 'kw'\ntype = 'float64'\nvalue = 'dims.devices'\n\
        [[sink.table]]\nname = 'alerts'\ntopic = 'weir.alerts'\n";
    let shown = read(text).unwrap_err();
    for part in [
        "c.toml:2:8: sink.table[0].name: must be at most 60 lower-case letters",
        "sink.table[0].topic: \"weir.enrichd\" is neither an output topic of Weir nor one of rules.topics; did you mean \"weir.enriched\"?",
        "sink.table[0].stores: \"mysqul\" must be one of mysql,",
        "c.toml:5:8: sink.table[0].when: column 11: ends too early",
        "sink.table[0].key: is only for rows = \"latest\"",
        "sink.table[0].time: there is no column \"tim\"; did you mean \"time\"?",
        "c.toml:8:1: sink.table[0].colum: unknown key; did you mean \"column\"?",
        "sink.table[0].column[0].value: only one of from and value",
        "c.toml:15:8: sink.table[0].column[1].name: \"time\" is there twice",
        "sink.table[0].column[1].value: an expression gives no JSON",
        "sink.table[0].column[2].default: is not an integer of 64 bits from 0 on",
        "sink.table[0].column[2].null: only one of default and null",
        "sink.table[0].column[3].from: records of weir.enriched have no member \"value\"; did you mean \"values\"?",
        "sink.table[1].name: \"weir_x\" is a name of Weir's own",
        "sink.table[1].key: must name 1 to 8 columns",
        "sink.table[1].version: must be set",
        "write dims.<dimension>.<column>",
        "sink.table[2].name: \"alerts\" is a name of Weir's own",
        "sink.table[2].column: must have 1 to 500 columns",
        "sink.table[2].time: there is no column \"time\"; known here: none",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn a_record_has_one_letter_and_a_dead_letter_none() {
    let mut batch = super::super::batch::Batch::default();
    for topic in [Topic::Enriched, Topic::Rejected] {
        batch.push(super::super::batch::Part { topic, partition: 1 }, 5, 0, b"{}");
    }
    let mut letters = Letters::default();
    for record in batch.records() {
        refuse(&mut letters, own("power"), record, "value_missing", "column kw: x is missing");
        refuse(&mut letters, own("newest"), record, "too_long", "column device: it has 256 bytes");
    }
    let letters = letters.into_list();
    let said: Vec<_> =
        letters.iter().map(|l| (l.record.part.topic, &*l.reason, &*l.detail, l.partly)).collect();
    let detail = "table power: column kw: x is missing; table newest: column device: it has 256 bytes";
    assert_eq!(said, [(Topic::Enriched, "value_missing", detail, true)]);
}
