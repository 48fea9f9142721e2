//! The aggregates of a set of readings.
//!
//! Comes in: values, one by one, or another tally. Goes out: the members of a window result.
//! Guarantees: only what the rule asks for takes room: a few cells of 8 bytes per field; sums are compensated
//! (Neumaier 1974), mean and variance are updated (Welford 1962) and merged (Chan, Golub, LeVeque 1979) without cancellation.
//! On failure: a result that is not finite, or not defined (the deviation of one value), is left out.

use super::codec::{Corrupt, Cursor, put_length, put_signed, put_unsigned};
use super::rule::{Aggregate, Rule};
use super::schema::Schema;
use super::sketch::{Distinct, Quantiles};
use crate::reading::Value;

const NONE: usize = usize::MAX;

/// Where in the cells of a field what is kept.
#[derive(Debug)]
pub(super) struct Plan {
    stride: usize,
    /// How many numbers, where that is not how many values.
    numbers: usize,
    sum: usize,
    min: usize,
    max: usize,
    moments: usize,
    first: usize,
    last: usize,
    quantiles: bool,
    distinct: bool,
    /// Each with `"name":` as JSON.
    aggregates: Vec<(Aggregate, String)>,
}

impl Plan {
    pub(super) fn new(rule: &Rule) -> Self {
        let has = |aggregate| rule.aggregates.contains(&aggregate);
        let mut stride = 1;
        let mut cells = |wanted: bool, count: usize| {
            let at = if wanted { stride } else { NONE };
            stride += if wanted { count } else { 0 };
            at
        };
        let moments = has(Aggregate::Stddev);
        let mean = has(Aggregate::Mean);
        Self {
            numbers: cells((mean || moments) && !rule.all_fields(), 1),
            sum: cells(has(Aggregate::Sum) || (mean && !moments), 2),
            min: cells(has(Aggregate::Min), 1),
            max: cells(has(Aggregate::Max), 1),
            moments: cells(moments, 2),
            first: cells(has(Aggregate::First) || has(Aggregate::Rate), 2),
            last: cells(has(Aggregate::Last) || has(Aggregate::Rate), 2),
            quantiles: rule.aggregates.iter().any(|a| matches!(a, Aggregate::Percentile(_))),
            distinct: has(Aggregate::Distinct),
            aggregates: rule.aggregates.iter().map(|a| (*a, format!("\"{a}\":"))).collect(),
            stride,
        }
    }

    fn empty_field(&self, cells: &mut Vec<u64>) {
        let at = cells.len();
        cells.resize(at + self.stride, 0);
        for (cell, value) in [
            (self.min, f64::INFINITY.to_bits()),
            (self.max, f64::NEG_INFINITY.to_bits()),
            (self.first, i64::MAX.cast_unsigned()),
            (self.last, i64::MIN.cast_unsigned()),
        ] {
            if cell != NONE {
                cells[at + cell] = value;
            }
        }
    }

    fn numbers(&self, field: &[u64]) -> u64 {
        field[if self.numbers == NONE { 0 } else { self.numbers }]
    }
}

#[derive(Clone, Debug, Default)]
struct Sketches {
    quantiles: Quantiles,
    distinct: Option<Box<Distinct>>,
}

/// Aggregates of all fields.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// How many readings.
    pub(super) readings: u64,
    /// Least and greatest time.
    pub(super) first: i64,
    pub(super) last: i64,
    /// Why readings are missing: a number of the engine's list, 0 for none.
    pub(super) why: u8,
    cells: Vec<u64>,
    sketches: Vec<Sketches>,
}

const fn float(cell: u64) -> f64 {
    f64::from_bits(cell)
}

/// Adds to a compensated sum: the sum itself and what rounding lost.
fn add_compensated(cells: &mut [u64], value: f64) {
    let (sum, lost) = (float(cells[0]), float(cells[1]));
    let next = sum + value;
    let more = if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
    cells[0] = next.to_bits();
    cells[1] = (lost + more).to_bits();
}

impl Tally {
    pub(super) const fn new() -> Self {
        let (first, last) = (i64::MAX, i64::MIN);
        Self { readings: 0, first, last, why: 0, cells: Vec::new(), sketches: Vec::new() }
    }

    /// One more reading, whose fields follow.
    pub(super) fn add_reading(&mut self, time: i64) {
        self.readings = self.readings.saturating_add(1);
        self.first = self.first.min(time);
        self.last = self.last.max(time);
    }

    /// A value of a field of that reading.
    pub(super) fn add(&mut self, plan: &Plan, field: usize, value: &Value<'_>, time: i64) {
        let at = field * plan.stride;
        if at >= self.cells.len() {
            self.cells.reserve_exact(at + plan.stride - self.cells.len());
            while at >= self.cells.len() {
                plan.empty_field(&mut self.cells);
            }
        }
        let cells = &mut self.cells[at..at + plan.stride];
        cells[0] = cells[0].saturating_add(1);
        if let Some(number) = value.number() {
            add_number(plan, cells, number, time);
        }
        if plan.quantiles || plan.distinct {
            self.add_to_sketches(plan, field, value);
        }
    }

    fn add_to_sketches(&mut self, plan: &Plan, field: usize, value: &Value<'_>) {
        if field >= self.sketches.len() {
            self.sketches.resize_with(field + 1, Sketches::default);
        }
        let sketches = &mut self.sketches[field];
        if let (true, Some(number)) = (plan.quantiles, value.number()) {
            sketches.quantiles.add(number);
        }
        if plan.distinct {
            sketches.distinct.get_or_insert_default().add(value);
        }
    }

    /// Adds what came later.
    pub(super) fn merge(&mut self, plan: &Plan, later: &Self) {
        self.readings = self.readings.saturating_add(later.readings);
        self.first = self.first.min(later.first);
        self.last = self.last.max(later.last);
        if self.why == 0 {
            self.why = later.why;
        }
        while self.cells.len() < later.cells.len() {
            plan.empty_field(&mut self.cells);
        }
        let pairs = self.cells.chunks_exact_mut(plan.stride).zip(later.cells.chunks_exact(plan.stride));
        for (cells, later) in pairs.filter(|(_, later)| later[0] > 0) {
            merge_field(plan, cells, later);
        }
        if self.sketches.len() < later.sketches.len() {
            self.sketches.resize_with(later.sketches.len(), Sketches::default);
        }
        for (sketches, later) in self.sketches.iter_mut().zip(&later.sketches) {
            sketches.quantiles.merge(&later.quantiles);
            match (&mut sketches.distinct, &later.distinct) {
                (Some(mine), Some(later)) => mine.merge(later),
                (mine @ None, Some(later)) => *mine = Some(later.clone()),
                (_, None) => {}
            }
        }
    }

    /// Writes `"t":{…},"u":{…}`: the fields that have values.
    pub(super) fn write(&self, plan: &Plan, schema: &Schema, out: &mut Vec<u8>) {
        let fields = self.cells.len() / plan.stride;
        let mut comma = false;
        for field in schema.order.iter().map(|&f| usize::from(f)).filter(|&f| f < fields) {
            let cells = &self.cells[field * plan.stride..][..plan.stride];
            if cells[0] == 0 {
                continue;
            }
            let empty = out.len();
            if comma {
                out.push(b',');
            }
            out.extend_from_slice(schema.heads[field].as_bytes());
            let begin = out.len();
            for (aggregate, name) in &plan.aggregates {
                let before = out.len();
                out.extend_from_slice(name.as_bytes());
                if self.write_one(plan, field, *aggregate, out) {
                    out.push(b',');
                } else {
                    out.truncate(before);
                }
            }
            if out.len() > begin {
                out.pop();
                out.push(b'}');
                comma = true;
            } else {
                out.truncate(empty);
            }
        }
    }

    fn write_one(&self, plan: &Plan, field: usize, aggregate: Aggregate, out: &mut Vec<u8>) -> bool {
        let cells = &self.cells[field * plan.stride..][..plan.stride];
        let sketches = self.sketches.get(field);
        let numbers = plan.numbers(cells);
        let result = match aggregate {
            Aggregate::Count => {
                write_unsigned(out, cells[0]);
                return true;
            }
            Aggregate::Distinct => {
                write_unsigned(out, sketches.and_then(|s| s.distinct.as_ref()).map_or(0, |d| d.count()));
                return true;
            }
            Aggregate::Percentile(p) => sketches.and_then(|s| s.quantiles.at(p)),
            Aggregate::Sum => Some(float(cells[plan.sum]) + float(cells[plan.sum + 1])),
            Aggregate::Min => Some(float(cells[plan.min])),
            Aggregate::Max => Some(float(cells[plan.max])),
            Aggregate::Mean if plan.moments != NONE => (numbers > 0).then(|| float(cells[plan.moments])),
            Aggregate::Mean => {
                let sum = float(cells[plan.sum]) + float(cells[plan.sum + 1]);
                (numbers > 0).then(|| sum / numbers as f64)
            }
            Aggregate::Stddev => {
                (numbers > 1).then(|| (float(cells[plan.moments + 1]) / (numbers - 1) as f64).sqrt())
            }
            Aggregate::First => timed(cells, plan.first).map(|(_, v)| v),
            Aggregate::Last => timed(cells, plan.last).map(|(_, v)| v),
            Aggregate::Rate => {
                timed(cells, plan.first).zip(timed(cells, plan.last)).and_then(|(first, last)| {
                    let seconds = last.0.saturating_sub(first.0) as f64 / 1000.0;
                    (seconds > 0.0).then(|| (last.1 - first.1) / seconds)
                })
            }
        };
        result.filter(|v| v.is_finite()).is_some_and(|v| {
            serde_json::to_writer(&mut *out, &v).expect("a finite number into a buffer is always JSON");
            true
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_unsigned(out, self.readings);
        put_signed(out, self.first);
        put_signed(out, self.last);
        out.push(self.why);
        put_length(out, self.cells.len());
        self.cells.iter().for_each(|cell| out.extend_from_slice(&cell.to_le_bytes()));
        put_length(out, self.sketches.len());
        for sketches in &self.sketches {
            sketches.quantiles.encode(out);
            out.push(u8::from(sketches.distinct.is_some()));
            if let Some(distinct) = &sketches.distinct {
                distinct.encode(out);
            }
        }
    }

    pub(super) fn decode(plan: &Plan, fields: usize, cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let mut tally = Self::new();
        tally.readings = cursor.unsigned()?;
        tally.first = cursor.time()?;
        tally.last = cursor.time()?;
        if tally.readings == 0 || tally.first > tally.last {
            return Err(Corrupt("a tally of nothing"));
        }
        tally.why = cursor.byte()?;
        let cells = cursor.length(8)?;
        if !cells.is_multiple_of(plan.stride) || cells > fields * plan.stride {
            return Err(Corrupt("cells do not fit the fields"));
        }
        tally.cells = (0..cells).map(|_| cursor.bits()).collect::<Result<_, _>>()?;
        let sketches = cursor.length(2)?;
        if sketches > fields || (sketches > 0 && !plan.quantiles && !plan.distinct) {
            return Err(Corrupt("sketches do not fit the fields"));
        }
        for _ in 0..sketches {
            let quantiles = Quantiles::decode(cursor)?;
            let distinct = match cursor.byte()? {
                0 => None,
                _ => Some(Box::new(Distinct::decode(cursor)?)),
            };
            tally.sketches.push(Sketches { quantiles, distinct });
        }
        Ok(tally)
    }
}

fn write_unsigned(out: &mut Vec<u8>, n: u64) {
    serde_json::to_writer(out, &n).expect("a number into a buffer is always JSON");
}

fn timed(cells: &[u64], at: usize) -> Option<(i64, f64)> {
    let time = cells[at].cast_signed();
    (time != i64::MAX && time != i64::MIN).then(|| (time, float(cells[at + 1])))
}

#[inline]
fn add_number(plan: &Plan, cells: &mut [u64], value: f64, time: i64) {
    if plan.numbers != NONE {
        cells[plan.numbers] = cells[plan.numbers].saturating_add(1);
    }
    if plan.sum != NONE {
        add_compensated(&mut cells[plan.sum..plan.sum + 2], value);
    }
    if plan.min != NONE && value < float(cells[plan.min]) {
        cells[plan.min] = value.to_bits();
    }
    if plan.max != NONE && value > float(cells[plan.max]) {
        cells[plan.max] = value.to_bits();
    }
    if plan.moments != NONE {
        let count = plan.numbers(cells) as f64;
        let mean = float(cells[plan.moments]);
        let delta = value - mean;
        let next = mean + delta / count;
        cells[plan.moments] = next.to_bits();
        let squares = float(cells[plan.moments + 1]) + delta * (value - next);
        cells[plan.moments + 1] = squares.to_bits();
    }
    if plan.first != NONE && time < cells[plan.first].cast_signed() {
        cells[plan.first] = time.cast_unsigned();
        cells[plan.first + 1] = value.to_bits();
    }
    if plan.last != NONE && time >= cells[plan.last].cast_signed() {
        cells[plan.last] = time.cast_unsigned();
        cells[plan.last + 1] = value.to_bits();
    }
}

fn merge_field(plan: &Plan, cells: &mut [u64], later: &[u64]) {
    if cells[0] == 0 {
        cells.copy_from_slice(later);
        return;
    }
    let (mine, theirs) = (plan.numbers(cells), plan.numbers(later));
    cells[0] = cells[0].saturating_add(later[0]);
    if plan.numbers != NONE {
        cells[plan.numbers] = mine.saturating_add(theirs);
    }
    if plan.sum != NONE {
        add_compensated(&mut cells[plan.sum..plan.sum + 2], float(later[plan.sum]));
        let lost = float(cells[plan.sum + 1]) + float(later[plan.sum + 1]);
        cells[plan.sum + 1] = lost.to_bits();
    }
    if plan.min != NONE {
        cells[plan.min] = float(cells[plan.min]).min(float(later[plan.min])).to_bits();
    }
    if plan.max != NONE {
        cells[plan.max] = float(cells[plan.max]).max(float(later[plan.max])).to_bits();
    }
    if plan.moments != NONE && theirs > 0 {
        let (n, m) = (mine as f64, theirs as f64);
        let delta = float(later[plan.moments]) - float(cells[plan.moments]);
        let mean = float(cells[plan.moments]) + delta * m / (n + m);
        let between = delta * delta * n * m / (n + m);
        let squares = float(cells[plan.moments + 1]) + float(later[plan.moments + 1]) + between;
        cells[plan.moments] = mean.to_bits();
        cells[plan.moments + 1] = squares.to_bits();
    }
    if plan.first != NONE && later[plan.first].cast_signed() < cells[plan.first].cast_signed() {
        cells[plan.first..plan.first + 2].copy_from_slice(&later[plan.first..plan.first + 2]);
    }
    if plan.last != NONE && later[plan.last].cast_signed() >= cells[plan.last].cast_signed() {
        cells[plan.last..plan.last + 2].copy_from_slice(&later[plan.last..plan.last + 2]);
    }
}
