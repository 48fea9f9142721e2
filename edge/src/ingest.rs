//! The ingest stage: decode → journal → acknowledge.
//!
//! Comes in: messages of the sources and notes of forwarders and windows. Goes out: receipts of messages that are on
//! disk, in the order received. Guarantees: a receipt is given back only after the fsync that covers its message (or
//! the one it repeats); every message becomes a frame; numbers within (stream, topic, partition) have no gap.
//! Group commit: what arrives within `commit` or `commit_bytes_max` shares one fsync.
//! On failure: any error of the journal ends the process; nothing of the open batch is acknowledged. A full disk or
//! budget is no failure: notes are still journaled, from a reserve, and messages wait until there is room.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::watch;
use weir_shared::admin::Health;
use weir_shared::clock::{self, Deadline, Now};
use weir_shared::pulse::Pulse;
use weir_shared::supervise::Error;
use weir_shared::timeline::Timeline;
use xxhash_rust::xxh3::Xxh3;

use crate::clocks::Clocks;
use crate::decode::{Decoded, Decoder, Input};
use crate::events::Event;
use crate::faults;
use crate::journal::Redelivery;
use crate::journal::format::{Correction, FileMark, FrameHead, Record};
use crate::journal::writer::Urgency;
use crate::sources::{Message, Origin, Receipt};

pub(crate) mod gaps;
pub(crate) mod lane;
mod measures;
mod proofs;
mod roll_up;
mod unproven;

pub(crate) use roll_up::RULE as ROLL_UP;

use lane::Lane;
use measures::Measures;
use proofs::Proofs;

/// Name under which this stage complains.
const WHO: &str = "journal";
/// Between two attempts to get room.
const ROOM: Duration = Duration::from_millis(200);
/// How often it is looked whether the clock is synchronised.
const SYNCHRONIZED: Duration = Duration::from_secs(1);

/// Limits of journal and group commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IngestConfig {
    /// Preallocated size of a segment.
    pub segment_bytes: u64,
    /// How long a commit waits for company.
    pub commit: Duration,
    /// How many bytes are company enough.
    pub commit_bytes_max: usize,
}

/// What the stage is connected to.
pub(crate) struct Wiring {
    /// From sources and lanes; ends when all of them have ended.
    pub events: Receiver<Event>,
    /// To the source.
    pub receipts: Sender<Vec<Receipt>>,
    /// To the sources: readings can be numbered.
    pub open: watch::Sender<bool>,
    /// Beats with the commits, and when there is nothing to commit.
    pub pulse: Pulse,
    /// How untrusted times are to be read.
    pub clocks: Clocks,
    /// Where to complain.
    pub ready: Health,
}

/// The clock of this process.
pub(crate) struct Time {
    /// What is believed.
    pub line: Timeline,
    /// Boot of the machine, as batches name it.
    pub boot: u32,
    /// Exists when the clock is synchronised.
    pub synchronized_file: PathBuf,
}

/// Decodes, journals and acknowledges.
pub(crate) struct Ingest {
    config: IngestConfig,
    decoder: Decoder,
    lanes: Vec<Lane>,
    redelivery: Redelivery,
    wiring: Wiring,
    time: Time,
    synchronized: (bool, Option<Instant>),
    /// To be settled once it is durable.
    mending: Option<Correction>,
    /// Source events that wait for room.
    waiting: VecDeque<Event>,
    receipts: Vec<Receipt>,
    proofs: Proofs,
    decoded: Vec<Decoded>,
    measures: Measures,
}

impl Ingest {
    /// Goes on with journals that were opened (the default flow's last), and what they tell of redeliveries.
    pub(crate) fn new(
        config: IngestConfig,
        decoder: Decoder,
        lanes: Vec<Lane>,
        redelivery: Redelivery,
        time: Time,
        wiring: Wiring,
    ) -> Self {
        wiring.open.send_replace(lanes.iter().all(Lane::is_open));
        Self {
            config,
            decoder,
            lanes,
            redelivery,
            wiring,
            time,
            synchronized: (false, None),
            mending: None,
            waiting: VecDeque::new(),
            receipts: Vec::new(),
            proofs: Proofs::default(),
            decoded: Vec::new(),
            measures: Measures::new(),
        }
    }

    /// Works until everybody who sends events has ended.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        // Without anything to do for long, what is held must be seen all the same.
        self.measures.journals(&self.lanes);
        while let Some(event) = self.next_event() {
            self.wiring.pulse.beat();
            if matches!(event, Event::Nudge) {
                continue;
            }
            self.take(event)?;
            let deadline = Deadline::after(self.config.commit);
            while self.waiting_bytes() < self.config.commit_bytes_max {
                let Some(event) = self.next_event_within(deadline.left()) else { break };
                self.take(event)?;
            }
            if !self.commit()? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event> {
        self.waiting.pop_front().or_else(|| self.wiring.events.recv().ok())
    }

    fn next_event_within(&mut self, wait: Duration) -> Option<Event> {
        self.waiting.pop_front().or_else(|| self.wiring.events.recv_timeout(wait).ok())
    }

    fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.writer.waiting_bytes()).sum()
    }

    fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Message(message) => self.message(message)?,
            Event::Session { session, subscriptions } => {
                self.redelivery.session(session);
                let now = self.now(&clock::now());
                self.lanes.iter_mut().for_each(|lane| lane.writer.session(session, subscriptions, now));
            }
            Event::Answered(receipt) => {
                if let Some(receipt) = self.proofs.answered(receipt) {
                    self.proven(receipt);
                }
            }
            Event::Resumed => {
                let now = self.now(&clock::now());
                self.lanes.iter_mut().for_each(|lane| lane.writer.resumed(now));
            }
            Event::Nudge => {}
            Event::Lane(lane, note) => {
                let now = self.now(&clock::now());
                let Some(lane) = self.lanes.get_mut(lane) else { return Err("a note of no lane".into()) };
                lane.note(note, &self.decoder, now, &self.measures)?;
            }
        }
        Ok(())
    }

    fn proven(&mut self, receipt: u64) {
        self.redelivery.proven(receipt);
        let now = clock::now();
        for lane in &mut self.lanes {
            if let Some(position) = lane.unproven.proven(receipt) {
                lane.writer.proven(position, now);
            }
        }
    }

    fn message(&mut self, message: Message) -> Result<(), Error> {
        faults::kill_at("edge.e0");
        let Message { receipt, again, session, topic, payload, arrived, origin, memory } = message;
        self.measures.received(payload.len());
        if receipt.packet != 0 {
            self.receipts.push(receipt);
            self.proofs.received(receipt);
        }
        let digest = digest(&topic, &payload);
        if again
            && self.redelivery.stands(receipt.packet, digest, receipt.count)
            && !faults::is_broken("bad.forget_redelivery")
        {
            self.measures.redelivered.increment(1);
            self.lanes.iter_mut().for_each(|lane| lane.unproven.again(receipt.count));
            return Ok(());
        }
        let arrived = self.now(&arrived);
        let decoded = &mut self.decoded;
        let input = Input { topic: &topic, payload: &payload, arrived, origin };
        self.decoder.decode(&input, |d| decoded.push(d));
        self.measures.skew(&self.decoded, &arrived);
        let mark = match origin {
            Origin::Mqtt => None,
            Origin::File { mark, .. } => {
                Some(Record::File(FileMark { file: mark.file, offset: mark.offset, rows: mark.row }))
            }
        };
        let at = self.lanes.iter().position(|lane| lane.flow.takes(&topic)).unwrap_or(self.lanes.len() - 1);
        let head = FrameHead { session, packet: receipt.packet, digest, arrived };
        if !(faults::is_broken("bad.drop_poison") && matches!(self.decoded[..], [Decoded::Rejection(_)])) {
            self.lanes[at].append(&head, &mut self.decoded, mark, &self.measures)?;
        }
        self.decoded.clear();
        if receipt.packet != 0 {
            if let Some(proven) = self.proofs.new_message() {
                self.proven(proven);
            }
            self.redelivery.appended(receipt.packet, digest, receipt.count);
        }
        drop(memory);
        Ok(())
    }

    /// The time of a look at the clocks. The first one that settles how to read this boot's untrusted times is
    /// journaled in every lane.
    fn now(&mut self, looked: &Now) -> Now {
        let synchronized = self.is_synchronized();
        let (now, mending) = self.time.line.stamp(looked, synchronized);
        if faults::is_broken("bad.trust_any_clock") {
            return Now { trusted: true, ..*looked };
        }
        if let Some(mending) = mending {
            let correction =
                Correction { boot: self.time.boot, known: mending.known, offset_ms: mending.offset_ms };
            self.lanes.iter_mut().for_each(|lane| lane.writer.clock(correction, now));
            self.mending = Some(correction);
        }
        now
    }

    fn is_synchronized(&mut self) -> bool {
        let (synchronized, looked) = self.synchronized;
        if looked.is_some_and(|looked| clock::since(looked) < SYNCHRONIZED) {
            return synchronized;
        }
        self.measures.clock(&self.time.line);
        let synchronized = self.time.synchronized_file.exists();
        self.synchronized = (synchronized, Some(clock::instant()));
        synchronized
    }

    /// Commits all lanes and gives the receipts back; false when everybody has ended while there was no room.
    fn commit(&mut self) -> Result<bool, Error> {
        let begun = clock::instant();
        if faults::is_broken("bad.ack_before_fsync") {
            self.give_back();
        }
        let last = self.receipts.last().map(|receipt| receipt.count);
        for at in 0..self.lanes.len() {
            let done = self.lanes[at].commit(Urgency::Data, last)?;
            self.wiring.pulse.beat();
            if !done && !self.wait_for_room(at, last)? {
                return Ok(false);
            }
        }
        if let Some(Correction { boot, known, offset_ms }) = self.mending.take() {
            self.wiring.clocks.settle(boot, weir_shared::timeline::Mending { known, offset_ms });
        }
        if !*self.wiring.open.borrow() && self.lanes.iter().all(Lane::is_open) {
            self.wiring.open.send_replace(true);
        }
        self.measures.committed(clock::since(begun));
        self.measures.journals(&self.lanes);
        self.give_back();
        Ok(true)
    }

    fn give_back(&mut self) {
        self.measures.acknowledged.increment(self.receipts.len() as u64);
        faults::kill_at("edge.e3");
        if !self.receipts.is_empty() && self.wiring.receipts.send(std::mem::take(&mut self.receipts)).is_err()
        {
            tracing::debug!("the source has ended; it is sent again what it does not hear of");
        }
    }

    /// Until the lane's batch is committed: by policy, or by waiting for what others give free. Notes are journaled
    /// meanwhile, from the reserve; messages wait. False when everybody has ended.
    fn wait_for_room(&mut self, at: usize, last: Option<u64>) -> Result<bool, Error> {
        let begun = clock::instant();
        let mut told = false;
        loop {
            self.wiring.pulse.beat();
            if faults::is_broken("bad.drop_on_full") {
                self.lanes[at].writer.forget_waiting();
                return Ok(true);
            }
            let now = self.now(&clock::now());
            while self.lanes[at].make_room(now, &self.measures)? {
                if self.lanes[at].commit(Urgency::Data, last)? {
                    return Ok(self.has_room(at, told));
                }
            }
            if self.lanes[at].commit(Urgency::Data, last)? {
                return Ok(self.has_room(at, told));
            }
            if !told && clock::since(begun) > ROOM {
                told = true;
                let name = &self.lanes[at].flow.name;
                tracing::warn!(flow = name, "no room in the journal: nothing more is taken from the sources");
                self.wiring
                    .ready
                    .bad(WHO, format!("no room in the journal of flow {name}: budget or disk is full"));
            }
            self.measures.full.set(1.0);
            let deadline = Deadline::after(ROOM);
            loop {
                match self.wiring.events.recv_timeout(deadline.left()) {
                    Ok(Event::Lane(lane, note)) => {
                        self.take(Event::Lane(lane, note))?;
                        let _full_again = self.lanes[lane].commit(Urgency::Control, None)?;
                        self.wiring.pulse.beat();
                        // On a slow disk there is always a next note; data must have its turn.
                        if deadline.passed() {
                            break;
                        }
                    }
                    Ok(Event::Nudge) => {}
                    Ok(event) => self.waiting.push_back(event),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(false),
                }
            }
        }
    }

    fn has_room(&mut self, at: usize, told: bool) -> bool {
        self.measures.full.set(0.0);
        if told {
            tracing::info!(flow = self.lanes[at].flow.name, "there is room in the journal again");
            self.wiring.ready.good(WHO);
        }
        true
    }
}

/// A topic never holds 0xFF, as it is UTF-8: so topic and payload cannot run into each other.
fn digest(topic: &str, payload: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(topic.as_bytes());
    hash.update(&[0xff]);
    hash.update(payload);
    hash.digest128()
}
