//! Damage of every kind: a start succeeds, every intact batch comes out in order, nothing is altered.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::faults::Faults;
use super::*;
use crate::journal::disk::Disk;
use crate::journal::reader::Why;

/// Opens a folder without waiting for real fsyncs.
fn open_fast(folder: &Folder, stream: u8) -> (Writer, Segments, u64) {
    let disk = Disk::with(Faults::new(&folder.0.join("side")));
    let segments = Segments::open_on(&folder.0, disk).unwrap();
    let recovered = recover(&segments).unwrap();
    let seen = recovered.torn_bytes + recovered.damage.len() as u64;
    (Writer::open(segments.clone(), config(600), opening(stream), recovered).unwrap(), segments, seen)
}

/// Several segments, and where each value stands: file, first and last byte.
fn journal(folder: &Folder) -> Vec<(String, PathBuf, std::ops::Range<usize>)> {
    let (mut writer, segments, _) = open_fast(folder, 1);
    let mut stands = Vec::new();
    for i in 0..7 {
        let value = format!("value-{i}");
        append(&mut writer, i, &value);
        commit(&mut writer);
        let (base, _) = segments.holding(writer.position() - 1).unwrap();
        let end = usize::try_from(writer.position() - base).unwrap() + format::SEGMENT_HEADER;
        let length = format::BATCH_HEADER + format::FRAME_HEADER + 5 + 12 + 2 + 3 + value.len();
        stands.push((value, segments.path(base), end - length..end));
    }
    stands
}

/// Opens twice, and gives back what came out each time, whether damage was seen, and where the journal ended.
fn twice(folder: &Folder) -> (Vec<String>, bool, u64) {
    let (writer, segments, seen) = open_fast(folder, 2);
    let end = writer.position();
    let (first, skipped) = values(&segments, 0, end);
    drop(writer);
    let (writer, segments, _) = open_fast(folder, 3);
    assert_eq!(values(&segments, 0, writer.position()).0, first, "a second start");
    (first, seen > 0 || !skipped.is_empty() || set_aside(folder) > 0, end)
}

#[test]
fn every_byte_flipped_zeroed_or_cut() {
    let folder = Folder::new("damage");
    let stands = journal(&folder);
    let sources: Vec<_> = files(&folder.0).iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect();
    assert!(sources.len() > 2);
    for (file, whole) in &sources {
        let used = stands.iter().filter(|s| s.1 == *file).map(|s| s.2.end).max().unwrap();
        for at in 0..used {
            for mode in 0..3 {
                let mut bytes = whole.clone();
                let hit = match mode {
                    0 => at..at + 1,
                    1 => at..(at + 64).min(bytes.len()),
                    _ => at..bytes.len(),
                };
                match mode {
                    0 => bytes[at] ^= 0x10,
                    1 => bytes[hit.clone()].fill(0),
                    _ => bytes.truncate(at),
                }
                let copy = Folder::new("damage-copy");
                fs::create_dir_all(&copy.0).unwrap();
                for (source, content) in &sources {
                    let content = if source == file { &bytes } else { content };
                    fs::write(copy.0.join(source.file_name().unwrap()), content).unwrap();
                }
                let (found, seen, _) = twice(&copy);
                let intact = |s: &&(String, PathBuf, std::ops::Range<usize>)| {
                    s.1 != *file
                        || s.2.end <= hit.start
                        || s.2.start >= hit.end
                        || bytes.get(s.2.clone()) == whole.get(s.2.clone())
                };
                let wanted: Vec<_> = stands.iter().filter(intact).map(|s| s.0.clone()).collect();
                assert_eq!(found, wanted, "{file:?} at {at}, mode {mode}");
                let last =
                    mode == 2 && stands.iter().any(|s| s.1 == *file && s.2.start == at && s.2.end == used);
                assert!(
                    wanted.len() == stands.len() || seen || last,
                    "{file:?} at {at}, mode {mode}: not told"
                );
            }
        }
    }
}

#[test]
fn a_missing_segment_is_skipped() {
    let folder = Folder::new("missing");
    let stands = journal(&folder);
    let gone = &files(&folder.0)[1];
    fs::remove_file(gone).unwrap();
    let wanted: Vec<_> = stands.iter().filter(|s| s.1 != *gone).map(|s| s.0.clone()).collect();
    let (found, seen, _) = twice(&folder);
    assert_eq!((found, seen), (wanted, true));
    let (_, segments, _) = open_fast(&folder, 4);
    let mut reader = Reader::new(segments, 0);
    let mut whys = Vec::new();
    while let Some(step) = reader.next(u64::MAX).unwrap() {
        let Step::Skipped { why, to, .. } = step else { continue };
        if to == u64::MAX {
            break;
        }
        whys.push(why);
    }
    assert_eq!(whys, [Why::Missing]);
}

#[test]
fn positions_of_a_lost_newest_segment_are_not_given_out_again() {
    for garbage in [&b"no segment"[..], &[0; 24], &[]] {
        let folder = Folder::new("lost");
        let stands = journal(&folder);
        let (mut writer, ..) = open_fast(&folder, 2);
        append(&mut writer, 7, "lost");
        commit(&mut writer);
        let end = writer.position();
        drop(writer);
        let lost = newest(&folder.0);
        let mut bytes = fs::read(&lost).unwrap();
        bytes[..garbage.len()].copy_from_slice(garbage);
        bytes[format::SEGMENT_HEADER..].fill(0);
        fs::write(&lost, bytes).unwrap();
        let (found, _, begun) = twice(&folder);
        assert!(begun >= end, "{begun} {end}");
        let wanted: Vec<_> = stands.iter().filter(|s| s.1 != lost).map(|s| s.0.clone()).collect();
        assert_eq!(found, wanted);
        assert_eq!(set_aside(&folder), 1);
    }
}

fn set_aside(folder: &Folder) -> usize {
    fs::read_dir(folder.0.join("set-aside")).map_or(0, Iterator::count)
}

#[test]
fn what_is_no_segment_is_set_aside_and_not_too_much_of_it() {
    let folder = Folder::new("aside");
    let stands = journal(&folder);
    let wanted: Vec<_> = stands.into_iter().map(|s| s.0).collect();
    let first = files(&folder.0)[0].clone();
    for n in 0..12 {
        fs::copy(&first, folder.0.join(format!("copy-{n}.wj"))).unwrap();
    }
    fs::write(folder.0.join("0000.wj"), b"foreign").unwrap();
    fs::write(folder.0.join("other.txt"), b"foreign").unwrap();
    fs::create_dir(folder.0.join("folder.wj")).unwrap();
    fs::write(folder.0.join("00000000000000099999.new"), b"half").unwrap();
    assert_eq!(twice(&folder).0, wanted);
    assert_eq!(set_aside(&folder), 8);
    assert!(folder.0.join("other.txt").exists() && !folder.0.join("00000000000000099999.new").exists());
}

#[test]
fn a_damaged_segment_is_set_aside_when_its_time_comes() {
    let folder = Folder::new("damaged-goes");
    let stands = journal(&folder);
    let mut bytes = fs::read(&stands[0].1).unwrap();
    bytes[stands[0].2.start] ^= 1;
    fs::write(&stands[0].1, bytes).unwrap();
    let (mut writer, segments, _) = open_fast(&folder, 2);
    let (_, skipped) = values(&segments, 0, writer.position());
    assert_eq!(skipped.len(), 1);
    let position = writer.position();
    writer.proven(position, NOW);
    writer.cursor(Cursor { position, prefixes: vec![] }, NOW);
    commit(&mut writer);
    assert!(!stands[0].1.exists() && segments.bases()[0] > 0);
    assert_eq!(set_aside(&folder), 1, "the others are removed");
}

#[test]
fn a_later_version_is_refused_with_its_name() {
    let folder = Folder::new("version");
    drop(open(&folder.0, 1, 400));
    let file = newest(&folder.0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(Segments::open(&folder.0), Err(Error::Version { version: 2, .. })));
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn what_a_newest_segment_lost_comes_from_older_ones() {
    let folder = Folder::new("snapshot");
    let (mut writer, segments, _) = open_fast(&folder, 1);
    writer.topics(TOPICS, NOW);
    writer.session(7, 3, NOW);
    for i in 0..9 {
        append(&mut writer, i, "value");
        commit(&mut writer);
    }
    writer.proven(5, NOW);
    commit(&mut writer);
    let controls = writer.controls().clone();
    drop(writer);
    assert!(segments.bases().len() > 2);
    let mut bytes = fs::read(newest(&folder.0)).unwrap();
    bytes[format::SEGMENT_HEADER + 60] ^= 1;
    fs::write(newest(&folder.0), bytes).unwrap();
    let found = recover(&segments).unwrap();
    assert_eq!(found.controls, controls);
    assert_eq!((found.damage.len(), found.messages.len()), (1, 9));
}

proptest! {
    /// Any bytes, and the golden ones with some of them changed.
    #[test]
    fn any_bytes_are_read_without_a_panic(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        crate::journal::fuzz(&noise);
        let hex = include_str!("../golden-v1.hex").replace(['\n', ' '], "");
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        let mut bytes: Vec<_> = (0..hex.len() / 2).map(byte).collect();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        crate::journal::fuzz(&bytes);
        bytes.extend_from_slice(&noise);
        crate::journal::fuzz(&bytes);
    }
}

/// Records of every kind survive being read one by one from any damaged batch: kinds that are not known are skipped.
#[test]
fn truncated_records_are_unknown() {
    let mut kinds = BTreeSet::new();
    for kind in 0..=255u8 {
        for length in 0..40 {
            let mut frame = Vec::new();
            let head = FrameHead { session: 0, packet: 0, digest: 0, arrived: NOW };
            let start = format::begin_frame(&mut frame, &head);
            frame.push(kind);
            frame.extend_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            frame.resize(frame.len() + length, 0);
            format::end_frame(&mut frame, start, 1, true);
            let records: Vec<_> = format::frames(&frame).flat_map(|f| f.records()).collect();
            assert_eq!(records.len(), 1);
            if records[0] != Record::Unknown {
                kinds.insert(kind);
            }
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7, 8, 17, 18, 19, 21, 23]);
}
