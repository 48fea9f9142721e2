//! Rows of a dimension table as JSON text.
//!
//! Comes in: column types and values of MySQL's text protocol. Goes out: a JSON object per key.
//! Guarantees: integers and floats become numbers; a decimal too, where a 64-bit float holds all its digits,
//! otherwise a string; NULL is null; dates and times are ISO 8601 (a TIMESTAMP in UTC, with Z); binary columns are
//! base64; every result is valid JSON. Pure.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mysql_async::Value;
use mysql_async::consts::ColumnType;

/// Digits that a 64-bit float always holds.
const FLOAT_DIGITS: usize = 15;

/// A table as it stood in one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Device → JSON object.
    pub(super) rows: HashMap<Box<str>, Box<[u8]>>,
    /// When it was loaded, ms since 1970: a later one is higher.
    pub(super) version: i64,
}

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

/// The text of a key; `None` is NULL or no text.
pub(super) fn key(value: &Value) -> Option<Box<str>> {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Box::from),
        Value::Int(n) => Some(n.to_string().into()),
        Value::UInt(n) => Some(n.to_string().into()),
        _ => None,
    }
}

/// A row as a JSON object.
pub(super) fn object<'v>(columns: impl Iterator<Item = (&'v str, Kind, &'v Value)>) -> Box<[u8]> {
    let mut out = vec![b'{'];
    for (name, kind, value) in columns {
        if out.len() > 1 {
            out.push(b',');
        }
        text(&mut out, name);
        out.push(b':');
        write(&mut out, kind, value);
    }
    out.push(b'}');
    out.into_boxed_slice()
}

fn write(out: &mut Vec<u8>, kind: Kind, value: &Value) {
    let bytes = match value {
        Value::Bytes(bytes) => bytes.as_slice(),
        // The text protocol gives nothing else.
        _ => return out.extend_from_slice(b"null"),
    };
    let plain = String::from_utf8_lossy(bytes);
    match kind {
        Kind::Integer => match plain.parse::<i128>() {
            Ok(n) => out.extend_from_slice(n.to_string().as_bytes()),
            Err(_) => text(out, &plain),
        },
        Kind::Float if is_number(&plain) => out.extend_from_slice(bytes),
        Kind::Decimal if is_number(&plain) && digits(&plain) <= FLOAT_DIGITS => out.extend_from_slice(bytes),
        Kind::Date => text(out, &plain.replacen(' ', "T", 1)),
        Kind::Timestamp => text(out, &(plain.replacen(' ', "T", 1) + "Z")),
        Kind::Bits => {
            let n = bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            out.extend_from_slice(n.to_string().as_bytes());
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
        let value = Value::Bytes(bytes.to_vec());
        let row = object([("c", kind(column, binary), &value)].into_iter());
        let row = String::from_utf8(row.into_vec()).unwrap();
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
    fn null_and_keys() {
        let row = object([("a", Kind::Integer, &Value::NULL), ("b", Kind::Text, &Value::NULL)].into_iter());
        assert_eq!(&*row, br#"{"a":null,"b":null}"#);
        assert_eq!(key(&Value::NULL), None);
        assert_eq!(key(&Value::Bytes(b"pump".to_vec())).as_deref(), Some("pump"));
        assert_eq!(key(&Value::Bytes(vec![0xff])), None);
    }
}
