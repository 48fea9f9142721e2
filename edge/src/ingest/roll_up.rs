//! Rolling up the readings of a segment before it is given up.
//!
//! Comes in: the range of the journal that goes. Goes out: results of the rule `roll_up`, tumbling windows per device over
//! every number: count, sum, min, max, mean. Guarantees: every reading that goes is in exactly one result; results of
//! one window from several segments have different `part`s (the position of the segment), which add up.
//! On failure: the journal's errors; what is damaged in the segment is not in the results (its gap says so).

use weir_shared::reading::Reading;
use weir_shared::window::{Aggregate, Engine, Filter, Kind, Limits, Output, Outputs, Rule, Span};

use crate::journal::format::{Record, Sent};
use crate::journal::reader::Step;
use crate::journal::writer::GivenUp;
use crate::journal::{Error, Reader, Segments};

/// The rule's name.
const RULE: &str = "roll_up";

/// Key and value of a result.
type Keyed = (Vec<u8>, Vec<u8>);

/// Keys and values of the results.
pub(super) fn roll_up(plan: &GivenUp, window_ms: i64, segments: &Segments) -> Result<Vec<Keyed>, Error> {
    let all = |_: &str| -> Filter { Box::new(|_| true) };
    let Ok(mut engine) = Engine::new(vec![rule(window_ms)], Limits::default(), &all) else {
        unreachable!("the rule is right for every window that the configuration takes")
    };
    let mut reading = Reading::default();
    let mut outputs = Outputs::default();
    let mut reader = Reader::new(segments.clone(), plan.from);
    while let Some(step) = reader.next(plan.to)? {
        let Step::Batch(batch) = step else { continue };
        for frame in batch.frames() {
            for record in frame.records() {
                let Record::Sent { place, closing: false, value, .. } = record else { continue };
                if place.kind != Sent::Reading || !plan.holds(batch.stream, &place) {
                    continue;
                }
                let mut parsed = reading.recycled();
                if parsed.parse(value).is_ok() {
                    engine.reading(&parsed, frame.head.arrived.wall_ms, &mut outputs);
                }
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
    Ok(results.collect())
}

/// Nothing is late for it: a segment is no stream.
fn rule(window_ms: i64) -> Rule {
    let kind = Kind::Tumbling { size: Span::Ms(window_ms.unsigned_abs()) };
    let aggregates = vec![Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Mean];
    Rule { aggregates, delay_ms: LATENESS_MS, idle_ms: LATENESS_MS, ..Rule::new(RULE, kind) }
}

/// Ten years.
const LATENESS_MS: u64 = 316_224_000_000;
