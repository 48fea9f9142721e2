//! What the answer to one document of a bulk request means.
//!
//! Guarantees: a document becomes a dead letter only for a reason known to lie in the document itself; anything
//! unknown counts against the whole store and loses nothing. Pure.

/// What to do with the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in.
    Stored,
    /// Refused for now: send it again.
    Again,
    /// It can never be in: dead letter.
    Reject,
    /// The store takes nothing, or nobody knows why: give the batch up and say so.
    Store,
}

/// Types of errors that lie in a document.
const IN_DOCUMENT: [&str; 6] = [
    "mapper_parsing_exception",
    "document_parsing_exception",
    "strict_dynamic_mapping_exception",
    "illegal_argument_exception",
    "parsing_exception",
    "parse_exception",
];
/// Illegal arguments that lie in the index, not in the document.
const IN_INDEX: [&str; 3] = ["number of documents in the index", "write index", "pipeline with id"];

/// Judges by status, type and reason of the error. `versioned`: the document was sent with a version.
pub(super) fn verdict(versioned: bool, status: u16, kind: &str, reason: &str) -> Verdict {
    match status {
        200..=299 => Verdict::Stored,
        // It is there, or a higher revision of it.
        409 if versioned && kind == "version_conflict_engine_exception" => Verdict::Stored,
        // A flood-stage disk makes an index read-only: its status is 429 (403 in older servers), its type tells.
        _ if kind == "cluster_block_exception" => Verdict::Store,
        429 | 500..=599 => Verdict::Again,
        400 if IN_DOCUMENT.contains(&kind) && !IN_INDEX.iter().any(|text| reason.contains(text)) => {
            Verdict::Reject
        }
        _ => Verdict::Store,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_faults_of_a_document_reject_it() {
        let cases = [
            (201, "", "", Verdict::Stored),
            (200, "", "", Verdict::Stored),
            (429, "es_rejected_execution_exception", "queue is full", Verdict::Again),
            (503, "unavailable_shards_exception", "", Verdict::Again),
            (400, "mapper_parsing_exception", "failed to parse field [values.a]", Verdict::Reject),
            (
                400,
                "illegal_argument_exception",
                "Limit of total fields [2000] has been exceeded",
                Verdict::Reject,
            ),
            (
                400,
                "illegal_argument_exception",
                "number of documents in the index cannot exceed",
                Verdict::Store,
            ),
            (400, "illegal_argument_exception", "pipeline with id [x] does not exist", Verdict::Store),
            (400, "validation_exception", "this cluster currently has [1000] maximum shards", Verdict::Store),
            (400, "index_closed_exception", "closed", Verdict::Store),
            (403, "cluster_block_exception", "index read-only / allow delete", Verdict::Store),
            (429, "cluster_block_exception", "disk usage exceeded flood-stage", Verdict::Store),
            (403, "security_exception", "", Verdict::Store),
            (404, "index_not_found_exception", "", Verdict::Store),
            (409, "version_conflict_engine_exception", "", Verdict::Store),
            (400, "something_new", "", Verdict::Store),
        ];
        for (status, kind, reason, wanted) in cases {
            assert_eq!(verdict(false, status, kind, reason), wanted, "{status} {kind} {reason}");
        }
        assert_eq!(verdict(true, 409, "version_conflict_engine_exception", ""), Verdict::Stored);
        assert_eq!(verdict(true, 409, "something_new", ""), Verdict::Store);
    }
}
