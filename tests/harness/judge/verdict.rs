//! The verdict over one run.
//!
//! Comes in: the run, what is owed, the records in the order of their partitions. Goes out: counts, and every problem in
//! words. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::marks::{Marks, Missing, Place, Ruling};
use super::run::Run;
use super::tape::{Gap, Seen, What};
use weir_shared::wire;

/// Problems of one kind that are told one by one.
const TOLD_MAX: usize = 3;

/// What was found of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Readings that are owed.
    pub acknowledged: usize,
    /// Of these, found.
    pub found: usize,
    /// Owed, not found, and not announced as given up.
    pub lost: usize,
    /// Owed, not found, announced.
    pub given_up: usize,
    /// Found more than once after the repeats were dropped.
    pub doubled: usize,
    /// Records that the cloud's rule dropped.
    pub repeats: usize,
    /// Readings that stand before an earlier one of their device.
    pub disordered: usize,
    /// Records that say what was never published, or are malformed.
    pub wrong: usize,
    /// Numbers that were passed over and not announced.
    pub unannounced: u64,
    /// Some of all this in words.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        let bad = self.lost + self.doubled + self.disordered + self.wrong;
        bad == 0 && self.unannounced == 0 && self.problems.is_empty()
    }

    fn tell(&mut self, kind: &str, about: &str) {
        let of_kind = self.problems.iter().filter(|p| p.starts_with(kind)).count();
        if of_kind < TOLD_MAX {
            self.problems.push(format!("{kind}: {about}"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, found, lost, doubled, repeats, .. } = self;
        write!(
            f,
            "acknowledged {acknowledged}, found {found}, lost {lost}, doubled {doubled}, repeats {repeats}"
        )?;
        for (count, name) in
            [(self.given_up, "given up"), (self.disordered, "disordered"), (self.wrong, "wrong")]
        {
            if count > 0 {
                write!(f, ", {name} {count}")?;
            }
        }
        if self.unannounced > 0 {
            write!(f, ", missing without a gap {}", self.unannounced)?;
        }
        Ok(())
    }
}

/// Judges.
#[must_use]
pub fn judge(run: &Run, owed: &HashSet<u64>, seen: &[Seen]) -> Verdict {
    let mut verdict = Verdict { acknowledged: owed.len(), ..Verdict::default() };
    let mut marks = Marks::default();
    let mut missing = Vec::new();
    let mut gaps = Vec::new();
    let mut times: HashMap<u64, u32> = HashMap::new();
    let mut last_of: HashMap<String, u64> = HashMap::new();
    let mut identities = HashSet::new();
    for record in seen {
        if let What::Wrong(why) = &record.what {
            verdict.wrong += 1;
            verdict.tell("wrong", why);
        }
        let place = (record.stream, record.topic, record.partition);
        match marks.rule(place, record.number) {
            Ruling::Repeat => {
                verdict.repeats += 1;
                continue;
            }
            Ruling::AcceptedAfter(range) => missing.push(range),
            Ruling::Accepted => {}
        }
        match &record.what {
            What::Reading(number) => {
                identities.insert((place, record.number));
                *times.entry(*number).or_default() += 1;
                let device = run.device(*number);
                if last_of.insert(device.clone(), *number).is_some_and(|last| last > *number) {
                    verdict.disordered += 1;
                    verdict.tell("disordered", &format!("{number} of {device} behind a later one"));
                }
            }
            What::Gap(gap) => gaps.push(gap.clone()),
            _ => {}
        }
    }
    for (number, count) in times.iter().filter(|(_, count)| **count > 1) {
        verdict.doubled += 1;
        verdict.tell("doubled", &format!("{number} counts {count} times"));
    }
    verdict.found = owed.iter().filter(|n| times.contains_key(n)).count();
    let announced = Announced::new(&gaps);
    not_found(owed, &times, announced.given_up(&identities), &mut verdict);
    passed_over(&missing, &announced, &mut verdict);
    verdict
}

/// What is owed and not there must be, to the number, what was announced and never came.
fn not_found(owed: &HashSet<u64>, times: &HashMap<u64, u32>, announced: u64, verdict: &mut Verdict) {
    let mut gone: Vec<u64> = owed.iter().filter(|n| !times.contains_key(n)).copied().collect();
    gone.sort_unstable();
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    verdict.given_up = gone.len().min(announced);
    verdict.lost = gone.len() - verdict.given_up;
    if announced > gone.len() {
        let text = format!("{announced} readings announced as given up, {} are not there", gone.len());
        verdict.problems.push(text);
    }
    if verdict.lost > 0 {
        let (first, last) = (gone[0], gone[gone.len() - 1]);
        verdict.problems.push(format!("lost: {} of the numbers {first} to {last}", verdict.lost));
    }
}

fn passed_over(missing: &[Missing], announced: &Announced, verdict: &mut Verdict) {
    for range in missing {
        let count = (range.from..=range.to).filter(|n| !announced.has(range.place, *n)).count() as u64;
        if count > 0 {
            verdict.unannounced += count;
            let (stream, topic, partition) = range.place;
            let text = format!("{topic}/{partition} stream {stream} from {} to {}", range.from, range.to);
            verdict.tell("missing without a gap", &text);
        }
    }
}

/// What the edge said it gave up.
struct Announced(HashMap<Place, BTreeSet<(u64, u64)>>);

impl Announced {
    fn new(gaps: &[Gap]) -> Self {
        let mut ranges: HashMap<Place, BTreeSet<(u64, u64)>> = HashMap::new();
        for gap in gaps {
            ranges.entry(gap.place).or_default().insert((gap.from, gap.to));
        }
        Self(ranges)
    }

    fn has(&self, place: Place, number: u64) -> bool {
        self.0.get(&place).is_some_and(|r| r.iter().any(|(from, to)| (*from..=*to).contains(&number)))
    }

    /// Readings announced that never came. (Some of the last ones may have been on their way.)
    fn given_up(&self, found: &HashSet<(Place, u64)>) -> u64 {
        let mut numbers: HashSet<(Place, u64)> = HashSet::new();
        for (place, ranges) in self.0.iter().filter(|(place, _)| place.1 == wire::READINGS) {
            for (from, to) in ranges {
                numbers.extend((*from..=*to).map(|n| (*place, n)));
            }
        }
        numbers.difference(found).count() as u64
    }
}
