//! What the journal counts: damage, what it set aside, what it had to write again.

use metrics::counter;

pub(super) const DAMAGED_BYTES: &str = "weir_edge_journal_damaged_bytes_total";
pub(super) const CUT_BYTES: &str = "weir_edge_journal_cut_bytes_total";
pub(super) const SET_ASIDE: &str = "weir_edge_journal_set_aside_total";
pub(super) const REWRITTEN: &str = "weir_edge_journal_rewritten_total";
pub(super) const RESERVE_USED: &str = "weir_edge_journal_reserve_used_total";
pub(super) const FILE_MARKS_DROPPED: &str = "weir_edge_journal_file_marks_dropped_total";

/// All are there from the start, at zero.
pub(super) fn register() {
    for name in [DAMAGED_BYTES, CUT_BYTES, SET_ASIDE, REWRITTEN, RESERVE_USED, FILE_MARKS_DROPPED] {
        counter!(name).increment(0);
    }
}

pub(super) fn count(name: &'static str, by: u64) {
    counter!(name).increment(by);
}
