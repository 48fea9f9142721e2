//! Reading a configuration: parse → check; all problems at once, each with file, line and column.
//!
//! Comes in: the text of a TOML file and the text of the program's reference, which holds every key with its
//! default (compiled in, and shipped as documentation). Goes out: typed values, or every [`Problem`].
//! Guarantees: a key that the reference does not know is refused with the nearest right word; a value of another
//! type or outside its range is refused with what is wanted; reading goes on with the default, so that one run
//! shows all problems. Opens nothing; reads only the files that strings name as secrets ([`crate::secret`]).
//! On failure: a file that is not TOML gives the parser's problems alone.

mod problems;
mod shown;

use std::cell::RefCell;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret;
pub use problems::{Problem, Problems};
pub(crate) use shown::is_secret;
pub use shown::shown;

/// Parses `text`, lets `read` take what it wants from the root section, and gives its result or all problems.
///
/// # Errors
/// Everything that is wrong with `text`.
///
/// # Panics
/// When `reference`, which is compiled in, is not TOML.
pub fn check<T>(
    file: &str,
    text: &str,
    reference: &str,
    read: impl FnOnce(&Section<'_>) -> T,
) -> Result<T, Problems> {
    let (user, errors) = DeTable::parse_recoverable(text);
    let notes = Notes { text, list: RefCell::default() };
    for error in errors {
        notes.add(error.span().map_or(0, |s| s.start), error.message().to_owned(), false);
    }
    let mut value = None;
    if notes.list.borrow().is_empty() {
        let reference =
            DeTable::parse(reference).expect("the compiled-in reference is TOML; a test reads it");
        let root = Section {
            path: String::new(),
            at: 0,
            user: Some(user.get_ref()),
            reference: reference.get_ref(),
            notes: &notes,
        };
        root.refuse_unknown_keys();
        value = Some(read(&root));
    }
    let mut list = notes.list.into_inner();
    match value {
        Some(value) if list.is_empty() => Ok(value),
        _ => {
            list.sort_by_key(|p| (p.line, p.column));
            Err(Problems { file: file.to_owned(), list })
        }
    }
}

/// A value whose type the file decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A string.
    Text(String),
    /// A number without a fraction.
    Integer(i128),
    /// Any other number; may be infinite.
    Float(f64),
    /// True or false.
    Flag(bool),
}

struct Notes<'a> {
    text: &'a str,
    list: RefCell<Vec<Problem>>,
}

impl Notes<'_> {
    fn add(&self, at: usize, message: String, is_of_file: bool) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let problem = Problem { line, column, message, is_of_file };
        let mut list = self.list.borrow_mut();
        // A section or a value that is read twice is wrong once; a value whose secret is missing is not wrong in itself.
        let is_told = |p: &Problem| {
            *p == problem || (p.is_of_file && (p.line, p.column) == (problem.line, problem.column))
        };
        if !list.iter().any(is_told) {
            list.push(problem);
        }
    }
}

/// One table of the file, with the reference's table beside it.
pub struct Section<'a> {
    path: String,
    at: usize,
    user: Option<&'a DeTable<'a>>,
    reference: &'a DeTable<'a>,
    notes: &'a Notes<'a>,
}

impl<'a> Section<'a> {
    /// A table of the reference; empty where the file does not have it.
    ///
    /// # Panics
    /// When the reference lacks it.
    #[must_use]
    pub fn section(&self, key: &str) -> Section<'a> {
        let reference = as_table(reference_value(self.reference, key)).expect("a table in the reference");
        let (user, at) = match find(self.user, key) {
            None => (None, self.at),
            Some(value) => {
                let table = as_table(value);
                if table.is_none() {
                    self.wrong(value, key, "a table");
                }
                (table, value.span().start)
            }
        };
        let section = Section { path: self.full(key), at, user, reference, notes: self.notes };
        section.refuse_unknown_keys();
        section
    }

    /// The tables of an array of tables; `item` is the text with every key of one of them and its default.
    /// An array that the file lacks is empty.
    pub fn each<T>(&self, key: &str, item: &str, mut read: impl FnMut(&Section<'_>) -> T) -> Vec<T> {
        let Some(value) = find(self.user, key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(value, key, &format!("one or more [[{}]] tables", self.full(key)));
            return Vec::new();
        };
        let reference =
            DeTable::parse(item).expect("the compiled-in item reference is TOML; a test reads it");
        let mut list = Vec::new();
        for (i, value) in array.iter().enumerate() {
            let Some(table) = as_table(value) else {
                self.wrong(value, key, "a table");
                continue;
            };
            let path = format!("{}[{i}]", self.full(key));
            let section = Section {
                path,
                at: value.span().start,
                user: Some(table),
                reference: reference.get_ref(),
                notes: self.notes,
            };
            section.refuse_unknown_keys();
            list.push(read(&section));
        }
        list
    }

    /// Whether the reference has this key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        find(Some(self.reference), key).is_some()
    }

    /// A string, with the secrets that it names.
    #[must_use]
    pub fn string(&self, key: &str) -> String {
        self.expanded(key, self.take(key, "a string", |v| v.as_str().map(str::to_owned)))
    }

    /// A string that must not be empty; `want` says what it is, for the problem.
    #[must_use]
    pub fn required(&self, key: &str, want: &str) -> String {
        let value = self.string(key);
        // What is no string at all was told by now.
        if value.is_empty() && find(self.user, key).is_none_or(|v| v.get_ref().as_str().is_some()) {
            self.problem(key, &format!("must be set: {want}"));
        }
        value
    }

    /// An integer within a range.
    #[must_use]
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>) -> u64 {
        let want = format!("an integer from {} to {}", range.start(), range.end());
        self.take(key, &want, |v| {
            let n = v.as_integer()?;
            let n = u64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok()?;
            range.contains(&n).then_some(n)
        })
    }

    /// A duration given as an integer of milliseconds within a range.
    #[must_use]
    pub fn millis(&self, key: &str, range: RangeInclusive<u64>) -> std::time::Duration {
        std::time::Duration::from_millis(self.integer(key, range))
    }

    /// True or false.
    #[must_use]
    pub fn boolean(&self, key: &str) -> bool {
        self.take(key, "true or false", |v| v.as_bool())
    }

    /// A list of strings, with the secrets that they name.
    #[must_use]
    pub fn strings(&self, key: &str) -> Vec<String> {
        let texts: Vec<String> = self.take(key, "a list of strings", |v| {
            v.as_array()?.iter().map(|s| s.get_ref().as_str().map(str::to_owned)).collect()
        });
        texts.into_iter().map(|text| self.expanded(key, text)).collect()
    }

    /// A list of strings; one string alone is a list of one.
    #[must_use]
    pub fn one_or_more(&self, key: &str) -> Vec<String> {
        self.take(key, "a string or a list of strings", |v| match v.as_str() {
            Some(one) => Some(vec![one.to_owned()]),
            None => v.as_array()?.iter().map(|s| s.get_ref().as_str().map(str::to_owned)).collect(),
        })
    }

    /// A string, number or bool, whichever the file has; `None` where it has none.
    #[must_use]
    pub fn literal(&self, key: &str) -> Option<Literal> {
        let value = find(self.user, key)?;
        let literal = match value.get_ref() {
            DeValue::String(text) => Some(Literal::Text(text.to_string())),
            DeValue::Boolean(flag) => Some(Literal::Flag(*flag)),
            DeValue::Integer(n) => {
                i128::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok().map(Literal::Integer)
            }
            DeValue::Float(n) => n.as_str().replace('_', "").parse().ok().map(Literal::Float),
            _ => None,
        };
        if literal.is_none() {
            self.wrong(value, key, "a string, a number, true or false");
        }
        literal
    }

    /// One of some words; what is given back is the index into `words`.
    #[must_use]
    pub fn choice(&self, key: &str, words: &[&str]) -> usize {
        self.take(key, &format!("one of {}", words.join(", ")), |v| {
            let word = v.as_str()?;
            words.iter().position(|w| *w == word)
        })
    }

    /// A value that `parse` understands, for example an address.
    #[must_use]
    pub fn parsed<T>(&self, key: &str, want: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        self.take(key, want, |v| parse(v.as_str()?))
    }

    /// Reports that the value at `key` (or the section, where the file lacks it) is wrong.
    pub fn problem(&self, key: &str, message: &str) {
        self.add(key, message, false);
    }

    /// Reports that the file which the value at `key` names cannot be used.
    pub fn file_problem(&self, key: &str, message: &str) {
        self.add(key, message, true);
    }

    fn add(&self, key: &str, message: &str, is_of_file: bool) {
        let at = find(self.user, key).map_or(self.at, |v| v.span().start);
        self.notes.add(at, format!("{}: {message}", self.full(key)), is_of_file);
    }

    /// With the secrets that it names.
    fn expanded(&self, key: &str, text: String) -> String {
        if let Some(why) = secret::mistaken(&text) {
            self.problem(key, &why);
            return text;
        }
        let expanded = secret::expand(&text).map(std::borrow::Cow::into_owned);
        expanded.unwrap_or_else(|why| {
            self.file_problem(key, &why);
            text
        })
    }

    fn take<T>(&self, key: &str, want: &str, read: impl Fn(&DeValue<'_>) -> Option<T>) -> T {
        if let Some(value) = find(self.user, key) {
            if let Some(value) = read(value.get_ref()) {
                return value;
            }
            self.wrong(value, key, want);
        }
        read(reference_value(self.reference, key).get_ref()).expect("the reference's own value is right")
    }

    fn wrong(&self, value: &Spanned<DeValue<'_>>, key: &str, want: &str) {
        self.notes.add(value.span().start, format!("{}: must be {want}", self.full(key)), false);
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn refuse_unknown_keys(&self) {
        let Some(user) = self.user else { return };
        for key in user.keys() {
            let name: &str = key.get_ref();
            if self.reference.keys().any(|k| k.get_ref() == name) {
                continue;
            }
            let nearest = self
                .reference
                .keys()
                .map(|k| (strsim::damerau_levenshtein(k.get_ref(), name), k.get_ref()))
                .min()
                .filter(|(distance, _)| *distance <= 1 + name.len() / 3);
            let known = || self.reference.keys().map(|k| k.get_ref().as_ref()).collect::<Vec<_>>().join(", ");
            let hint = nearest
                .map_or_else(|| format!("known here: {}", known()), |(_, k)| format!("did you mean {k:?}?"));
            self.notes.add(key.span().start, format!("{}: unknown key; {hint}", self.full(name)), false);
        }
    }
}

fn find<'a>(table: Option<&'a DeTable<'a>>, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table?.iter().find(|(k, _)| k.get_ref() == key).map(|(_, v)| v)
}

fn reference_value<'a>(reference: &'a DeTable<'a>, key: &str) -> &'a Spanned<DeValue<'a>> {
    match find(Some(reference), key) {
        Some(value) => value,
        None => panic!("the reference configuration lacks {key}; a test reads it whole"),
    }
}

fn as_table<'a>(value: &'a Spanned<DeValue<'a>>) -> Option<&'a DeTable<'a>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "name = ''\n[net]\nport = 1\nslow = false\nkind = 'a'\nhosts = []\n";

    fn read(text: &str) -> Result<(String, u64, usize, Vec<u64>), Problems> {
        check("x.toml", text, &format!("{REFERENCE}[[item]]\n"), |s| {
            let net = s.section("net");
            let item = s.each("item", "size = 3", |i| i.integer("size", 1..=9));
            (
                s.required("name", "the name"),
                net.integer("port", 1..=65_535),
                net.choice("kind", &["a", "b"]),
                item,
            )
        })
    }

    #[test]
    fn defaults_come_from_the_reference() {
        assert_eq!(read("name = 'n'").unwrap(), ("n".into(), 1, 0, vec![]));
        let all = "name = 'n'\nnet.port = 80\nnet.kind = 'b'\n[[item]]\n[[item]]\nsize = 0x5";
        assert_eq!(read(all).unwrap(), ("n".into(), 80, 1, vec![3, 5]));
    }

    #[test]
    fn all_problems_at_once_with_their_places() {
        let text = "nmae = 'n'\n[net]\nport = 70000\n  knid = 'b'\n[[item]]\nsize = 'big'\n";
        let problems = read(text).unwrap_err();
        let shown = problems.to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], "x.toml:1:1: nmae: unknown key; did you mean \"name\"?", "{shown}");
        assert_eq!(lines[1], "x.toml:1:1: name: must be set: the name");
        assert_eq!(lines[2], "x.toml:3:8: net.port: must be an integer from 1 to 65535");
        assert_eq!(lines[3], "x.toml:4:3: net.knid: unknown key; did you mean \"kind\"?");
        assert_eq!(lines[4], "x.toml:6:8: item[0].size: must be an integer from 1 to 9");
        assert_eq!(lines[5], "5 problems in x.toml");
    }

    #[test]
    fn what_is_not_toml_is_said_with_its_place() {
        let problems = read("name = \n").unwrap_err();
        assert_eq!(problems.list()[0].line, 1);
        assert!(read("name = 'a'\nname = 'b'").is_err());
    }
}
