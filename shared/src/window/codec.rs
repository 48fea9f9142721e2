//! How state becomes bytes.
//!
//! Comes in: numbers and byte strings. Goes out: the same, as LEB128 (signed ones zigzag), floats as their bits.
//! Guarantees: the same state gives the same bytes; what is read is bounded by what is there; never a panic.
//! On failure: [`Corrupt`] with what was expected.

use crate::record::leb128;

/// State that cannot be read, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("window state: {0}")]
pub struct Corrupt(pub &'static str);

pub(super) fn put_unsigned(out: &mut Vec<u8>, n: u64) {
    leb128(n, out);
}

pub(super) fn put_signed(out: &mut Vec<u8>, n: i64) {
    put_unsigned(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

pub(super) fn put_length(out: &mut Vec<u8>, n: usize) {
    put_unsigned(out, n as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// What is still to be read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Corrupt> {
        let (byte, rest) = self.0.split_first().ok_or(Corrupt("it ends early"))?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Corrupt> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(Corrupt("a number is too large"));
            }
            n |= part << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Corrupt("a number is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Corrupt> {
        let n = self.unsigned()?;
        Ok((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }

    /// A time or an index of one: so far from the limits of `i64` that sums of a few never overflow.
    pub(super) fn time(&mut self) -> Result<i64, Corrupt> {
        let n = self.signed()?;
        if n.unsigned_abs() <= 1 << 50 { Ok(n) } else { Err(Corrupt("a time is out of range")) }
    }

    pub(super) fn small(&mut self) -> Result<u32, Corrupt> {
        u32::try_from(self.unsigned()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// A number of items of at least `bytes` bytes each, which therefore must be there.
    pub(super) fn length(&mut self, bytes: usize) -> Result<usize, Corrupt> {
        let n = usize::try_from(self.unsigned()?).map_err(|_| Corrupt("a length is too large"))?;
        if n > self.0.len() / bytes.max(1) {
            return Err(Corrupt("a length is beyond the end"));
        }
        Ok(n)
    }

    pub(super) fn bits(&mut self) -> Result<u64, Corrupt> {
        let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(Corrupt("it ends early"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let length = self.length(1)?;
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Corrupt> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Corrupt("a text is not UTF-8"))
    }

    pub(super) fn end(&self) -> Result<(), Corrupt> {
        if self.0.is_empty() { Ok(()) } else { Err(Corrupt("there is more than there should be")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_cut_ones_do_not() {
        for n in [0, 1, -1, 127, -128, 300, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_signed(&mut out, n);
            assert_eq!(Cursor(&out).signed(), Ok(n));
            assert!(Cursor(&out[..out.len() - 1]).signed().is_err());
        }
        assert!(Cursor(&[0xff; 11]).unsigned().is_err());
        assert!(Cursor(&[5, 1]).bytes().is_err());
    }
}
