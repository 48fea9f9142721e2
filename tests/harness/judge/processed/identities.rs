//! Sets of identities, issued beside found: knows no engine. Pure.

use std::collections::HashMap;

use weir_shared::wire;
use xxhash_rust::xxh3::xxh3_64;

use super::Gone;
use super::compare::Found;
use crate::faults::fleet::{Issued, Kind};
use crate::judge::Verdict;

/// Problems of one kind that are told one by one.
const TOLD_MAX: usize = 3;

pub(super) fn judge(issued: &[Issued], gone: &[Gone], found: &Found, verdict: &mut Verdict) {
    let mut told: HashMap<&str, usize> = HashMap::new();
    let mut tell = |verdict: &mut Verdict, kind: &'static str, about: String| {
        let count = told.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD_MAX {
            verdict.problems.push(format!("{kind}: {about}"));
        }
    };
    // Behind a deleted range each stream shows a hole of its own: those are left to the other judge.
    let (mut named, mut nameless, mut sure) = (0, 0, gone.is_empty());
    // Of a record that is gone the edge may have sent a repeat, which is not.
    let repeated = |record: &&Issued| {
        let identity = (record.topic, record.partition, record.stream, record.number);
        output(record.kind).is_some_and(|topic| found.named.contains_key(&(topic, identity)))
    };
    named += issued.iter().filter(|record| is_gone(record, gone)).filter(repeated).count();
    for record in issued.iter().filter(|record| !is_gone(record, gone)) {
        sure &= record.offset >= 0;
        let origin = (record.topic, record.partition, record.offset);
        if record.shows_gap && record.offset >= 0 {
            nameless += 1;
            if found.nameless.get(&(wire::LOSSES, origin)) != Some(&1) {
                tell(verdict, "numbers passed over, and not told once", format!("{record:?}"));
            }
        }
        let Some(topic) = output(record.kind) else { continue };
        verdict.acknowledged += 1;
        let count = if record.kind == Kind::Nameless {
            nameless += 1;
            if record.offset < 0 { 1 } else { found.nameless.get(&(topic, origin)).copied().unwrap_or(0) }
        } else {
            let identity = (record.topic, record.partition, record.stream, record.number);
            let values = found.named.get(&(topic, identity)).map_or(&[][..], Vec::as_slice);
            named += 1;
            let as_issued = !matches!(record.kind, Kind::Poison | Kind::Changed);
            if as_issued && values.iter().any(|value| !ends_with(value, record.tail)) {
                verdict.wrong += 1;
                tell(verdict, "says something else than was issued", format!("{record:?}"));
            }
            values.len()
        };
        match count {
            0 => {
                verdict.lost += 1;
                tell(verdict, "lost", format!("{record:?}"));
            }
            1 => verdict.found += 1,
            _ => {
                verdict.found += 1;
                verdict.doubled += 1;
                tell(verdict, "doubled", format!("{count} times {record:?}"));
            }
        }
    }
    // What was issued is there: more identities than these are phantoms.
    if found.named.len() > named || (sure && found.nameless.len() > nameless) {
        let (more, nameless_more) = (found.named.len(), found.nameless.len());
        verdict.wrong += 1;
        verdict.problems.push(format!(
            "phantoms: {more} identities of {named} issued, {nameless_more} without identity of {nameless}"
        ));
    }
    let (mut want, mut have) = (gone.to_vec(), found.gone.clone());
    want.sort();
    have.sort();
    if want != have {
        verdict.unannounced += 1;
        verdict.problems.push(format!("deleted from the log: {want:?}; told: {have:?}"));
    }
}

fn is_gone(record: &Issued, gone: &[Gone]) -> bool {
    let here = |range: &&Gone| range.topic == record.topic && range.partition == record.partition;
    gone.iter().filter(here).any(|range| (range.from..=range.to).contains(&record.offset))
}

/// Where a record of this kind must be found.
fn output(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Reading | Kind::Changed => Some(wire::ENRICHED),
        Kind::Window => Some(wire::AGGREGATES),
        Kind::Gap => Some(wire::LOSSES),
        Kind::Poison | Kind::Nameless | Kind::Rejection => Some(wire::REJECTED),
        Kind::Control | Kind::Filtered => None,
    }
}

fn ends_with(value: &[u8], (len, hash): (usize, u64)) -> bool {
    value.len() > len && xxh3_64(&value[value.len() - len..]) == hash
}
