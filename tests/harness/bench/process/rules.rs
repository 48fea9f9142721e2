//! The same ten conditions twice: as rules of Weir and in Flink SQL; and a hundred rules of which few match.
//!
//! Goes out: rows for `weir_rules` and `weir_rules_active`, and pieces of SQL. Pure.
//! What they do: two filters (which drop nothing of this load, so that counts stay comparable), three derived values,
//! five thresholds. Weir's thresholds keep an episode per device with a limit for its end (hysteresis); SQL has no
//! short form of that, so there a threshold is a column that says whether the value is above it, without state: less work.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Stage;

/// Rules of [`Stage::HundredRules`].
const MANY: usize = 100;

/// Pieces of the job.
pub(super) struct InSql {
    /// More columns of the output.
    pub(super) columns: &'static str,
    /// What is in them.
    pub(super) derived: &'static str,
    /// Which readings go on.
    pub(super) kept: &'static str,
}

/// What the job does besides the join.
pub(super) fn in_sql(stage: Stage) -> InSql {
    match stage {
        Stage::Join | Stage::HundredRules => InSql { columns: "", derived: "", kept: "" },
        Stage::TenRules => InSql {
            columns: ",\n  derived ROW<t_f DOUBLE, hz DOUBLE, p_kpa DOUBLE>,\n  \
                      alerts ROW<hot BOOLEAN, cold BOOLEAN, fast BOOLEAN, slow BOOLEAN, pressed BOOLEAN>",
            derived: ",\n  ROW(r.`values`.t * 1.8E0 + 32, r.`values`.rpm / 60.0E0, r.`values`.p * 100.0E0),\n  \
                      ROW(r.`values`.t > 80, r.`values`.t < -20, r.`values`.rpm > 3000, r.`values`.rpm < 100, \
                      r.`values`.p > 2.5E0)",
            kept: "\nWHERE NOT (r.`values`.t < -40.0E0) AND NOT (r.`values`.rpm < 0)",
        },
    }
}

/// Kind and spec of each rule.
pub(super) fn of(stage: Stage) -> Vec<(&'static str, Value)> {
    let ten = || {
        vec![
            ("filter", json!({"drop": "values.t < -40.0"})),
            ("filter", json!({"drop": "values.rpm < 0"})),
            ("derive", json!({"set": {"t_f": "values.t * 1.8 + 32"}})),
            ("derive", json!({"set": {"hz": "values.rpm / 60.0"}})),
            ("derive", json!({"set": {"p_kpa": "values.p * 100.0"}})),
            ("threshold", json!({"value": "values.t", "above": 80, "clear_below": 75, "severity": "high"})),
            (
                "threshold",
                json!({"value": "values.t", "below": -20, "clear_above": -15, "severity": "medium"}),
            ),
            (
                "threshold",
                json!({"value": "values.rpm", "above": 3000, "clear_below": 2900, "severity": "high"}),
            ),
            (
                "threshold",
                json!({"value": "values.rpm", "below": 100, "clear_above": 150, "severity": "low"}),
            ),
            (
                "threshold",
                json!({"value": "values.p", "above": 2.5, "clear_below": 2.4, "severity": "medium"}),
            ),
        ]
    };
    match stage {
        Stage::Join => Vec::new(),
        Stage::TenRules => ten(),
        Stage::HundredRules => {
            // Nine of ten ask for a device that one reading in ten thousand is of.
            let rare = (0..MANY - 10).map(|n| {
                let when =
                    format!("device == '{}' && values.t > 25.0", super::super::backlog::device(n as u64));
                ("derive", json!({"when": when, "set": {format!("rare_{n}"): "values.t"}}))
            });
            ten().into_iter().chain(rare).collect()
        }
    }
}

/// Statements that put these rules, and no others, in force.
pub(super) fn statements(rules: &[(&str, Value)]) -> Vec<String> {
    let mut statements = vec!["UPDATE weir_rules_active SET version = NULL, author = 'bench'".to_owned()];
    for (n, (kind, spec)) in rules.iter().enumerate() {
        let mut rule =
            String::from("INSERT IGNORE INTO weir_rules (id, version, kind, spec, author, note) VALUES ");
        let spec = spec.to_string().replace('\\', "\\\\").replace('\'', "''");
        write!(rule, "('bench-{n}', 1, '{kind}', '{spec}', 'bench', 'bench')")
            .expect("a String takes everything");
        statements.push(rule);
        statements.push(format!(
            "REPLACE INTO weir_rules_active (id, version, author, note) VALUES ('bench-{n}', 1, 'bench', 'bench')"
        ));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rules_as_promised() {
        let counts = [Stage::Join, Stage::TenRules, Stage::HundredRules].map(|stage| of(stage).len());
        assert_eq!(counts, [0, 10, MANY]);
    }

    #[test]
    fn quotes_in_a_condition_do_not_end_the_statement() {
        let statements = statements(&[("filter", json!({"drop": "device == 'a'"}))]);
        assert!(statements[1].contains(r#"'{"drop":"device == ''a''"}'"#), "{}", statements[1]);
    }
}
