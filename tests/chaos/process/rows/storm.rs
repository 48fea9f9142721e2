//! Row 15: processors come and go every few seconds.
//!
//! Must hold: outputs equal the reference, however often partitions change hands; a stop in order ends with 0.

use std::time::Duration;

use weir_harness::faults::cloud::Cloud;

use super::super::lab::Lab;
use crate::lab::{Dice, pass};
use crate::report::Report;

const REBALANCES: u64 = 50;
const SLOTS: [&str; 3] = ["a", "b", "c"];
const BETWEEN_MS: (u64, u64) = (600, 3000);
/// A judgement after so many, so that little is held in memory.
const JUDGE_EVERY: u64 = 25;

/// Row 15.
pub(super) fn row(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    storm(lab, report, REBALANCES)
}

pub(super) fn storm(lab: &mut Lab, report: &mut Report, rebalances: u64) -> anyhow::Result<()> {
    let mut dice = Dice::new(15);
    let mut clouds: [Option<Cloud>; 3] = [Some(lab.start(SLOTS[0], "")?), None, None];
    lab.canary()?;
    for rebalance in 1..=rebalances {
        pass(Duration::from_millis(dice.throw(BETWEEN_MS)));
        // The first one stays, so that somebody always works.
        let at = usize::try_from(dice.throw((1, 2)))?;
        clouds[at] = match clouds[at].take() {
            None => Some(lab.start(SLOTS[at], "")?),
            Some(mut cloud) => {
                let exit = cloud.stop()?;
                report.check(exit.code == Some(0), || format!("{exit}; {}", cloud.last_words()));
                None
            }
        };
        if rebalance % JUDGE_EVERY == 0 || rebalance == rebalances {
            report.heal(&format!("rebalance {rebalance}"), lab.canary()?);
            lab.judge(report, &format!("rebalance {rebalance}"))?;
        }
    }
    report.did(&format!("{rebalances} rebalances"));
    Ok(())
}
