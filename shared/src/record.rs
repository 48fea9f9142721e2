//! The identity of a record and the limits that every stage agrees on.
//!
//! Comes in: bytes from a header or a journal. Goes out: typed identities.
//! Guarantees: an [`Identity`] is unique over all edges and all time (the stream is 128 random bits), it never
//! depends on where a record stands (file position, Kafka offset), and its text forms round-trip.
//! On failure: parsing returns `None`; the caller decides what a record without identity means.

use std::fmt;

/// Longest device name in bytes: fits `VARCHAR(255)` in every store.
pub const DEVICE_BYTES_MAX: usize = 255;
/// Longest name of a value or tag in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most values or tags in one reading; Elasticsearch refuses a thousand fields in one index.
pub const VALUES_MAX: usize = 500;
/// Earliest time a reading may carry, in ms since 1970: 1970-01-01, the least that all stores hold.
pub const TIME_MS_MIN: i64 = 0;
/// Latest time a reading may carry, in ms since 1970: 2262-01-01, the most that all stores hold.
pub const TIME_MS_MAX: i64 = 9_214_646_400_000;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| char::from(DIGITS[usize::from(d)])).collect()
}

/// One run of one edge: 128 random bits, made at each start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub [u8; 16]);

impl StreamId {
    /// Length of the text form.
    pub const TEXT_LEN: usize = 32;

    /// The 32 lower-case hex digits used in headers and JSON.
    #[must_use]
    pub fn to_hex(self) -> [u8; 32] {
        let mut text = [0u8; 32];
        for (i, byte) in self.0.iter().enumerate() {
            text[2 * i] = DIGITS[usize::from(byte >> 4)];
            text[2 * i + 1] = DIGITS[usize::from(byte & 15)];
        }
        text
    }

    /// Reads the text form; `None` unless it is exactly 32 hex digits.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_LEN {
            return None;
        }
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut id = [0u8; 16];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = digit(text[2 * i])? << 4 | digit(text[2 * i + 1])?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a record *is*: the `number`-th record that the stream sent to one partition of one topic of the edge.
/// The topic is not part of it: readings and rejections go to stores of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The run of the edge that journaled it.
    pub stream: StreamId,
    /// Kafka partition of the edge's topic.
    pub partition: i32,
    /// 0, 1, 2 … within (stream, topic, partition).
    pub number: u64,
}

impl Identity {
    /// The compact form for document ids: 16 bytes of the stream, then partition and number as LEB128.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&self.stream.0);
        leb128(u64::from(self.partition.unsigned_abs()), &mut out);
        leb128(self.number, &mut out);
        out
    }
}

/// Seven bits a byte, the lowest first; the last byte is below 128.
pub(crate) fn leb128(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push((n & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips() {
        let id = StreamId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 253, 254, 255]);
        assert_eq!(&id.to_hex(), b"000102030405060708090a0b0cfdfeff");
        assert_eq!(id.to_string().as_bytes(), id.to_hex());
        assert_eq!(StreamId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(StreamId::from_hex(b"00"), None);
        assert_eq!(StreamId::from_hex(&[b'g'; 32]), None);
    }

    #[test]
    fn compact_form_tells_identities_apart() {
        let id = |partition, number| Identity { stream: StreamId([7; 16]), partition, number }.to_bytes();
        assert_eq!(id(1, 300)[16..], [1, 0xac, 2]);
        assert_ne!(id(1, 0), id(0, 1));
        assert_ne!(id(128, 1), id(0, 128 + 1));
    }
}
