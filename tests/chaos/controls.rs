//! Judging known-bad switches: with a guarantee broken on purpose, a row must turn red.
//!
//! Goes out: lines of progress; in the report, each switch that proves nothing. Guarantees: a part that could not be carried
//! out is no proof, but for a reading that never came: that is what a row is to find.

use crate::report::Report;

/// How an error begins that tells of a canary that never came.
pub(crate) const NO_CANARY: &str = "no canary came through";

/// The switches of a run, and how many of them turned their row red.
pub(crate) struct Controls {
    /// The only one, if the run is about one.
    only: Option<String>,
    red: u32,
    count: u32,
}

impl Controls {
    pub(crate) fn new(only: Option<String>) -> Self {
        Self { only, red: 0, count: 0 }
    }

    /// Whether this switch is one of them.
    pub(crate) fn wants(&self, bad: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == bad)
    }

    /// What the part of the row came to, and the problem it found: a line when that is a proof.
    pub(crate) fn judge(
        &mut self,
        report: &mut Report,
        (bad, row): (&str, &str),
        done: anyhow::Result<()>,
        proof: Option<&String>,
    ) -> Option<String> {
        self.count += 1;
        let problem = match (done, proof) {
            (_, Some(problem)) => problem,
            (Err(error), None) if error.to_string().starts_with(NO_CANARY) => NO_CANARY,
            (Ok(()), None) => {
                report.problem(format!("{bad}: row {row} stayed green"));
                return None;
            }
            (Err(error), None) => {
                report.problem(format!("{bad}: row {row} proves nothing: {error:#}"));
                return None;
            }
        };
        self.red += 1;
        Some(format!("control {bad}: row {row} turns red: {problem}"))
    }

    /// What all of them came to.
    pub(crate) fn close(self, report: &mut Report) {
        let Self { only, red, count } = self;
        report.did(&format!("{red} of {count} known-bad switches turned their row red"));
        report.check(count > 0, || format!("no control is called {only:?}"));
        report.figure("red", red);
    }
}
