//! From batches of the journal to results of the window rules.
//!
//! Comes in: batches, in order. Goes out: what the rules make of them. Guarantees: a function of the journal alone: the
//! same batches from the same state give the same bytes, whenever and however often; rules change where the journal
//! says so. Pure.
//! On failure: a reading that cannot be parsed is counted and left out (the decoder wrote it, so it can be none); rules
//! that this version cannot read leave nothing to compute, and are told.

use std::time::Duration;

use weir_shared::clock::Now;
use weir_shared::reading::Reading;
use weir_shared::record::StreamId;
use weir_shared::window::{Engine, Limits, Output, Outputs};

use super::image::State;
use super::rules;
use crate::clocks::{Clocks, mend};
use crate::journal::format::{Batch, Place, Record, Sent};

/// One output: kind, key, value.
pub(crate) type Made = (Sent, Vec<u8>, Vec<u8>);

/// The engine with its rules.
pub(crate) struct Driver {
    engine: Engine,
    rules: String,
    stream: StreamId,
    outputs: Outputs,
    made: Vec<Made>,
    /// Room for the next reading.
    spare: Reading<'static>,
    /// Why what comes next is not all there was.
    lost: Option<&'static str>,
    /// The clock of the last frame, and the monotonic clock then.
    clock: Option<(i64, u64)>,
    /// Readings that could not be parsed.
    pub unreadable: u64,
}

/// What came of a batch.
#[derive(Debug)]
pub(crate) enum Done {
    /// These outputs, often none.
    Made(Vec<Made>),
    /// The times in it are not known yet.
    Wait,
}

impl Default for Driver {
    fn default() -> Self {
        let engine = Engine::new(Vec::new(), Limits::default(), &rules::filter);
        Self::with(engine.expect("no rule is wrong"), String::new(), StreamId([0; 16]))
    }
}

impl Driver {
    fn with(engine: Engine, rules: String, stream: StreamId) -> Self {
        let (outputs, made, spare) = (Outputs::default(), Vec::new(), Reading::default());
        Self { engine, rules, stream, outputs, made, spare, lost: None, clock: None, unreadable: 0 }
    }

    /// Goes on from a state.
    pub(crate) fn restore(state: State) -> Result<Self, String> {
        let compiled = rules::parse(&state.rules)?;
        let engine = Engine::restore(compiled, Limits::default(), &rules::filter, state.entries);
        let engine = engine.map_err(|e| e.to_string())?;
        Ok(Self::with(engine, state.rules, state.stream))
    }

    /// What comes next is not all there was: windows that begin before it are marked.
    pub(crate) fn lost(mut self, why: &'static str) -> Self {
        self.lost = Some(why);
        self
    }

    /// The journal was damaged here.
    pub(crate) fn skipped(&mut self) {
        self.lost = Some("damaged");
    }

    /// The rules that count now.
    pub(crate) fn rules(&self) -> &str {
        &self.rules
    }

    /// The stream of the last batch.
    pub(crate) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Keys that have a window.
    pub(crate) fn keys(&self) -> usize {
        self.engine.keys()
    }

    /// How long until the clock alone closes a window.
    pub(crate) fn until_deadline(&mut self, mono_ns: u64) -> Option<Duration> {
        let (clock, then) = self.clock?;
        let now = clock + (mono_ns.saturating_sub(then) / 1_000_000).cast_signed();
        let left = self.engine.deadline()?.saturating_sub(now);
        Some(Duration::from_millis(left.max(0).unsigned_abs()))
    }

    /// State that changed since this was last asked.
    pub(crate) fn changed(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.engine.changed().collect()
    }

    /// All state.
    pub(crate) fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.engine.snapshot()
    }

    /// Takes in a batch.
    pub(crate) fn batch(&mut self, batch: &Batch<'_>, clocks: &Clocks) -> Done {
        if batch.frames().any(|frame| clocks.read(batch.boot, &frame.head.arrived).is_none()) {
            return Done::Wait;
        }
        for frame in batch.frames() {
            let arrived = frame.head.arrived;
            let now = clocks.read(batch.boot, &arrived).unwrap_or(arrived);
            self.clock = Some((now.wall_ms, now.mono_ns));
            if batch.stream != self.stream {
                self.stream = batch.stream;
                self.engine.resumed(now.wall_ms);
            }
            if let Some(why) = self.lost.take() {
                self.engine.tick(now.wall_ms, &mut self.outputs);
                self.take(b"");
                self.engine.incomplete(why);
            }
            for record in frame.records() {
                self.record(&record, &arrived, &now);
            }
        }
        Done::Made(std::mem::take(&mut self.made))
    }

    fn record(&mut self, record: &Record<'_>, arrived: &Now, now: &Now) {
        match record {
            Record::Sent { place: Place { kind: Sent::Reading, .. }, closing: false, value, .. }
            | Record::Kept { value, .. } => self.reading(&mend(value, arrived, now), now.wall_ms),
            Record::Tick => {
                self.engine.tick(now.wall_ms, &mut self.outputs);
                self.take(b"");
            }
            Record::Resumed => self.engine.resumed(now.wall_ms),
            Record::Rules(text) if **text != self.rules => {
                let (engine, outputs) = (&mut self.engine, &mut self.outputs);
                let switched = rules::parse(text).and_then(|new| engine.switch(new, &rules::filter, outputs));
                if let Err(why) = switched {
                    tracing::error!(why, "window rules of the journal cannot be run: those before stay");
                }
                (*text).clone_into(&mut self.rules);
                self.take(b"");
            }
            _ => {}
        }
    }

    fn reading(&mut self, value: &[u8], clock_ms: i64) {
        let mut reading = std::mem::take(&mut self.spare).recycled();
        match reading.parse(value) {
            Ok(()) => self.engine.reading(&reading, clock_ms, &mut self.outputs),
            Err(_) => self.unreadable += 1,
        }
        self.spare = reading.recycled();
        self.take(value);
    }

    /// Moves what the engine gave out since; `reading` is what it was given last.
    fn take(&mut self, reading: &[u8]) {
        if self.outputs.is_empty() {
            return;
        }
        for output in self.outputs.iter() {
            self.made.push(match output {
                Output::Window { key, json } => (Sent::Window, key.as_bytes().to_vec(), json.to_vec()),
                Output::Late { rule, device, watermark } => {
                    let mut value = Vec::with_capacity(reading.len() + rule.len() + 64);
                    value.extend_from_slice(b"{\"rule\":");
                    serde_json::to_writer(&mut value, rule).expect("a text into a buffer is always JSON");
                    value.extend_from_slice(format!(",\"watermark\":{watermark},\"reading\":").as_bytes());
                    value.extend_from_slice(reading);
                    value.push(b'}');
                    (Sent::Late, device.as_bytes().to_vec(), value)
                }
            });
        }
        self.outputs.clear();
    }
}
