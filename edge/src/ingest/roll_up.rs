//! Rolling up the readings of a segment before it is given up.
//!
//! Comes in: the range of the journal that goes. Goes out: results of the rule `roll_up`, tumbling windows per device over
//! every number: count, sum, min, max, mean; and which readings they are made of. Guarantees: every reading that goes is
//! in exactly one result, or told as dropped (more than ten years behind its device's newest, say, or one key too many);
//! results of one window from several segments have different `part`s (the position of the segment), which add up.
//! On failure: the journal's errors; what is damaged in the segment is not in the results (its gap says so).

use std::collections::BTreeMap;

use weir_shared::reading::Reading;
use weir_shared::record::StreamId;
use weir_shared::window::{Aggregate, Counts, Engine, Filter, Kind, Limits, Output, Outputs, Rule, Span};

use super::gaps::{Told, Why};
use crate::journal::format::{Place, Record, Sent};
use crate::journal::reader::Step;
use crate::journal::writer::{GivenUp, GivenUpRange as Range};
use crate::journal::{Error, Reader, Segments};

/// The rule's name, which no other has.
pub(crate) const RULE: &str = "roll_up";

/// Key and value of a result.
type Keyed = (Vec<u8>, Vec<u8>);

/// Most gaps for the readings of a segment: where those that are in no result lie too scattered, all are dropped.
const GAPS_MAX: usize = 200;

/// What the readings of a segment came to.
#[derive(Debug, Default)]
pub(super) struct RolledUp {
    /// Keys and values of the results; empty for none.
    pub results: Vec<Keyed>,
    /// Which readings are in them, and which are not.
    pub told: Vec<Told>,
}

/// Rolls up what goes.
pub(super) fn roll_up(plan: &GivenUp, window_ms: i64, segments: &Segments) -> Result<RolledUp, Error> {
    let all = |_: &str| -> Filter { Box::new(|_| true) };
    let Ok(mut engine) = Engine::new(vec![rule(window_ms)], Limits::default(), &all) else {
        unreachable!("the rule is right for every window that the configuration takes")
    };
    let mut reading = Reading::default();
    let mut outputs = Outputs::default();
    let mut fates = Fates::default();
    let mut reader = Reader::new(segments.clone(), plan.from);
    while let Some(step) = reader.next(plan.to)? {
        let Step::Batch(batch) = step else { continue };
        for frame in batch.frames() {
            for record in frame.records() {
                let Record::Sent { place, closing, value, .. } = record else { continue };
                if place.kind != Sent::Reading || !plan.holds(batch.stream, &place) {
                    continue;
                }
                let arrived_ms = frame.head.arrived.wall_ms;
                if closing {
                    fates.note(batch.stream, place, arrived_ms, Why::RolledUp);
                    continue;
                }
                let mut parsed = reading.recycled();
                let before = refused(&outputs.counts);
                let readable = parsed.parse(value).is_ok();
                if readable {
                    engine.reading(&parsed, arrived_ms, &mut outputs);
                }
                let entered = readable && refused(&outputs.counts) == before;
                let why = if entered { Why::RolledUp } else { Why::Dropped };
                fates.note(batch.stream, place, if readable { parsed.time } else { arrived_ms }, why);
                reading = parsed.recycled();
            }
        }
    }
    engine.incomplete(RULE);
    if let Err(why) = engine.switch(Vec::new(), &all, &mut outputs) {
        unreachable!("no rule is wrong: {why}");
    }
    let part = format!("{{\"rule\":\"{RULE}\",\"part\":{}", plan.from);
    let whole = format!("{{\"rule\":\"{RULE}\"");
    let results = outputs.iter().filter_map(|output| match output {
        Output::Window { key, json } => {
            let rest = json.strip_prefix(whole.as_bytes())?;
            Some((key.as_bytes().to_vec(), [part.as_bytes(), rest].concat()))
        }
        Output::Late { .. } => None,
    });
    let told = fates.0.into_values().flatten().map(|(why, range)| (why, Some(range))).collect::<Vec<_>>();
    Ok(if told.len() > GAPS_MAX {
        RolledUp::default()
    } else {
        RolledUp { results: results.collect(), told }
    })
}

/// Readings that entered no window.
const fn refused(counts: &Counts) -> u64 {
    counts.late + counts.unkeyed + counts.keys_refused + counts.windows_refused + counts.times_refused
}

/// Runs of readings that came to the same, by stream and partition.
#[derive(Default)]
struct Fates(BTreeMap<(StreamId, u32), Vec<(Why, Range)>>);

impl Fates {
    fn note(&mut self, stream: StreamId, place: Place, time: i64, why: Why) {
        let Place { kind, partition, number } = place;
        let runs = self.0.entry((stream, partition)).or_default();
        match runs.last_mut() {
            Some((same, run)) if *same == why => {
                (run.to, run.count) = (number, run.count + 1);
                run.times = run.times.map(|(from, to)| (from.min(time), to.max(time)));
            }
            _ => {
                let times = Some((time, time));
                runs.push((
                    why,
                    Range { stream, kind, partition, from: number, to: number, count: 1, times },
                ));
            }
        }
    }
}

/// Little is late for it: a segment is no stream.
fn rule(window_ms: i64) -> Rule {
    let kind = Kind::Tumbling { size: Span::Ms(window_ms.unsigned_abs()) };
    let aggregates = vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Mean];
    Rule { aggregates, delay_ms: LATENESS_MS, idle_ms: LATENESS_MS, ..Rule::new(RULE, kind) }
}

/// Ten years.
const LATENESS_MS: u64 = 316_224_000_000;

#[cfg(test)]
mod tests;
