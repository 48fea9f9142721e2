//! The CSV decoder with its header mapping.
//!
//! Comes in: lines; the first is the header where the columns have no names of their own (the source puts the file's
//! header before each of its messages). Goes out: one result for each row. A row is a line: a quoted field may hold
//! the delimiter and doubled quotes, but no line break, so that one bad row never swallows the next. An empty field is
//! no value; what JSON would call a number is one, `true` and `false` are bools, all else is a text.
//! On failure: the row's number, the reason and its raw bytes; a header that cannot be right rejects its message.

use std::borrow::Cow;

use weir_shared::config::Section;
use weir_shared::reading::{Reading, Value};

use super::times::Written;
use super::{Decoded, Job, Reason, Refused, checked_device, in_row, lines};

/// Most columns.
const COLUMNS_MAX: usize = 1024;

/// Which column is what.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// Between fields.
    pub delimiter: u8,
    /// The names of the columns; empty where the first line has them.
    pub names: Vec<String>,
    /// The column of the device; empty for none.
    pub device: String,
    /// The device where no column or an empty field says it; empty for none.
    pub device_name: String,
    /// The column of the event time; empty for the time of arrival.
    pub time: String,
    /// How times are written.
    pub written: Written,
    /// Columns that are tags.
    pub tags: Vec<String>,
    /// Columns that are values; empty for all others.
    pub values: Vec<String>,
}

impl Columns {
    /// Takes `delimiter`, `columns`, `device_field`, `time_field`, `time_unit`, `time_zone`, `tag_fields` and
    /// `value_fields`; the device's fixed name is the caller's.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let delimiter = section.string("delimiter");
        let byte = match delimiter.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
            _ => {
                section
                    .problem("delimiter", "must be one ASCII character, for example \",\", \";\" or \"\\t\"");
                b','
            }
        };
        let names = section.strings("columns");
        if let Err((_, why)) = check(&names) {
            section.problem("columns", &why);
        }
        let mut written = Written::read(section);
        written.zone.get_or_insert(jiff::tz::TimeZone::UTC);
        Self {
            delimiter: byte,
            names,
            device: section.string("device_field"),
            device_name: String::new(),
            time: section.string("time_field"),
            written,
            tags: section.strings("tag_fields"),
            values: section.strings("value_fields"),
        }
    }
}

fn check<N: AsRef<str>>(names: &[N]) -> Result<(), Refused> {
    if names.len() > COLUMNS_MAX {
        let detail = format!("{} columns, at most {COLUMNS_MAX} are taken", names.len());
        return Err((Reason::NotCsv, detail));
    }
    let mut sorted: Vec<&str> = names.iter().map(AsRef::as_ref).filter(|name| !name.is_empty()).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err((Reason::NotCsv, format!("column {} stands twice", pair[0]))),
        None => Ok(()),
    }
}

/// What a column is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Device,
    Time,
    Tag,
    Value,
    Nothing,
}

/// The columns of one message.
struct Header<'a> {
    columns: &'a Columns,
    fields: Vec<(Cow<'a, str>, Use)>,
}

/// Decodes a message of lines.
pub(super) fn message<F: FnMut(Decoded)>(job: &Job<'_>, columns: &Columns, out: &mut F) {
    let payload = job.input.payload;
    let named = usize::from(columns.names.is_empty());
    match Header::new(columns, payload) {
        Ok(header) => lines(job, named, out, |job, row, text, out| {
            out(match header.row(job, text) {
                Ok(decoded) => decoded,
                Err(refused) => job.reject(&in_row(row, &refused), text.as_bytes(), None),
            });
        }),
        Err(refused) => out(job.reject(&refused, payload, None)),
    }
}

impl<'a> Header<'a> {
    fn new(columns: &'a Columns, payload: &'a [u8]) -> Result<Self, Refused> {
        let names: Vec<Cow<'_, str>> = if columns.names.is_empty() {
            let line = payload.split(|b| *b == b'\n').next().unwrap_or_default();
            let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|e| {
                (Reason::InvalidUtf8, format!("header: not UTF-8 from byte {}", e.valid_up_to()))
            })?;
            Fields::new(line, columns.delimiter).take(COLUMNS_MAX + 1).collect::<Result<_, _>>()?
        } else {
            columns.names.iter().map(|name| Cow::Borrowed(name.as_str())).collect()
        };
        check(&names)?;
        let fields = names.into_iter().map(|name| {
            let usage = match &*name {
                "" => Use::Nothing,
                name if name == columns.device => Use::Device,
                name if name == columns.time => Use::Time,
                name if columns.tags.iter().any(|tag| tag == name) => Use::Tag,
                name if columns.values.is_empty() || columns.values.iter().any(|v| v == name) => Use::Value,
                _ => Use::Nothing,
            };
            (name, usage)
        });
        Ok(Self { columns, fields: fields.collect() })
    }

    fn row(&self, job: &Job<'_>, text: &str) -> Result<Decoded, Refused> {
        let arrived = job.input.arrived;
        let (mut device, mut time) = (None, None);
        let mut reading = Reading { received: arrived.wall_ms, ..Reading::default() };
        reading.values.reserve(self.fields.len());
        let mut columns = self.fields.iter();
        let mut count = 0;
        for field in Fields::new(text, self.columns.delimiter) {
            let field = field?;
            count += 1;
            let Some((name, usage)) = columns.next() else { continue };
            if field.is_empty() {
                continue;
            }
            match usage {
                Use::Device => device = Some(field),
                Use::Time => time = Some(self.time(&field)?),
                Use::Tag => reading.tags.push((Cow::Borrowed(name), field)),
                Use::Value => reading.values.push((Cow::Borrowed(name), value(name, field)?)),
                Use::Nothing => {}
            }
        }
        if count != self.fields.len() {
            let detail = format!("{count} fields, the header has {}", self.fields.len());
            return Err((Reason::NotCsv, detail));
        }
        let fixed = Some(&*self.columns.device_name).filter(|name| !name.is_empty()).map(Cow::Borrowed);
        let missing = || (Reason::DeviceMissing, format!("no {}", self.columns.device));
        reading.device = checked_device(device.or(fixed).ok_or_else(missing)?)?;
        reading.time = match time {
            Some(time) => job.times.accept(time, &arrived)?,
            None if self.columns.time.is_empty() => arrived.wall_ms,
            None => return Err((Reason::TimeMissing, format!("no {}", self.columns.time))),
        };
        job.finish(reading)
    }

    fn time(&self, field: &str) -> Result<i64, Refused> {
        let written = &self.columns.written;
        if let Ok(n) = field.parse::<i64>() {
            return Ok(written.integer(n));
        }
        match field.parse::<f64>() {
            Ok(n) if n.is_finite() => written.float(n),
            _ => written.text(field),
        }
    }
}

fn value<'t>(name: &str, field: Cow<'t, str>) -> Result<Value<'t>, Refused> {
    if field == "true" || field == "false" {
        return Ok(Value::Bool(field == "true"));
    }
    if !is_number(&field) {
        return Ok(Value::Text(field));
    }
    if let Ok(n) = field.parse::<u64>() {
        return Ok(Value::Unsigned(n));
    }
    if let Ok(n) = field.parse::<i64>() {
        return Ok(Value::Signed(n));
    }
    match field.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(Value::Float(n)),
        _ => Err((Reason::ValueNotFinite, format!("{name} is {field}"))),
    }
}

/// Whether JSON would call it a number: so `007`, `+1`, `.5` and `0x1f` stay texts.
fn is_number(text: &str) -> bool {
    fn digits(text: &str) -> (usize, &str) {
        let count = text.bytes().take_while(u8::is_ascii_digit).count();
        (count, &text[count..])
    }
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, mut rest) = digits(text);
    if whole == 0 || (whole > 1 && text.starts_with('0')) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        let (count, after) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let (count, after) = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
        return count > 0 && after.is_empty();
    }
    rest.is_empty()
}

/// The fields of one row, without the blanks around them.
struct Fields<'t> {
    rest: Option<&'t str>,
    delimiter: char,
}

impl<'t> Fields<'t> {
    fn new(line: &'t str, delimiter: u8) -> Self {
        Self { rest: Some(line), delimiter: char::from(delimiter) }
    }

    /// After the opening quote.
    fn quoted(&mut self, text: &'t str) -> Result<Cow<'t, str>, Refused> {
        let mut field = Cow::Borrowed("");
        let mut rest = text;
        loop {
            let Some(end) = rest.find('"') else {
                return Err((Reason::NotCsv, "a quote that does not end".to_owned()));
            };
            let doubled = rest[end + 1..].starts_with('"');
            let part = &rest[..end + usize::from(doubled)];
            field = if field.is_empty() { Cow::Borrowed(part) } else { field + part };
            if doubled {
                rest = &rest[end + 2..];
                continue;
            }
            let after = rest[end + 1..].trim_start_matches(' ');
            self.rest = after.strip_prefix(self.delimiter);
            if self.rest.is_none() && !after.is_empty() {
                return Err((Reason::NotCsv, "something after a closing quote".to_owned()));
            }
            return Ok(field);
        }
    }
}

impl<'t> Iterator for Fields<'t> {
    type Item = Result<Cow<'t, str>, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.rest.take()?;
        if let Some(text) = line.trim_start_matches(' ').strip_prefix('"') {
            return Some(self.quoted(text));
        }
        let (field, rest) = match line.split_once(self.delimiter) {
            Some((field, rest)) => (field, Some(rest)),
            None => (line, None),
        };
        self.rest = rest;
        if field.contains('\r') {
            return Some(Err((Reason::NotCsv, "a CR in it: lines must end in LF or CRLF".to_owned())));
        }
        Some(Ok(Cow::Borrowed(field.trim_matches(' '))))
    }
}

#[cfg(test)]
mod tests;
