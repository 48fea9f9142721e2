//! Rows into the open transaction as one text: LOAD DATA LOCAL, which costs the server a third less than INSERT.
//!
//! Comes in: rows of values, portion by portion. Goes out: one statement and its text; the server works on a portion
//! while the next one is made.
//! Guarantees: all rows are in the open transaction, or none is and the caller inserts them. The server does not refuse a
//! LOCAL row that it dislikes, it bends it or leaves it out and counts a warning: any warning, and any other number of
//! rows than were sent, takes the whole statement back.
//! On failure: a server that allows no LOCAL data (`local_infile`, off by default in MySQL 8) is not asked again by this
//! connection; anything else but a refusal gives up the batch.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::super::Failure;
use super::{ANSWER, answer};

/// Fewer rows go as well by INSERT.
pub(super) const ROWS_MIN: usize = 256;
/// LOCAL data is not allowed: MySQL's old and new error, MariaDB's.
const NOT_ALLOWED: [u16; 3] = [1148, 3948, 4166];

/// What became of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// All are in.
    All,
    /// None is in: at least one of them is not what the table takes.
    Refused,
    /// None is in: this server takes no LOCAL data.
    NotAllowed,
}

/// Where the rows of a statement go while they are made.
pub(super) struct Lines {
    binary: Vec<bool>,
    rows: usize,
    /// Holds no more than the batch: nothing is gained by waiting for room.
    out: UnboundedSender<Bytes>,
}

impl Lines {
    /// Sends these rows.
    pub(super) async fn send(&mut self, values: &[Value]) {
        self.rows += values.len() / self.binary.len();
        // Nobody reads it: the statement has failed, and says so.
        let _refused = self.out.send(text(&self.binary, values).into());
        tokio::task::yield_now().await;
    }
}

/// Loads rows of `columns`, of which those in `binary` hold bytes and not text, as they are made.
pub(super) async fn load(
    connection: &mut Conn,
    table: &str,
    columns: &[&str],
    binary: &[&str],
    make: impl AsyncFnOnce(&mut Lines),
) -> Result<Loaded, Failure> {
    let is_binary: Vec<bool> = columns.iter().map(|name| binary.contains(name)).collect();
    let statement = statement(table, columns, &is_binary);
    answer(connection.query_drop("SAVEPOINT weir_load")).await?;
    let (out, body) = unbounded_channel();
    connection.set_infile_handler(async { Ok(Box::pin(Body(body)) as _) });
    let mut lines = Lines { binary: is_binary, rows: 0, out };
    let made = async move {
        make(&mut lines).await;
        lines.rows
    };
    let done = tokio::time::timeout(ANSWER, connection.query_drop(statement));
    let (done, rows) = tokio::join!(done, made);
    let loaded = match done {
        Ok(Ok(())) if connection.get_warnings() == 0 && connection.affected_rows() == rows as u64 => {
            Loaded::All
        }
        Ok(Ok(())) => Loaded::Refused,
        Ok(Err(mysql_async::Error::Server(error))) if NOT_ALLOWED.contains(&error.code) => Loaded::NotAllowed,
        Ok(Err(mysql_async::Error::Server(error))) if super::insert::is_about_rows(&error) => Loaded::Refused,
        Ok(Err(error)) => return Err(Failure::Store(format!("table {table}: {error}"))),
        Err(_) => return Err(Failure::Late(format!("no answer to LOAD DATA within {ANSWER:?}"))),
    };
    if loaded != Loaded::All {
        let info = connection.info().into_owned();
        tracing::info!(table, rows, ?loaded, info, "LOAD DATA taken back; inserting");
        answer(connection.query_drop("ROLLBACK TO SAVEPOINT weir_load")).await?;
    }
    Ok(loaded)
}

fn statement(table: &str, columns: &[&str], binary: &[bool]) -> String {
    let each = || columns.iter().zip(binary);
    let name = |(column, binary): (&&str, &bool)| {
        if *binary { format!("@`{column}`") } else { format!("`{column}`") }
    };
    let names: Vec<String> = each().map(name).collect();
    let set: Vec<String> = each()
        .filter(|(_, binary)| **binary)
        .map(|(column, _)| format!("`{column}` = UNHEX(@`{column}`)"))
        .collect();
    let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE 'weir' INTO TABLE `{table}` CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\\t' \
         ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({}){set}",
        names.join(", ")
    )
}

/// The rows as lines; bytes as hex digits, as their text could hold a half character that swallows a separator.
fn text(binary: &[bool], values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 24);
    for row in values.chunks(binary.len()) {
        for (place, (value, binary)) in row.iter().zip(binary).enumerate() {
            if place > 0 {
                out.push(b'\t');
            }
            field(value, *binary, &mut out);
        }
        out.push(b'\n');
    }
    out
}

fn field(value: &Value, binary: bool, out: &mut Vec<u8>) {
    match value {
        Value::NULL => out.extend_from_slice(b"\\N"),
        Value::Bytes(bytes) if binary => {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            out.extend(bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| DIGITS[usize::from(digit)]));
        }
        Value::Bytes(bytes) => escaped(bytes, out),
        Value::Int(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        Value::UInt(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        // With an exponent: the shortest text that reads back as the same number.
        Value::Double(n) => write!(out, "{n:e}").expect("a buffer takes all"),
        Value::Float(n) => write!(out, "{n:e}").expect("a buffer takes all"),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
                .expect("a buffer takes all");
        }
        Value::Time(..) => unreachable!("no column of ours is a time without a day"),
    }
}

fn escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(place) = rest.iter().position(|b| matches!(b, b'\\' | b'\t' | b'\n' | 0)) {
        out.extend_from_slice(&rest[..place]);
        out.push(b'\\');
        out.push(match rest[place] {
            b'\t' => b't',
            b'\n' => b'n',
            0 => b'0',
            other => other,
        });
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
}

/// The text as the client library wants it.
struct Body(UnboundedReceiver<Bytes>);

impl Stream for Body {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|portion| portion.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_be_taken_for_a_separator_or_for_null() {
        let values = [
            Value::from("a\tb\nc\\d\0e"),
            Value::NULL,
            Value::from("\\N"),
            Value::from(&b"\x09\x0a\xff"[..]),
            Value::Int(-7),
            Value::UInt(u64::MAX),
            Value::Double(0.1),
            Value::Date(2026, 9, 1, 2, 3, 4, 5_000),
        ];
        let binary = [false, false, false, true, false, false, false, false];
        let wanted =
            b"a\\tb\\nc\\\\d\\0e\t\\N\t\\\\N\t090aff\t-7\t18446744073709551615\t1e-1\t2026-09-01 02:03:04.005000\n";
        assert_eq!(text(&binary, &values), wanted);
    }

    #[test]
    fn bytes_are_told_apart_in_the_statement() {
        let statement = statement("t", &["stream", "time"], &[true, false]);
        assert!(statement.ends_with("(@`stream`, `time`) SET `stream` = UNHEX(@`stream`)"), "{statement}");
    }
}
