//! Rows of a dimension table: their keys, and their columns as JSON.
//!
//! Comes in: the values of a row as MySQL's text protocol shows them ([`super::image`] makes the same texts from a
//! binlog). Goes out: key and JSON object.
//! Guarantees: integers and floats become numbers; a decimal too, where a 64-bit float holds all its digits,
//! otherwise a string; NULL is null; dates and times are ISO 8601 (a TIMESTAMP in UTC, with Z); binary columns are
//! base64; every result is valid JSON. Pure.
//!
//! The key of one column is its text (an integer's without leading zeros); of several, each but the last follows its
//! length (4 bytes), so that no two keys become one.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mysql_async::consts::ColumnType;
use weir_shared::reading::Value;

use super::table::Row;

/// Digits that a 64-bit float always holds.
const FLOAT_DIGITS: usize = 15;

/// How a column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Float,
    Decimal,
    /// A zone-less date, time or both.
    Date,
    /// In UTC.
    Timestamp,
    Bits,
    Json,
    Text,
    Binary,
}

/// Kind of a column by its type; `binary` says that its character set is `binary`.
pub(super) fn kind(column: ColumnType, binary: bool) -> Kind {
    use ColumnType as C;
    match column {
        C::MYSQL_TYPE_TINY
        | C::MYSQL_TYPE_SHORT
        | C::MYSQL_TYPE_INT24
        | C::MYSQL_TYPE_LONG
        | C::MYSQL_TYPE_LONGLONG
        | C::MYSQL_TYPE_YEAR => Kind::Integer,
        C::MYSQL_TYPE_FLOAT | C::MYSQL_TYPE_DOUBLE => Kind::Float,
        C::MYSQL_TYPE_DECIMAL | C::MYSQL_TYPE_NEWDECIMAL => Kind::Decimal,
        C::MYSQL_TYPE_TIMESTAMP | C::MYSQL_TYPE_TIMESTAMP2 => Kind::Timestamp,
        C::MYSQL_TYPE_DATE
        | C::MYSQL_TYPE_NEWDATE
        | C::MYSQL_TYPE_TIME
        | C::MYSQL_TYPE_TIME2
        | C::MYSQL_TYPE_DATETIME
        | C::MYSQL_TYPE_DATETIME2 => Kind::Date,
        C::MYSQL_TYPE_BIT => Kind::Bits,
        C::MYSQL_TYPE_JSON => Kind::Json,
        _ if binary => Kind::Binary,
        _ => Kind::Text,
    }
}

/// Which columns of a table make the key and the JSON of a dimension's rows.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    key: Vec<(usize, Kind)>,
    /// Column, `"name":`, kind.
    shown: Vec<(usize, Box<[u8]>, Kind)>,
}

impl Layout {
    /// By the places of the columns in the table; `names` and `kinds` are those of all columns that are used.
    pub(super) fn new(key: &[usize], shown: &[usize], names: &[String], kinds: &[Kind]) -> Self {
        let member = |name: &str| {
            let mut member = Vec::new();
            text(&mut member, name);
            member.push(b':');
            member.into()
        };
        Self {
            key: key.iter().map(|i| (*i, kinds[*i])).collect(),
            shown: shown.iter().map(|i| (*i, member(&names[*i]), kinds[*i])).collect(),
        }
    }

    /// Writes the key; false when a part is NULL or no text, which no reading equals.
    pub(super) fn key(&self, values: &[Option<&[u8]>], out: &mut Vec<u8>) -> bool {
        out.clear();
        for (n, (i, kind)) in self.key.iter().enumerate() {
            let Some(value) = values[*i].and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
                return false;
            };
            let is_last = n + 1 == self.key.len();
            let start = begin_part(out, is_last);
            match (kind, value.parse::<i128>()) {
                (Kind::Integer, Ok(number)) => {
                    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                }
                _ => out.extend_from_slice(value.as_bytes()),
            }
            end_part(out, start, is_last);
        }
        true
    }

    /// The row of a key that [`Layout::key`] wrote; `room` is used again.
    pub(super) fn row(&self, key: &[u8], values: &[Option<&[u8]>], room: &mut Vec<u8>) -> Row {
        room.clear();
        room.push(b'{');
        for (i, member, kind) in &self.shown {
            if room.len() > 1 {
                room.push(b',');
            }
            room.extend_from_slice(member);
            write(room, *kind, values[*i]);
        }
        room.push(b'}');
        Row::new(key, room)
    }
}

/// Leaves room for the length of a part of a key; gives where the part begins.
pub(super) fn begin_part(key: &mut Vec<u8>, is_last: bool) -> usize {
    if !is_last {
        key.extend_from_slice(&[0; 4]);
    }
    key.len()
}

/// Fills in the length of the part that began at `start`.
pub(super) fn end_part(key: &mut [u8], start: usize, is_last: bool) {
    if !is_last {
        let bytes = u32::try_from(key.len() - start).unwrap_or(u32::MAX);
        key[start - 4..start].copy_from_slice(&bytes.to_le_bytes());
    }
}

/// The member at this place of an object that [`Layout::row`] wrote; `None` is null. Nested JSON is its text.
pub(super) fn column(object: &[u8], place: usize) -> Option<Value<'_>> {
    let mut rest = object.get(1..)?;
    for _ in 0..place {
        rest = rest.get(end(rest)? + 1..)?;
        rest = rest.get(end(rest)? + 1..)?;
    }
    rest = rest.get(end(rest)? + 1..)?;
    let value = std::str::from_utf8(&rest[..end(rest)?]).ok()?;
    match value.as_bytes().first()? {
        b'n' => None,
        b't' => Some(Value::Bool(true)),
        b'f' => Some(Value::Bool(false)),
        b'"' if !value.contains('\\') => Some(Value::Text(Cow::Borrowed(&value[1..value.len() - 1]))),
        b'"' => serde_json::from_str(value).ok().map(|text: String| Value::Text(Cow::Owned(text))),
        b'{' | b'[' => Some(Value::Text(Cow::Borrowed(value))),
        _ => value
            .parse()
            .map(Value::Unsigned)
            .or_else(|_| value.parse().map(Value::Signed))
            .or_else(|_| value.parse().map(Value::Float))
            .ok(),
    }
}

/// Where the value ends with which this text begins.
fn end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0u32, false, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b',' | b':' | b'}' | b']' if depth == 0 => return Some(i),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn write(out: &mut Vec<u8>, kind: Kind, value: Option<&[u8]>) {
    let Some(bytes) = value else { return out.extend_from_slice(b"null") };
    let plain = String::from_utf8_lossy(bytes);
    match kind {
        Kind::Integer => match plain.parse::<i128>() {
            Ok(n) => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
            Err(_) => text(out, &plain),
        },
        Kind::Float if is_number(&plain) => out.extend_from_slice(bytes),
        Kind::Decimal if is_number(&plain) && digits(&plain) <= FLOAT_DIGITS => out.extend_from_slice(bytes),
        Kind::Date => text(out, &plain.replacen(' ', "T", 1)),
        Kind::Timestamp => text(out, &(plain.replacen(' ', "T", 1) + "Z")),
        Kind::Bits => {
            let n = bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
        }
        Kind::Json if serde_json::from_str::<serde::de::IgnoredAny>(&plain).is_ok() => {
            out.extend_from_slice(bytes);
        }
        Kind::Binary => text(out, &BASE64.encode(bytes)),
        Kind::Float | Kind::Decimal | Kind::Json | Kind::Text => text(out, &plain),
    }
}

/// Whether the text is a JSON number (ZEROFILL makes some that are not).
fn is_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok()
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string into memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use ColumnType as C;

    fn one(column: ColumnType, binary: bool, bytes: &[u8]) -> String {
        let layout = Layout::new(&[], &[0], &["c".to_owned()], &[kind(column, binary)]);
        let row = layout.row(b"", &[Some(bytes)], &mut Vec::new());
        let row = String::from_utf8(row.json().to_vec()).unwrap();
        serde_json::from_str::<serde_json::Value>(&row).unwrap();
        row[5..row.len() - 1].to_owned()
    }

    #[test]
    fn every_type_is_written_as_valid_json() {
        assert_eq!(one(C::MYSQL_TYPE_LONG, true, b"-7"), "-7");
        assert_eq!(one(C::MYSQL_TYPE_LONG, true, b"0007"), "7");
        assert_eq!(one(C::MYSQL_TYPE_LONGLONG, true, b"18446744073709551615"), "18446744073709551615");
        assert_eq!(one(C::MYSQL_TYPE_DOUBLE, true, b"1e20"), "1e20");
        assert_eq!(one(C::MYSQL_TYPE_FLOAT, true, b"0021.5"), "\"0021.5\"");
        assert_eq!(one(C::MYSQL_TYPE_NEWDECIMAL, true, b"12.50"), "12.50");
        assert_eq!(one(C::MYSQL_TYPE_NEWDECIMAL, true, b"1234567890123456.7"), "\"1234567890123456.7\"");
        assert_eq!(one(C::MYSQL_TYPE_DATE, true, b"2026-11-21"), "\"2026-11-21\"");
        assert_eq!(one(C::MYSQL_TYPE_DATETIME, true, b"2026-11-21 06:00:00.5"), "\"2026-11-21T06:00:00.5\"");
        assert_eq!(one(C::MYSQL_TYPE_TIMESTAMP, true, b"2026-11-21 06:00:00"), "\"2026-11-21T06:00:00Z\"");
        assert_eq!(one(C::MYSQL_TYPE_BIT, true, &[1, 2]), "258");
        assert_eq!(one(C::MYSQL_TYPE_VAR_STRING, false, "Gr\"az \u{e4}".as_bytes()), "\"Gr\\\"az ä\"");
        assert_eq!(one(C::MYSQL_TYPE_BLOB, true, &[0xff, 0]), "\"/wA=\"");
        assert_eq!(one(C::MYSQL_TYPE_JSON, false, b"{\"a\": [1]}"), "{\"a\": [1]}");
        assert_eq!(one(C::MYSQL_TYPE_JSON, false, b"{"), "\"{\"");
    }

    #[test]
    fn keys_are_texts_and_composite_ones_stay_apart() {
        let names = ["a".to_owned(), "b".to_owned()];
        let key = |kinds: &[Kind], values: &[Option<&[u8]>]| {
            let mut key = Vec::new();
            let columns: Vec<usize> = (0..kinds.len()).collect();
            Layout::new(&columns, &[], &names, kinds).key(values, &mut key).then_some(key)
        };
        assert_eq!(key(&[Kind::Text], &[Some(b"pump")]).as_deref(), Some(b"pump".as_slice()));
        assert_eq!(key(&[Kind::Integer], &[Some(b"0007")]).as_deref(), Some(b"7".as_slice()));
        assert_eq!(key(&[Kind::Text], &[None]), None);
        assert_eq!(key(&[Kind::Text], &[Some(&[0xff])]), None);
        let pair = |a: &[u8], b: &[u8]| key(&[Kind::Text; 2], &[Some(a), Some(b)]).unwrap();
        assert_ne!(pair(b"a", b"bc"), pair(b"ab", b"c"));
        assert_ne!(pair(b"", b"a"), pair(b"a", b""));
        assert_ne!(pair(b"", b"\x04\0\0\0x"), pair(b"\0\0\0\0", b"x"));
    }

    #[test]
    fn columns_are_found_again() {
        let names: Vec<String> = ["a\"b", "n", "u", "i", "f", "t", "j", "s"].map(str::to_owned).into();
        use Kind::{Float, Integer, Json, Text};
        let kinds = [Text, Integer, Integer, Integer, Float, Text, Json, Text];
        let values: [Option<&[u8]>; 8] = [
            Some(b"x\\\"y,}"),
            None,
            Some(b"18446744073709551615"),
            Some(b"-7"),
            Some(b"1.5"),
            Some(b"plain"),
            Some(b"{\"a\":[1,\"}\"]}"),
            Some(b"last"),
        ];
        let layout = Layout::new(&[], &[0, 1, 2, 3, 4, 5, 6, 7], &names, &kinds);
        let row = layout.row(b"", &values, &mut Vec::new());
        let column = |i| column(row.json(), i);
        assert_eq!(column(0), Some(Value::Text("x\\\"y,}".into())));
        assert_eq!(column(1), None);
        assert_eq!(column(2), Some(Value::Unsigned(u64::MAX)));
        assert_eq!(column(3), Some(Value::Signed(-7)));
        assert_eq!(column(4), Some(Value::Float(1.5)));
        assert_eq!(column(5), Some(Value::Text("plain".into())));
        assert_eq!(column(6), Some(Value::Text("{\"a\":[1,\"}\"]}".into())));
        assert_eq!(column(7), Some(Value::Text("last".into())));
        assert_eq!(column(8), None);
    }
}
