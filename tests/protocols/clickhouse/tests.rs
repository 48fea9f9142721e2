//! What each guard of the ClickHouse sink is good for, and what remains possible.

use super::model::Clickhouse;
use crate::explorer::Harm::{Ahead, Doubled, Lost, Stuck, WentBack};
use crate::explorer::explore;
use crate::group::Trouble;

const AS_IT_IS: Clickhouse = Clickhouse::AS_IT_IS;
/// A worker that is taken for dead and is not; nothing else goes wrong.
const A_ZOMBIE: Trouble = Trouble { crashes: 0, faults: 0, takeovers: 1 };
/// Workers die and answers are lost, but whoever is taken for dead is dead.
const NO_ZOMBIE: Trouble = Trouble { crashes: 2, faults: 1, takeovers: 0 };
const ONE_CRASH: Trouble = Trouble { crashes: 1, faults: 0, takeovers: 0 };

#[test]
fn as_it_is_every_row_comes_once() {
    explore(&AS_IT_IS, 100_000..=300_000).assert_harms(&[]);
    let trouble = Trouble { crashes: 2, faults: 2, takeovers: 0 };
    explore(&Clickhouse { trouble, ..AS_IT_IS }, 5_000..=50_000).assert_harms(&[]);
}

#[test]
fn also_when_bodies_are_cut_and_tokens_stay_without_rows() {
    let trouble = NO_ZOMBIE;
    let model = Clickhouse { is_cutting: true, tears: true, trouble, ..AS_IT_IS };
    explore(&model, 5_000..=50_000).assert_harms(&[]);
}

/// The offsets of a group can be read by anybody: a zombie finds the plan of its living successor, mends it under the
/// successor's own tokens, and this insert is cut, or leaves only its token. The successor's own insert is then
/// swallowed, and it commits the end without having asked. Asking after every insert would see it.
#[test]
fn a_zombie_that_mends_the_plan_of_a_living_owner_loses_rows_if_its_insert_is_cut_or_torn() {
    let trouble = Trouble { crashes: 0, faults: 1, takeovers: 1 };
    let cuts = Clickhouse { is_cutting: true, trouble, ..AS_IT_IS };
    let tears = Clickhouse { tears: true, trouble, ..AS_IT_IS };
    explore(&cuts, 10_000..=100_000).assert_harms(&[Ahead, Lost]);
    explore(&tears, 10_000..=100_000).assert_harms(&[Ahead, Lost]);
    explore(&Clickhouse { asks_always: true, ..cuts }, 10_000..=150_000).assert_harms(&[]);
    explore(&Clickhouse { asks_always: true, ..tears }, 10_000..=150_000).assert_harms(&[]);
}

/// Which other token is taken depends on what is missing alone, so it is the same at every try.
#[test]
fn a_server_that_dies_twice_leaving_only_the_token_holds_the_plan_open_for_ever() {
    let trouble = Trouble { crashes: 0, faults: 2, takeovers: 0 };
    explore(&Clickhouse { tears: true, trouble, ..AS_IT_IS }, 500..=20_000).assert_harms(&[Stuck]);
}

/// An insert is answered and its rows are missing: on one server that means that only its token is left. On several
/// replicas behind one address it also means that the question went to one which has not got them yet; then another
/// token doubles them. So the sink stays with the same token there.
#[test]
fn a_replica_that_lags_is_safe_as_replicated_tables_get_no_other_token() {
    let trouble = Trouble { crashes: 0, faults: 1, takeovers: 0 };
    let lags = Clickhouse { lags: true, trouble, ..AS_IT_IS };
    explore(&lags, 2_000..=200_000).assert_harms(&[Doubled]);
    let model = Clickhouse { another_token: false, ..lags };
    explore(&model, 2_000..=200_000).assert_harms(&[]);
}

#[test]
fn without_the_plan_rows_double_or_the_sink_stops_at_its_own_rows() {
    let without =
        Clickhouse { plan: false, trouble: Trouble { crashes: 1, faults: 0, takeovers: 1 }, ..AS_IT_IS };
    explore(&without, 10_000..=200_000).assert_harms(&[Doubled, Stuck]);
    // Without the look beyond the start, one crash is enough.
    let model = Clickhouse { check_start: false, arrives_late: false, trouble: ONE_CRASH, ..without };
    explore(&model, 500..=5_000).assert_harms(&[Doubled]);
}

#[test]
fn without_tokens_a_request_still_on_its_way_when_its_sender_died_doubles() {
    let model = Clickhouse { window: None, trouble: ONE_CRASH, ..AS_IT_IS };
    explore(&model, 500..=5_000).assert_harms(&[Doubled]);
}

#[test]
fn without_tokens_a_request_still_on_its_way_when_its_sender_gave_it_up_doubles() {
    let trouble = Trouble { crashes: 0, faults: 1, takeovers: 0 };
    let model = Clickhouse { window: None, trouble, ..AS_IT_IS };
    explore(&model, 200..=5_000).assert_harms(&[Doubled]);
}

/// No request is late here: the sender is frozen between its plan and its insert, or asks for a plan that is no longer
/// its own. No commit is fenced there, and no query is there to be killed.
#[test]
fn without_tokens_a_sender_that_was_frozen_and_goes_on_doubles() {
    let model = Clickhouse { window: None, arrives_late: false, trouble: A_ZOMBIE, ..AS_IT_IS };
    explore(&model, 1_000..=10_000).assert_harms(&[Doubled]);
}

#[test]
fn without_tokens_rows_come_once_if_requests_are_not_late_and_nobody_was_frozen() {
    let model = Clickhouse { window: None, arrives_late: false, trouble: NO_ZOMBIE, ..AS_IT_IS };
    explore(&model, 1_000..=10_000).assert_harms(&[]);
    // Then it is the KILL that keeps an insert away which is running still.
    explore(&Clickhouse { kill: false, ..model }, 2_000..=20_000).assert_harms(&[Doubled]);
}

/// 1 and 2 stand for `non_replicated_deduplication_window`: after so many inserts into the table a token is forgotten.
#[test]
fn a_request_that_is_later_than_the_window_of_tokens_doubles() {
    let trouble = Trouble { crashes: 0, faults: 1, takeovers: 0 };
    explore(&Clickhouse { window: Some(1), trouble, ..AS_IT_IS }, 500..=5_000).assert_harms(&[Doubled]);
    let frozen = Clickhouse { window: Some(2), arrives_late: false, trouble: A_ZOMBIE, ..AS_IT_IS };
    explore(&frozen, 1_000..=10_000).assert_harms(&[Doubled]);
    explore(&Clickhouse { window: Some(3), ..frozen }, 1_000..=10_000).assert_harms(&[]);
}

#[test]
fn killing_queries_is_not_needed_for_safety_while_there_are_tokens() {
    explore(&Clickhouse { kill: false, ..AS_IT_IS }, 100_000..=300_000).assert_harms(&[]);
}

#[test]
fn asking_what_arrived_is_not_needed_for_safety_while_inserts_arrive_whole_and_loses_rows_when_not() {
    let trouble = Trouble { crashes: 1, faults: 1, takeovers: 0 };
    let model = Clickhouse { ask: false, trouble, ..AS_IT_IS };
    explore(&model, 500..=10_000).assert_harms(&[]);
    explore(&Clickhouse { is_cutting: true, ..model }, 500..=10_000).assert_harms(&[Ahead, Lost]);
    explore(&Clickhouse { tears: true, ..model }, 500..=10_000).assert_harms(&[Ahead, Lost]);
}

#[test]
fn without_another_token_a_torn_insert_holds_the_plan_open_for_ever() {
    let model = Clickhouse { another_token: false, tears: true, trouble: NO_ZOMBIE, ..AS_IT_IS };
    explore(&model, 1_000..=50_000).assert_harms(&[Stuck]);
}

#[test]
fn without_the_fence_a_zombie_doubles_and_moves_progress_back() {
    let model = Clickhouse { fence: false, trouble: A_ZOMBIE, ..AS_IT_IS };
    explore(&model, 4_000..=15_000).assert_harms(&[Doubled, WentBack, Stuck]);
}

#[test]
fn looking_beyond_the_start_is_needed_only_when_the_group_forgot_its_offsets() {
    let trouble = Trouble { crashes: 1, faults: 1, takeovers: 0 };
    let model = Clickhouse { check_start: false, trouble, ..AS_IT_IS };
    explore(&model, 500..=10_000).assert_harms(&[]);
    explore(&Clickhouse { forgets: true, ..model }, 1_000..=50_000).assert_harms(&[Doubled]);
    explore(&Clickhouse { forgets: true, check_start: true, ..model }, 1_000..=50_000).assert_harms(&[]);
}

#[test]
fn committing_the_end_before_the_rows_loses_them() {
    let model = Clickhouse { end_last: false, trouble: ONE_CRASH, ..AS_IT_IS };
    explore(&model, 200..=5_000).assert_harms(&[Ahead, Lost]);
}
