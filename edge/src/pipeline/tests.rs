//! A start on a journal that holds something: what its gauges show at once, and what it tells of a lost segment.

use std::path::{Path, PathBuf};

use weir_shared::supervise::Stop;

use super::*;
use crate::gauges::Gauges;
use crate::journal::Reader;
use crate::journal::format::{FrameHead, Record};
use crate::journal::reader::Step;
use crate::journal::writer::Urgency;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("weir-pipeline-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        Self(dir)
    }

    /// With one partition of each topic, and a Kafka that is not there.
    fn config(&self) -> Config {
        let text = format!(
            "name = 'gw'\n[journal]\ndir = '{}'\n[kafka]\nbrokers = '127.0.0.1:1'\npartitions = 1\n",
            self.0.display()
        );
        crate::config::check("e", &text).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn now() -> Now {
    Now { wall_ms: 1_790_000_000_042, mono_ns: 0, trusted: true }
}

/// A life of an edge that journaled one reading and sent nothing.
fn journal_one(dir: &Path) {
    let segments = Segments::open(dir).unwrap();
    let recovered = recover(&segments).unwrap();
    let config = WriterConfig { segment_bytes: 65_536, budget_bytes: 0, retain_bytes: 0, reserve_bytes: 0 };
    let opening = Opening { stream: random_stream().unwrap(), boot: [9; 16], now: now() };
    let mut writer = Writer::open(segments, config, opening, recovered).unwrap();
    writer.topics([1; Sent::ALL.len()], now());
    let place = writer.place(Sent::Reading, b"d").unwrap();
    let value = br#"{"device":"d","time":1,"values":{},"tags":{},"received":1}"#;
    let record = Record::Sent { place, closing: false, key: b"d", value };
    let head = FrameHead { session: 1, packet: 0, digest: 0, arrived: now() };
    writer.message(&head, std::iter::once(record));
    writer.commit(Urgency::Data).unwrap();
}

/// The default flow of a start, with the ingest stage that it belongs to.
fn start(config: &Config) -> (Forwarder, Ingest) {
    let (events, taken) = flume::bounded(EVENTS_MAX);
    let flow = &config.flows[0];
    let segments = Segments::open(&flow.dir).unwrap();
    let found = recover(&segments).unwrap();
    let common = Common {
        config,
        events,
        clocks: Clocks::default(),
        connected: Arc::default(),
        boot: [9; 16],
        now: now(),
        ready: Health::default(),
    };
    let Opened { lane, forwarder, windows } =
        open_flow(&common, 0, flow, segments, found, &mut Pulses::default()).unwrap();
    assert!(windows.is_none());
    let line = Timeline::new(config.clock.limits, &now(), false, 0);
    let time = Time { line, boot: 0, synchronized_file: config.clock.synchronized_file.clone() };
    let wiring = ingest::Wiring {
        events: taken,
        receipts: flume::unbounded().0,
        open: watch::channel(false).0,
        pulse: weir_shared::pulse::Pulse::default(),
        clocks: Clocks::default(),
        ready: Health::default(),
    };
    let redelivery = Redelivery::default();
    (forwarder, Ingest::new(config.ingest, config.decoder.clone(), vec![lane], redelivery, time, wiring))
}

#[test]
fn a_start_shows_what_the_journal_holds() {
    let folder = Folder::new("gauges");
    journal_one(&folder.0);
    let (gauges, config) = (Gauges::default(), folder.config());
    ::metrics::with_local_recorder(&gauges, || {
        let (forwarder, ingest) = start(&config);
        let stop = Stop::new();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || forwarder.run(&stop).map_err(|e| e.to_string())
        });
        let deadline = clock::Deadline::after(Duration::from_secs(10));
        let held = || gauges.value("weir_edge_held_bytes").unwrap_or_default();
        while held() == 0.0 && !deadline.passed() {
            std::thread::yield_now();
        }
        stop.trigger();
        assert!(held() > 0.0, "Kafka was never there");
        ingest.run().unwrap();
        thread.join().unwrap().unwrap();
        assert!(gauges.value("weir_edge_journal_bytes") > Some(65_536.0), "nothing was committed");
    });
}

/// The gaps that stand in the journal.
fn gaps(dir: &Path) -> Vec<String> {
    let segments = Segments::open(dir).unwrap();
    let found = recover(&segments).unwrap();
    let mut reader = Reader::new(segments, found.first_position);
    let mut gaps = Vec::new();
    while let Some(step) = reader.next(found.end()).unwrap() {
        let Step::Batch(batch) = step else { continue };
        for record in batch.frames().flat_map(|frame| frame.records().collect::<Vec<_>>()) {
            if let Record::Sent { place, value, .. } = record
                && place.kind == Sent::Gap
            {
                gaps.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
    }
    gaps
}

#[test]
fn a_newest_segment_that_is_lost_is_told_once() {
    let folder = Folder::new("lost");
    journal_one(&folder.0);
    journal_one(&folder.0);
    let bases = Segments::open(&folder.0).unwrap().bases();
    let newest = folder.0.join(format!("{:020}.wj", bases.last().unwrap()));
    std::fs::write(&newest, vec![0xff; 4096]).unwrap();
    for again in [false, true] {
        let (forwarder, ingest) = start(&folder.config());
        drop(forwarder);
        ingest.run().unwrap();
        let gaps = gaps(&folder.0);
        assert_eq!(gaps.len(), 1, "{gaps:?}, again: {again}");
        assert!(gaps[0].starts_with(r#"{"edge":"gw","reason":"damaged","noticed":"#), "{gaps:?}");
    }
}

#[test]
fn a_state_of_windows_ahead_of_the_journal_says_that_its_end_is_lost() {
    let mut found = Recovered::default();
    found.durable = 100;
    found.begin_at(90);
    assert_eq!((found.end(), found.lost), (100, None));
    found.begin_at(130);
    assert_eq!((found.end(), found.lost), (130, Some((100, 130))));
}
