//! Golden cases: a configuration, a file, and the results that must come of them, byte for byte, three ways.
//!
//! Each folder in `tests/golden` holds `edge.toml`, `input.csv` and `expected.tsv` (topic, key, value). The ways:
//! straight through; killed again and again, with the state restored from sled or image and the journal recovered each
//! time; and with other batches and partition counts. The journal and the state on disk are the real ones.
//! `WEIR_GOLDEN=write` writes what came of the first way, to be looked at before it is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::driver::{Done, Driver, Made};
use super::{SAVE, Shared, State, Store, Windows, Wiring, rules};
use crate::clocks::Clocks;
use crate::config;
use crate::decode::{Decoded, Decoder, Input};
use crate::journal::format::{FrameHead, Record, Sent};
use crate::journal::reader::Step;
use crate::journal::writer::{Opening, Urgency};
use crate::journal::{Reader, Segments, Writer, WriterConfig, recover};
use crate::sources::Origin;
use crate::sources::file::Mark;

const START: Now = Now { wall_ms: 1_800_000_000_000, mono_ns: 0, trusted: true };
const SIZES: WriterConfig =
    WriterConfig { segment_bytes: 8192, budget_bytes: 0, retain_bytes: 1 << 40, reserve_bytes: 0 };

struct Way {
    partitions: u32,
    /// Lines of a message, and messages of a batch.
    lines: usize,
    messages: usize,
    /// Killed after so many batches; 0 for never.
    kill_every: usize,
}

struct Case {
    decoder: Decoder,
    rules: String,
    header: String,
    lines: Vec<String>,
}

struct Edge {
    dir: PathBuf,
    starts: u8,
    writer: Writer,
    segments: Segments,
    reader: Reader,
    driver: Driver,
    store: Store,
    standing: u64,
    made: Vec<Made>,
}

impl Edge {
    fn start(dir: &Path, starts: u8, way: &Way, rules: &str) -> Self {
        let segments = Segments::open(dir).unwrap();
        let mut found = recover(&segments).unwrap();
        let (store, state) = Store::open(&dir.join("windows")).unwrap();
        let state = state.state;
        found.begin_min = found.begin_min.max(state.as_ref().map_or(0, |state| state.position));
        found.controls.topics.get_or_insert([way.partitions; Sent::ALL.len()]);
        let standing = found.controls.results;
        let begun = found.controls.rules.is_some();
        let opening = Opening { stream: StreamId([starts; 16]), boot: [9; 16], now: START };
        let mut writer = Writer::open(segments.clone(), SIZES, opening, found).unwrap();
        if !begun {
            writer.rules(rules, START);
        }
        let position = state.as_ref().map_or(0, |state| state.position);
        let driver = state.map_or_else(Driver::default, |state| Driver::restore(state).unwrap());
        let reader = Reader::new(segments.clone(), position);
        let (dir, made) = (dir.to_owned(), Vec::new());
        Self { dir, starts, writer, segments, reader, driver, store, standing, made }
    }

    fn append(&mut self, decoder: &Decoder, payload: &str, row: u64) {
        let arrived = Now { wall_ms: START.wall_ms + row.cast_signed() * 10, ..START };
        let mark = Mark { file: 1, offset: row, row };
        let origin = Origin::File { format: 0, first_row: row, mark };
        let mut decoded = Vec::new();
        let input = Input { topic: "/golden/input.csv", payload: payload.as_bytes(), arrived, origin };
        decoder.decode(&input, |d| decoded.push(d));
        let head = FrameHead { session: 0, packet: 0, digest: 0, arrived };
        let mut records = Vec::new();
        for decoded in &decoded {
            let (kind, key, value) = match decoded {
                Decoded::Reading(r) => (Sent::Reading, &r.device, &r.value),
                Decoded::Rejection(r) => (Sent::Rejection, &r.key, &r.value),
                Decoded::Filtered => continue,
            };
            let place = self.writer.place(kind, key.as_bytes()).unwrap();
            records.push(Record::Sent { place, closing: false, key: key.as_bytes(), value });
        }
        self.writer.message(&head, records.into_iter());
    }

    /// Commits, and takes in what is durable; results are journaled as the edge does it.
    fn commit(&mut self) {
        self.writer.commit(Urgency::Data).unwrap();
        loop {
            let durable = self.writer.durable().load(Ordering::Acquire);
            let Some(step) = self.reader.next(durable).unwrap() else { break };
            let Step::Batch(batch) = step else { continue };
            let end = batch.end();
            let Done::Made(made) = self.driver.batch(&batch, &Clocks::default()) else {
                panic!("times are known")
            };
            if made.is_empty() || end <= self.standing {
                continue;
            }
            let mut records = Vec::new();
            for (kind, key, value) in &made {
                let place = self.writer.place(*kind, key).unwrap();
                records.push(Record::Sent { place, closing: false, key, value });
            }
            self.writer.results(records.into_iter(), end, START);
            self.writer.commit(Urgency::Data).unwrap();
            self.standing = end;
            self.made.extend(made);
        }
    }

    fn save(&mut self, image: bool) {
        let (stream, rules) = (self.driver.stream(), self.driver.rules().to_owned());
        let position = self.reader.position();
        let changed = self.driver.changed();
        self.store.save(position, stream, &rules, changed, false).unwrap();
        if image {
            let state = State { position, stream, rules, entries: self.driver.all() };
            self.store.write_image(&state).unwrap();
        }
    }

    /// As after kill -9; every third time without sled, every fifth without any state.
    fn kill(self, way: &Way, rules: &str) -> Self {
        let Self { dir, starts, made, store, writer, segments, reader, .. } = self;
        drop((store, writer, segments, reader));
        if starts.is_multiple_of(3) {
            fs::remove_dir_all(dir.join("windows").join("sled")).ok();
        }
        if starts.is_multiple_of(5) {
            fs::remove_dir_all(dir.join("windows")).ok();
        }
        Self { made, ..Self::start(&dir, starts + 1, way, rules) }
    }
}

fn run(name: &str, case: &Case, way: &Way) -> String {
    let dir =
        std::env::temp_dir().join(format!("weir-golden-{name}-{}-{}", way.kill_every, std::process::id()));
    fs::remove_dir_all(&dir).ok();
    let mut edge = Edge::start(&dir, 1, way, &case.rules);
    for (batch, lines) in case.lines.chunks(way.lines * way.messages).enumerate() {
        for (message, lines) in lines.chunks(way.lines).enumerate() {
            let row = batch * way.lines * way.messages + message * way.lines + 1;
            let payload = format!("{}\n{}", case.header, lines.join("\n"));
            edge.append(&case.decoder, &payload, row as u64);
        }
        edge.commit();
        if way.kill_every > 0 && (batch + 1) % way.kill_every == 0 {
            if batch % 2 == 0 {
                edge.save(batch % 3 == 0);
            }
            edge = edge.kill(way, &case.rules);
            edge.commit();
        }
    }
    let made = std::mem::take(&mut edge.made);
    drop(edge);
    fs::remove_dir_all(&dir).ok();
    let mut out = String::new();
    for (kind, key, value) in made {
        let (key, value) = (String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap());
        out += &format!("{}\t{key}\t{}\n", kind.topic(), without_arrival(&value));
    }
    out
}

/// Chunks arrive at other times when they are of other sizes.
fn without_arrival(value: &str) -> String {
    match value.split_once(",\"received\":") {
        Some((before, after)) => {
            format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => value.to_owned(),
    }
}

#[test]
fn golden_cases_come_out_the_same_three_ways() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 4, "{cases:?}");
    for dir in cases {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(dir.join("edge.toml")).unwrap();
        let config =
            config::check("edge.toml", &text).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        let input = fs::read_to_string(dir.join("input.csv")).unwrap();
        let mut lines = input.lines().map(str::to_owned);
        let header = lines.next().unwrap();
        let rules = rules::text(&config.rules, "default");
        let case = Case { decoder: config.decoder, rules, header, lines: lines.collect() };
        let straight = Way { partitions: 4, lines: 20, messages: 5, kill_every: 0 };
        let came = run(&name, &case, &straight);
        if std::env::var_os("WEIR_GOLDEN").is_some() {
            fs::write(dir.join("expected.tsv"), &came).unwrap();
        }
        let expected = fs::read_to_string(dir.join("expected.tsv")).unwrap();
        assert!(expected.lines().count() >= 5, "{name}: nothing to compare");
        assert_eq!(came, expected, "{name}, straight through");
        let killed = Way { kill_every: 2, messages: 1, ..straight };
        assert_eq!(run(&name, &case, &killed), expected, "{name}, killed and restored");
        let other = Way { partitions: 7, lines: 1, messages: 3, ..straight };
        assert_eq!(run(&name, &case, &other), expected, "{name}, other batches and partitions");
    }
}

#[test]
fn state_that_cannot_be_read_is_replaced_as_a_whole() {
    let dir = std::env::temp_dir().join(format!("weir-unreadable-{}", std::process::id()));
    fs::remove_dir_all(&dir).ok();
    let state = dir.join("windows");
    let (store, _) = Store::open(&state).unwrap();
    let stale = vec![(b"stale".to_vec(), Some(b"x".to_vec()))];
    store.save(10, StreamId([1; 16]), "no rules", stale, false).unwrap();
    store.close();
    let segments = Segments::open(&dir).unwrap();
    let found = super::open(&state, &mut recover(&segments).unwrap()).unwrap();
    assert!(found.in_sled && found.state.clone().is_some_and(|state| Driver::restore(state).is_err()));
    let (events, wake) = (flume::bounded(1).0, flume::bounded(1).1);
    let (durable, connected, shared) = (Arc::default(), Arc::default(), Shared::default());
    let wiring = Wiring {
        lane: 0,
        flow: String::new(),
        events,
        wake,
        durable,
        segments,
        clocks: Clocks::default(),
        connected,
        shared,
        pulse: weir_shared::pulse::Pulse::default(),
    };
    let mut windows = Windows::new(found, wiring, 0, 0);
    windows.saved -= SAVE;
    windows.save();
    let entries = windows.driver.all();
    windows.store.close();
    let (_, found) = Store::open(&state).unwrap();
    fs::remove_dir_all(&dir).ok();
    assert_eq!(found.state.unwrap().entries, entries);
}
