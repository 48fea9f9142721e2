//! Reading a metrics page again: the text that Prometheus scrapes, as samples.
//!
//! Comes in: the page. Goes out: name, labels and value of each sample, in its order. A line that is none is passed over.

use std::borrow::Cow;

/// One line of the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its labels.
    pub labels: Vec<(&'p str, Cow<'p, str>)>,
    /// Its value.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label; empty where it has none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
    }
}

/// All samples of a page.
pub fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, value) = rest.split_once("=\"")?;
            let end = closing_quote(value)?;
            labels.push((label.trim_start_matches(','), unescaped(&value[..end])));
            rest = &value[end + 1..];
        }
        rest = &rest[1..];
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// The first quote that no backslash stands before, but for one that is escaped itself.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read() {
        let page = "# HELP a b\n# TYPE a counter\na 1\nb{c=\"d\",e=\"f, \\\"g\\\"\\\\\\n}\"} 2.5e3\n\nc{} NaN\nd +Inf 17\nno\n\
            e{f=\"g} 1\n";
        let read: Vec<Sample<'_>> = samples(page).collect();
        assert_eq!(read.len(), 4, "{read:?}");
        assert_eq!((read[0].name, read[0].value), ("a", 1.0));
        assert_eq!((read[1].label("c"), read[1].label("e"), read[1].label("x")), ("d", "f, \"g\"\\\n}", ""));
        assert_eq!(read[1].value, 2500.0);
        assert!(read[2].value.is_nan() && read[3].value.is_infinite());
    }
}
