//! `dlq show`: one dead letter with everything it says. Pure.
//!
//! Comes in: its value, and the mark that it was sent again. Goes out: text; its bytes as text when they are UTF-8 that a
//! terminal can show, as a hex dump otherwise.

use std::fmt::Write as _;

use super::letter::{Letter, Refused};
use super::list::printable;
use super::marks::Mark;
use super::select::{Position, shown};

/// Bytes in a line of a dump.
const LINE_BYTES: usize = 16;

/// For people; ends with a line break. `time` is Kafka's.
pub(super) fn text(
    position: Position,
    time: i64,
    key: Option<&[u8]>,
    letter: &Letter<'_>,
    mark: Option<&Mark>,
) -> Result<String, Refused> {
    let raw = letter.raw()?;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            writeln!(out, "{name:<10}{}", printable(value)).expect("writing into a string");
        }
    };
    line("position", &position.to_string());
    line("time", &shown(time));
    line("stage", &letter.stage);
    line("reason", &letter.reason);
    line("detail", &letter.detail);
    line("edge", &letter.weir.edge);
    line("device", letter.device(key).unwrap_or_default());
    if let Some(id) = letter.identity() {
        line("identity", &format!("stream {} partition {} number {}", id.stream, id.partition, id.number));
    }
    let number = |n: Option<String>| n.unwrap_or_else(|| "?".to_owned());
    let (partition, offset) = (letter.weir.partition, letter.weir.offset);
    if !letter.weir.topic.is_empty() {
        let (p, o) = (number(partition.map(|n| n.to_string())), number(offset.map(|n| n.to_string())));
        line("was in", &format!("{} partition {p} offset {o}", letter.weir.topic));
    }
    line("source", format!("{} {}", letter.source, letter.topic).trim());
    line("received", &shown(letter.received));
    let bytes = letter.bytes.unwrap_or(raw.len() as u64);
    let kept = match raw.len() {
        n if n as u64 >= bytes => String::new(),
        0 => ", withheld because of masks".to_owned(),
        n => format!(", the first {n} of them here"),
    };
    line("bytes", &format!("{bytes}{kept}"));
    if let Some(mark) = mark {
        line("retried", &format!("{} by {}", shown(mark.at), mark.by));
    } else if let Err(why) = letter.again() {
        line("no retry", &why.to_string().replace("{position}", &position.to_string()));
    }
    out.push('\n');
    out += &readable(&raw);
    Ok(out)
}

/// The bytes for a terminal.
fn readable(raw: &[u8]) -> String {
    let plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    match std::str::from_utf8(raw) {
        Ok(text) if text.chars().all(plain) => {
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}")
        }
        _ => dump(raw),
    }
}

fn dump(raw: &[u8]) -> String {
    let mut out = String::new();
    for (line, bytes) in raw.chunks(LINE_BYTES).enumerate() {
        write!(out, "{:08x} ", line * LINE_BYTES).expect("writing into a string");
        for byte in bytes {
            write!(out, " {byte:02x}").expect("writing into a string");
        }
        let pad = " ".repeat((LINE_BYTES - bytes.len()) * 3 + 2);
        let text =
            bytes.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' });
        out.push_str(&pad);
        out.extend(text);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { partition: 3, offset: 42 };

    fn show(stage: &str, raw: &str, mark: Option<&Mark>) -> String {
        let json = format!(
            r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17,"edge":"gw",
            "topic":"weir.readings","offset":9}},"stage":"{stage}","reason":"not_json","detail":"line 1",
            "received":5,"bytes":4,"raw":"{raw}"}}"#
        );
        text(AT, 1_500, Some(b"pump-7"), &Letter::read(json.as_bytes()).unwrap(), mark).unwrap()
    }

    #[test]
    fn everything_is_shown() {
        let mark = Mark { at: 2_500, by: "anna".to_owned(), of: 1_500 };
        let want = "position  3:42\n\
            time      1970-01-01T00:00:01.500Z\n\
            stage     process\n\
            reason    not_json\n\
            detail    line 1\n\
            edge      gw\n\
            device    pump-7\n\
            identity  stream 000102030405060708090a0b0c0d0e0f partition 3 number 17\n\
            was in    weir.readings partition 3 offset 9\n\
            received  1970-01-01T00:00:00.005Z\n\
            bytes     4\n\
            retried   1970-01-01T00:00:02.500Z by anna\n\
            \n\
            abcd\n";
        assert_eq!(show("process", "YWJjZA==", Some(&mark)), want);
    }

    #[test]
    fn the_way_out_names_the_position_and_bytes_are_dumped() {
        let shown = show("edge.decode", "/wAKQUI=", None);
        assert!(shown.contains("dlq show 3:42 --raw"), "{shown}");
        let line = format!("00000000  ff 00 0a 41 42{}...AB\n", " ".repeat(11 * 3 + 2));
        assert!(shown.ends_with(&line), "{shown}");
        let cut = show("process", "YQ==", None);
        assert!(cut.contains("bytes     4, the first 1 of them here\n"), "{cut}");
        assert!(cut.contains("no retry  it holds only the first 1 of 4 bytes"), "{cut}");
    }
}
