//! The journal on a real folder: golden bytes, order, restarts, and what is kept.

use std::fs;
use std::path::{Path, PathBuf};

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::controls::Controls;
use super::format::{self, Acknowledged, Correction, Cursor, FileMark, FrameHead, Place, Record, Sent};
use super::reader::Step;
use super::writer::{Opening, Urgency};
use super::*;

mod damage;
pub(crate) mod faults;
mod full;
mod model;

const NOW: Now = Now { wall_ms: 1_790_000_000_042, mono_ns: 0x1234_5678_0000, trusted: true };
const TOPICS: format::Partitions = [4, 2, 1, 1, 1];

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("weir-journal-{name}-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        Self(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn config(segment_bytes: u64) -> WriterConfig {
    WriterConfig { segment_bytes, budget_bytes: 0, retain_bytes: 0, reserve_bytes: 0 }
}

fn opening(stream: u8) -> Opening {
    Opening { stream: StreamId([stream; 16]), boot: [9; 16], now: NOW }
}

fn open(dir: &Path, stream: u8, segment_bytes: u64) -> (Writer, Segments) {
    let segments = Segments::open(dir).unwrap();
    let recovered = recover(&segments).unwrap();
    (Writer::open(segments.clone(), config(segment_bytes), opening(stream), recovered).unwrap(), segments)
}

fn append(writer: &mut Writer, number: u64, value: &str) {
    append_in(writer, 7, number, value);
}

fn append_in(writer: &mut Writer, session: u64, number: u64, value: &str) {
    let packet = u16::try_from(number + 1).unwrap();
    let head = FrameHead { session, packet, digest: u128::from(number), arrived: NOW };
    let place = Place { kind: Sent::Reading, partition: 2, number };
    let record = Record::Sent { place, closing: false, key: b"dev", value: value.as_bytes() };
    writer.message(&head, std::iter::once(record));
}

fn commit(writer: &mut Writer) {
    writer.commit(Urgency::Data).unwrap();
}

/// All values that stand in the journal from `position` on, and what was skipped between them.
fn values(segments: &Segments, position: u64, durable: u64) -> (Vec<String>, Vec<(u64, u64)>) {
    let mut reader = Reader::new(segments.clone(), position);
    let (mut values, mut skipped) = (Vec::new(), Vec::new());
    loop {
        let from = reader.position();
        let Some(step) = reader.next(durable).unwrap() else { return (values, skipped) };
        match step {
            Step::Skipped { to, .. } => skipped.push((from, to)),
            Step::Batch(batch) => {
                for record in batch.frames().flat_map(|frame| frame.records()) {
                    if let Record::Sent { value, .. } = record {
                        values.push(String::from_utf8(value.to_vec()).unwrap());
                    }
                }
            }
        }
    }
}

fn all(dir: &Path, stream: u8) -> Vec<String> {
    let (writer, segments) = open(dir, stream, 4096);
    let (values, skipped) = values(&segments, 0, writer.position());
    assert_eq!(skipped, []);
    values
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "wj")).collect();
    files.sort();
    files
}

fn newest(dir: &Path) -> PathBuf {
    files(dir).pop().unwrap()
}

/// Version 1, byte for byte: whoever changes this breaks every gateway in the field.
#[test]
fn golden_bytes() {
    let folder = Folder::new("golden");
    let (mut writer, _) = open(&folder.0, 0xab, 2048);
    writer.topics([4, 1, 1, 1, 1], NOW);
    writer.session(7, 0x55, NOW);
    writer.rules("[[window]]", NOW);
    append(&mut writer, 3, "{\"t\":1}");
    let place = |kind, number| Place { kind, partition: 1, number };
    let sent = |kind, number| Record::Sent {
        place: place(kind, number),
        closing: number == 9,
        key: b"k",
        value: b"v",
    };
    let mark = FileMark { file: 0x11, offset: 0x22, rows: 0x33 };
    let records = [
        sent(Sent::Rejection, 1),
        Record::Kept { key: b"k", value: b"v" },
        Record::File(mark),
        sent(Sent::Late, 2),
    ];
    writer.message(&FrameHead { session: 0, packet: 0, digest: 5, arrived: NOW }, records.into_iter());
    writer.tick(NOW);
    writer.resumed(Now { trusted: false, ..NOW });
    writer.clock(Correction { boot: 0x0102_0304, known: true, offset_ms: -2 }, NOW);
    let next = place(Sent::Rejection, 258);
    writer.cursor(
        Cursor { position: 5, prefixes: vec![Acknowledged { stream: StreamId([1; 16]), next }] },
        NOW,
    );
    writer.proven(4, NOW);
    writer.results([sent(Sent::Window, 8)].into_iter(), 6, NOW);
    writer.urgent([sent(Sent::Gap, 9), Record::GivenUp { from: 1, to: 2 }].into_iter(), NOW);
    let mut numbers = vec![0; 0];
    let written = format::Numbers { stream: StreamId([2; 16]), next: vec![next] };
    format::write_record(&mut numbers, &Record::Numbers(written));
    let keys = redelivery::key(0x0102, 0x0a0b_0c0d_0e0f_1011).to_le_bytes();
    format::write_record(&mut numbers, &Record::Seen(format::Seen { below: 3, session: 7, keys: &keys }));
    commit(&mut writer);
    let mut bytes = fs::read(newest(&folder.0)).unwrap();
    bytes.truncate(usize::try_from(writer.position()).unwrap() + format::SEGMENT_HEADER);
    bytes.append(&mut numbers);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let golden = include_str!("golden-v1.hex").replace(['\n', ' '], "");
    assert_eq!(hex, golden);
}

#[test]
fn records_come_back_in_order_over_segments_and_starts() {
    let folder = Folder::new("order");
    let mut wanted = Vec::new();
    for start in 0..3u8 {
        let (mut writer, _) = open(&folder.0, start, 600);
        for i in 0..20u64 {
            let value = format!("{start}-{i}-{}", "x".repeat(usize::try_from(i).unwrap() * 7));
            append(&mut writer, i, &value);
            wanted.push(value);
            commit(&mut writer);
        }
    }
    assert!(files(&folder.0).len() > 10);
    assert_eq!(all(&folder.0, 9), wanted);
}

#[test]
fn what_a_start_finds() {
    let folder = Folder::new("finds");
    let (mut writer, segments) = open(&folder.0, 1, 900);
    writer.topics(TOPICS, NOW);
    writer.session(6, 1, NOW);
    append_in(&mut writer, 6, 0, "of another session");
    writer.session(7, 2, NOW);
    writer.rules("rules", NOW);
    let correction = Correction { boot: 5, known: true, offset_ms: 77 };
    writer.clock(correction, Now { wall_ms: NOW.wall_ms + 5, ..NOW });
    writer.tick(Now { wall_ms: NOW.wall_ms + 9, trusted: false, ..NOW });
    let mark = FileMark { file: 1, offset: 2, rows: 3 };
    writer.message(
        &FrameHead { session: 0, packet: 0, digest: 0, arrived: NOW },
        [Record::File(mark)].into_iter(),
    );
    let mut proven = 0;
    for i in 0..30 {
        append(&mut writer, i, "some value");
        commit(&mut writer);
        proven = if i == 19 { writer.position() } else { proven };
    }
    let cursor = Cursor { position: 40, prefixes: vec![] };
    writer.cursor(cursor.clone(), NOW);
    writer.proven(proven, NOW);
    writer.results(std::iter::empty(), 44, NOW);
    commit(&mut writer);
    let durable = writer.position();
    let written = writer.controls().clone();
    drop(writer);
    let found = recover(&segments).unwrap();
    let Controls { session, topics, rules, corrections, files, results, .. } = &found.controls;
    assert_eq!(found.controls, written);
    assert_eq!((*session, *topics, *results), (Some((7, 2)), Some(TOPICS), 44));
    assert_eq!(
        (rules.as_deref(), &corrections[..], files.get(1)),
        (Some("rules"), &[correction][..], Some(mark))
    );
    assert_eq!((&found.controls.cursor, found.controls.proven), (&cursor, proven));
    let packets: Vec<_> = found.messages.iter().map(|head| head.packet).collect();
    assert_eq!(packets, (21..=30).collect::<Vec<u16>>());
    assert_eq!(found.end(), durable);
    assert!(!found.tail.is_empty(), "the last batch may not be fsynced: it is the tail");
    assert!(found.read.len() < segments.bases().len(), "older segments are not read");
    let next = vec![Place { kind: Sent::Reading, partition: 2, number: 30 }];
    assert_eq!(found.numbers, Some(format::Numbers { stream: StreamId([1; 16]), next }));
    assert_eq!((found.first_position, found.wall_ms_max), (0, Some(NOW.wall_ms)), "of what was read");
}

#[test]
fn segments_go_when_acknowledged_and_not_before() {
    let folder = Folder::new("reclaim");
    let segments = Segments::open(&folder.0).unwrap();
    let config = WriterConfig { retain_bytes: 700, ..config(600) };
    let mut writer = Writer::open(segments.clone(), config, opening(1), Recovered::default()).unwrap();
    for i in 0..20 {
        append(&mut writer, i, &"v".repeat(100));
        commit(&mut writer);
    }
    let bases = segments.bases();
    assert!(bases.len() > 8);
    let middle = bases[bases.len() / 2];
    let cursor = |writer: &mut Writer, position| {
        writer.cursor(Cursor { position, prefixes: vec![] }, NOW);
        commit(writer);
        segments.bases()[0]
    };
    assert_eq!(cursor(&mut writer, middle), 0, "a source may still send these messages again");
    let position = writer.position();
    writer.proven(position, NOW);
    writer.needed_from(bases[2]);
    assert_eq!(cursor(&mut writer, middle), bases[2], "the windows need the rest");
    writer.needed_from(u64::MAX);
    let oldest = cursor(&mut writer, middle);
    assert!(
        oldest < middle && middle - segments.holding(oldest).unwrap().1.unwrap() >= 700 - 600,
        "to be replayed"
    );
    let end = writer.position();
    cursor(&mut writer, end);
    let (_, held) = segments.holding(segments.bases()[0]).unwrap();
    assert!(end - held.unwrap() < 700, "no more than that is kept");
    let before = segments.bases();
    drop(writer);
    let (_writer, again) = open(&folder.0, 2, 600);
    assert_eq!(again.bases()[..before.len()], before, "a start does not know yet what the windows need");
}

#[test]
fn a_stream_opened_in_between_begins_its_own_segment_and_numbers() {
    let folder = Folder::new("stream");
    let (mut writer, segments) = open(&folder.0, 1, 4096);
    writer.topics(TOPICS, NOW);
    let number = |writer: &mut Writer, value: &'static [u8]| {
        let place = writer.place(Sent::Reading, b"dev").unwrap();
        writer.urgent([Record::Sent { place, closing: false, key: b"dev", value }].into_iter(), NOW);
        place.number
    };
    assert_eq!((number(&mut writer, b"a"), number(&mut writer, b"b")), (0, 1));
    let begun = writer.open_stream(StreamId([2; 16]), NOW).unwrap();
    assert_eq!(segments.bases(), [0, begun]);
    assert_eq!((writer.stream(), number(&mut writer, b"c")), (StreamId([2; 16]), 0));
    commit(&mut writer);
    let mut reader = Reader::new(segments.clone(), 0);
    let mut found = Vec::new();
    while let Some(Step::Batch(batch)) = reader.next(writer.position()).unwrap() {
        for record in batch.frames().flat_map(|frame| frame.records()) {
            match record {
                Record::Sent { place, .. } => found.push((batch.stream.0[0], false, place.number)),
                Record::Numbers(numbers) => {
                    found.extend(numbers.next.iter().map(|p| (numbers.stream.0[0], true, p.number)));
                }
                _ => {}
            }
        }
    }
    assert_eq!(found, [(1, false, 0), (1, false, 1), (1, true, 2), (2, false, 0)]);
}
