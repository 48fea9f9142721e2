//! The judge, on streams that were hurt in every way it must see.

use std::collections::HashSet;

use weir_shared::clock;
use weir_shared::record::StreamId;
use weir_shared::wire;

use super::run::{CANARIES_FROM, Run, number_in};
use super::tape::{Gap, Seen, What};
use super::{Verdict, judge, windows};

const STREAM: StreamId = StreamId([7; 16]);

fn run() -> Run {
    let run = Run::new("r1", 1_790_000_000_000, 1000, (1, 2), 4);
    issue(&run, 0..10);
    run
}

fn issue(run: &Run, numbers: std::ops::Range<u64>) {
    numbers.for_each(|number| assert_eq!(run.next(), number));
}

fn seen(topic: &'static str, number: u64, what: What) -> Seen {
    Seen {
        topic,
        partition: 0,
        offset: 0,
        stream: STREAM,
        number,
        edge: "r1-0".to_owned(),
        at: clock::instant(),
        what,
    }
}

/// Readings 0 to 9 in their order, in one partition.
fn whole() -> Vec<Seen> {
    (0..10).map(|n| seen(wire::READINGS, n, What::Reading(n))).collect()
}

fn gap(from: u64, to: u64) -> Seen {
    let place = (STREAM, wire::READINGS, 0);
    seen(wire::GAPS, 0, What::Gap(Gap { place, from, to, reason: "dropped".to_owned() }))
}

fn judged(seen: &[Seen]) -> Verdict {
    judge(&run(), &(0..10).collect(), seen)
}

#[test]
fn a_whole_stream_is_right_and_repeats_are_no_harm() {
    let mut stream = whole();
    assert!(judged(&stream).is_right());
    stream.extend(whole().into_iter().skip(3));
    stream.push(seen(wire::READINGS, 10, What::Control));
    let verdict = judged(&stream);
    assert!(verdict.is_right(), "{verdict}");
    assert_eq!((verdict.found, verdict.repeats), (10, 7));
}

#[test]
fn every_harm_is_seen() {
    let mut lost = whole();
    lost.pop();
    assert_eq!((judged(&lost).lost, judged(&lost).unannounced), (1, 0));
    let mut hole = whole();
    hole.remove(4);
    assert_eq!((judged(&hole).lost, judged(&hole).unannounced), (1, 1));
    let mut doubled = whole();
    doubled.push(seen(wire::READINGS, 10, What::Reading(3)));
    assert_eq!((judged(&doubled).doubled, judged(&doubled).disordered), (1, 1));
    let mut swapped = whole();
    (swapped[4].what, swapped[6].what) = (What::Reading(6), What::Reading(4));
    assert_eq!(judged(&swapped).disordered, 1);
    let mut wrong = whole();
    wrong.push(seen(wire::READINGS, 10, What::Wrong("x".to_owned())));
    assert_eq!(judged(&wrong).wrong, 1);
    for stream in [lost, hole, doubled, swapped, wrong] {
        let verdict = judged(&stream);
        assert!(!verdict.is_right() && !verdict.problems.is_empty(), "{verdict}");
    }
}

#[test]
fn what_is_given_up_must_be_announced_to_the_number() {
    let mut stream = whole();
    stream.drain(2..5);
    stream.push(gap(2, 4));
    let verdict = judged(&stream);
    assert!(verdict.is_right(), "{verdict} {:?}", verdict.problems);
    assert_eq!((verdict.given_up, verdict.found), (3, 7));
    let last = stream.len() - 1;
    stream[last] = gap(2, 3);
    assert_eq!((judged(&stream).lost, judged(&stream).unannounced), (1, 1));
    // Some of the last numbers of a gap may have been on their way.
    let mut on_their_way = whole();
    on_their_way.drain(2..4);
    on_their_way.push(gap(2, 4));
    assert!(judged(&on_their_way).is_right());
    // Numbers that never were.
    stream[last] = gap(2, 400);
    assert!(!judged(&stream).is_right());
}

#[test]
fn windows_must_be_whole_and_equal_the_replay() {
    let run = Run::new("r1", 1_790_000_000_000, 10, (1, 1), 4);
    issue(&run, 0..100);
    let window = |start: u64, skip: u64, revision: u64| {
        let numbers = start * 10 + skip..start * 10 + 10;
        let (count, sum) = (10 - skip, numbers.map(|n| run.measured(n)).sum::<f64>());
        let from = 1_790_000_000_000 + start * 1000;
        let (end, mean) = (from + 1000, sum / count as f64);
        format!(
            r#"{{"rule":"w","key":{{"device":"e0-d00"}},"start":{from},"end":{end},"revision":{revision},"count":{count},"values":{{"x":{{"mean":{mean}}}}}}}"#
        )
    };
    let sent = |windows: &[String]| -> Vec<Seen> {
        let what = |value: &String| What::Window(b"e0-d00".to_vec(), value.clone().into_bytes());
        (0..).zip(windows).map(|(n, value)| seen(wire::WINDOWS, n, what(value))).collect()
    };
    let good: Vec<String> = (0..9).map(|start| window(start, 0, 0)).collect();
    assert_eq!(windows::whole(&run, &sent(&good)), Vec::<String>::new());
    let mut early = good.clone();
    early[3] = window(3, 2, 0);
    assert_eq!(windows::whole(&run, &sent(&early)).len(), 1);
    early.push(window(3, 0, 1));
    assert_eq!(windows::whole(&run, &sent(&early)), Vec::<String>::new(), "revised");
    early.push(window(3, 0, 1));
    assert_eq!(windows::whole(&run, &sent(&early)).len(), 1, "the same revision twice");
    let gone = [&good[..3], &good[4..]].concat();
    assert_eq!(windows::whole(&run, &sent(&gone)).len(), 1);
    assert_eq!(windows::whole(&run, &[]).len(), 1);

    let lines: String = good.iter().map(|value| format!("weir.windows\te0-d00\t{value}\n")).collect();
    let replayed = windows::Outputs::replayed(&lines);
    let mut repeated = sent(&good);
    repeated.push(repeated[4].clone());
    let differences = |seen: &[Seen]| windows::Outputs::differences(&windows::Outputs::sent(seen), &replayed);
    assert_eq!(differences(&repeated), Vec::<String>::new());
    assert_eq!(differences(&sent(&gone)).len(), 1);
    assert_eq!(differences(&sent(&early)).len(), 1);
}

#[test]
fn a_reading_follows_from_its_number() {
    let run = run();
    let canaries = run.next_canaries();
    for number in (0..10).chain(canaries.iter().copied()) {
        let message: serde_json::Value = serde_json::from_slice(&run.payload(number)).unwrap();
        assert_eq!(number_in(&run.payload(number)), Some(number));
        let mut reading = message.clone();
        reading["time"] = message["ts"].clone();
        let value = reading.to_string();
        assert_eq!(run.number_of(value.as_bytes()), Ok(Some(number)), "{value}");
        reading["values"]["x"] = 0.125.into();
        assert!(run.number_of(reading.to_string().as_bytes()).is_err());
    }
    let partitions: HashSet<i32> =
        canaries.iter().map(|n| wire::partition_of(run.device(*n).as_bytes(), 4)).collect();
    assert_eq!(partitions.len(), 4);
    assert!(canaries.iter().all(|n| *n >= CANARIES_FROM));
    let timeless = Run::new("r1", 1_790_000_000_000, 1000, (1, 2), 4).without_times();
    timeless.next();
    let reading = |time: i64| {
        let mut json: serde_json::Value = serde_json::from_slice(&timeless.payload(0)).unwrap();
        json["time"] = time.into();
        timeless.number_of(json.to_string().as_bytes())
    };
    assert_eq!(reading(1_790_000_000_900), Ok(Some(0)));
    assert!(reading(900).is_err(), "a time of 1970");
    let foreign = Run::new("r2", 0, 1, (1, 1), 1);
    foreign.next();
    assert_eq!(run.number_of(&foreign.payload(0)), Ok(None));
    let unknown = run.payload(10);
    assert!(run.number_of(&unknown).unwrap_err().contains("never published"));
}
