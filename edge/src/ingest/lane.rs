//! One journal and what hangs on it: the lane of a flow.
//!
//! Comes in: decoded messages and notes of the forwarder and the windows. Goes out: records in the journal, and
//! whether there is room for more. Guarantees: what is given up is told in gaps that stand in the journal before its
//! segment is removed; a stream that is done is closed in every partition it went to, in the same batch as the cursor
//! that says so. On failure: the journal's errors; "full" is none, it is a state to be left by policy or by waiting.

use std::sync::atomic::Ordering;

use flume::Sender;
use weir_shared::clock::Now;
use weir_shared::record::StreamId;
use weir_shared::supervise::Error;

use super::gaps::{self, Why};
use super::measures::Measures;
use super::roll_up::{self, RolledUp};
use super::unproven::Unproven;
use crate::decode::{Decoded, Decoder};
use crate::events::{Missing, Note};
use crate::faults;
use crate::flow::{Flow, Forward, Policy};
use crate::journal::format::{FrameHead, Place, Record, Sent};
use crate::journal::writer::{GivenUp, GivenUpRange as Range, Urgency};
use crate::journal::{self, Writer};
use crate::windows;

/// What the lane is connected to.
pub(crate) struct Wiring {
    /// To forwarder and windows: something new is durable. Each holds one wake-up at most.
    pub wake: Vec<Sender<()>>,
    /// With the windows.
    pub shared: windows::Shared,
}

/// One journal.
pub(crate) struct Lane {
    /// Name of this edge.
    pub edge: String,
    pub flow: Flow,
    pub writer: Writer,
    pub wiring: Wiring,
    pub(super) unproven: Unproven,
    results: u64,
    /// A cursor waits for the next commit; a tick does.
    cursor: bool,
    tick: bool,
    /// Notes that came before the partition counts were known, which their records need.
    early: Vec<Note>,
}

impl Lane {
    /// A lane on a journal that was opened.
    pub(crate) fn new(edge: String, flow: Flow, writer: Writer, wiring: Wiring) -> Self {
        let unproven = Unproven::new(writer.position());
        let results = writer.controls().results;
        Self { edge, flow, writer, wiring, unproven, results, cursor: false, tick: false, early: Vec::new() }
    }

    /// Bytes on disk of the windows' state.
    pub(super) fn state_bytes(&self) -> u64 {
        self.wiring.shared.state_bytes.load(Ordering::Relaxed)
    }

    /// Whether records can be numbered.
    pub(super) fn is_open(&self) -> bool {
        self.writer.controls().topics.is_some_and(|counts| !counts.contains(&0))
    }

    /// Appends what was decoded of a message as one frame.
    pub(super) fn append(
        &mut self,
        head: &FrameHead,
        decoded: &mut Vec<Decoded>,
        mark: Option<Record<'static>>,
        measures: &Measures,
    ) -> Result<(), Error> {
        let keep = self.flow.forward == Forward::Windows;
        let mut records = Vec::with_capacity(decoded.len() + 1);
        for decoded in decoded.iter() {
            let (kind, key, value) = match decoded {
                Decoded::Filtered => {
                    measures.filtered.increment(1);
                    continue;
                }
                Decoded::Reading(r) => (Sent::Reading, &r.device, &r.value),
                Decoded::Rejection(r) => {
                    measures.rejected(r.reason);
                    (Sent::Rejection, &r.key, &r.value)
                }
            };
            if keep && kind == Sent::Reading {
                measures.kept.increment(1);
                records.push(Record::Kept { key: key.as_bytes(), value });
            } else {
                measures.journaled(kind);
                records.push(sent(&mut self.writer, kind, key.as_bytes(), value)?);
            }
        }
        records.extend(mark);
        self.writer.message(head, records.into_iter());
        decoded.clear();
        Ok(())
    }

    /// Journals a note.
    pub(super) fn note(
        &mut self,
        note: Note,
        decoder: &Decoder,
        now: Now,
        measures: &Measures,
    ) -> Result<(), Error> {
        if !self.is_open() && !matches!(note, Note::Topics(_)) {
            self.early.push(note);
            return Ok(());
        }
        for note in std::mem::take(&mut self.early) {
            self.note(note, decoder, now, measures)?;
        }
        match note {
            Note::Topics(topics) => self.writer.topics(topics, now),
            Note::Cursor { cursor, done } => {
                let values: Vec<_> = done.iter().map(gaps::closed).collect();
                let mut records = Vec::with_capacity(done.len());
                for (line, value) in done.iter().zip(&values) {
                    let place = self.writer.place_in(line.next.kind, line.next.partition);
                    let place = place.ok_or("a stream is done before the partition counts are known")?;
                    records.push(Record::Sent { place, closing: true, key: b"", value });
                }
                self.own_frame(records, now);
                self.writer.cursor(cursor, now);
                self.cursor = true;
            }
            Note::Missing(missing) => self.missing(&missing, now, measures)?,
            Note::Refused { stream, place, reading, why, now } => {
                if let Some((device, value)) = reading {
                    let device = String::from_utf8_lossy(&device);
                    let rejection = decoder.refused_by_kafka(&device, &value, &why, now);
                    measures.rejected(rejection.reason);
                    measures.journaled(Sent::Rejection);
                    let record =
                        sent(&mut self.writer, Sent::Rejection, rejection.key.as_bytes(), &rejection.value)?;
                    self.own_frame(vec![record], now);
                }
                let range = one(stream, place);
                self.gaps(Why::Refused, &[range], now, measures)?;
            }
            // One that finds no room is asked for again.
            Note::OpenStream(answer) => match self.writer.open_stream(journal::random_stream()?, now) {
                Ok(position) if answer.send(position).is_err() => {
                    tracing::debug!("the forwarder has ended before its stream was open");
                }
                Ok(_) | Err(journal::Error::Full { .. }) => {}
                Err(error) => return Err(error.into()),
            },
            Note::Results { outputs, position } => {
                let mut records = Vec::with_capacity(outputs.len());
                for (kind, key, value) in &outputs {
                    measures.journaled(*kind);
                    records.push(sent(&mut self.writer, *kind, key, value)?);
                }
                self.writer.results(records.into_iter(), position, now);
                self.results = position;
            }
            Note::Tick => {
                // One that waits for room says as much as many.
                if !std::mem::replace(&mut self.tick, true) {
                    self.writer.tick(now);
                }
            }
            Note::EndLost { from, to } => self.lost(Why::Damaged, (from, to), now, measures)?,
            Note::StateLost { from, to } => self.lost(Why::StateLost, (from, to), now, measures)?,
        }
        Ok(())
    }

    /// Commits; false when there is no room: nothing is lost, and it can be tried again.
    pub(super) fn commit(&mut self, urgency: Urgency, last_receipt: Option<u64>) -> Result<bool, Error> {
        self.writer.needed_from(self.wiring.shared.needed_from.load(Ordering::Acquire));
        self.writer.other_bytes(self.state_bytes());
        let waits = match self.writer.commit(urgency) {
            Ok(committed) => committed.waits,
            Err(journal::Error::Full { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if std::mem::take(&mut self.cursor) {
            faults::kill_at("edge.e8");
        }
        self.tick &= waits;
        if let Some(receipt) = last_receipt
            && !waits
        {
            self.unproven.committed(receipt, self.writer.position());
        }
        self.wiring.shared.results_durable.store(self.results, Ordering::Release);
        for wake in &self.wiring.wake {
            match wake.try_send(()) {
                Ok(()) | Err(flume::TrySendError::Full(())) => {}
                Err(flume::TrySendError::Disconnected(())) => tracing::debug!("a reader has ended"),
            }
        }
        Ok(true)
    }

    /// Makes room by policy; false when the policy is to block, or nothing can go.
    pub(super) fn make_room(&mut self, now: Now, measures: &Measures) -> Result<bool, Error> {
        let why = match self.flow.policy {
            Policy::Block => {
                // What Kafka has may be kept for the windows alone.
                self.wiring.shared.image_wanted.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            Policy::DropOldest => Why::Dropped,
            Policy::RollUp(_) => Why::RolledUp,
        };
        // What was given up last may not be durable yet: one segment at a time.
        if self.writer.urgent_waits() && !self.commit(Urgency::Control, None)? {
            return Ok(false);
        }
        let Some(plan) = self.writer.plan_give_up()? else {
            self.wiring.shared.image_wanted.store(true, Ordering::Relaxed);
            return Ok(false);
        };
        let told = match self.flow.policy {
            Policy::RollUp(window_ms) => self.roll_up(&plan, window_ms, now, measures)?,
            _ => plan.ranges.iter().map(|range| (why, Some(*range))).collect(),
        };
        told.iter().for_each(|(why, range)| measures.gap(*why, range.map_or(0, |range| range.count)));
        for (why, range) in gaps::carried(told, &plan, self.writer.segments())? {
            self.gap(why, range.as_ref(), now, measures)?;
        }
        tracing::warn!(
            reason = why.as_str(),
            from = plan.from,
            to = plan.to,
            "the budget is reached: the oldest segment is given up"
        );
        measures.given_up_bytes.increment(plan.to - plan.from);
        match self.writer.give_up(plan, now) {
            Ok(()) => Ok(true),
            Err(journal::Error::Full { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends what the readings of a segment come to; tells which of its records are in that, and which are dropped.
    fn roll_up(
        &mut self,
        plan: &GivenUp,
        window_ms: i64,
        now: Now,
        measures: &Measures,
    ) -> Result<Vec<gaps::Told>, Error> {
        let RolledUp { results, told } = roll_up::roll_up(plan, window_ms, self.writer.segments())?;
        let bytes: u64 = results.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let dropped = |range: &Range| (Why::Dropped, Some(*range));
        // They must fit where there is room for urgent frames alone.
        if results.is_empty() || bytes > self.writer.reserve_bytes() / 2 {
            return Ok(plan.ranges.iter().map(dropped).collect());
        }
        for (key, value) in results {
            measures.journaled(Sent::Window);
            let record = sent(&mut self.writer, Sent::Window, &key, &value)?;
            self.writer.urgent(std::iter::once(record), now);
        }
        let others = plan.ranges.iter().filter(|range| range.kind != Sent::Reading).map(dropped);
        Ok(told.into_iter().chain(others).collect())
    }

    fn missing(&mut self, missing: &[Missing], now: Now, measures: &Measures) -> Result<(), Error> {
        let ranges: Vec<_> = missing
            .iter()
            .map(|m| Range { to: m.first.number + m.count - 1, count: m.count, ..one(m.stream, m.first) })
            .collect();
        self.gaps(Why::Damaged, &ranges, now, measures)
    }

    /// Something of which no numbers are known, between two positions of the journal.
    fn lost(&mut self, why: Why, (from, to): (u64, u64), now: Now, measures: &Measures) -> Result<(), Error> {
        let what = match why {
            Why::StateLost => "the state of the windows is lost, and so is the journal it came from",
            _ => {
                "the newest part of the journal is lost; which records it held that were not sent is not known"
            }
        };
        tracing::error!(from, to, "{what}: a gap without numbers says so");
        measures.gap(why, 0);
        self.gap(why, None, now, measures)
    }

    fn gaps(&mut self, why: Why, ranges: &[Range], now: Now, measures: &Measures) -> Result<(), Error> {
        for range in ranges {
            measures.gap(why, range.count);
            self.gap(why, Some(range), now, measures)?;
        }
        Ok(())
    }

    fn gap(&mut self, why: Why, range: Option<&Range>, now: Now, measures: &Measures) -> Result<(), Error> {
        measures.journaled(Sent::Gap);
        let value = gaps::gap(&self.edge, why, range, now.wall_ms);
        let record = sent(&mut self.writer, Sent::Gap, self.edge.as_bytes(), &value)?;
        self.writer.urgent(std::iter::once(record), now);
        Ok(())
    }

    /// A frame of the edge itself, which goes with the cursor that counts on it.
    fn own_frame(&mut self, records: Vec<Record<'_>>, now: Now) {
        if !records.is_empty() {
            self.writer.urgent(records.into_iter(), now);
        }
    }
}

fn sent<'a>(writer: &mut Writer, kind: Sent, key: &'a [u8], value: &'a [u8]) -> Result<Record<'a>, Error> {
    let place = writer.place(kind, key).ok_or("a record before the partition counts were known")?;
    Ok(Record::Sent { place, closing: false, key, value })
}

const fn one(stream: StreamId, place: Place) -> Range {
    let Place { kind, partition, number } = place;
    Range { stream, kind, partition, from: number, to: number, count: 1, times: None }
}
