//! Programs against the library: equal results and equal kinds of failure, for random expressions over random records.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Columns, Derived, Row, Scope, Wanted, boolean, scalar};
use super::*;
use crate::reading::Reading;

struct Site(Option<Value<'static>>);

impl Columns for Site {
    fn column(&self, dimension: &str, column: &str) -> Option<Value<'_>> {
        if (dimension, column) == ("devices", "site") { self.0.clone() } else { None }
    }
}

fn scope() -> Scope {
    Scope { dims: vec![("devices".to_owned(), vec!["site".to_owned(), "li ne".to_owned()])], any: false }
}

fn value() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (0_u64..4).prop_map(Value::Unsigned),
        Just(Value::Unsigned(u64::MAX)),
        Just(Value::Unsigned((1 << 53) + 1)),
        (-3_i64..0).prop_map(Value::Signed),
        Just(Value::Signed(i64::MIN)),
        prop::sample::select(vec![0.0, -0.0, 1.0, 1.5, 2.0, 1e300, -1e300]).prop_map(Value::Float),
        text().prop_map(|t| Value::Text(t.into())),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "ab", "é", "1", "2.5"]).prop_map(str::to_owned)
}

/// Texts of expressions, mostly with fitting types.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "values.a",
        "values.b",
        "values.c",
        "values['d e']",
        "values.z",
        "tags.x",
        "tags.y",
        "tags['z']",
        "device",
        "time",
        "received",
        "dims.devices.site",
        "dims['devices']['li ne']",
        "1",
        "2",
        "0",
        "1.5",
        "-1",
        "2.0",
        "9007199254740993",
        "9223372036854775807",
        "'a'",
        "'ab'",
        "'1'",
        "''",
        "true",
        "false",
        "has(values.a)",
        "has(values.z)",
        "has(tags.x)",
        "has(dims.devices.site)",
        "'b' in values",
        "'x' in tags",
        "null",
        "1u",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let sign = prop::sample::select(vec![
            "<", "<=", ">", ">=", "==", "!=", "&&", "||", "&&", "||", "+", "-", "*", "/", "%",
        ]);
        let call = prop::sample::select(vec!["startsWith", "endsWith", "contains"]);
        prop_oneof![
            8 => (inner.clone(), sign, inner.clone()).prop_map(|(a, s, b)| format!("({a} {s} {b})")),
            1 => inner.clone().prop_map(|a| format!("!({a})")),
            1 => inner.clone().prop_map(|a| format!("-({a})")),
            1 => inner.clone().prop_map(|a| format!("double({a})")),
            1 => inner.clone().prop_map(|a| format!("size({a})")),
            1 => inner.clone().prop_map(|a| format!("({a} in [1, 1.5, 'a', true, -1])")),
            1 => (inner.clone(), call, inner.clone()).prop_map(|(a, c, b)| format!("({a}).{c}({b})")),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

fn reading() -> impl Strategy<Value = Reading<'static>> {
    let name = prop::sample::select(vec!["a", "b", "c", "d e", "other"]);
    let tag = prop::sample::select(vec!["x", "y", "other"]);
    (
        text(),
        prop_oneof![-3_i64..4, Just(i64::MIN), Just(i64::MAX)],
        prop::collection::vec((name, value()), 0..6),
        prop::collection::vec((tag, text()), 0..4),
    )
        .prop_map(|(device, time, values, tags)| Reading {
            device: device.into(),
            time,
            values: values.into_iter().map(|(n, v)| (n.into(), v)).collect(),
            tags: tags.into_iter().map(|(n, v)| (n.into(), v.into())).collect(),
            received: 3,
        })
}

fn kind<T>(result: Result<T, Failure>) -> Result<T, bool> {
    result.map_err(|failure| failure == Failure::Missing)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn the_fast_path_equals_the_library(
        texts in prop::collection::vec(expression(), 1..4),
        readings in prop::collection::vec((reading(), prop::option::of(value()), prop::option::of(value())), 1..4),
    ) {
        let mut names = Names::default();
        let a = names.number(&Field::Value("a".to_owned())).unwrap();
        // Types are not checked: what the checker would refuse must be equal too.
        let compile = |text: &String| Expression::parse(text, None);
        let within = |text: &String| {
            let mut tree = Expression::compile_in("true", &scope(), Wanted::Bool).unwrap();
            super::super::check::text(text).ok()?;
            let program = super::super::LANGUAGE.compile(text).ok()?;
            let mut checked = program.expression().clone();
            super::super::check::tree(text, program.source_info(), Some(&scope()), &mut checked).ok()?;
            tree.tree = checked;
            tree.text.clone_from(text);
            Some(tree)
        };
        let programs: Vec<Program> = texts
            .iter()
            .filter_map(|text| compile(text).ok().or_else(|| within(text)))
            .map(|expression| Program::new(expression, &mut names))
            .collect();
        let mut row = Row::default();
        for (reading, derived, site) in &readings {
            let site = Site(site.clone());
            let derived: Vec<Derived> = derived.iter().map(|v| (Arc::from("a"), v.clone())).collect();
            let record = Record { reading, derived: &derived, dims: &site };
            let mut filled = row.fill(&names, &record);
            for (_, value) in &derived {
                filled.set(a, value.clone());
            }
            for program in &programs {
                let library = kind(program.slow(&record, boolean));
                prop_assert_eq!(kind(program.boolean(&filled, &record)), library, "{}", program.text());
                if let Some(fast) = &program.fast {
                    let fast = fast.boolean(&filled).map_err(|stop| stop == fast::Stop::Missing);
                    prop_assert_eq!(fast, library, "fast: {}", program.text());
                }
                let library = kind(program.slow(&record, scalar));
                prop_assert_eq!(kind(program.value(&filled, &record)), library, "value: {}", program.text());
            }
            row.recycle(filled);
        }
    }
}

#[test]
fn the_common_shapes_are_fast() {
    for (text, fast) in [
        ("values.t > 80", true),
        ("values['a-b'] / 2 >= 1.5 && tags.line == '3' || !has(values.x)", true),
        ("device.startsWith('pump') && dims.devices.site in ['Graz', 'Linz']", true),
        ("has(dims.devices.site) && 't' in values && time - received < 1000", true),
        ("int(values.n) % 2 == 0", false),
        ("[1, 2].exists(x, x == values.n)", false),
    ] {
        let expression = Expression::compile_in(text, &scope(), Wanted::Bool).unwrap();
        assert_eq!(Program::new(expression, &mut Names::default()).is_fast(), fast, "{text}");
    }
}

#[test]
fn what_an_expression_looks_at_is_known() {
    let fields = |text: &str| {
        let expression = Expression::compile_in(text, &scope(), Wanted::Scalar).unwrap();
        Program::new(expression, &mut Names::default()).looks_at().to_vec()
    };
    let value = |name: &str| Field::Value(name.to_owned());
    assert_eq!(fields("values.t + values['t'] + [values.u][0]"), [value("t"), value("u")]);
    assert_eq!(fields("has(values.t) && 'x' in tags"), [value("t"), Field::Tag("x".to_owned())]);
    let column = Field::Column("devices".to_owned(), "site".to_owned());
    assert_eq!(fields("has(dims.devices.site) ? dims.devices['site'] : device"), [Field::Device, column]);
    assert_eq!(fields("values[device]"), [Field::Device, Field::AnyValue]);
    assert_eq!(fields("[tags].exists(t, t.x == '1')"), [Field::AnyTag]);
}

#[test]
fn what_no_record_can_make_right_is_refused() {
    for (text, wanted, column, want) in [
        ("values.t > 'x' + 1", Wanted::Bool, 0, "+ cannot join a text and a number"),
        ("tags.line == 3", Wanted::Bool, 0, "compares a text with a number; texts stand in quotes"),
        ("1 < 'a'", Wanted::Bool, 0, "compares a number with a text"),
        ("values.t * 2", Wanted::Bool, 0, "gives a number; true or false is wanted"),
        ("values.t > 3", Wanted::Number, 0, "gives true or false; a number is wanted"),
        ("[values.t]", Wanted::Scalar, 0, "gives a list; a number, bool or text is wanted"),
        ("!device", Wanted::Bool, 2, "! takes true or false, this is a text"),
        ("true && time", Wanted::Bool, 9, "&& takes true or false, this is a number"),
        ("-tags.x > 1", Wanted::Bool, 0, "- takes a number, this is a text"),
        ("tags.x * 2 > 1", Wanted::Bool, 0, "* takes a number, this is a text"),
        ("time.startsWith('a')", Wanted::Bool, 0, "startsWith is asked of a number"),
        ("device.startsWith(1)", Wanted::Bool, 19, "startsWith takes a text, this is a number"),
        ("values.t in 3", Wanted::Bool, 0, "in looks into a list or a map, not a number"),
        ("dims.devises.site == 'a'", Wanted::Bool, 0, "no dimension \"devises\"; did you mean \"devices\"?"),
        ("has(dims.devices.sit)", Wanted::Bool, 0, "no column \"sit\"; did you mean \"site\"?"),
        ("size(dims) > 1", Wanted::Bool, 6, "write dims.<dimension>.<column>"),
        ("dims.devices['x'] == 'a'", Wanted::Bool, 0, "no column \"x\"; known here: site, li ne"),
        ("t > 1.0", Wanted::Bool, 1, "\"t\" is not known; values are values.t, and there are device, time"),
    ] {
        let problem = Expression::compile_in(text, &scope(), wanted).unwrap_err();
        assert!(problem.message.contains(want), "{text}: {problem}");
        if column > 0 {
            assert_eq!(problem.column, column, "{text}: {problem}");
        }
    }
    assert!(Expression::compile("dims.devices.site == 'a'").is_err(), "not on the edge");
}

#[test]
fn failures_quote_nothing_of_the_record() {
    let reading = Reading {
        device: "secret".into(),
        values: vec![("s".into(), Value::Text("secret".into()))],
        ..Reading::default()
    };
    let record = Record::of(&reading);
    for text in [
        "double(values.s) > 1.0",
        "int(values.s) > 1",
        "bool(values.s)",
        "values.s * 2.0 > 1.0",
        "values.s > 1",
        "{device: 1, values.s: 2}.a == 1",
        "[1][values.s] == 1",
        "values[1.0 + values.s] == 1",
        "values.s",
        "math.abs(values.s) > 1",
    ] {
        let mut names = Names::default();
        let program = Program::new(Expression::compile_in(text, &scope(), Wanted::Bool).unwrap(), &mut names);
        let filled = Row::default().fill(&names, &record);
        match program.boolean(&filled, &record) {
            Err(Failure::Wrong(words)) => assert!(!words.contains("secret"), "{words}"),
            other => assert_eq!(other, Err(Failure::Missing), "{text}"),
        }
    }
}
