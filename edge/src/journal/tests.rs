//! The journal on a real folder: golden bytes, cuts at every byte, damage, restarts, and what is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use weir_shared::clock::Now;
use weir_shared::record::StreamId;

use super::format::{self, Acknowledged, Cursor, FrameHead, Place, Record, Sent};
use super::writer::Opening;
use super::*;

const NOW: Now = Now { wall_ms: 1_790_000_000_042, mono_ns: 0x1234_5678_0000, trusted: true };

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

fn open(dir: &Path, stream: u8, segment_bytes: u64) -> (Writer, Segments) {
    let segments = Segments::open(dir).unwrap();
    let recovered = recover(&segments).unwrap();
    let opening = Opening { stream: StreamId([stream; 16]), boot: [9; 16], now: NOW };
    (Writer::open(segments.clone(), segment_bytes, opening, recovered).unwrap(), segments)
}

fn append(writer: &mut Writer, number: u64, value: &str) {
    append_in(writer, 7, number, value);
}

fn append_in(writer: &mut Writer, session: u64, number: u64, value: &str) {
    let packet = u16::try_from(number + 1).unwrap();
    let head = FrameHead { session, packet, digest: u128::from(number), arrived: NOW };
    let place = Place { kind: Sent::Reading, partition: 2, number };
    writer.message(&head, std::iter::once(Record::Sent { place, key: b"dev", value: value.as_bytes() }));
}

/// All values that stand in the journal from `position` on.
fn values(segments: &Segments, position: u64, durable: u64) -> Result<Vec<String>, Error> {
    let mut reader = Reader::new(segments.clone(), position);
    let mut values = Vec::new();
    while let Some(batch) = reader.next(durable)? {
        for frame in batch.frames() {
            for record in frame.records() {
                if let Record::Sent { value, .. } = record {
                    values.push(String::from_utf8(value.to_vec()).unwrap());
                }
            }
        }
    }
    Ok(values)
}

fn all(dir: &Path, stream: u8) -> Vec<String> {
    let (writer, segments) = open(dir, stream, 4096);
    values(&segments, 0, writer.durable().load(Ordering::Relaxed)).unwrap()
}

fn newest(dir: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.pop().unwrap()
}

/// Version 1, byte for byte: whoever changes this breaks every gateway in the field.
#[test]
fn golden_bytes() {
    let folder = Folder::new("golden");
    let (mut writer, _) = open(&folder.0, 0xab, 1024);
    writer.topics([4, 1], NOW);
    writer.session(7, 0x55, NOW);
    append(&mut writer, 3, "{\"t\":1}");
    writer.cursor(
        Cursor {
            position: 5,
            prefixes: vec![Acknowledged {
                stream: StreamId([1; 16]),
                next: Place { kind: Sent::Rejection, partition: 6, number: 258 },
            }],
        },
        NOW,
    );
    writer.commit().unwrap();
    let bytes = fs::read(newest(&folder.0)).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex.trim_end_matches('0'),
        include_str!("golden-v1.hex").replace(['\n', ' '], "").trim_end_matches('0')
    );
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
            writer.commit().unwrap();
        }
    }
    assert!(fs::read_dir(&folder.0).unwrap().count() > 10);
    assert_eq!(all(&folder.0, 9), wanted);
}

/// The newest segment cut (or zeroed) at every byte: what was durable below stays, the torn batch goes, and the next
/// start appends behind it.
#[test]
fn cut_at_every_byte_of_the_last_batches() {
    let folder = Folder::new("cut");
    let (mut writer, _) = open(&folder.0, 1, 4096);
    let mut ends = Vec::new();
    for i in 0..4 {
        append(&mut writer, i, &format!("value-{i}"));
        writer.commit().unwrap();
        ends.push(
            format::SEGMENT_HEADER + usize::try_from(writer.durable().load(Ordering::Relaxed)).unwrap(),
        );
    }
    drop(writer);
    let file = newest(&folder.0);
    let whole = fs::read(&file).unwrap();
    for zeroed in [false, true] {
        for cut in ends[0]..=ends[3] {
            let copy = Folder::new("cut-copy");
            fs::create_dir_all(&copy.0).unwrap();
            let mut bytes = whole[..cut].to_vec();
            if zeroed {
                bytes.resize(whole.len(), 0);
            }
            fs::write(copy.0.join(file.file_name().unwrap()), bytes).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count();
            let (mut writer, segments) = open(&copy.0, 2, 4096);
            append(&mut writer, 0, "after");
            writer.commit().unwrap();
            let mut wanted: Vec<_> = (0..kept).map(|i| format!("value-{i}")).collect();
            wanted.push("after".to_owned());
            let durable = writer.durable().load(Ordering::Relaxed);
            assert_eq!(values(&segments, 0, durable).unwrap(), wanted, "cut at {cut}");
            drop(writer);
            assert_eq!(all(&copy.0, 3), wanted, "cut at {cut}, second start");
        }
    }
}

#[test]
fn a_flipped_bit_below_the_durable_position_is_refused_and_above_it_is_cut() {
    let folder = Folder::new("flip");
    let (mut writer, _) = open(&folder.0, 1, 4096);
    let mut ends = Vec::new();
    for i in 0..3 {
        append(&mut writer, i, &format!("value-{i}"));
        writer.commit().unwrap();
        ends.push(
            format::SEGMENT_HEADER + usize::try_from(writer.durable().load(Ordering::Relaxed)).unwrap(),
        );
    }
    drop(writer);
    let file = newest(&folder.0);
    let whole = fs::read(&file).unwrap();
    for at in format::SEGMENT_HEADER..ends[2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        let segments = Segments::open(&folder.0).unwrap();
        let found = recover(&segments);
        // The third batch says that the first two were durable; nothing vouches for the third.
        if at < ends[1] {
            assert!(matches!(found, Err(Error::Damaged { .. })), "at {at}: {found:?}");
        } else {
            assert!(found.unwrap().torn_bytes > 0, "at {at}");
        }
    }
}

#[test]
fn what_a_start_finds() {
    let folder = Folder::new("finds");
    let (mut writer, segments) = open(&folder.0, 1, 700);
    writer.topics([4, 2], NOW);
    writer.session(6, 1, NOW);
    append_in(&mut writer, 6, 0, "of another session");
    writer.session(7, 2, NOW);
    let mut proven = 0;
    for i in 0..30 {
        append(&mut writer, i, "some value");
        writer.commit().unwrap();
        proven = if i == 19 { writer.position() } else { proven };
    }
    let cursor = Cursor { position: 40, prefixes: vec![] };
    writer.cursor(cursor.clone(), NOW);
    writer.proven(proven, NOW);
    writer.commit().unwrap();
    let durable = writer.durable().load(Ordering::Relaxed);
    drop(writer);
    let found = recover(&segments).unwrap();
    assert_eq!(found.session, Some((7, 2)));
    assert_eq!(found.topics, Some([4, 2]));
    assert_eq!(found.cursor, cursor);
    assert_eq!(found.proven, proven);
    let packets: Vec<_> = found.messages.iter().map(|head| head.packet).collect();
    assert_eq!(packets, (21..=30).collect::<Vec<u16>>());
    assert_eq!(
        found.durable + found.tail.len() as u64,
        durable,
        "the last batch may not be fsynced: it is the tail"
    );
    assert!(!found.tail.is_empty());
    assert!(found.read.len() < segments.bases().len(), "older segments are not read");
}

#[test]
fn segments_go_when_acknowledged_and_not_before() {
    let folder = Folder::new("reclaim");
    let (mut writer, segments) = open(&folder.0, 1, 400);
    for i in 0..20 {
        append(&mut writer, i, &"v".repeat(100));
        writer.commit().unwrap();
    }
    let full = segments.bases().len();
    assert!(full > 5);
    let middle = segments.bases()[full / 2];
    writer.cursor(Cursor { position: middle, prefixes: vec![] }, NOW);
    writer.commit().unwrap();
    assert_eq!(segments.bases()[0], 0, "a source may still send these messages again");
    writer.proven(writer.position(), NOW);
    writer.commit().unwrap();
    assert_eq!(segments.bases()[0], middle);
    let durable = writer.durable().load(Ordering::Relaxed);
    writer.cursor(Cursor { position: durable, prefixes: vec![] }, NOW);
    writer.commit().unwrap();
    assert!(segments.bases().len() <= 2, "all but the newest, and one that the cursor's own batch began");
}

#[test]
fn a_later_version_and_a_foreign_file_are_refused_with_their_names() {
    let folder = Folder::new("version");
    drop(open(&folder.0, 1, 400));
    let file = newest(&folder.0);
    let mut header = format::segment_header(0);
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, header).unwrap();
    assert!(matches!(Segments::open(&folder.0), Err(Error::Version { version: 2, .. })));
    fs::write(&file, b"something else entirely").unwrap();
    assert!(matches!(Segments::open(&folder.0), Err(Error::Damaged { .. })));
}
