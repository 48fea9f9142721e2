//! The format of each entry, and that a cycle that was aborted leaves nothing.

use super::*;

const S: StreamId = StreamId([0xab; 16]);

#[test]
fn the_format_stays() {
    let mark = Mark { next: 17, at: 5, closed: false };
    assert_eq!(mark_key(S), b"mark/abababababababababababababababab");
    assert_eq!(mark_value(mark), br#"{"next":17,"at":5}"#);
    assert_eq!(mark_value(Mark { closed: true, ..mark }), br#"{"next":17,"at":5,"closed":true}"#);
    let first = Mark { next: 17, at: i64::MAX, closed: false };
    assert_eq!(entry(&mark_key(S), Some(br#"{"next": 17}"#)), Ok(Entry::Mark(S, Some(first))));
    assert_eq!(entry(&mark_key(S), None), Ok(Entry::Mark(S, None)));
    let versions = BTreeMap::from([("devices".into(), 12)]);
    let seen = Entry::Seen(Seen { rules: 3, versions });
    assert_eq!(entry(b"seen", Some(br#"{"rules":3,"versions":{"devices":12}}"#)), Ok(seen));
    assert_eq!(entry(b"topic", Some(br#"{"id":"x"}"#)), Ok(Entry::Topic("x".into())));
    assert_eq!(entry(b"window/x", Some(b"?")), Ok(Entry::Unknown));
}

#[test]
fn a_damaged_mark_is_an_error() {
    let (key, value) = (mark_key(S), mark_value(Mark { next: 17, at: 5, closed: true }));
    assert!(entry(&key, Some(b"{}")).is_err());
    assert!(entry(&key, Some(b"")).is_err());
    assert!(entry(&key[..20], Some(br#"{"next":1}"#)).is_err());
    for end in 1..value.len() {
        assert!(entry(&key, Some(&value[..end])).is_err());
    }
}

#[test]
fn what_is_staged_reads_back_and_an_aborted_cycle_leaves_nothing() {
    let mut state = State::default();
    state.set_topic("t-1");
    state.applies(4, &[("devices".into(), 12)]);
    state.marks.accept(S, 16, 5);
    state.abort();
    assert_eq!(state.staged().collect::<Vec<_>>(), [(b"topic".to_vec(), Some(br#"{"id":"t-1"}"#.to_vec()))]);
    state.applies(4, &[("devices".into(), 12)]);
    state.marks.accept(S, 16, 5);
    let mut restored = State::default();
    for (key, value) in state.staged() {
        restored.restore(&key, value.as_deref()).unwrap();
    }
    state.commit();
    assert_eq!(state.staged().count(), 0);
    assert_eq!((restored.seen(), restored.topic()), (state.seen(), "t-1"));
    assert_eq!(restored.marks.len(), 1);
    restored.applies(4, &[("devices".into(), 12)]);
    assert_eq!(restored.staged().count(), 0, "nothing new");
}

fn waiting() -> HeldReading {
    HeldReading {
        device: "a\"b".into(),
        offset: 41,
        at: 7,
        timestamp_ms: 5,
        stream: S,
        number: 3,
        edge: "gw-1".into(),
        backlog: false,
        body: "{\"device\":\"a\\\"b\",\n\"x\":\"\u{e9}\"}".into(),
    }
}

const WAITING: &str = r#"{"at":7,"timestamp":5,"stream":"abababababababababababababababab","number":3,"edge":"gw-1","body":"{\"device\":\"a\\\"b\",\n\"x\":\"é\"}"}"#;

#[test]
fn the_format_of_a_reading_that_waits_stays() {
    let mut state = State::default();
    state.held.hold(waiting());
    let staged: Vec<_> = state.staged().collect();
    let key = br#"held/["a\"b",41]"#;
    assert_eq!(staged, [(key.to_vec(), Some(WAITING.as_bytes().to_vec()))]);
    assert!(key.len() + WAITING.len() <= waiting().bytes());
    let place = ("a\"b".to_owned(), 41);
    assert_eq!(entry(key, Some(WAITING.as_bytes())), Ok(Entry::Held(place.clone(), Some(waiting()))));
    assert_eq!(entry(key, None), Ok(Entry::Held(place, None)));
    let backlog = held_value(&HeldReading { backlog: true, ..waiting() });
    assert_eq!(backlog, WAITING.replace(r#","body""#, r#","backlog":true,"body""#).as_bytes());
    let Ok(Entry::Held(_, Some(read))) = entry(key, Some(&backlog)) else { panic!("not read back") };
    assert!(read.backlog);
}

#[test]
fn a_damaged_reading_that_waits_is_an_error() {
    let key = br#"held/["a\"b",41]"#;
    for end in 0..WAITING.len() {
        assert!(entry(key, Some(&WAITING.as_bytes()[..end])).is_err(), "{end}");
    }
    for end in HELD.len()..key.len() {
        assert!(entry(&key[..end], Some(WAITING.as_bytes())).is_err(), "{end}");
    }
    let wrong = WAITING.replace("abab", "xxxx");
    assert!(entry(key, Some(wrong.as_bytes())).unwrap_err().contains("no stream id"));
}

#[test]
fn older_versions_are_told_apart() {
    let mut seen = Seen::default();
    assert!(seen.lacks(4, &[]) && seen.lacks(0, &[("devices".into(), 0)]));
    seen.raise(4, &[("devices".into(), 12)]);
    seen.raise(3, &[("devices".into(), 11)]);
    assert!(!seen.lacks(4, &[("devices".into(), 12)]) && seen.lacks(4, &[("devices".into(), 13)]));
    assert_eq!(seen.ahead_of(4, &[("devices".into(), 12), ("sites".into(), 1)]), None);
    assert!(seen.ahead_of(3, &[("devices".into(), 12)]).unwrap().contains("rule set 4"));
    assert!(seen.ahead_of(5, &[("devices".into(), 11)]).unwrap().contains("dimension devices"));
}

#[test]
fn old_marks_go_with_a_tombstone() {
    let mut state = State::default();
    state.marks.accept(S, 0, 1_000);
    state.marks.close(S, 1, 1_000);
    state.commit();
    state.passes(2_000 + super::super::dedupe::CLOSED_MS);
    state.tidy();
    assert_eq!(state.staged().collect::<Vec<_>>(), [(mark_key(S), None)]);
}

#[test]
fn states_of_rules_go_by_the_time_of_kafka() {
    const DAY: i64 = 86_400_000;
    let key = br#"rule/["hot",3,"pump-7"]"#;
    // Of a reading that was 50 days old when it came.
    let entry = br#"{"kept":4320000000,"state":{"at":"calm","last":1}}"#;
    let mut state = State::default();
    state.restore(key, Some(entry)).unwrap();
    state.passes(50 * DAY + 29 * DAY);
    state.tidy();
    assert_eq!(state.staged().count(), 0);
    state.passes(50 * DAY + 31 * DAY);
    state.tidy();
    assert_eq!(state.staged().collect::<Vec<_>>(), [(key.to_vec(), None)]);
    assert!(state.restore(key, Some(br#"{"at":"calm","last":1}"#)).is_err(), "an entry without its time");
}
