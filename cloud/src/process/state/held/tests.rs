//! When readings are looked at, and what a cycle leaves in the changelog.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { ms: 1_000, records_max: 3, bytes_max: 1 << 20 };

fn reading(device: &str, offset: i64, at: i64) -> HeldReading {
    HeldReading {
        device: device.into(),
        offset,
        at,
        timestamp_ms: 0,
        stream: StreamId([1; 16]),
        number: offset.unsigned_abs(),
        edge: "e".into(),
        backlog: false,
        body: "{}".into(),
    }
}

/// Offsets and reasons of what is due, and how many were looked at.
fn due(held: &mut Held, tables: &Arc<Snapshot>, now: i64, lacking: &[i64]) -> (Vec<(i64, Why)>, usize) {
    let mut looked = 0;
    let due = held.due(tables, now, &LIMITS, |reading| {
        looked += 1;
        lacking.contains(&reading.offset)
    });
    (due.into_iter().map(|(reading, why)| (reading.offset, why)).collect(), looked)
}

#[test]
fn looked_at_only_when_tables_changed_or_a_time_is_over() {
    let (mut held, tables) = (Held::default(), Arc::new(Snapshot::default()));
    for (device, offset, at) in [("a", 1, 5_000), ("b", 2, 5_100), ("a", 3, 5_200), ("b", 4, 5_900)] {
        held.hold(reading(device, offset, at));
    }
    assert!(held.has("a") && held.has("b") && !held.has("c"));
    let all = [1, 2, 3, 4];
    assert_eq!(due(&mut held, &tables, 5_900, &all), (vec![], 2), "new to it: the head of each device");
    assert_eq!(due(&mut held, &tables, 5_999, &[]), (vec![], 0), "the same tables");
    let other = Arc::new(Snapshot::default());
    assert_eq!(due(&mut held, &other, 5_950, &[]), (vec![], 0), "too soon after the last look");
    // What is late goes, and what needed to wait only for it; the others stay in order.
    assert_eq!(due(&mut held, &tables, 6_000, &[1, 2, 4]), (vec![(1, Why::Time), (3, Why::Joined)], 2));
    assert_eq!(due(&mut held, &tables, 6_000, &all), (vec![(1, Why::Time)], 2));
    assert_eq!(due(&mut held, &other, 6_000, &[4]).0, [(1, Why::Joined), (3, Why::Joined), (2, Why::Joined)]);
    // A look whose cycle was aborted did not happen.
    held.abort();
    held.hold(reading("a", 1, 6_000));
    assert_eq!(due(&mut held, &other, 6_000, &[]), (vec![(1, Why::Joined)], 1));
    assert_eq!(due(&mut held, &other, 5_000, &[1]), (vec![(1, Why::Time)], 1), "the clock was set back");
}

#[test]
fn much_goes_in_parts() {
    let (mut held, tables) = (Held::default(), Arc::new(Snapshot::default()));
    let last = RELEASE_RECORDS_MAX as i64 + 10;
    (1..=last).for_each(|offset| held.hold(reading(&format!("d{}", offset % 7), offset, 0)));
    let first = held.due(&tables, 500, &LIMITS, |_| false);
    assert_eq!(first.len(), RELEASE_RECORDS_MAX);
    first.iter().for_each(|(reading, _)| held.release(reading));
    let rest = held.due(&tables, 501, &LIMITS, |_| false);
    assert_eq!(rest.len(), 10, "looked at again with the next cycle");
}

#[test]
fn room_is_counted_in_records_and_bytes() {
    let mut held = Held::default();
    let one = reading("a", 1, 0);
    let bytes = Limits { bytes_max: one.bytes() * 2, ..LIMITS };
    for offset in 1..=3 {
        assert!(held.has_room(&one, &LIMITS) && held.has_room(&one, &bytes) == (offset < 3));
        held.hold(reading(if offset == 2 { "b" } else { "a" }, offset, 0));
    }
    assert!(!held.has_room(&one, &LIMITS));
    let oldest: Vec<_> = held.oldest().iter().map(|reading| reading.offset).collect();
    assert_eq!(oldest, [1, 3]);
    held.oldest().iter().for_each(|reading| held.release(reading));
    assert!(held.has_room(&one, &bytes) && held.len() == 1 && !held.has("a"));
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u8),
    Release(usize),
    Commit,
    Abort,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3).prop_map(Step::Hold),
        5 => (0usize..9).prop_map(Step::Release),
        3 => Just(Step::Commit),
        2 => Just(Step::Abort),
        1 => Just(Step::Restart),
    ]
}

/// Everything that can be seen of it, as text.
fn shown(held: &Held) -> String {
    let all = held.heads.values().flat_map(|device| held.of(device)).map(|reading| reading.offset);
    format!("{:?} {:?} {} {}", held.heads, all.collect::<Vec<_>>(), held.records, held.bytes)
}

proptest! {
    /// After an abort it is as it was after the last commit; a restart reads back the same from what was staged.
    #[test]
    fn only_what_is_committed_stays(steps in prop::collection::vec(step(), 0..80)) {
        let (mut held, mut offset) = (Held::default(), 0);
        let mut changelog = BTreeMap::new();
        let mut committed = shown(&held);
        for step in steps {
            match step {
                Step::Hold(device) => {
                    offset += 1;
                    held.hold(reading(&device.to_string(), offset, 0));
                }
                Step::Release(n) => {
                    let oldest = held.oldest();
                    if let Some(reading) = oldest.get(n) { held.release(reading) }
                }
                Step::Commit => {
                    for (device, offset, reading) in held.staged() {
                        changelog.insert((device.to_owned(), offset), reading.cloned());
                    }
                    held.commit();
                    prop_assert_eq!(held.staged().count(), 0);
                    committed = shown(&held);
                }
                Step::Abort => held.abort(),
                Step::Restart => {
                    held = Held::default();
                    for ((device, offset), reading) in &changelog {
                        held.restore(device, *offset, reading.clone());
                    }
                }
            }
            if held.changed.is_empty() {
                prop_assert_eq!(&shown(&held), &committed);
            }
        }
    }
}
