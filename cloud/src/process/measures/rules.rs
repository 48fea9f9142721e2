//! How each rule fares: `weir_cloud_rule_…_total`, and when one fails so often that it is to be switched off.
//!
//! Guarantees: one label per rule id, of which there are at most a thousand at a time.

use std::sync::{Arc, Weak};

use metrics::{Counter, counter};

use crate::rules::{Counts, Kind, Rule, RuleSet, Trip};

/// The rules of one set.
#[derive(Default)]
pub(in crate::process) struct RuleMeasures {
    set: Weak<RuleSet>,
    rules: Vec<Measured>,
}

struct Measured {
    evaluated: Counter,
    matched: Counter,
    failed: Counter,
    skipped: Counter,
    left_out: Counter,
    suppressed: Counter,
    time_ns: Counter,
    off: Counter,
    trip: Trip,
    tripped: bool,
}

impl Measured {
    fn new(rule: &Rule) -> Self {
        let of =
            |name: &'static str| counter!(name, "rule" => rule.id.to_string(), "kind" => rule.kind.name());
        Self {
            evaluated: of("weir_cloud_rule_evaluated_total"),
            matched: of("weir_cloud_rule_matched_total"),
            failed: of("weir_cloud_rule_failed_total"),
            skipped: of("weir_cloud_rule_skipped_total"),
            left_out: of("weir_cloud_rule_left_out_total"),
            suppressed: of("weir_cloud_rule_suppressed_total"),
            time_ns: of("weir_cloud_rule_time_nanoseconds_total"),
            off: of("weir_cloud_rule_tripped_total"),
            trip: Trip::default(),
            tripped: false,
        }
    }
}

impl RuleMeasures {
    /// Counts a committed cycle; gives the rules that are to be switched off, each once. `now`: ms of wall time.
    pub(in crate::process) fn count<'s>(
        &mut self,
        set: &'s Arc<RuleSet>,
        counts: &[Counts],
        now: i64,
    ) -> Vec<&'s Rule> {
        if !std::ptr::eq(self.set.as_ptr(), Arc::as_ptr(set)) {
            self.set = Arc::downgrade(set);
            self.rules = set.rules().iter().map(Measured::new).collect();
        }
        let mut off = Vec::new();
        for ((measured, counts), rule) in self.rules.iter_mut().zip(counts).zip(set.rules()) {
            if counts.evaluated + counts.left_out == 0 {
                continue;
            }
            measured.evaluated.increment(counts.evaluated);
            measured.matched.increment(counts.matched);
            measured.failed.increment(counts.failed);
            measured.skipped.increment(counts.skipped);
            measured.left_out.increment(counts.left_out);
            measured.suppressed.increment(counts.suppressed);
            measured.time_ns.increment(counts.time_ns);
            // A mask that fails applies: switching it off would show what it hides.
            let may_trip = rule.kind != Kind::Mask;
            if measured.trip.add(now, counts.evaluated, counts.failed) && may_trip && !measured.tripped {
                measured.tripped = true;
                measured.off.increment(1);
                off.push(rule);
            }
        }
        off
    }
}
