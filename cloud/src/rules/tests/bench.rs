//! What rules cost a reading, beside the library's own evaluation in the same run.

use weir_shared::clock;
use weir_shared::expr::Expression;

use super::*;

const RULES: usize = 100;

fn conditions(n: usize) -> Vec<String> {
    (0..n)
        .map(|i| match i % 4 {
            0 => format!("values.t > {}", 1_000 + i),
            1 => format!("values.n < -{i} && tags.line == '3'"),
            2 => format!("device == 'pump-{}' || values.t < -{i}", 1_000 + i),
            _ => format!("tags.line in ['a{i}', 'b{i}'] && has(values.on)"),
        })
        .collect()
}

fn rows(n: usize) -> Vec<RuleRow> {
    let conditions = conditions(n);
    let spec = |(i, condition): (usize, &String)| match i % 5 {
        0 => row(&format!("f{i}"), "filter", &serde_json::json!({"drop": condition}).to_string()),
        1 => row(
            &format!("r{i}"),
            "route",
            &serde_json::json!({"when": condition, "stores": ["mysql"]}).to_string(),
        ),
        2 => row(
            &format!("d{i}"),
            "derive",
            &serde_json::json!({"when": condition, "set": {"x": "values.t * 2"}}).to_string(),
        ),
        3 => row(
            &format!("t{i}"),
            "threshold",
            &serde_json::json!({"value": "values.t", "above": 1_000 + i}).to_string(),
        ),
        _ => row(
            &format!("m{i}"),
            "mask",
            &serde_json::json!({"when": condition, "fields": ["tags.line"], "method": "hash"}).to_string(),
        ),
    };
    conditions.iter().enumerate().map(spec).collect()
}

/// The best of many short runs, in ns per round: the machine is shared.
fn best(runs: usize, rounds: usize, mut round: impl FnMut(usize)) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let begin = clock::instant();
        for i in 0..rounds {
            round(i);
        }
        best = best.min(clock::since(begin).as_nanos() as f64 / rounds as f64);
    }
    best
}

#[test]
fn a_hundred_rules_cost_less_than_half_of_what_the_library_needs_for_their_conditions() {
    let body = |t: f64| {
        format!(
            r#"{{"device":"pump-7","time":1000,"values":{{"t":{t},"n":75,"on":true,"mode":"auto","p":1.5}},"tags":{{"line":"7","site":"graz"}},"received":1042}}"#
        )
    };
    let bodies: Vec<String> = (0..16).map(|i| body(20.0 + f64::from(i))).collect();
    let readings: Vec<Reading<'_>> = bodies.iter().map(|body| reading(body)).collect();
    let set = set(&rows(RULES));
    let (mut evaluator, mut states) = (Evaluator::new(Arc::clone(&set), None), Memory::default());
    let mut verdict = Verdict::default();
    let mut hits = 0;
    let ours = best(100, 100, |i| {
        evaluator.run(&readings[i % 16], &Dims(None), &ORIGIN, &mut states, &mut verdict);
        hits += usize::from(verdict.filtered.is_some() || verdict.changes_body());
    });
    assert_eq!(hits, 0);
    assert!(evaluator.take_counts().iter().all(|c| c.failed == 0));
    let expressions: Vec<Expression> =
        conditions(RULES).iter().map(|text| Expression::compile(text).unwrap()).collect();
    let library = best(100, 4, |i| {
        for expression in &expressions {
            drop(std::hint::black_box(expression.boolean(&readings[i % 16])));
        }
    });
    let ratio = library / ours;
    println!(
        "{RULES} rules: {ours:.0} ns per reading; the library's conditions alone {library:.0} ns; {ratio:.1}x"
    );
    assert!(ratio > 2.0, "{ratio:.1}");
}
