//! Full disks, used-up budgets, failed writes, and giving up the oldest.

use super::faults::{Failure, Faults};
use super::*;
use crate::journal::disk::Disk;
use crate::journal::reader::Why;
use crate::journal::writer::GivenUpRange;

const SMALL: WriterConfig =
    WriterConfig { segment_bytes: 1200, budget_bytes: 0, retain_bytes: 0, reserve_bytes: 4096 };

struct Journal {
    folder: Folder,
    faults: Faults,
    config: WriterConfig,
    writer: Option<Writer>,
    segments: Segments,
}

impl Journal {
    fn new(name: &str, config: WriterConfig) -> Self {
        let folder = Folder::new(name);
        let faults = Faults::new(&folder.0.join("side"));
        let segments = Segments::open_on(&folder.0, Disk::with(faults.clone())).unwrap();
        let mut journal = Self { folder, faults, config, writer: None, segments };
        journal.start(1).unwrap();
        journal.writer().topics(TOPICS, NOW);
        commit(journal.writer());
        journal
    }

    fn start(&mut self, stream: u8) -> Result<(), Error> {
        self.segments = Segments::open_on(&self.folder.0, Disk::with(self.faults.clone())).unwrap();
        let recovered = recover(&self.segments).unwrap();
        self.writer = Some(Writer::open(self.segments.clone(), self.config, opening(stream), recovered)?);
        Ok(())
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    fn append(&mut self, value: &str) -> Place {
        let writer = self.writer();
        let place = writer.place(Sent::Reading, b"dev").unwrap();
        let head = FrameHead { session: 7, packet: 1, digest: 0, arrived: NOW };
        let record = Record::Sent { place, closing: false, key: b"dev", value: value.as_bytes() };
        writer.message(&head, std::iter::once(record));
        place
    }

    fn urgent(&mut self, kind: Sent, value: &str) {
        let place = self.writer().place(kind, b"dev").unwrap();
        let record = Record::Sent { place, closing: false, key: b"dev", value: value.as_bytes() };
        self.writer().urgent(std::iter::once(record), NOW);
    }

    /// Appends and commits until there is no room; the values that stand.
    fn fill(&mut self) -> Vec<String> {
        for i in 0..1000 {
            let value = format!("{i:0100}");
            self.append(&value);
            if let Err(error) = self.writer().commit(Urgency::Data) {
                assert!(matches!(error, Error::Full { .. }), "{error}");
                return (0..=i).map(|i| format!("{i:0100}")).collect();
            }
        }
        panic!("never full");
    }

    fn values(&mut self) -> Vec<String> {
        let durable = self.writer().position();
        let (values, skipped) = values(&self.segments, 0, durable);
        assert_eq!(skipped, []);
        values
    }
}

#[test]
fn a_full_disk_keeps_what_waits_and_lets_urgent_frames_ahead() {
    let mut j = Journal::new("full", SMALL);
    j.faults.full(true);
    let mut wanted = j.fill();
    let position = j.writer().position();
    assert!(matches!(j.writer().commit(Urgency::Data), Err(Error::Full { .. })));
    assert_eq!(j.writer().position(), position);
    assert_eq!(j.values(), wanted[..wanted.len() - 1]);

    j.append("data behind");
    let urgent = "urgent".repeat(100);
    j.urgent(Sent::Reading, &urgent);
    j.append("data at last");
    let committed = j.writer().commit(Urgency::Control).unwrap();
    assert!(committed.waits && committed.position > position);
    assert!(!j.folder.0.join("reserve.wjr").exists(), "it is a segment now");
    let last = wanted.pop().unwrap();
    wanted.push(urgent);
    assert_eq!(j.values(), wanted);

    j.faults.full(false);
    assert!(!j.writer().commit(Urgency::Data).unwrap().waits);
    wanted.extend([last, "data behind".to_owned(), "data at last".to_owned()]);
    assert_eq!(j.values(), wanted);
    assert!(j.folder.0.join("reserve.wjr").exists(), "made again first");
    let mut reader = Reader::new(j.segments.clone(), 0);
    let mut numbers = Vec::new();
    let durable = j.writer().position();
    while let Some(Step::Batch(batch)) = reader.next(durable).unwrap() {
        for record in batch.frames().flat_map(|f| f.records()) {
            if let Record::Sent { place, .. } = record {
                numbers.push(place.number);
            }
        }
    }
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "in the order of the journal");
    drop(reader);
    j.start(2).unwrap();
    assert_eq!(j.values(), wanted);
}

#[test]
fn a_start_on_a_full_disk_succeeds_again_and_again() {
    let mut j = Journal::new("full-start", SMALL);
    j.faults.full(true);
    let mut wanted = j.fill();
    wanted.pop();
    j.start(2).unwrap();
    assert_eq!(j.values(), wanted);
    assert!(
        matches!(j.start(3), Err(Error::Full { .. })),
        "the reserve is used up; the caller ends and says so"
    );
    j.faults.full(false);
    j.start(4).unwrap();
    assert_eq!(j.values(), wanted);
}

#[test]
fn the_budget_is_kept_and_acknowledging_makes_room() {
    let mut j = Journal::new("budget", WriterConfig { budget_bytes: 12_000, retain_bytes: 5_000, ..SMALL });
    j.fill();
    assert!((10_000..=12_000).contains(&j.segments.bytes()), "{}", j.segments.bytes());
    assert!(j.folder.0.join("reserve.wjr").exists());
    let end = j.writer().position();
    j.writer().proven(end, NOW);
    j.writer().cursor(Cursor { position: end, prefixes: vec![] }, NOW);
    assert!(j.writer().commit(Urgency::Control).unwrap().waits);
    assert!(!j.writer().commit(Urgency::Data).unwrap().waits);
    for _ in 0..100 {
        j.append(&"x".repeat(100));
        commit(j.writer());
        let end = j.writer().position();
        j.writer().proven(end, NOW);
        j.writer().cursor(Cursor { position: end, prefixes: vec![] }, NOW);
    }
    assert!(j.segments.bytes() <= 12_000, "{}", j.segments.bytes());
    assert!(j.writer().position() - j.writer().oldest() >= 3_000, "as much is kept as there is room for");
    j.writer().other_bytes(12_000);
    j.fill();
}

/// Results can be more than the reserve; the cursor behind them is what makes room.
#[test]
fn urgent_frames_go_beyond_the_budget_rather_than_wait_for_ever() {
    let mut j = Journal::new("beyond", WriterConfig { budget_bytes: 12_000, ..SMALL });
    j.fill();
    for i in 0..10 {
        j.urgent(Sent::Window, &i.to_string().repeat(900));
        assert!(j.writer().commit(Urgency::Control).unwrap().waits);
    }
    assert!(j.segments.bytes() > 12_000, "more than the budget");
    let end = j.writer().position();
    j.writer().cursor(Cursor { position: end, prefixes: vec![] }, NOW);
    assert!(j.writer().commit(Urgency::Control).unwrap().waits);
    assert!(!j.writer().commit(Urgency::Data).unwrap().waits);
    assert!(j.segments.bytes() <= 12_000, "{}", j.segments.bytes());
}

/// The newest segment never goes; when it was the reserve, it holds much room that data cannot use.
#[test]
fn a_used_reserve_is_left_when_nothing_else_makes_room() {
    let mut j = Journal::new("leave", WriterConfig { budget_bytes: 12_000, ..SMALL });
    j.fill();
    j.urgent(Sent::Window, "result");
    assert!(j.writer().commit(Urgency::Control).unwrap().waits);
    let end = j.writer().position();
    j.writer().proven(end, NOW);
    j.writer().cursor(Cursor { position: end, prefixes: vec![] }, NOW);
    assert!(j.writer().commit(Urgency::Control).unwrap().waits);
    // 4,096 in use as segment, 4,096 again as reserve, 1,200 for data.
    j.writer().other_bytes(12_000 - 4096 - 2400);
    assert!(!j.writer().commit(Urgency::Data).unwrap().waits);
    assert!(j.folder.0.join("reserve.wjr").exists());
    j.writer().other_bytes(11_900);
    j.fill();
}

/// As the configuration computes it; state of windows that is larger than all of it must not leave nothing for data.
#[test]
fn with_the_least_budget_it_is_full_and_goes_on_again_and_again() {
    let least = 2 * (4096 + 1200) / 3 * 4;
    let mut j = Journal::new("least", WriterConfig { budget_bytes: least, ..SMALL });
    j.writer().session(7, 0, NOW);
    j.writer().other_bytes(100_000);
    for round in 0..50 {
        j.fill();
        j.urgent(Sent::Window, &"r".repeat(round * 40));
        assert!(j.writer().commit(Urgency::Control).unwrap().waits, "{round}");
        let end = j.writer().position();
        j.writer().cursor(Cursor { position: end, prefixes: vec![] }, NOW);
        assert!(j.writer().commit(Urgency::Control).unwrap().waits, "{round}");
        let done = j.writer().commit(Urgency::Data);
        if done.is_err() {
            eprintln!(
                "{round} {} {:?}",
                j.segments.budgeted_bytes(),
                fs::read_dir(&j.folder.0)
                    .unwrap()
                    .map(|e| {
                        let e = e.unwrap();
                        (e.file_name(), e.metadata().unwrap().len())
                    })
                    .collect::<Vec<_>>()
            );
        }
        assert!(!done.unwrap().waits, "{round}: stuck with all acknowledged");
    }
}

/// A source that itself waits for room proves nothing: room must not depend on it.
#[test]
fn room_does_not_wait_for_proofs() {
    let mut j = Journal::new("carry", WriterConfig { budget_bytes: 12_000, ..SMALL });
    j.writer().session(7, 0, NOW);
    for i in 1..=300 {
        let place = j.writer().place(Sent::Reading, b"dev").unwrap();
        let head = FrameHead { session: 7, packet: i, digest: u128::from(i) << 20, arrived: NOW };
        let value = "x".repeat(100);
        let record = Record::Sent { place, closing: false, key: b"dev", value: value.as_bytes() };
        j.writer().message(&head, std::iter::once(record));
        assert!(!j.writer().commit(Urgency::Data).unwrap().waits);
        let end = j.writer().position();
        j.writer().cursor(Cursor { position: end, prefixes: vec![] }, NOW);
    }
    assert!(j.segments.bytes() <= 12_000, "{}", j.segments.bytes());
    assert!(j.writer().oldest() > 0);
    let found = recover(&j.segments).unwrap();
    let mut known = Redelivery::default();
    known.session(7);
    found.messages.iter().for_each(|m| known.appended(m.packet, m.digest, 0));
    for i in 1..=300 {
        assert!(known.stands(i, u128::from(i) << 20, 1), "{i} would come twice");
    }
}

#[test]
fn a_failed_write_or_fsync_goes_to_a_new_segment_once() {
    for (operations, failure) in [(0, Failure::Once), (1, Failure::Once), (1, Failure::NoRoom)] {
        let mut j = Journal::new("eio", SMALL);
        j.append("before");
        commit(j.writer());
        let (file, segments) = (newest(&j.folder.0), j.segments.bases().len());
        let content = fs::metadata(&file).unwrap().len();
        j.append("after");
        j.faults.fail_after(operations, failure);
        let result = j.writer().commit(Urgency::Data);
        if failure == Failure::NoRoom {
            assert!(matches!(result, Err(Error::Full { .. })), "{result:?}");
            commit(j.writer());
        } else {
            result.unwrap();
        }
        assert_eq!(j.segments.bases().len(), segments + 1);
        assert_ne!(newest(&j.folder.0), file);
        assert_eq!(fs::metadata(&file).unwrap().len(), content);
        j.append("then");
        commit(j.writer());
        assert_eq!(j.values(), ["before", "after", "then"]);
        j.faults.crash(7);
        j.start(2).unwrap();
        assert_eq!(j.values(), ["before", "after", "then"], "the copy of the failed file does not matter");
    }
}

#[test]
fn a_disk_that_goes_on_failing_ends_the_process() {
    let mut j = Journal::new("dead", SMALL);
    j.append("before");
    commit(j.writer());
    j.append("after");
    j.faults.fail_after(1, Failure::Crash);
    assert!(matches!(j.writer().commit(Urgency::Data), Err(Error::Io { .. })));
}

#[test]
fn the_oldest_is_given_up_exactly() {
    let mut j = Journal::new("give-up", WriterConfig { budget_bytes: 12_000, ..SMALL });
    for (number, time) in [(0, 500), (1, 100), (2, 900)] {
        let value = format!(r#"{{"device":"a\",\"time\":7","time":{time},"values":{{"v":{number}}}}}"#);
        assert_eq!(j.append(&value).number, number);
    }
    let total = j.fill().len() as u64 + 3;
    let acknowledged = Acknowledged { stream: StreamId([1; 16]), next: j.append("next") };
    let next = |number| Acknowledged { next: Place { number, ..acknowledged.next }, ..acknowledged };
    j.writer().cursor(Cursor { position: 0, prefixes: vec![next(2)] }, NOW);
    j.writer().needed_from(10);
    assert_eq!(j.writer().plan_give_up().unwrap(), None, "the windows need it");
    j.writer().needed_from(u64::MAX);
    let end = j.segments.bases()[1];
    let plan = j.writer().plan_give_up().unwrap().unwrap();
    let to = plan.ranges[0].to;
    let Place { kind, partition, .. } = acknowledged.next;
    let stream = StreamId([1; 16]);
    let range =
        GivenUpRange { stream, kind, partition, from: 2, to, count: to - 1, times: Some((900, NOW.wall_ms)) };
    assert_eq!((plan.from, plan.to, &plan.ranges[..]), (0, end, &[range][..]));
    let place = |number| Place { number, ..acknowledged.next };
    assert!(
        !plan.holds(stream, &place(1))
            && plan.holds(stream, &place(2))
            && !plan.holds(stream, &place(to + 1))
    );
    j.urgent(Sent::Gap, "gap");
    j.writer().give_up(plan, NOW).unwrap();
    assert_eq!(j.segments.bases()[0], end);
    assert_eq!(j.writer().controls().cursor, Cursor { position: end, prefixes: vec![next(to + 1)] });

    let mut reader = Reader::new(j.segments.clone(), 0);
    let step = reader.next(u64::MAX).unwrap();
    assert!(matches!(step, Some(Step::Skipped { why: Why::GivenUp, .. })), "{step:?}");

    j.writer().cursor(Cursor { position: 60, prefixes: vec![next(3)] }, NOW);
    j.writer().commit(Urgency::Control).unwrap();
    let merged = Cursor { position: end, prefixes: vec![next(to + 1)] };
    assert_eq!(j.writer().controls().cursor, merged, "the forwarder was not there yet");
    j.writer().cursor(Cursor { position: end, prefixes: vec![next(3)] }, NOW);
    j.writer().commit(Urgency::Control).unwrap();
    assert_eq!(j.writer().controls().cursor.prefixes, [next(3)], "now it is");
    let again = j.writer().plan_give_up().unwrap().unwrap();
    assert_eq!(again.ranges[0].from, to + 1);
    assert!(again.ranges[0].to < total);
}

/// What a segment says of how things stand was committed before it: a crash between the segment and the batch that it
/// was made for leaves no mark, and no cursor, of what is not there.
#[test]
fn a_segment_does_not_tell_what_only_waited() {
    for operations in 0..8 {
        for random in [1, 2, 3] {
            let mut j = Journal::new("told", SMALL);
            j.append(&"x".repeat(700));
            commit(j.writer());
            let place = j.writer().place(Sent::Reading, b"dev").unwrap();
            let value = "y".repeat(300);
            let mark = FileMark { file: 1, offset: 2, rows: 3 };
            let sent = Record::Sent { place, closing: false, key: b"dev", value: value.as_bytes() };
            let head = FrameHead { session: 0, packet: 0, digest: 0, arrived: NOW };
            j.writer().message(&head, [sent, Record::File(mark)].into_iter());
            j.writer().cursor(Cursor { position: 60, prefixes: vec![] }, NOW);
            j.faults.fail_after(operations, Failure::Crash);
            let done = j.writer().commit(Urgency::Data).is_ok();
            j.faults.crash(random);
            j.start(2).unwrap();
            let stands = j.values().contains(&value);
            let controls = j.writer().controls();
            assert_eq!(controls.files.get(1), stands.then_some(mark), "{operations} {random}");
            assert_eq!(controls.cursor.position, if stands { 60 } else { 0 }, "{operations} {random}");
            assert!(stands || !done);
        }
    }
}
