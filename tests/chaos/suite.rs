//! What the suites of `weir-cloud` share: carrying out rows in a lab, and the controls.
//!
//! Guarantees: a row that cannot be carried out is red; after a red one, or one that leaves a mess, the lab is made anew; a
//! control counts as red only when its row found a problem that is about more than time, or a reading never came.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use weir_harness::faults::cloud::{Cloud, CloudSpec};

use crate::controls::Controls;
use crate::lab::line;
use crate::report::Report;

/// Servers, and what feeds the programs that are hurt.
pub(crate) trait Lab: Sized {
    /// Seconds since the suite began.
    fn seconds(&self) -> f64;

    /// Makes everything anew that a row may have left.
    fn anew(&mut self) -> anyhow::Result<()>;

    /// Takes the servers down.
    fn down(&mut self) -> anyhow::Result<()>;

    /// The known-bad switch of this run.
    fn bad(&mut self) -> &mut Option<String>;

    /// Counts what is there, when a control's row ended before it did so itself; false where that cannot be done.
    fn count(&mut self, _: &mut Report) -> anyhow::Result<bool> {
        Ok(false)
    }

    /// A line of progress.
    fn tell(&self, words: &str) {
        line(&format!("{:6.1} s  {words}", self.seconds()));
    }

    /// Starts a program with these failpoints, and the known-bad switch of this run.
    fn start_as(&mut self, spec: &CloudSpec, failpoints: &str) -> anyhow::Result<Cloud> {
        let bad = self.bad().as_ref().map(|bad| format!("{bad}=return"));
        let points: Vec<&str> = [Some(failpoints), bad.as_deref()].into_iter().flatten().collect();
        let points = points.into_iter().filter(|point| !point.is_empty()).collect::<Vec<_>>().join(";");
        spec.start(&[("FAILPOINTS".to_owned(), points)])
    }
}

/// Hurts something and says what came of it.
type Run<L> = fn(&mut L, &mut Report) -> anyhow::Result<()>;

/// One row of the fault matrix.
pub(crate) struct Row<L> {
    /// Its number there.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    pub(crate) run: Run<L>,
    /// Whether everything must be made anew after it.
    pub(crate) leaves_a_mess: bool,
}

/// A row that leaves no mess.
pub(crate) const fn row<L>(name: &'static str, about: &'static str, run: Run<L>) -> Row<L> {
    Row { name, about, run, leaves_a_mess: false }
}

/// The rows with these names; all when there is none.
pub(crate) fn chosen<L>(rows: &'static [Row<L>], names: &[String]) -> anyhow::Result<Vec<&'static Row<L>>> {
    if let Some(unknown) = names.iter().find(|name| !rows.iter().any(|row| row.name == **name)) {
        let known: Vec<&str> = rows.iter().map(|row| row.name).collect();
        bail!("there is no row {unknown}: there are {}", known.join(", "));
    }
    Ok(rows.iter().filter(|row| names.is_empty() || names.iter().any(|name| *name == row.name)).collect())
}

/// Carries out these rows, one after the other: what each found, and how many seconds all of it took.
pub(crate) fn carry_out<L: Lab>(mut lab: L, rows: &[&Row<L>]) -> anyhow::Result<(Vec<Report>, f64)> {
    let mut reports = Vec::new();
    for row in rows {
        let begun = lab.seconds();
        lab.tell(&format!("row {}: {}", row.name, row.about));
        let mut report = Report::new(row.name);
        if let Err(error) = (row.run)(&mut lab, &mut report) {
            report.problem(format!("could not be carried out: {error:#}"));
        }
        report.seconds = lab.seconds() - begun;
        line(&report.to_string());
        // What a red row left behind would turn the next one red too.
        if !report.is_right() || row.leaves_a_mess {
            lab.anew()?;
        }
        reports.push(report);
    }
    lab.down()?;
    Ok((reports, lab.seconds()))
}

/// What is broken, which row must see it, and the part of the row that does.
pub(crate) type Control<L> = (&'static str, &'static str, Run<L>);

/// All controls, or those of the switch of this run; each must turn its row red.
pub(crate) fn control<L: Lab>(
    lab: &mut L,
    report: &mut Report,
    controls: &[Control<L>],
) -> anyhow::Result<()> {
    let of_this_run = lab.bad().clone();
    let mut judged = Controls::new(of_this_run.clone());
    for (bad, row, part) in controls {
        if judged.wants(bad) {
            let mut found = Report::new(row);
            lab.anew()?;
            *lab.bad() = Some((*bad).to_owned());
            let mut done = part(lab, &mut found);
            if done.is_err() && found.proof().is_none() && lab.count(&mut found)? && found.proof().is_none() {
                done = Err(anyhow::anyhow!("a canary never came, and nothing is lost, doubled or altered"));
            }
            lab.bad().clone_from(&of_this_run);
            let red = judged.judge(report, (bad, row), done, found.proof());
            red.iter().for_each(|words| lab.tell(words));
        }
    }
    judged.close(report);
    Ok(())
}

/// A program beside this one.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let found = std::env::current_exe().context("the running program")?.with_file_name(name);
    ensure!(found.is_file(), "no {name} beside this program: `make chaos` makes it");
    Ok(found)
}
