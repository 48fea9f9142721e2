//! What each guard of the Elasticsearch sink is good for.

use super::model::Elasticsearch;
use crate::explorer::Harm::{Ahead, Altered, Doubled, Lost, Stuck, WentBack};
use crate::explorer::explore;
use crate::group::Trouble;

const AS_IT_IS: Elasticsearch = Elasticsearch::AS_IT_IS;
/// A worker that is taken for dead and is not; nothing else goes wrong.
const A_ZOMBIE: Trouble = Trouble { crashes: 0, faults: 0, takeovers: 1 };
const ONE_CRASH: Trouble = Trouble { crashes: 1, faults: 0, takeovers: 0 };
const ONE_FAULT: Trouble = Trouble { crashes: 0, faults: 1, takeovers: 0 };

#[test]
fn as_it_is_every_document_and_dead_letter_comes_once() {
    for (trouble, size) in [
        (Trouble { crashes: 0, faults: 1, takeovers: 1 }, 40_000..=150_000),
        (Trouble { crashes: 1, faults: 0, takeovers: 1 }, 40_000..=150_000),
        (Trouble { crashes: 1, faults: 1, takeovers: 0 }, 8_000..=40_000),
        (Trouble { crashes: 2, faults: 0, takeovers: 0 }, 6_000..=30_000),
    ] {
        explore(&Elasticsearch { trouble, ..AS_IT_IS }, size).assert_harms(&[]);
    }
}

#[test]
fn without_ids_of_their_own_readings_double_when_they_are_sent_again() {
    let model = Elasticsearch { id: false, ..AS_IT_IS };
    explore(&Elasticsearch { trouble: ONE_FAULT, ..model }, 100..=5_000).assert_harms(&[Doubled]);
    explore(&Elasticsearch { trouble: ONE_CRASH, ..model }, 500..=10_000).assert_harms(&[Doubled]);
}

/// Late in three ways: a request whose sender died, one of a zombie, a document refused for now and sent again.
#[test]
fn without_versions_a_late_revision_replaces_a_newer_one() {
    let model = Elasticsearch { version: false, ..AS_IT_IS };
    for (trouble, size) in [(ONE_CRASH, 500..=10_000), (A_ZOMBIE, 1_000..=30_000), (ONE_FAULT, 100..=5_000)] {
        explore(&Elasticsearch { trouble, ..model }, size).assert_harms(&[Altered, Ahead, Lost]);
    }
}

#[test]
fn committing_before_the_documents_are_in_loses_them() {
    let model = Elasticsearch { commit_last: false, trouble: ONE_CRASH, ..AS_IT_IS };
    explore(&model, 200..=10_000).assert_harms(&[Ahead, Lost]);
}

/// Ids make documents safe from a zombie without any fence. What the fence keeps is progress, and dead letters, which
/// have no id: they go with the progress or not at all.
#[test]
fn without_the_fence_a_zombie_doubles_dead_letters_and_moves_progress_back() {
    let model = Elasticsearch { fence: false, trouble: A_ZOMBIE, ..AS_IT_IS };
    explore(&model, 5_000..=50_000).assert_harms(&[Doubled, WentBack, Stuck]);
}

#[test]
fn with_letters_apart_from_the_progress_one_crash_doubles_a_letter() {
    let model = Elasticsearch { one_transaction: false, trouble: ONE_CRASH, ..AS_IT_IS };
    explore(&model, 500..=10_000).assert_harms(&[Doubled]);
}

/// The fence looks when the progress goes into a transaction, not when that commits: whoever takes over must wait.
#[test]
fn reading_progress_beside_an_open_transaction_doubles_letters_and_moves_progress_back() {
    let model = Elasticsearch { waits_for_transactions: false, trouble: A_ZOMBIE, ..AS_IT_IS };
    explore(&model, 5_000..=50_000).assert_harms(&[Doubled, WentBack, Stuck]);
}
