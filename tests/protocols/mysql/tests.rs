//! What each guard of the MySQL sink is good for.

use super::database::Conditions;
use super::model::{Moves, Mysql};
use crate::explorer::Harm::{Ahead, Doubled, Lost, Stuck, WentBack};
use crate::explorer::explore;
use crate::group::Trouble;

/// One crash, and a worker that is taken for dead, is not, and once claims again without knowing.
const AS_IT_IS: Mysql = Mysql { trouble: Trouble { crashes: 1, faults: 0, takeovers: 1 }, ..Mysql::AS_IT_IS };
/// The same without the crash.
const A_ZOMBIE: Mysql = Mysql { trouble: Trouble { crashes: 0, faults: 0, takeovers: 1 }, ..Mysql::AS_IT_IS };
const ONE_CRASH: Mysql =
    Mysql { trouble: Trouble { crashes: 1, faults: 0, takeovers: 0 }, ..Mysql::AS_IT_IS };

const NO_EPOCH: Conditions = Conditions { epoch: false, start: true };
const NO_START: Conditions = Conditions { epoch: true, start: false };
const NEITHER: Conditions = Conditions { epoch: false, start: false };

#[test]
fn as_it_is_every_row_comes_once_whoever_dies_or_is_frozen() {
    explore(&AS_IT_IS, 40_000..=150_000).assert_harms(&[]);
    let trouble = Trouble { crashes: 1, faults: 1, takeovers: 1 };
    explore(&Mysql { trouble, stale_claims: 0, ..AS_IT_IS }, 80_000..=250_000).assert_harms(&[]);
}

#[test]
fn as_it_is_every_row_comes_once_whatever_answer_is_lost() {
    let trouble = Trouble { crashes: 0, faults: 1, takeovers: 1 };
    explore(&Mysql { trouble, ..AS_IT_IS }, 30_000..=120_000).assert_harms(&[]);
    let trouble = Trouble { crashes: 1, faults: 3, takeovers: 0 };
    explore(&Mysql { trouble, ..AS_IT_IS }, 5_000..=200_000).assert_harms(&[]);
}

/// Progress only grows, so whoever moves it first from an offset is the only one to do so.
#[test]
fn the_epoch_check_is_not_needed_for_safety_while_the_start_is_checked() {
    explore(&Mysql { conditions: NO_EPOCH, ..AS_IT_IS }, 30_000..=150_000).assert_harms(&[]);
}

/// Under one epoch only one worker moves progress, and it does so from where its own claim or batch left it.
#[test]
fn the_start_check_is_not_needed_for_safety_while_the_epoch_is_checked() {
    explore(&Mysql { conditions: NO_START, ..AS_IT_IS }, 30_000..=150_000).assert_harms(&[]);
}

#[test]
fn without_epoch_and_start_check_a_zombie_doubles_and_moves_progress_back() {
    let found = explore(&Mysql { conditions: NEITHER, ..AS_IT_IS }, 30_000..=200_000);
    found.assert_harms(&[Doubled, WentBack, Stuck]);
}

#[test]
fn reading_progress_under_its_lock_is_not_needed_for_safety_while_the_start_is_checked() {
    explore(&Mysql { reads_locked: false, ..A_ZOMBIE }, 1_000..=50_000).assert_harms(&[]);
}

/// The commit of the predecessor falls between reading and claiming; only the start tells then.
#[test]
fn without_lock_and_start_check_a_claim_reads_old_progress_and_doubles() {
    let found = explore(&Mysql { reads_locked: false, conditions: NO_START, ..A_ZOMBIE }, 1_000..=50_000);
    found.assert_harms(&[Doubled, WentBack, Stuck]);
}

/// The predecessor's lock is waited for, and its server ends it in time; the KILL only makes that quicker.
#[test]
fn killing_the_predecessor_is_not_needed_for_safety_it_only_saves_waiting() {
    explore(&Mysql { kills: false, ..AS_IT_IS }, 10_000..=60_000).assert_harms(&[]);
}

/// Also with the KILL: the session of a claim that was not committed stands nowhere, so nobody can kill it.
#[test]
fn without_the_timeout_of_sessions_the_lock_of_a_dead_claimant_is_held_for_ever() {
    explore(&Mysql { session_timeout: false, ..ONE_CRASH }, 100..=2_000).assert_harms(&[Stuck]);
}

#[test]
fn progress_in_a_transaction_after_the_rows_doubles() {
    explore(&Mysql { moves: Moves::After, ..ONE_CRASH }, 200..=5_000).assert_harms(&[Doubled]);
}

#[test]
fn progress_in_a_transaction_before_the_rows_loses_them() {
    explore(&Mysql { moves: Moves::Before, ..ONE_CRASH }, 200..=5_000).assert_harms(&[Ahead, Lost]);
}
