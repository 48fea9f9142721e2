//! Window rules as the configuration gives them and as the journal keeps them.
//!
//! Comes in: rules. Goes out: the text that the journal notes, and rules again. Guarantees: equal rules give equal
//! texts. Pure. On failure: what is wrong with a rule, and the way out.

use weir_shared::expr::Expression;
use weir_shared::reading::Reading;
use weir_shared::window::{Filter, Kind, Rule, Span};

/// A rule, and the flow whose readings it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlowRule {
    /// Name of the flow.
    pub flow: String,
    /// The rule.
    pub rule: Rule,
}

/// Most aggregates of a rule.
pub(crate) const AGGREGATES_MAX: usize = 64;

/// All that keeps the engine from running it, with the keys of the configuration that say so; but for a missing name and
/// missing aggregates. The rule's own check stops at the first, so each part is put into a rule that is right.
pub(crate) fn problems(rule: &Rule) -> Vec<(&'static str, String)> {
    let right = || Rule::new("r", Kind::Tumbling { size: Span::Days(1) });
    let mut parts = vec![
        ("key", Rule { key: rule.key.clone(), ..right() }),
        ("fields", Rule { fields: rule.fields.clone(), ..right() }),
        ("kind", Rule { kind: rule.kind, ..right() }),
    ];
    if !rule.aggregates.is_empty() {
        parts.push(("aggregates", Rule { aggregates: rule.aggregates.clone(), ..right() }));
    }
    // A zone that is none is told whatever the kind is; one that does not fit, where the kind is right.
    let named = Rule { zone: rule.zone.clone(), ..right() };
    let fits = Rule { kind: rule.kind, ..named.clone() };
    let zone = if named.check().is_err() || parts[2].1.check().is_err() { named } else { fits };
    parts.push(("zone", zone));
    let wrong = |(key, rule): (&'static str, Rule)| {
        let why = rule.check().err()?;
        Some((key, why.strip_prefix(key).and_then(|why| why.strip_prefix(": ")).unwrap_or(&why).to_owned()))
    };
    let mut problems: Vec<_> = parts.into_iter().filter_map(wrong).collect();
    if let Some(Err(problem)) = rule.filter.as_deref().map(Expression::compile) {
        problems.push(("filter", problem.to_string()));
    }
    problems
}

/// The filter of a rule: a reading for which it has no result is not wanted.
pub(crate) fn filter(text: &str) -> Filter {
    match Expression::compile(text) {
        Ok(expression) => Box::new(move |reading: &Reading<'_>| expression.boolean(reading).unwrap_or(false)),
        Err(problem) => {
            tracing::error!(text, %problem, "a filter of the journal cannot be compiled: it lets nothing through");
            Box::new(|_| false)
        }
    }
}

/// The rules of a flow as text; empty for none.
pub(crate) fn text(rules: &[FlowRule], flow: &str) -> String {
    let of_flow: Vec<&Rule> = rules.iter().filter(|r| r.flow == flow).map(|r| &r.rule).collect();
    if of_flow.is_empty() {
        return String::new();
    }
    serde_json::to_string(&of_flow).expect("plain data is JSON")
}

/// Rules from a text of the journal.
pub(crate) fn parse(text: &str) -> Result<Vec<Rule>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}
