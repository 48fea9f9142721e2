//! Aggregates as their definitions have them.

use std::collections::BTreeSet;

use super::model::Given;
use crate::window::Aggregate;

/// An aggregate computed from the values in the order of the log; `None` where there is none.
pub(super) fn aggregate(aggregate: Aggregate, readings: &[Given]) -> Option<f64> {
    let timed: Vec<(i64, f64)> = readings.iter().filter_map(|r| Some((r.time, r.value?))).collect();
    let mut values: Vec<f64> = timed.iter().map(|v| v.1).collect();
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let sum: f64 = values.iter().sum();
    let first =
        timed.iter().rev().min_by_key(|v| v.0).map(|least| timed.iter().find(|v| v.0 == least.0).unwrap());
    let last = timed.iter().max_by_key(|v| v.0);
    match aggregate {
        Aggregate::Count => Some(n),
        Aggregate::Sum => Some(sum),
        Aggregate::Min => values.first().copied(),
        Aggregate::Max => values.last().copied(),
        Aggregate::Mean => Some(sum / n),
        Aggregate::Stddev => {
            let squares: f64 = values.iter().map(|v| (v - sum / n).powi(2)).sum();
            (n > 1.0).then(|| (squares / (n - 1.0)).sqrt())
        }
        Aggregate::Percentile(p) => {
            let rank = (values.len() as u64 - 1) * u64::from(p) / 100_000;
            Some(values[usize::try_from(rank).unwrap()])
        }
        Aggregate::Distinct => Some(values.iter().map(|v| v.to_bits()).collect::<BTreeSet<_>>().len() as f64),
        Aggregate::First => first.map(|v| v.1),
        Aggregate::Last => last.map(|v| v.1),
        Aggregate::Rate => {
            let (first, last) = (first?, last?);
            (last.0 > first.0).then(|| (last.1 - first.1) / ((last.0 - first.0) as f64 / 1000.0))
        }
    }
}
