//! What goes is in a result or told as dropped, exactly.

use std::path::PathBuf;

use weir_shared::clock::Now;

use super::*;
use crate::journal::format::FrameHead;
use crate::journal::writer::{Opening, Urgency};
use crate::journal::{Writer, WriterConfig, recover};

const NOW: Now = Now { wall_ms: 1_790_000_000_042, mono_ns: 0, trusted: true };
const YEAR_MS: i64 = 31_557_600_000;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Rolls up a segment of readings of one device with these times.
fn rolled_up(name: &str, times: &[i64]) -> (RolledUp, GivenUp) {
    let dir = std::env::temp_dir().join(format!("weir-roll-up-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&dir).ok();
    let folder = Folder(dir);
    let segments = Segments::open(&folder.0).unwrap();
    let recovered = recover(&segments).unwrap();
    let config =
        WriterConfig { segment_bytes: 65_536, budget_bytes: 0, retain_bytes: 0, reserve_bytes: 1 << 20 };
    let opening = Opening { stream: StreamId([7; 16]), boot: [9; 16], now: NOW };
    let mut writer = Writer::open(segments.clone(), config, opening, recovered).unwrap();
    writer.topics([1; Sent::ALL.len()], NOW);
    let mut number = 0;
    // The second segment is what keeps the first from being the newest.
    while segments.bases().len() < 2 {
        let time = times.get(number).copied().unwrap_or(NOW.wall_ms);
        let value = format!(
            r#"{{"device":"d","time":{time},"values":{{"t":{number}}},"tags":{{"pad":"{}"}},"received":1}}"#,
            if number < times.len() { String::new() } else { "x".repeat(60_000) }
        );
        let place = writer.place(Sent::Reading, b"d").unwrap();
        let record = Record::Sent { place, closing: false, key: b"d", value: value.as_bytes() };
        let head = FrameHead { session: 1, packet: 0, digest: number as u128, arrived: NOW };
        writer.message(&head, std::iter::once(record));
        writer.commit(Urgency::Data).unwrap();
        number += 1;
    }
    let plan = writer.plan_give_up().unwrap().unwrap();
    (roll_up(&plan, 60_000, &segments).unwrap(), plan)
}

fn told(rolled: &RolledUp) -> Vec<(Why, u64, u64, u64)> {
    let of = |(why, range): &Told| range.map(|r| (*why, r.from, r.to, r.count)).unwrap();
    rolled.told.iter().map(of).collect()
}

/// How many readings the results are made of.
fn counted(rolled: &RolledUp) -> u64 {
    let count =
        |value: &[u8]| serde_json::from_slice::<serde_json::Value>(value).unwrap()["count"].as_u64().unwrap();
    rolled.results.iter().map(|(_, value)| count(value)).sum()
}

#[test]
fn a_reading_that_is_in_no_result_is_told_as_dropped() {
    let now = NOW.wall_ms;
    let (rolled, plan) =
        rolled_up("late", &[now, now - 9 * YEAR_MS, now - 11 * YEAR_MS, now - 12 * YEAR_MS, now + 1]);
    let last = plan.ranges[0].to;
    let why = (Why::RolledUp, Why::Dropped);
    assert_eq!(told(&rolled), [(why.0, 0, 1, 2), (why.1, 2, 3, 2), (why.0, 4, last, last - 3)]);
    assert_eq!(rolled.told[1].1.unwrap().times, Some((now - 12 * YEAR_MS, now - 11 * YEAR_MS)));
    assert_eq!(counted(&rolled), plan.ranges[0].count - 2, "the books balance");
    assert!(counted(&rolled) > 0);
}

#[test]
fn where_they_lie_too_scattered_all_are_dropped() {
    let now = NOW.wall_ms;
    let times: Vec<i64> = (0..400).map(|i| if i % 2 == 0 { now } else { now - 11 * YEAR_MS }).collect();
    let (rolled, _) = rolled_up("scattered", &times);
    assert_eq!((rolled.results.len(), rolled.told.len()), (0, 0));
}
