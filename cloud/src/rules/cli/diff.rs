//! What differs between two versions, line by line.
//!
//! Comes in: two versions, or two texts. Goes out: their lines with `-`, `+` or a blank before them. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::read::Version;

/// Most lines of a text that are compared in detail: the table of the comparison grows with their square.
const LINES_MAX: usize = 2000;

/// The difference of two versions.
pub(super) fn versions(a: &Version, b: &Version) -> String {
    let text = |v: &Version| content(&v.kind, v.priority, v.effective_at.as_deref(), &v.spec);
    let lines = lines(&text(a), &text(b));
    if a.version == b.version || lines.is_empty() {
        return format!("{}: versions {} and {} are the same", a.id, a.version, b.version);
    }
    format!("{}: version {} → version {}\n{lines}", a.id, a.version, b.version)
}

/// A rule's content as text.
pub(super) fn content(kind: &str, priority: i32, effective_at: Option<&str>, spec: &Value) -> String {
    let effective = effective_at.map_or_else(|| "at once".to_owned(), |at| format!("{at} UTC"));
    format!("kind: {kind}\npriority: {priority}\neffective: {effective}\nspec: {spec:#}")
}

/// The difference of two texts; empty when they are equal.
pub(super) fn lines(a: &str, b: &str) -> String {
    if a == b {
        return String::new();
    }
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let mut out = String::new();
    let mut put = |mark: char, line: &str| {
        writeln!(out, "  {mark} {line}").expect("a String takes everything");
    };
    if a.len() > LINES_MAX || b.len() > LINES_MAX {
        a.iter().for_each(|line| put('-', line));
        b.iter().for_each(|line| put('+', line));
        return out;
    }
    let common = longest_common(&a, &b);
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            put(' ', a[i]);
            (i, j) = (i + 1, j + 1);
        } else if j >= b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            put('-', a[i]);
            i += 1;
        } else {
            put('+', b[j]);
            j += 1;
        }
    }
    out
}

/// Length of the longest common subsequence of `a[i..]` and `b[j..]`, for all i and j.
fn longest_common(a: &[&str], b: &[&str]) -> Vec<Vec<usize>> {
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            table[i][j] =
                if a[i] == b[j] { table[i + 1][j + 1] + 1 } else { table[i + 1][j].max(table[i][j + 1]) };
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_differs_is_marked() {
        assert_eq!(lines("a\nb\nc", "a\nx\nc\nd"), "    a\n  - b\n  + x\n    c\n  + d\n");
        assert_eq!(lines("a", "a"), "");
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_out_of_it(a in "([abc]\n){0,8}", b in "([abc]\n){0,8}") {
            let shown = lines(&a, &b);
            let side = |other: char| -> String {
                let kept = shown.lines().filter(|l| !l[2..].starts_with(other));
                kept.map(|l| format!("{}\n", &l[4..])).collect()
            };
            if a != b {
                prop_assert_eq!(side('+'), a);
                prop_assert_eq!(side('-'), b);
            }
        }
    }
}
