//! The last line of a demo or benchmark: one JSON object `{"name": …, "ok": …, …its figures}`.
//!
//! Comes in: the name, whether every wanted figure was met, the figures. Goes out: the line, with name and verdict
//! first, for people who read it too. Pure.

use serde_json::{Map, Value};

/// The line, without its end.
#[must_use]
pub fn line(name: &str, ok: bool, figures: &Map<String, Value>) -> String {
    let head = format!("{{\"name\":{},\"ok\":{ok}", Value::from(name));
    figures.iter().fold(head, |line, (key, value)| format!("{line},{}:{value}", Value::from(key.as_str())))
        + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_line_of_json() {
        let figures = Map::from_iter([("a \"b\"".to_owned(), Value::from(vec![1, 2]))]);
        let line = line("demo", true, &figures);
        assert_eq!(line, r#"{"name":"demo","ok":true,"a \"b\"":[1,2]}"#);
        assert!(serde_json::from_str::<Value>(&line).is_ok());
    }
}
