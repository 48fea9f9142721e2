//! The controls: with a guarantee broken on purpose, a row must turn red. A row that stays green proves nothing.
//!
//! Each control runs the smallest part of its row that shows the harm. A part that could not be carried out is no proof.

use crate::controls::Controls;
use crate::lab::Lab;
use crate::report::Report;
use crate::rows::power::Disk;
use crate::rows::{damage, disk, fsync, kills, network, outage, poison, power, turned_clock};

/// What is broken, which row must see it, and the part of the row that does.
type Control = (&'static str, &'static str, fn(&Lab, &mut Report) -> anyhow::Result<()>);

/// Not a switch of the edge: it runs under a library that makes fsync do nothing.
const EAT_MY_DATA: &str = "libeatmydata";

const CONTROLS: [Control; 14] = [
    ("bad.forget_redelivery", "1", |lab, report| step(lab, report, "edge.e3", 50)),
    ("bad.skip_checkpoint_replay", "1", |lab, report| step(lab, report, "edge.e6", 3000)),
    ("bad.skip_checkpoint_replay", "3", |lab, report| kills::random_kills(lab, report, 4)),
    ("bad.skip_checkpoint_replay", "4", |lab, report| kills::nested_kills(lab, report, 8)),
    (EAT_MY_DATA, "5", |lab, report| images(lab, report, Disk::EatsData)),
    ("bad.skip_fsync", "5", |lab, report| images(lab, report, Disk::Good)),
    ("bad.ack_before_fsync", "5", |lab, report| images(lab, report, Disk::Slow)),
    ("bad.cut_damage", "6", damage::flips),
    ("bad.ignore_eio", "7", fsync::always),
    ("bad.drop_on_full", "8", disk::full),
    ("bad.lose_cursor_gap", "10", outage::killed),
    ("bad.reorder_backlog", "10", |lab, report| outage::away(lab, report, "block")),
    ("bad.drop_poison", "27", poison::row),
    ("bad.trust_any_clock", "28", turned_clock::boot_in_1970),
];
/// Runs apart: it needs several edges.
const NO_BACKOFF: Control = ("bad.no_backoff", "25", |lab, report| network::flap(lab, report, 5, 2));

fn step(lab: &Lab, report: &mut Report, step: &str, count: u64) -> anyhow::Result<()> {
    kills::step_once(lab, report, step, count).map(drop)
}

fn images(lab: &Lab, report: &mut Report, disk: Disk) -> anyhow::Result<()> {
    power::images(lab, report, &power::Series { seed: 9, count: 6, with_kafka: false, disk })
}

/// All controls, or those of one switch; each must turn its row red.
pub(crate) fn row(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let of_this_run = lab.bad.borrow().clone();
    let mut judged = Controls::new(of_this_run.clone());
    for (bad, row, part) in CONTROLS.iter().chain([&NO_BACKOFF]) {
        if judged.wants(bad) {
            let mut found = Report::new(row);
            *lab.bad.borrow_mut() = Some((*bad).to_owned()).filter(|bad| bad != EAT_MY_DATA);
            let done = part(lab, &mut found);
            lab.bad.borrow_mut().clone_from(&of_this_run);
            let red = judged.judge(report, (bad, row), done, found.problems().first());
            red.iter().for_each(|words| lab.tell(words));
        }
    }
    judged.close(report);
    Ok(())
}
