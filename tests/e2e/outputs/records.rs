//! The records of a run, and the rows that they must come to.
//!
//! Guarantees: a row in words names everything that tells two records of the run apart; all of a run carry its name as
//! their edge. Pure.

use std::collections::BTreeMap;

use weir_harness::oracle::Store;
use weir_shared::wire;

use super::Rows;

/// Readings, and how many of them one of each other kind stands behind.
const READINGS: u64 = 2400;
const WINDOW_EACH: u64 = 6;
const LOSS_EACH: u64 = 6;
const ALERT_EACH: u64 = 4;
const REJECTION_EACH: u64 = 8;
const BROKEN_EACH: u64 = 120;

/// Tables, by the parts of their names that all stores have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Readings,
    Rejected,
    /// The highest revision of each.
    Aggregates,
    /// All revisions: only in ClickHouse.
    Revisions,
    Losses,
    Alerts,
    /// Dead letters of the sinks themselves.
    Letters,
}

/// A record on its way into Kafka.
pub(crate) struct Record {
    pub(crate) topic: &'static str,
    pub(crate) key: String,
    pub(crate) json: String,
}

/// All of a run.
pub(crate) struct Records {
    pub(crate) run: String,
    pub(crate) all: Vec<Record>,
    rows: BTreeMap<Table, Vec<(String, Vec<Store>)>>,
}

const STORES: [Store; 3] = [Store::Mysql, Store::Elasticsearch, Store::Clickhouse];

/// Adds a record.
type Add = fn(&mut Records, u64);

impl Records {
    pub(crate) fn new(run: &str) -> Self {
        let mut records = Self { run: run.to_owned(), all: Vec::new(), rows: BTreeMap::new() };
        for n in 0..READINGS {
            records.reading(n);
            let also: [(u64, Add); 5] = [
                (WINDOW_EACH, Self::window),
                (LOSS_EACH, Self::loss),
                (ALERT_EACH, Self::alert),
                (REJECTION_EACH, Self::rejection),
                (BROKEN_EACH, Self::broken),
            ];
            for (each, add) in also.iter().filter(|(each, _)| n.is_multiple_of(*each)) {
                add(&mut records, n / each);
            }
        }
        records
    }

    /// The rows that a store must hold.
    pub(crate) fn wanted(&self, store: Store) -> Rows {
        let of_store = |rows: &Vec<(String, Vec<Store>)>| {
            let mut rows: Vec<String> = rows
                .iter()
                .filter(|(_, stores)| stores.contains(&store))
                .map(|(row, _)| row.clone())
                .collect();
            rows.sort();
            rows
        };
        self.rows.iter().map(|(table, rows)| (*table, of_store(rows))).collect()
    }

    fn stream(&self, of: char) -> String {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{}{of}", self.run).as_bytes()))
    }

    /// Where it came from, without the last brace.
    fn weir(&self, n: u64) -> String {
        format!(r#"{{"stream":"{}","partition":1,"number":{n},"edge":"{}""#, self.stream('a'), self.run)
    }

    fn add(&mut self, topic: &'static str, key: String, json: String) {
        self.all.push(Record { topic, key, json });
    }

    fn row(&mut self, table: Table, row: String, stores: &[Store]) {
        self.rows.entry(table).or_default().push((row, stores.to_vec()));
    }

    fn reading(&mut self, n: u64) {
        let (stores, names) = match n % 5 {
            0 => (&STORES[..1], r#","stores":["mysql"]"#),
            1 => (&STORES[1..], r#","stores":["elasticsearch","clickhouse"]"#),
            2 => (&[][..], r#","stores":[]"#),
            _ => (&STORES[..], ""),
        };
        let (rules, rules_json) =
            if n.is_multiple_of(2) { (n, format!(r#","rules":{n}"#)) } else { (0, String::new()) };
        let (device, weir) = (format!("d{}", n % 50), self.weir(n));
        let time = 1_790_000_000_000 + n;
        let json = format!(
            r#"{{"weir":{weir}{rules_json}{names}}},"dims":{{}},"device":"{device}","time":{time},"values":{{"v":{n}}},"tags":{{}}}}"#
        );
        self.add(wire::ENRICHED, device.clone(), json);
        self.row(Table::Readings, format!("{n}|{device}|{rules}"), stores);
    }

    /// Revisions in order, a lower one late, and two of the same number: the first of the highest stays.
    fn window(&mut self, n: u64) {
        let (order, highest): (&[u64], usize) = match n % 3 {
            0 => (&[0, 2, 1], 1),
            1 => (&[0, 1, 2], 2),
            _ => (&[0, 1, 1], 1),
        };
        let (device, start) = (format!("d{}", n % 50), 1_790_000_000_000 + n * 10_000);
        let (part, part_json) = if n.is_multiple_of(4) {
            (n.to_string(), format!(r#","part":{n}"#))
        } else {
            ("none".to_owned(), String::new())
        };
        for (i, revision) in order.iter().enumerate() {
            let (count, weir) = (n * 10 + i as u64, self.weir(n * 10 + i as u64));
            let json = format!(
                r#"{{"weir":{weir},"joined":true}},"dims":{{}},"rule":"avg"{part_json},"key":{{"device":"{device}"}},"start":{start},"end":{},"revision":{revision},"count":{count},"values":{{"v":{{"max":{count}}}}}}}"#,
                start + 10_000
            );
            self.add(wire::AGGREGATES, device.clone(), json);
            let row = format!("avg|{device}|{start}|{part}|{revision}|{count}");
            self.row(Table::Revisions, row.clone(), &[Store::Clickhouse]);
            if i == highest {
                self.row(Table::Aggregates, row, &STORES);
            }
        }
    }

    fn loss(&mut self, n: u64) {
        let (run, lost) = (self.run.clone(), self.stream('b'));
        let (weir, reason) = if n.is_multiple_of(2) {
            (format!("{}}}", self.weir(n)), "dropped")
        } else {
            (format!(r#"{{"topic":"weir.readings","partition":1,"offset":{n}}}"#), "unannounced")
        };
        let json = format!(
            r#"{{"weir":{weir},"edge":"{run}","reason":"{reason}","stream":"{lost}","topic":"weir.readings","partition":3,"from":{n},"to":{},"count":2,"noticed":1790000099000}}"#,
            n + 1
        );
        self.add(wire::LOSSES, run, json);
        self.row(Table::Losses, format!("{reason}|{n}|{}", n + 1), &STORES);
    }

    fn alert(&mut self, n: u64) {
        let (kind, repeat) = [("first", 0), ("repeat", 1), ("repeat", 2), ("recovered", 0)][(n % 4) as usize];
        let (key, episode, weir) = (format!("d{}", n / 4 % 50), n / 4, self.weir(n));
        let json = format!(
            r#"{{"weir":{weir},"rules":7,"versions":{{}}}},"rule":"hot","rule_version":3,"kind":"{kind}","severity":"high","key":"{key}","device":"{key}","episode":{{"stream":"{}","partition":1,"number":{episode}}},"since":1790000000000,"time":1790000009000,"repeat":{repeat},"value":{n},"limit":80.5,"message":"m","values":{{"v":{n}}},"tags":{{}},"dims":{{}},"received":1790000009042}}"#,
            self.stream('a')
        );
        self.add(wire::ALERTS, key.clone(), json);
        self.row(Table::Alerts, format!("hot|{key}|{episode}|{kind}|{repeat}|{n}"), &STORES);
    }

    fn rejection(&mut self, n: u64) {
        let weir = self.weir(n);
        let json = format!(
            r#"{{"weir":{weir},"topic":"weir.readings"}},"stage":"test","reason":"r","detail":"","source":"mqtt","topic":"t/{n}","received":1790000000000,"bytes":0,"raw":""}}"#
        );
        self.add(wire::REJECTED, format!("d{n}"), json);
        self.row(Table::Rejected, format!("test|t/{n}"), &STORES);
    }

    /// A window result without a rule: each sink refuses it, and all stores hold what each sink refused.
    fn broken(&mut self, n: u64) {
        let json = format!(r#"{{"weir":{}}},"broken":{n}}}"#, self.weir(n));
        self.add(wire::AGGREGATES, format!("d{n}"), json);
        for stage in ["sink.mysql", "sink.elasticsearch", "sink.clickhouse"] {
            self.row(Table::Letters, format!("{stage}|{n}"), &STORES);
        }
    }
}
