//! The `[[clean]]` tables: from text to a compiled rule.
//!
//! Comes in: one table. Goes out: the rule, or problems with their places. Pure.

use weir_shared::config::Section;
use weir_shared::expr::Expression;
use weir_shared::record;

use super::Rule;
use super::convert::{Outside, Range, Type};

/// Every key of one table with its default.
pub(super) const RULE: &str =
    "when = ''\nfilter = ''\nrename = []\nrequire = []\ntypes = []\nset = []\nranges = []\ndrop = []\n";

pub(super) fn rule(s: &Section<'_>, number: usize) -> Rule {
    let condition = |key| {
        let text = s.string(key);
        if text.is_empty() { None } else { compile(s, key, &text) }
    };
    Rule {
        number,
        when: condition("when"),
        filter: condition("filter"),
        rename: pairs(s, "rename", "old=new", |new| name(new).then(|| new.to_owned())),
        require: s.strings("require"),
        types: pairs(s, "types", "name=number, =integer, =bool or =text", |word| {
            Type::WORDS.iter().find(|(w, _)| *w == word).map(|(_, t)| *t)
        }),
        set: pairs(s, "set", "name=expression", |text| Some(text.to_owned()))
            .into_iter()
            .filter_map(|(name, text)| compile(s, "set", &text).map(|expression| (name, expression)))
            .collect(),
        ranges: pairs(s, "ranges", "name=min..max, with a word reject, clamp or drop after it", range),
        drop: s.strings("drop"),
    }
}

fn compile(s: &Section<'_>, key: &str, text: &str) -> Option<Expression> {
    Expression::compile(text).map_err(|problem| s.problem(key, &format!("{text:?}, {problem}"))).ok()
}

fn pairs<T>(s: &Section<'_>, key: &str, want: &str, read: impl Fn(&str) -> Option<T>) -> Vec<(String, T)> {
    let mut list = Vec::new();
    for text in s.strings(key) {
        let pair = text.split_once('=').map(|(name, rest)| (name.trim(), rest.trim()));
        match pair.filter(|(left, _)| name(left)).and_then(|(name, rest)| Some((name, read(rest)?))) {
            Some((name, rest)) => list.push((name.to_owned(), rest)),
            None => s.problem(key, &format!("{text:?}: must be \"{want}\"")),
        }
    }
    list
}

fn name(name: &str) -> bool {
    !name.is_empty() && name.len() <= record::NAME_BYTES_MAX
}

fn range(text: &str) -> Option<Range> {
    let (text, outside) = match text.rsplit_once(' ') {
        Some((range, "reject")) => (range, Outside::Reject),
        Some((range, "clamp")) => (range, Outside::Clamp),
        Some((range, "drop")) => (range, Outside::Drop),
        _ => (text, Outside::Reject),
    };
    let (min, max) = text.split_once("..")?;
    let end = |text: &str, open: f64| match text.trim() {
        "" => Some(open),
        text => text.parse().ok().filter(|v: &f64| v.is_finite()),
    };
    let (min, max) = (end(min, f64::NEG_INFINITY)?, end(max, f64::INFINITY)?);
    (min <= max).then_some(Range { min, max, outside })
}
