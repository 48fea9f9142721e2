//! Filling the producer from the journal.
//!
//! Comes in: the ranges' readers. Goes out: records handed to the producer. Guarantees: the newest range goes first, a
//! backlog gets what it leaves and never more than a share of what may be in flight; in each range records go in the order
//! of the journal; what waits for the right time waits. On failure: damage is stepped over, and the numbers it held are
//! found missing.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weir_shared::clock::{self, Deadline};
use weir_shared::record::StreamId;
use weir_shared::supervise::Stop;

use super::producer::{Outgoing, Producer, Trouble};
use super::ranges::{Range, Ranges, ticket_of};
use super::{Forwarder, refusals};
use crate::clocks;
use crate::events::Note;
use crate::faults;
use crate::journal::controls::opens_stream;
use crate::journal::format::{Batch, Frame, Place, Record, Sent};
use crate::journal::reader::{Step, Why};

/// Most records of a backlog in flight, so that live ones do not queue behind them.
const BACKLOG_IN_FLIGHT_MAX: usize = 2_000;
/// How long the producer's queue may stay full before the connection is made anew.
const QUEUE_FULL: Duration = Duration::from_secs(60);
/// Most bytes handed over at once: they fit into one request, also when all are for one partition.
const BURST_BYTES_MAX: usize = 900_000;
/// What a record costs beside its key and value.
const OVERHEAD_BYTES: usize = 100;

/// What came of reading on.
#[derive(PartialEq, Eq)]
enum Read {
    /// Something was read, and this many bytes of it sent.
    Some(usize),
    /// Nothing more is durable.
    End,
    /// What comes next must wait.
    Wait,
}

impl Forwarder {
    /// Once nothing is in flight, sends batches until enough is, or all that is durable was sent; whether it sent any.
    /// librdkafka has one request in flight for each partition and spins for as long as more is ready for it: so all of a
    /// burst must be there before the first of it goes.
    pub(super) fn fill(
        &mut self,
        producer: &Producer,
        ranges: &mut Ranges,
        stop: &Stop,
    ) -> Result<bool, Trouble> {
        let durable = self.wiring.durable.load(Ordering::Acquire);
        let most = self.config.in_flight_records_max;
        let mut left = if ranges.in_flight() == 0 { most } else { 0 };
        let linger = Duration::from_millis(self.config.linger_ms);
        let time = Deadline::after(linger.div_f64(2.0).max(Duration::from_millis(1)));
        let mut bytes = 0;
        let mut any = false;
        for range in ranges.newest_first() {
            let share = if range.is_backlog() { most.min(BACKLOG_IN_FLIGHT_MAX) } else { most };
            while left > 0
                && bytes < BURST_BYTES_MAX
                && !time.passed()
                && range.progress.in_flight() < share
                && self.bandwidth.open(clock::instant())
            {
                let before = range.progress.in_flight();
                match self.read(producer, range, durable, stop)? {
                    Read::Some(sent) => {
                        bytes += sent;
                        any = true;
                    }
                    Read::End | Read::Wait => break,
                }
                left = left.saturating_sub(range.progress.in_flight() - before);
            }
        }
        Ok(any)
    }

    /// Reads one batch and hands its records to the producer.
    fn read(
        &mut self,
        producer: &Producer,
        range: &mut Range,
        durable: u64,
        stop: &Stop,
    ) -> Result<Read, Trouble> {
        let backlog = range.is_backlog();
        let durable = range.durable(durable);
        let Range { reader, progress, slot, .. } = range;
        let step = reader.next(durable).map_err(|e| Trouble::Fatal(e.into()))?;
        let batch = match step {
            None => {
                progress.caught_up();
                return Ok(Read::End);
            }
            Some(Step::Skipped { to, why, .. }) => {
                progress.skipped(to, why == Why::GivenUp);
                return Ok(Read::Some(0));
            }
            Some(Step::Batch(batch)) => batch,
        };
        if batch.frames().any(|frame| self.wiring.clocks.read(batch.boot, &frame.head.arrived).is_none()) {
            let position = batch.position;
            reader.seek(position);
            return Ok(Read::Wait);
        }
        progress.batch(batch.end(), batch.stream, opens_stream(&batch));
        let mut bytes = 0;
        let mut frames: Vec<_> = batch.frames().collect();
        if faults::is_broken("bad.reorder_backlog") {
            frames.reverse();
        }
        for frame in frames {
            for record in frame.records() {
                match record {
                    Record::Sent { place, closing, key, value } => {
                        let Some(ticket) = progress.sending(place, closing) else { continue };
                        if self.is_refused(batch.stream, place) {
                            let reading = place.kind == Sent::Reading && !closing;
                            self.give_up(
                                batch.stream,
                                place,
                                reading.then(|| (key.to_vec(), value.to_vec())),
                            )?;
                            progress.acknowledged(ticket);
                            continue;
                        }
                        let value = self.mended(&batch, &frame, value);
                        let record =
                            Outgoing { stream: batch.stream, place, closing, backlog, key, value: &value };
                        bytes += key.len() + value.len() + OVERHEAD_BYTES;
                        let ticket_here = ticket_of(*slot, ticket);
                        self.hand_over(producer, ticket_here, &record, stop)?;
                        let arrived = || self.wiring.clocks.read(batch.boot, &frame.head.arrived);
                        self.measures.handed_over(ticket_here, || arrived().map(|arrived| arrived.wall_ms));
                        faults::kill_at("edge.e6");
                        if faults::is_broken("bad.lose_cursor_gap") {
                            progress.acknowledged(ticket);
                        }
                    }
                    Record::Numbers(numbers) => progress.numbered(numbers.stream, &numbers.next),
                    _ => {}
                }
            }
        }
        Ok(Read::Some(bytes))
    }

    /// Waits while the producer's queue is full.
    fn hand_over(
        &mut self,
        producer: &Producer,
        ticket: usize,
        record: &Outgoing<'_>,
        stop: &Stop,
    ) -> Result<(), Trouble> {
        let deadline = Deadline::after(QUEUE_FULL);
        while !self.send(producer, ticket, record)? {
            if stop.is_stopped() || deadline.passed() {
                return Err(Trouble::retry("the queue to kafka stayed full"));
            }
            self.wiring.pulse.beat();
            std::thread::sleep(Duration::from_millis(1));
            producer.poll();
        }
        self.bandwidth.sent(record.key.len() + record.value.len() + OVERHEAD_BYTES);
        Ok(())
    }

    /// `false` when the queue is full.
    fn send(&mut self, producer: &Producer, ticket: usize, record: &Outgoing<'_>) -> Result<bool, Trouble> {
        producer.send(ticket, record).map_err(|error| {
            self.refusals.note(record.stream, record.place, &error);
            Trouble::retry(format!("kafka does not take a record: {error}"))
        })
    }

    fn mended<'v>(&self, batch: &Batch<'_>, frame: &Frame<'_>, value: &'v [u8]) -> Cow<'v, [u8]> {
        let arrived = &frame.head.arrived;
        let mended = self.wiring.clocks.read(batch.boot, arrived).unwrap_or(*arrived);
        clocks::mend(value, arrived, &mended)
    }

    fn is_refused(&self, stream: StreamId, place: Place) -> bool {
        self.refusals.count(stream, place) >= refusals::TRIES_MAX
    }

    /// The dead letter is journaled before any cursor that counts the reading as done, as notes are in order.
    fn give_up(
        &mut self,
        stream: StreamId,
        place: Place,
        reading: Option<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Trouble> {
        let key = reading.as_ref().map_or("", |(key, _)| std::str::from_utf8(key).unwrap_or_default());
        tracing::error!(topic = place.kind.topic(), key, "kafka refused a record three times");
        let why = self.refusals.why().to_owned();
        self.refusals.clear();
        self.note(Note::Refused { stream, place, reading, why, now: clock::now() })
    }
}
