//! The windows stage: from the journal to results in the journal.
//!
//! Comes in: batches of the journal below its durable position. Goes out: results of the window rules and late
//! readings, as notes to the ingest stage, which journals them; ticks, when the clock alone must close a window.
//! Guarantees: results are a function of the journal (see [`driver`]); after a crash, state and replay give what was
//! given before, byte for byte, and results that already stand are not given again; no state is saved before the
//! results up to it are durable; the journal is kept from the image on.
//! On failure: state that cannot be read is set aside, and the journal is read again from where it begins; what that can
//! not tell is marked in the results and told as a gap. State that cannot be saved is older, not wrong.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flume::{Receiver, Sender};
use weir_shared::clock;
use weir_shared::pulse::Pulse;
use weir_shared::record::StreamId;
use weir_shared::supervise::{Error, Stop};

use crate::clocks::Clocks;
use crate::events::{Event, Note};
use crate::faults;
use crate::journal::reader::{Step, Why};
use crate::journal::{Reader, Recovered, Segments};

pub(crate) mod driver;
mod image;
mod measures;
pub(crate) mod rules;
mod store;

use driver::{Done, Driver, Made};
use image::State;
use measures::Measures;
use store::Store;

/// How often changed state is saved.
const SAVE: Duration = Duration::from_secs(5);
/// The least time between two images.
const IMAGE: Duration = Duration::from_secs(10);
/// An image is written when the journal has grown by this many times its size.
const IMAGE_SHARE: u64 = 10;
/// Between two wishes for a tick.
const TICK: Duration = Duration::from_millis(100);
/// The longest wait for news: bounds how long a stop goes unnoticed.
const IDLE: Duration = Duration::from_millis(500);
/// While something waits for the ingest stage.
const SOON: Duration = Duration::from_millis(20);

/// What ingest stage and windows tell each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    /// Results over all batches that end at or below this position are durable.
    pub results_durable: Arc<AtomicU64>,
    /// The windows need the journal from here on.
    pub needed_from: Arc<AtomicU64>,
    /// Bytes on disk of their state.
    pub state_bytes: Arc<AtomicU64>,
    /// The journal could give room, but for the image.
    pub image_wanted: Arc<AtomicBool>,
}

/// What the stage is connected to.
pub(crate) struct Wiring {
    /// Which lane this is.
    pub lane: usize,
    /// Name of its flow.
    pub flow: String,
    /// To the ingest stage.
    pub events: Sender<Event>,
    /// From the ingest stage: something new is durable.
    pub wake: Receiver<()>,
    /// The journal's durable position.
    pub durable: Arc<AtomicU64>,
    /// The journal's files.
    pub segments: Segments,
    /// How untrusted times are to be read.
    pub clocks: Clocks,
    /// False while the sources are away: silence then says nothing of the devices.
    pub connected: Arc<AtomicBool>,
    /// With the ingest stage.
    pub shared: Shared,
    /// Beats with each round of reading.
    pub pulse: Pulse,
}

/// State as a start finds it.
pub(crate) struct Found {
    store: Store,
    state: Option<State>,
    in_sled: bool,
}

/// Opens the state beside a journal that was recovered. New batches begin behind it.
pub(crate) fn open(dir: &Path, recovered: &mut Recovered) -> io::Result<Found> {
    let (store, found) = Store::open(dir)?;
    for what in &found.set_aside {
        tracing::error!(dir = %dir.display(), what, "state of the windows set aside; computed again");
        metrics::counter!("weir_edge_state_set_aside_total").increment(1);
    }
    if let Some(state) = &found.state {
        recovered.begin_at(state.position);
    }
    Ok(Found { store, state: found.state, in_sled: found.in_sled })
}

/// Computes the windows of one flow.
pub(crate) struct Windows {
    wiring: Wiring,
    store: Store,
    driver: Driver,
    reader: Reader,
    /// All batches that end at or below it were taken in.
    position: u64,
    /// Results at or below it stand already.
    standing: u64,
    /// Results given to the ingest stage.
    sent: u64,
    /// Results that the ingest stage has not taken yet.
    waiting: Option<(Vec<Made>, u64)>,
    /// State that waits until the results up to it are durable.
    unsaved: Option<Unsaved>,
    /// What sled holds is not what the changes are added to.
    whole: bool,
    saved: Instant,
    imaged: Instant,
    ticked: Instant,
    lost: Option<(u64, u64)>,
    measures: Measures,
}

struct Unsaved {
    position: u64,
    results: u64,
    stream: StreamId,
    rules: String,
    changed: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    image: Option<State>,
}

impl Windows {
    /// Goes on from the newest state; the journal holds everything from `first` on, and results up to `standing`.
    pub(crate) fn new(found: Found, wiring: Wiring, first: u64, standing: u64) -> Self {
        let Found { store, state, in_sled } = found;
        let state = state.filter(|_| !faults::is_broken("bad.forget_state"));
        let restored = state.map(|state| (state.position, Driver::restore(state)));
        let is_restored = matches!(restored, Some((_, Ok(_))));
        let (position, driver, lost) = match restored {
            Some((position, Ok(driver))) if position >= first => (position, driver, None),
            Some((position, Ok(driver))) => (first, driver.lost("journal_lost"), Some((position, first))),
            Some((_, Err(why))) => {
                tracing::error!(why, "state of the windows cannot be read; computed again");
                (first, Driver::default(), Some((0, first)))
            }
            None => (first, Driver::default(), Some((0, first))),
        };
        let lost = lost.filter(|(from, to)| from < to);
        let driver = if lost.is_some() { driver.lost("state_lost") } else { driver };
        let mut reader = Reader::new(wiring.segments.clone(), position);
        if faults::is_broken("bad.skip_checkpoint_replay") {
            reader.seek(wiring.durable.load(Ordering::Acquire));
        }
        let needed = store.image_position().unwrap_or(first).min(position);
        wiring.shared.needed_from.store(needed, Ordering::Release);
        wiring.shared.state_bytes.store(store.bytes(), Ordering::Relaxed);
        let now = clock::instant();
        Self {
            reader,
            measures: Measures::new(&wiring.flow),
            wiring,
            store,
            driver,
            position,
            standing,
            sent: standing,
            waiting: None,
            unsaved: None,
            whole: !(in_sled && is_restored) || lost.is_some(),
            saved: now,
            imaged: now,
            ticked: now,
            lost,
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self, stop: &Stop) -> Result<(), Error> {
        if let Some((from, to)) = self.lost.take() {
            self.send(Event::Lane(self.wiring.lane, Note::StateLost { from, to }), stop);
        }
        while !stop.is_stopped() {
            self.wiring.pulse.beat();
            let moved = self.hand_over() && self.read()?;
            self.save();
            let pause = if moved { continue } else { self.pause() };
            if self.wiring.wake.recv_timeout(pause) == Err(flume::RecvTimeoutError::Disconnected) {
                return Ok(());
            }
        }
        self.saved -= SAVE;
        self.save();
        Ok(())
    }

    /// Takes in the next batch; false when there is none, or it must wait.
    fn read(&mut self) -> Result<bool, Error> {
        let durable = self.wiring.durable.load(Ordering::Acquire);
        let made = match self.reader.next(durable)? {
            None => {
                self.tick();
                return Ok(false);
            }
            Some(Step::Skipped { to, why, .. }) => {
                self.position = to;
                if why != Why::GivenUp {
                    self.driver.skipped();
                }
                return Ok(true);
            }
            Some(Step::Batch(batch)) => match self.driver.batch(&batch, &self.wiring.clocks) {
                Done::Wait => {
                    let position = batch.position;
                    self.reader.seek(position);
                    return Ok(false);
                }
                Done::Made(made) => {
                    self.position = batch.end();
                    made
                }
            },
        };
        faults::kill_at("edge.e4");
        self.measures.taken(&self.driver);
        if !made.is_empty() && self.position > self.standing {
            self.measures.made(&made);
            self.waiting = Some((made, self.position));
        }
        Ok(true)
    }

    /// Gives results to the ingest stage; false while it does not take them.
    fn hand_over(&mut self) -> bool {
        let Some((outputs, position)) = self.waiting.take() else { return true };
        let event = Event::Lane(self.wiring.lane, Note::Results { outputs, position });
        match self.wiring.events.send_timeout(event, SOON) {
            Ok(()) => self.sent = position,
            Err(flume::SendTimeoutError::Timeout(Event::Lane(_, Note::Results { outputs, position }))) => {
                self.waiting = Some((outputs, position));
                return false;
            }
            Err(_) => tracing::debug!("the ingest stage has ended"),
        }
        true
    }

    fn send(&self, event: Event, stop: &Stop) {
        let mut event = event;
        while let Err(flume::SendTimeoutError::Timeout(back)) = self.wiring.events.send_timeout(event, SOON) {
            if stop.is_stopped() {
                return;
            }
            event = back;
        }
    }

    /// When everything is read and the clock alone has reached a window's end, a tick is to be journaled.
    fn tick(&mut self) {
        let due = self.driver.until_deadline(clock::now().mono_ns).is_some_and(|wait| wait.is_zero());
        if !due || clock::since(self.ticked) < TICK || !self.wiring.connected.load(Ordering::Relaxed) {
            return;
        }
        self.ticked = clock::instant();
        let event = Event::Lane(self.wiring.lane, Note::Tick);
        if self.wiring.events.try_send(event).is_err() {
            tracing::debug!("the ingest stage is busy: the tick comes later");
        }
    }

    fn pause(&mut self) -> Duration {
        if self.waiting.is_some() || self.unsaved.is_some() {
            return SOON;
        }
        let deadline = self.driver.until_deadline(clock::now().mono_ns).unwrap_or(IDLE);
        deadline.clamp(SOON, IDLE)
    }

    /// Saves what changed, and now and then all; each only when the results up to it are durable.
    fn save(&mut self) {
        if self.unsaved.is_none() && self.waiting.is_none() {
            let image = self.image_due();
            if !image && clock::since(self.saved) < SAVE {
                return;
            }
            self.saved = clock::instant();
            let mut changed = self.driver.changed();
            if self.whole {
                changed = self.driver.all().into_iter().map(|(key, value)| (key, Some(value))).collect();
            }
            if changed.is_empty() && !image {
                return;
            }
            let (stream, rules) = (self.driver.stream(), self.driver.rules().to_owned());
            let position = self.position;
            let all = || State { position, stream, rules: rules.clone(), entries: self.driver.all() };
            let image = image.then(all);
            self.unsaved = Some(Unsaved { position, results: self.sent, stream, rules, changed, image });
        }
        let durable = self.wiring.shared.results_durable.load(Ordering::Acquire);
        let ready = |unsaved: &Unsaved| unsaved.results <= durable.max(self.standing);
        let Some(unsaved) = self.unsaved.take_if(|unsaved| ready(unsaved)) else { return };
        if let Err(error) = self.write(unsaved) {
            // What changed is not known any more as changed.
            self.whole = true;
            tracing::error!(%error, "state of the windows cannot be saved");
            self.measures.failed.increment(1);
            self.wiring.shared.image_wanted.store(true, Ordering::Relaxed);
        }
        self.wiring.shared.state_bytes.store(self.store.bytes(), Ordering::Relaxed);
        self.measures.state(self.store.bytes(), self.position);
    }

    fn write(&mut self, unsaved: Unsaved) -> io::Result<()> {
        let Unsaved { position, stream, rules, changed, image, .. } = unsaved;
        self.store.save(position, stream, &rules, changed, self.whole)?;
        self.whole = false;
        faults::kill_at("edge.e5");
        if let Some(image) = image {
            self.store.write_image(&image)?;
            self.imaged = clock::instant();
            self.wiring.shared.image_wanted.store(false, Ordering::Relaxed);
            self.wiring.shared.needed_from.store(position, Ordering::Release);
        }
        Ok(())
    }

    /// Whether the image is far enough behind to be worth another, or the journal wants room.
    fn image_due(&self) -> bool {
        let at = self.wiring.shared.needed_from.load(Ordering::Relaxed);
        let grown = self.position.saturating_sub(at);
        let base = |position| self.wiring.segments.holding(position).map(|(base, _)| base);
        if grown == 0 {
            return false;
        }
        if self.wiring.shared.image_wanted.load(Ordering::Relaxed) {
            return true;
        }
        clock::since(self.imaged) >= IMAGE
            && grown >= IMAGE_SHARE * self.store.image_bytes()
            && base(self.position) != base(at)
    }
}

#[cfg(test)]
mod tests;
