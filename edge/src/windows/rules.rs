//! Window rules as the configuration gives them and as the journal keeps them.
//!
//! Comes in: rules. Goes out: the text that the journal notes, and rules again. Guarantees: equal rules give equal
//! texts. Pure. On failure: what is wrong with a rule, and the way out.

use weir_shared::expr::Expression;
use weir_shared::reading::Reading;
use weir_shared::window::{Filter, Rule};

/// A rule, and the flow whose readings it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlowRule {
    /// Name of the flow.
    pub flow: String,
    /// The rule.
    pub rule: Rule,
}

/// Whether the engine can run it.
pub(crate) fn check(rule: &Rule) -> Result<(), String> {
    rule.check()?;
    match &rule.filter {
        None => Ok(()),
        Some(text) => Expression::compile(text).map(drop).map_err(|problem| format!("filter: {problem}")),
    }
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
