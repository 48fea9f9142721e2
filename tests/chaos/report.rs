//! What one row found: a line for people, figures for programs. Pure.

use std::fmt;

use serde_json::{Map, Value, json};
use weir_harness::judge::Verdict;

/// After a fault a fresh reading must be in Kafka within this time.
pub(crate) const CANARY_SECONDS_MAX: f64 = 10.0;
/// What a problem says that is about time alone.
const SLOW: &str = "a fresh reading took";
/// Problems shown.
const SHOWN_MAX: usize = 12;
/// Of a problem so much stands among the figures.
const PROBLEM_CHARS_MAX: usize = 300;

/// One row.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) row: &'static str,
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) seconds: f64,
    did: String,
    found: usize,
    repeats: usize,
    given_up: usize,
    heals: Vec<f64>,
    figures: Map<String, Value>,
    problems: Vec<String>,
}

impl Report {
    pub(crate) fn new(row: &'static str) -> Self {
        Self {
            row,
            acknowledged: 0,
            lost: 0,
            doubled: 0,
            seconds: 0.0,
            did: String::new(),
            found: 0,
            repeats: 0,
            given_up: 0,
            heals: Vec::new(),
            figures: Map::new(),
            problems: Vec::new(),
        }
    }

    /// What was done, in few words.
    pub(crate) fn did(&mut self, words: &str) {
        words.clone_into(&mut self.did);
    }

    /// Adds a verdict; `about` says of what.
    pub(crate) fn verdict(&mut self, about: &str, verdict: &Verdict) {
        self.acknowledged += verdict.acknowledged;
        self.found += verdict.found;
        self.lost += verdict.lost;
        self.doubled += verdict.doubled;
        self.repeats += verdict.repeats;
        self.given_up += verdict.given_up;
        for problem in &verdict.problems {
            self.problem(format!("{about}: {problem}"));
        }
        if !verdict.is_right() && verdict.problems.is_empty() {
            self.problem(format!("{about}: {verdict}"));
        }
    }

    /// A canary took so long after a fault was healed.
    pub(crate) fn heal(&mut self, about: &str, seconds: f64) {
        self.heals.push(seconds);
        if seconds > CANARY_SECONDS_MAX {
            self.problem(format!("{about}: {SLOW} {seconds:.1} s after the fault"));
        }
    }

    pub(crate) fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    pub(crate) fn problem(&mut self, words: impl Into<String>) {
        self.problems.push(words.into());
    }

    /// Notes a problem unless this holds.
    pub(crate) fn check(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.problem(words());
        }
    }

    pub(crate) fn is_right(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The first problem that is about more than time: a busy machine has the others too.
    pub(crate) fn proof(&self) -> Option<&String> {
        self.problems.iter().find(|problem| !problem.contains(SLOW))
    }

    pub(crate) fn heal_max(&self) -> Option<f64> {
        self.heals.iter().copied().reduce(f64::max)
    }

    pub(crate) fn figures(&self) -> Value {
        let mut figures = self.figures.clone();
        figures.insert("ok".to_owned(), json!(self.is_right()));
        figures.insert("seconds".to_owned(), json!(tenth(self.seconds)));
        let counts = [
            ("acknowledged", self.acknowledged),
            ("found", self.found),
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("repeats", self.repeats),
            ("given_up", self.given_up),
        ];
        figures.extend(counts.map(|(name, count)| (name.to_owned(), json!(count))));
        figures.insert("heal_seconds_max".to_owned(), json!(self.heal_max().map(tenth)));
        let short = |problem: &String| problem.chars().take(PROBLEM_CHARS_MAX).collect::<String>();
        let problems: Vec<String> = self.problems.iter().take(SHOWN_MAX).map(short).collect();
        figures.insert("problems".to_owned(), json!(problems));
        Value::Object(figures)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_right() { "held" } else { "RED" };
        write!(f, "row {:<8} {word:<4}  {}: ", self.row, self.did)?;
        let Self { acknowledged, found, lost, doubled, repeats, given_up, .. } = self;
        write!(
            f,
            "acknowledged {acknowledged}, found {found}, lost {lost}, doubled {doubled}, repeats {repeats}"
        )?;
        if *given_up > 0 {
            write!(f, ", given up {given_up}")?;
        }
        if let Some(heal) = self.heal_max() {
            write!(f, "; healed in {heal:.1} s at most")?;
        }
        write!(f, "; {:.0} s", self.seconds)?;
        for (name, value) in &self.figures {
            write!(f, "; {name} {value}")?;
        }
        for problem in self.problems.iter().take(SHOWN_MAX) {
            write!(f, "\n          {problem}")?;
        }
        if self.problems.len() > SHOWN_MAX {
            write!(f, "\n          and {} problems more", self.problems.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}

pub(crate) fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
