//! Values in ClickHouse's format RowBinaryWithNamesAndTypes.
//!
//! Comes in: values. Goes out: their bytes, appended to a buffer. Layout (ClickHouse, "RowBinary"): integers and
//! floats little-endian; a string is its length as LEB128, then its bytes; Nullable is one byte (1: NULL), then the
//! value if there is one; Map is the number of pairs as LEB128, then key and value of each; DateTime64(3) is an Int64
//! of ms; LowCardinality is as its inner type. The header is the number of columns as LEB128, all names, all types.
//! Pure.

/// LEB128, as ClickHouse writes lengths.
pub(super) fn length(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(super) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    length(value.len(), out);
    out.extend_from_slice(value);
}

pub(super) fn int64(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn uint64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn int32(value: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn float64(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.push(u8::from(value));
}

/// The header: names and types of the columns.
pub(super) fn header(columns: &[(&str, &str)], out: &mut Vec<u8>) {
    length(columns.len(), out);
    for (name, _) in columns {
        bytes(name.as_bytes(), out);
    }
    for (_, kind) in columns {
        bytes(kind.as_bytes(), out);
    }
}

/// Pairs of a Map on their way: their number stands before them, so they are collected first.
#[derive(Debug, Default)]
pub(super) struct Map {
    pairs: usize,
    body: Vec<u8>,
}

impl Map {
    /// Adds a pair; `write` appends the value.
    pub(super) fn pair(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.pairs += 1;
        bytes(key.as_bytes(), &mut self.body);
        write(&mut self.body);
    }

    /// Writes the map and empties it for the next row.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        length(self.pairs, out);
        out.extend_from_slice(&self.body);
        self.clear();
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.pairs = 0;
        self.body.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(written(|o| length(0, o)), [0]);
        assert_eq!(written(|o| length(127, o)), [127]);
        assert_eq!(written(|o| length(300, o)), [0xac, 2]);
        assert_eq!(written(|o| bytes(b"ab", o)), [2, b'a', b'b']);
        assert_eq!(written(|o| int64(-2, o)), [0xfe, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(written(|o| int32(1, o)), [1, 0, 0, 0]);
        assert_eq!(written(|o| float64(1.0, o)), [0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(written(|o| header(&[("a", "Bool"), ("b", "X")], o)), b"\x02\x01a\x01b\x04Bool\x01X");
    }

    #[test]
    fn a_map_is_its_number_of_pairs_and_the_pairs() {
        let mut map = Map::default();
        map.pair("k", |o| boolean(true, o));
        assert_eq!(written(|o| map.finish(o)), [1, 1, b'k', 1]);
        assert_eq!(written(|o| map.finish(o)), [0]);
    }
}
