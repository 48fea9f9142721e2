//! Readings that wait for a row: each leaves exactly once, in the order of its device, and never stays for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ROW: &str = r#"{"site":"Graz"}"#;

/// A reading of a device, at the offset that is its number.
struct Given {
    number: String,
    offset: i64,
    body: String,
}

fn reading(device: &str, offset: i64) -> Given {
    let body = format!(r#"{{"device":"{device}","time":5,"values":{{"t":{offset}}}}}"#);
    Given { number: offset.to_string(), offset, body }
}

impl Given {
    fn incoming(&self) -> Incoming<'_> {
        let record = record(Input::Readings, self.number.as_bytes(), self.body.as_bytes());
        Incoming { offset: self.offset, ..record }
    }
}

impl Bench {
    /// With one dimension that is waited for.
    fn holding(devices: &[&str], rules: &[(&str, &str, &str)]) -> Self {
        let mut bench = Self::new(&[("devices", "-", ROW)], rules);
        bench.rows(devices);
        bench
    }

    /// The devices that have a row from now on.
    fn rows(&mut self, devices: &[&str]) {
        let rows: Vec<_> = devices.iter().map(|device| (*device, ROW)).collect();
        self.world.tables = Arc::new(Snapshot::holding(&rows));
    }

    /// A cycle at this time, not committed; number and whether it was joined of all that was enriched.
    fn cycle(&mut self, now_ms: i64, readings: &[Given]) -> Vec<(u64, bool)> {
        let mut taken = Taken::default();
        let due = self.engine.due(&self.world, &mut self.state.held, now_ms);
        let mut cycle = self.engine.begin(&self.world, now_ms);
        for due in &due {
            cycle.release(2, due, &mut self.state, &mut self.tally, &mut taken).unwrap();
        }
        for reading in readings {
            cycle.process(&reading.incoming(), &mut self.state, &mut self.tally, &mut taken).unwrap();
        }
        let enriched = taken.0.iter().filter(|(topic, ..)| topic == wire::ENRICHED);
        let shown = |v: &Value| (v["weir"]["number"].as_u64().unwrap(), v["weir"]["joined"] == true);
        enriched.map(|(.., v)| shown(v)).collect()
    }

    fn released(&self) -> [u64; 3] {
        assert!(self.balances(), "{:?}", self.tally);
        assert_eq!(self.tally.held - self.tally.released.iter().sum::<u64>(), self.state.held.len() as u64);
        self.tally.released
    }
}

#[test]
fn a_reading_waits_for_its_row_and_all_later_ones_of_its_device_with_it() {
    let mut bench = Bench::holding(&["b"], &[]);
    assert_eq!(bench.cycle(1_000, &[reading("a", 1), reading("b", 2), reading("a", 3)]), [(2, true)]);
    assert_eq!(bench.state.held.len(), 2);
    // Sent again it is a repeat: its mark moved when it was taken.
    assert_eq!(bench.cycle(1_001, &[reading("a", 1)]), []);
    assert_eq!(bench.tally.repeats, 1);
    bench.rows(&["a", "b"]);
    assert_eq!(bench.cycle(1_200, &[reading("a", 4)]), [(1, true), (3, true), (4, true)]);
    assert_eq!(bench.released(), [2, 0, 0]);
    assert_eq!((bench.tally.received, bench.tally.enriched), (5, 4));
}

#[test]
fn it_goes_unjoined_when_its_time_is_over() {
    let mut bench = Bench::holding(&[], &[]);
    assert_eq!(bench.cycle(1_000, &[reading("a", 1)]), []);
    assert_eq!(bench.cycle(1_500, &[reading("a", 2)]), []);
    assert_eq!(bench.cycle(1_999, &[]), []);
    assert_eq!(bench.cycle(2_000, &[]), [(1, false)]);
    assert_eq!(bench.cycle(2_499, &[reading("a", 3)]), []);
    assert_eq!(bench.cycle(2_500, &[]), [(2, false)]);
    assert_eq!(bench.released(), [0, 2, 0]);
    bench.rows(&["a"]);
    assert_eq!(bench.cycle(2_600, &[]), [(3, true)]);
    assert_eq!(bench.released(), [1, 2, 0]);
}

#[test]
fn what_waits_longest_makes_room() {
    let mut bench = Bench::holding(&[], &[]);
    let came: Vec<_> = ["a", "b", "a", "b"].iter().zip(1..).map(|(device, n)| reading(device, n)).collect();
    assert_eq!(bench.cycle(1_000, &came), []);
    assert_eq!(bench.cycle(1_001, &[reading("c", 5)]), [(1, false), (3, false)]);
    assert_eq!(bench.cycle(1_002, &[reading("b", 6)]), []);
    assert_eq!(bench.cycle(1_003, &[reading("b", 7)]), [(2, false), (4, false), (6, false)]);
    assert_eq!(bench.state.held.len(), 2);
    assert_eq!(bench.released(), [0, 0, 5]);
}

/// What went before it was joined with rows of others.
#[test]
fn one_that_waits_only_for_those_before_it_goes_with_them() {
    let mut bench = Bench::holding(&[], &[]);
    assert_eq!(bench.cycle(1_000, &[reading("b", 1), reading("c", 2)]), []);
    bench.engine.hold.records_max = 1;
    bench.rows(&["b"]);
    let last = reading("b", 3);
    let sent = bench.give(&last.incoming());
    let shown = |(.., v): &Sent| (v["weir"]["number"].clone(), v["dims"]["devices"]["site"].clone());
    let row = |n: u64, site: Value| (Value::from(n), site);
    let rows = [row(1, "Graz".into()), row(2, Value::Null), row(3, "Graz".into())];
    assert_eq!(sent.iter().map(shown).collect::<Vec<_>>(), rows);
    assert_eq!(bench.released(), [0, 0, 2]);
}

/// A changelog record that no broker takes would stop the partition.
#[test]
fn what_is_too_large_for_the_changelog_does_not_wait() {
    let mut bench = Bench::holding(&[], &[]);
    let mut large = reading("a", 2);
    // Every quote takes two bytes there.
    let tags: Vec<_> = (0..VALUE_BYTES_MAX / 16).map(|n| format!(r#""{n:06}":"1""#)).collect();
    large.body = large.body.replace("}}", &format!(r#"}},"x":{{{}}}}}"#, tags.join(",")));
    assert!(large.body.len() < VALUE_BYTES_MAX * 9 / 10, "{}", large.body.len());
    let sent = bench.cycle(1_000, &[reading("a", 1), large, reading("a", 3), reading("b", 4)]);
    assert_eq!(sent, [(1, false), (2, false)]);
    assert_eq!(bench.released(), [0, 0, 2]);
}

#[test]
fn rules_and_masks_are_those_of_its_leaving() {
    let rules = [
        ("m", "mask", r#"{"fields":["values.name"],"method":"drop"}"#),
        ("f", "filter", r#"{"drop":"values.t > 9.0"}"#),
        ("hot", "threshold", r#"{"value":"values.t","above":2,"severity":"high"}"#),
    ];
    let mut bench = Bench::holding(&[], &[]);
    let mut named = reading("a", 3);
    named.body = named.body.replace(r#""t""#, r#""name":"secret","t""#);
    named.number = "1".into();
    assert_eq!(bench.cycle(1_000, &[named, reading("a", 10)]), []);
    let set = Bench::new(&[("devices", "a", ROW)], &rules).world.rules;
    (bench.world.rules, bench.world.tables) = (set, Arc::new(Snapshot::holding(&[("a", ROW)])));
    let mut taken = Taken::default();
    let due = bench.engine.due(&bench.world, &mut bench.state.held, 1_300);
    let mut cycle = bench.engine.begin(&bench.world, 1_300);
    for due in &due {
        cycle.release(2, due, &mut bench.state, &mut bench.tally, &mut taken).unwrap();
    }
    assert_eq!(
        topics(&taken.0),
        [wire::ENRICHED, wire::ALERTS, wire::ALERTS_HIGH],
        "the second is filtered; its alert would be the same episode"
    );
    let (enriched, alert) = (&taken.0[0].2, &taken.0[1].2);
    assert!(!enriched.to_string().contains("secret"), "{enriched}");
    assert_eq!((&enriched["weir"]["rules"], &enriched["weir"]["edge"]), (&9.into(), &"gw-1".into()));
    assert_eq!((&alert["episode"]["number"], &alert["device"]), (&1.into(), &"a".into()));
    assert_eq!((bench.released(), bench.tally.filtered), ([2, 0, 0], 1));
}

#[test]
fn window_results_never_wait() {
    let mut bench = Bench::holding(&[], &[]);
    let (topic, _, v) = bench.one(&record(Input::Windows, b"0", WINDOW));
    assert_eq!((topic.as_str(), &v["weir"]["joined"]), (wire::AGGREGATES, &false.into()));
}

#[derive(Clone, Debug)]
enum Step {
    /// One more is in the log.
    Reading(u8),
    /// Its row comes, or goes.
    Row(u8),
    Time(i64),
    /// A cycle with so many records at most.
    Cycle(usize, End),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    Abort,
    /// The process dies before it commits; another reads its state back.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![4 => Just(End::Commit), 1 => Just(End::Abort), 1 => Just(End::Crash)];
    prop_oneof![
        6 => (0u8..4).prop_map(Step::Reading),
        2 => (0u8..4).prop_map(Step::Row),
        2 => (1i64..700).prop_map(Step::Time),
        6 => (0usize..6, end).prop_map(|(n, end)| Step::Cycle(n, end)),
    ]
}

/// A partition with its log and its changelog.
#[derive(Default)]
struct Partition {
    log: Vec<(u8, Given)>,
    next: usize,
    changelog: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Numbers that left, in order, and whether they were joined.
    left: Vec<(u64, bool)>,
    now: i64,
}

impl Partition {
    fn cycle(&mut self, bench: &mut Bench, records: usize, end: End) {
        let last = self.log.len().min(self.next + records);
        let tally = bench.tally.clone();
        let came: Vec<_> = self.log.drain(self.next..last).collect();
        let (devices, readings): (Vec<_>, Vec<_>) = came.into_iter().unzip();
        let mut left = bench.cycle(self.now, &readings);
        self.log.splice(self.next..self.next, devices.into_iter().zip(readings));
        if let End::Commit = end {
            for (key, value) in bench.state.staged() {
                match value {
                    Some(value) => drop(self.changelog.insert(key, value)),
                    None => drop(self.changelog.remove(&key).expect("a tombstone for nothing")),
                }
            }
            bench.state.commit();
            self.left.append(&mut left);
            self.next = last;
            return;
        }
        bench.tally = tally;
        bench.state.abort();
        if let End::Crash = end {
            bench.state = State::default();
            for (key, value) in &self.changelog {
                bench.state.restore(key, Some(value)).unwrap();
            }
        }
    }
}

proptest! {
    #[test]
    fn each_leaves_exactly_once_and_in_order(steps in prop::collection::vec(step(), 0..120)) {
        let (mut bench, mut partition) = (Bench::holding(&[], &[]), Partition::default());
        partition.now = 10_000;
        let mut rows = BTreeSet::new();
        for step in steps {
            match step {
                Step::Reading(device) => {
                    let number = partition.log.len() as i64;
                    partition.log.push((device, reading(&device.to_string(), number)));
                }
                Step::Row(device) => {
                    if !rows.remove(&device) { rows.insert(device); }
                    let names: Vec<_> = rows.iter().map(u8::to_string).collect();
                    bench.rows(&names.iter().map(String::as_str).collect::<Vec<_>>());
                }
                Step::Time(ms) => partition.now += ms,
                Step::Cycle(records, end) => partition.cycle(&mut bench, records, end),
            }
            prop_assert!(bench.state.held.len() <= HOLD.records_max);
        }
        let log = partition.log.len();
        partition.cycle(&mut bench, log, End::Commit);
        partition.now += HOLD.ms as i64;
        partition.cycle(&mut bench, 0, End::Commit);
        prop_assert!(bench.state.held.is_empty());
        prop_assert!(!partition.changelog.keys().any(|key| key.starts_with(b"held/")));
        let mut numbers: Vec<_> = partition.left.iter().map(|(number, _)| *number).collect();
        for device in 0..4 {
            let of = |number: &&u64| partition.log[**number as usize].0 == device;
            prop_assert!(numbers.iter().filter(of).is_sorted(), "{:?}", numbers);
        }
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..log as u64).collect::<Vec<_>>());
        let unjoined = partition.left.iter().filter(|(_, joined)| !joined).count() as u64;
        let [_, time, room] = bench.released();
        prop_assert!(unjoined <= time + room && time <= unjoined);
    }
}
