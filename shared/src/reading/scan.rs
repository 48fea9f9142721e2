//! A strict scanner for the JSON of readings.
//!
//! Comes in: a text. Goes out: its pieces, in order. Guarantees: takes what RFC 8259 allows and no more; strings without
//! escapes are borrowed; a float is the one nearest to its decimal form; nested values are passed over to a depth of
//! [`DEPTH_MAX`]; never a panic. On failure: where and what.

use std::borrow::Cow;

use super::{NotAReading, Value};

/// Deepest nesting of a member that is passed over.
const DEPTH_MAX: usize = 64;

pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Result<Self, NotAReading> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text, at: 0 }),
            Err(error) => Err(NotAReading { at: error.valid_up_to(), why: "not UTF-8" }),
        }
    }

    #[cold]
    const fn wrong<T>(&self, why: &'static str) -> Result<T, NotAReading> {
        Err(NotAReading { at: self.at, why })
    }

    #[inline]
    pub(super) fn peek(&self) -> u8 {
        // 0 is in no JSON outside of strings, so it stands for the end.
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn blank(&mut self) -> u8 {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
        self.peek()
    }

    /// Refuses where there is no room for more.
    pub(super) const fn room(&self, room: bool) -> Result<(), NotAReading> {
        if room { Ok(()) } else { self.wrong("more than 500 values or tags") }
    }

    /// Only white space is left.
    pub(super) fn end(&mut self) -> Result<(), NotAReading> {
        self.blank();
        if self.at == self.text.len() { Ok(()) } else { self.wrong("more behind the object") }
    }

    /// An object, member by member; `member` takes the value.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), NotAReading>,
    ) -> Result<(), NotAReading> {
        if self.blank() != b'{' {
            return self.wrong("an object is wanted");
        }
        self.at += 1;
        if self.blank() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blank();
            let name = self.text()?;
            if self.blank() != b':' {
                return self.wrong("a colon is wanted");
            }
            self.at += 1;
            self.blank();
            member(self, name)?;
            match self.blank() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("a comma or the end of the object is wanted"),
            }
        }
    }

    /// A string.
    #[inline]
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, NotAReading> {
        if self.peek() != b'"' {
            return self.wrong("a string is wanted");
        }
        let begin = self.at + 1;
        let rest = &self.text.as_bytes()[begin..];
        match rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20) {
            Some(length) if rest[length] == b'"' => {
                self.at = begin + length + 1;
                Ok(Cow::Borrowed(&self.text[begin..begin + length]))
            }
            Some(length) if rest[length] == b'\\' => self.escaped(),
            _ => self.wrong("a string without end, or with a control character"),
        }
    }

    #[cold]
    fn escaped(&mut self) -> Result<Cow<'a, str>, NotAReading> {
        let end = self.string_end()?;
        match serde_json::from_str(&self.text[self.at..end]) {
            Ok(text) => {
                self.at = end;
                Ok(Cow::Owned(text))
            }
            Err(_) => self.wrong("a string with a wrong escape or control character"),
        }
    }

    /// Where the string that begins here ends.
    fn string_end(&self) -> Result<usize, NotAReading> {
        let mut at = self.at + 1;
        while let Some(&byte) = self.text.as_bytes().get(at) {
            match byte {
                b'"' => return Ok(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.wrong("a string without end")
    }

    /// An integer that fits.
    pub(super) fn integer(&mut self) -> Result<i64, NotAReading> {
        let at = self.at;
        let number = match self.number()? {
            Value::Unsigned(v) => i64::try_from(v).ok(),
            Value::Signed(v) => Some(v),
            _ => None,
        };
        number.ok_or(NotAReading { at, why: "an integer is wanted" })
    }

    /// A number, a bool or a string.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Value<'a>, NotAReading> {
        match self.peek() {
            b'"' => self.text().map(Value::Text),
            b't' => self.word("true").map(|()| Value::Bool(true)),
            b'f' => self.word("false").map(|()| Value::Bool(false)),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.wrong("a number, a bool or a string is wanted"),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), NotAReading> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.wrong("no JSON value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Digits from here on: how many, and their value if it is below 10¹⁹.
    #[inline]
    fn digits(&mut self) -> (usize, u64) {
        let begin = self.at;
        let mut value = 0_u64;
        loop {
            let digit = self.peek().wrapping_sub(b'0');
            if digit > 9 {
                return (self.at - begin, value);
            }
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Value<'a>, NotAReading> {
        let begin = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let leading_zero = self.peek() == b'0';
        let (digits, value) = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            self.at = begin;
            return self.wrong("no number");
        }
        let whole = !matches!(self.peek(), b'.' | b'e' | b'E');
        if whole && digits < 19 {
            // 19 digits may be beyond the signed range, and are rare; minus zero is a float.
            let value = value.cast_signed();
            return match (negative, value) {
                (false, value) => Ok(Value::Unsigned(value.cast_unsigned())),
                (true, 0) => Ok(Value::Float(-0.0)),
                (true, value) => Ok(Value::Signed(-value)),
            };
        }
        self.fraction(begin)
    }

    /// The rest of a number that is a float, or long.
    fn fraction(&mut self, begin: usize) -> Result<Value<'a>, NotAReading> {
        let mut whole = true;
        if self.peek() == b'.' {
            self.at += 1;
            whole = false;
            if self.digits().0 == 0 {
                return self.wrong("digits are wanted behind the point");
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            whole = false;
            self.at += usize::from(matches!(self.peek(), b'+' | b'-'));
            if self.digits().0 == 0 {
                return self.wrong("digits are wanted in the exponent");
            }
        }
        let text = &self.text[begin..self.at];
        if whole {
            if let Ok(value) = text.parse() {
                return Ok(Value::Unsigned(value));
            }
            if let Ok(value) = text.parse() {
                return Ok(Value::Signed(value));
            }
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::Float(value)),
            _ => self.wrong("a number is too large"),
        }
    }

    /// Passes over any value.
    pub(super) fn skip(&mut self) -> Result<(), NotAReading> {
        let mut open = [0_u8; DEPTH_MAX];
        let mut depth = 0;
        loop {
            match self.blank() {
                b'"' => drop(self.text()?),
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                b'-' | b'0'..=b'9' => drop(self.number()?),
                bracket @ (b'{' | b'[') => {
                    if depth == DEPTH_MAX {
                        return self.wrong("nested too deep");
                    }
                    self.at += 1;
                    open[depth] = bracket + 2;
                    depth += 1;
                    if self.blank() != open[depth - 1] {
                        self.name(bracket)?;
                        continue;
                    }
                }
                _ => return self.wrong("no JSON value"),
            }
            // A value has ended, and with it perhaps what it stands in.
            loop {
                let Some(&close) = depth.checked_sub(1).map(|last| &open[last]) else { return Ok(()) };
                let next = self.blank();
                self.at += 1;
                if next == b',' {
                    self.name(close - 2)?;
                    break;
                }
                if next != close {
                    self.at -= 1;
                    return self.wrong("a comma or a closing bracket is wanted");
                }
                depth -= 1;
            }
        }
    }

    /// The name of a member and its colon, if this is an object.
    fn name(&mut self, bracket: u8) -> Result<(), NotAReading> {
        if bracket == b'{' {
            self.blank();
            self.text()?;
            if self.blank() != b':' {
                return self.wrong("a colon is wanted");
            }
            self.at += 1;
        }
        Ok(())
    }
}
