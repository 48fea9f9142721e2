//! Files that are right, and every way to be wrong.

use serde_json::json;

use super::*;

const TOML: &str = r#"
[[rule]]
id = "too-hot"
kind = "threshold"
priority = -5
effective_at = 2026-11-22T07:00:00+01:00
note = "as agreed"
[rule.spec]
when = "values.t > 1.0"
limits = [1, 2.5, 0x10]
[[rule]]
id = "b"
kind = "filter"
spec = { drop = "true" }
"#;

#[test]
fn toml_and_json_say_the_same() {
    let toml = parse("r.toml", TOML).unwrap();
    let first = &toml.rules[0];
    assert_eq!((first.id.as_str(), first.kind.as_str(), first.priority), ("too-hot", "threshold", -5));
    assert_eq!(first.effective_at.as_deref(), Some("2026-11-22 06:00:00.000"));
    assert_eq!(first.spec, json!({"when": "values.t > 1.0", "limits": [1, 2.5, 16]}));
    let second = &toml.rules[1];
    assert_eq!((second.priority, &second.effective_at, &second.note), (0, &None, &None));
    let json = r#"[{"id":"too-hot","kind":"threshold","priority":-5,"effective_at":"2026-11-22T06:00:00Z",
        "note":"as agreed","spec":{"when":"values.t > 1.0","limits":[1,2.5,16]}},
        {"id":"b","kind":"filter","spec":{"drop":"true"}}]"#;
    assert_eq!(parse("r.json", json).unwrap().rules, toml.rules);
    assert_eq!(parse("r.json", &format!("{{\"rule\":{json}}}")).unwrap().rules, toml.rules);
    let one = parse("r.json", r#"{"id":"b","kind":"filter","spec":{"drop":"true"}}"#).unwrap();
    assert_eq!(one.rules[0].spec, second.spec);
}

#[test]
fn all_problems_at_once_with_their_places() {
    let text = "top = 1\n[[rule]]\nid = 'a b'\nkind = ''\npriority = 3.5\n  colour = 'red'\n\
        effective_at = 2026-11-22T07:00:00\nnote = 7\nspec = 'x'\n[[rule]]\nid = 'c'\nkind = 'k'\n\
        [rule.spec]\nx = inf\n";
    let shown = parse("r.toml", text).unwrap().problems.join("\n");
    for part in [
        "r.toml:1:1: top: unknown here",
        "r.toml:3:6: rule[0].id: must be 1 to 64",
        "r.toml:4:8: rule[0].kind: must be set",
        "r.toml:5:12: rule[0].priority: must be an integer",
        "r.toml:6:12: rule[0].colour: unknown; a rule has id, kind",
        "r.toml:7:16: rule[0].effective_at: must be a time with its zone",
        "r.toml:8:8: rule[0].note: must be a text",
        "r.toml:9:8: rule[0].spec: must be a table",
        "r.toml:14:5: rule[1].spec.x: must be a finite number",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn what_is_missing_has_the_place_of_its_rule() {
    let shown = parse("r.toml", "\n[[rule]]\nid = 'a'\nkind = 'k'\n").unwrap().problems.join("\n");
    assert_eq!(shown, "r.toml:2:1: rule[0].spec: must be a table: what the rule says");
    let shown = parse("r.json", r#"[{"id":"a","spec":{}}, 7]"#).unwrap().problems.join("\n");
    assert!(shown.contains("r.json: rule[0].kind: must be set"), "{shown}");
    assert!(shown.contains("r.json: rule[1]: must be a rule"), "{shown}");
}

#[test]
fn what_does_not_parse_says_where() {
    let toml = parse("r.toml", "[[rule]]\nid = \n").unwrap_err();
    assert!(toml[0].starts_with("r.toml:2:"), "{toml:?}");
    let json = parse("r.json", "[{\n\"id\": }]").unwrap_err();
    assert!(json[0].starts_with("r.json:2:7: "), "{json:?}");
    assert!(parse("r.json", "7").unwrap_err()[0].contains("must be a rule"));
    assert!(parse("r.toml", "").unwrap().problems[0].contains("no rules"));
    assert!(parse("r.json", "[]").unwrap().problems[0].contains("no rules"));
    let twice = parse("r.json", "{\"id\": \"a\",\n\"id\": \"b\"}").unwrap_err();
    assert_eq!(twice, ["r.json:2:4: \"id\" is there twice at line 2 column 4"]);
}

#[test]
fn a_name_stands_once() {
    let twice = format!("{TOML}[[rule]]\nid = 'b'\nkind = 'filter'\nspec = {{}}\n");
    let file = parse("r.toml", &twice).unwrap();
    assert_eq!(file.rules.len(), 3, "the compiler sees them too");
    assert_eq!(file.problems, ["r.toml:16:6: rule[2].id: \"b\" is there twice"]);
}

#[test]
fn what_the_compiler_refuses_gets_the_place_of_its_member() {
    let file = parse("r.toml", TOML).unwrap();
    let at = |i: usize, reason| file.refused(&file.rules[i], reason);
    assert_eq!(at(0, "when: column 3: no"), "r.toml:9:8: rule[0].spec.when: too-hot: when: column 3: no");
    assert_eq!(at(0, "odd"), "r.toml:8:1: rule[0].spec: too-hot: odd");
    assert_eq!(at(1, "drop: no"), "r.toml:14:17: rule[1].spec.drop: b: drop: no");
}
