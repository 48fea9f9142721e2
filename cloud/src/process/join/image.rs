//! Values of a row event as the texts that MySQL's text protocol shows for them.
//!
//! Comes in: the bytes of a row image, the layout that the table map tells ([`Wire`]), and what the schema says of the
//! column ([`Meaning`]). Goes out: the text of each value. Guarantees: the same bytes as `SELECT` with
//! `time_zone = '+00:00'` and `NAMES utf8mb4` gives, checked on real servers for every type; what cannot be made equal
//! is refused by [`super::schema`] before. Pure.
//! On failure: [`Unreadable`]; the table must be loaded afresh.

use std::io::Write as _;

/// The image does not fit the table that was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// How a value lies in a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// An integer of this many bytes.
    Integer(usize),
    Float,
    Double,
    /// Digits, and those of them after the point.
    Decimal(usize, usize),
    Year,
    Date,
    /// Formats before MySQL 5.6.
    OldTime,
    OldDateTime,
    OldTimestamp,
    /// Digits of the second's fraction.
    Time(usize),
    DateTime(usize),
    Timestamp(usize),
    /// This many bytes.
    Bit(usize),
    /// Index or bits in this many bytes.
    Names(usize),
    /// After a length of this many bytes.
    Bytes(usize),
}

impl Wire {
    /// By type and metadata of a table map.
    pub(super) fn of(kind: u8, meta: [u8; 2]) -> Result<Self, Unreadable> {
        let [low, high] = meta.map(usize::from);
        Ok(match kind {
            1 => Self::Integer(1),
            2 => Self::Integer(2),
            9 => Self::Integer(3),
            3 => Self::Integer(4),
            8 => Self::Integer(8),
            4 => Self::Float,
            5 => Self::Double,
            246 if high <= low && low <= 65 => Self::Decimal(low, high),
            13 => Self::Year,
            10 | 14 => Self::Date,
            11 => Self::OldTime,
            12 => Self::OldDateTime,
            7 => Self::OldTimestamp,
            19 if low <= 6 => Self::Time(low),
            18 if low <= 6 => Self::DateTime(low),
            17 if low <= 6 => Self::Timestamp(low),
            16 => Self::Bit((high * 8 + low).div_ceil(8)),
            15 | 253 => Self::Bytes(if low | high << 8 > 255 { 2 } else { 1 }),
            249..=252 | 255 | 245 if (1..=4).contains(&low) => Self::Bytes(low),
            // The real type stands in the metadata; a long CHAR keeps two bits of its length there, inverted.
            254 if (low == 247 || low == 248) && (1..=8).contains(&high) => Self::Names(high),
            254 => Self::Bytes(if (low & 0x30) != 0x30 { 2 } else { 1 }),
            _ => return Err(Unreadable),
        })
    }
}

/// What a column is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Integer {
        unsigned: bool,
    },
    /// With this many fixed decimals.
    Float(Option<usize>),
    Decimal,
    Year,
    Date,
    Time,
    DateTime,
    Timestamp,
    Bit,
    /// The names of an ENUM.
    One(Vec<String>),
    /// The names of a SET.
    Some(Vec<String>),
    /// Text that is ASCII or UTF-8.
    Utf8,
    /// Text in what MySQL calls latin1.
    Latin1,
    /// Bytes; shorter ones are filled with zeros up to this length.
    Bytes {
        fill: usize,
    },
    /// Not used by any dimension: read over.
    Unused,
}

/// Reads the value of one column and appends its text.
pub(super) fn read(
    buf: &mut &[u8],
    wire: Wire,
    meaning: &Meaning,
    out: &mut Vec<u8>,
) -> Result<(), Unreadable> {
    let length = length(buf, wire)?;
    let bytes = take(buf, length)?;
    match (wire, meaning) {
        (_, Meaning::Unused) => {}
        (Wire::Integer(_), Meaning::Integer { unsigned: true }) => {
            put(out, format_args!("{}", little(bytes)));
        }
        (Wire::Integer(n), Meaning::Integer { unsigned: false }) => {
            let shift = 64 - 8 * n;
            put(out, format_args!("{}", ((little(bytes) << shift).cast_signed()) >> shift));
        }
        (Wire::Float, Meaning::Float(fixed)) => {
            let value = f32::from_le_bytes(bytes.try_into().map_err(|_| Unreadable)?);
            float(out, f64::from(value), fixed.map_or(Digits::Six, Digits::Fixed));
        }
        (Wire::Double, Meaning::Float(fixed)) => {
            let value = f64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable)?);
            float(out, value, fixed.map_or(Digits::Shortest, Digits::Fixed));
        }
        (Wire::Decimal(digits, scale), Meaning::Decimal) => decimal(out, bytes, digits, scale)?,
        (Wire::Year, Meaning::Year) => {
            put(out, format_args!("{}", if bytes[0] == 0 { 0 } else { 1900 + u32::from(bytes[0]) }));
        }
        (Wire::Date, Meaning::Date) => {
            let n = little(bytes);
            put(out, format_args!("{:04}-{:02}-{:02}", n >> 9, n >> 5 & 15, n & 31));
        }
        (Wire::OldTime, Meaning::Time) => old_time(out, (little(bytes) << 40).cast_signed() >> 40),
        (Wire::OldDateTime, Meaning::DateTime) => old_date_time(out, little(bytes)),
        (Wire::OldTimestamp, Meaning::Timestamp) => timestamp(out, little(bytes), 0, 0),
        (Wire::Time(fraction), Meaning::Time) => time(out, bytes, fraction),
        (Wire::DateTime(fraction), Meaning::DateTime) => date_time(out, bytes, fraction),
        (Wire::Timestamp(fraction), Meaning::Timestamp) => {
            timestamp(out, big(&bytes[..4]), micros(&bytes[4..], fraction), fraction);
        }
        (Wire::Bit(_), Meaning::Bit) => out.extend_from_slice(bytes),
        (Wire::Names(_), Meaning::One(names)) => match usize::try_from(little(bytes)) {
            // The value that a server without strict mode stores for an unknown name.
            Ok(0) => {}
            Ok(n) => out.extend_from_slice(names.get(n - 1).ok_or(Unreadable)?.as_bytes()),
            Err(_) => return Err(Unreadable),
        },
        (Wire::Names(_), Meaning::Some(names)) => set(out, little(bytes), names),
        (Wire::Bytes(_), Meaning::Utf8) => out.extend_from_slice(bytes),
        (Wire::Bytes(_), Meaning::Latin1) => latin1(out, bytes),
        (Wire::Bytes(_), Meaning::Bytes { fill }) => {
            out.extend_from_slice(bytes);
            out.extend(std::iter::repeat_n(0, fill.saturating_sub(bytes.len())));
        }
        _ => return Err(Unreadable),
    }
    Ok(())
}

/// Bytes of the value that comes next.
fn length(buf: &mut &[u8], wire: Wire) -> Result<usize, Unreadable> {
    Ok(match wire {
        Wire::Integer(n) | Wire::Bit(n) | Wire::Names(n) => n,
        Wire::Float | Wire::OldTimestamp => 4,
        Wire::Double | Wire::OldDateTime => 8,
        Wire::Decimal(digits, scale) => decimal_bytes(digits, scale),
        Wire::Year => 1,
        Wire::Date | Wire::OldTime => 3,
        Wire::Time(fraction) => 3 + fraction.div_ceil(2),
        Wire::DateTime(fraction) => 5 + fraction.div_ceil(2),
        Wire::Timestamp(fraction) => 4 + fraction.div_ceil(2),
        Wire::Bytes(prefix) => usize::try_from(little(take(buf, prefix)?)).map_err(|_| Unreadable)?,
    })
}

pub(super) fn take<'b>(buf: &mut &'b [u8], bytes: usize) -> Result<&'b [u8], Unreadable> {
    let (head, rest) = buf.split_at_checked(bytes).ok_or(Unreadable)?;
    *buf = rest;
    Ok(head)
}

/// At most 8 bytes, the lowest first.
pub(super) fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// At most 8 bytes, the highest first.
fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes every write");
}

/// Digits of a float.
#[derive(Clone, Copy)]
enum Digits {
    /// As many as tell it from its neighbours: DOUBLE.
    Shortest,
    /// Six that count: FLOAT.
    Six,
    /// After the point: FLOAT(M,D) and DOUBLE(M,D).
    Fixed(usize),
}

/// As `my_gcvt` and `my_fcvt` of MySQL's `dtoa.c` write it.
fn float(out: &mut Vec<u8>, value: f64, digits: Digits) {
    let scientific = match digits {
        Digits::Fixed(decimals) => return put(out, format_args!("{value:.decimals$}")),
        Digits::Shortest => shortest(value),
        Digits::Six => format!("{value:.5e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    let digits = if digits.contains(|c| c != '0') { digits.trim_end_matches('0') } else { "0" };
    out.extend_from_slice(sign.as_bytes());
    // The point stands after this many digits; beyond 15 on either side the exponent is written, unless the point
    // stands between two digits.
    let point = exponent + 1;
    let is_within = usize::try_from(point).is_ok_and(|point| 0 < point && point < digits.len());
    match usize::try_from(point) {
        _ if !(-14..=15).contains(&point) && !is_within => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            put(out, format_args!("{first}{dot}{rest}e{exponent}"));
        }
        Ok(point) if point >= digits.len() => put(out, format_args!("{digits:0<point$}")),
        Ok(point) if point > 0 => put(out, format_args!("{}.{}", &digits[..point], &digits[point..])),
        _ => put(out, format_args!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))),
    }
}

/// As few digits as tell it from its neighbours; of two that are equally near, the even one, as `dtoa` does.
fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let digits = text.split('e').next().unwrap_or_default().bytes().filter(u8::is_ascii_digit).count();
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    if even.parse() == Ok(value) { even } else { text }
}

/// Bytes of this many digits of a DECIMAL: nine in four bytes, fewer in as few as hold them.
fn digit_bytes(digits: usize) -> usize {
    digits / 9 * 4 + [0, 1, 1, 2, 2, 3, 3, 4, 4][digits % 9]
}

fn decimal_bytes(digits: usize, scale: usize) -> usize {
    digit_bytes(digits - scale) + digit_bytes(scale)
}

/// The top bit says that it is not negative; a negative one has all bits inverted.
fn decimal(out: &mut Vec<u8>, bytes: &[u8], digits: usize, scale: usize) -> Result<(), Unreadable> {
    let mut bytes = bytes.to_vec();
    let first = bytes.first_mut().ok_or(Unreadable)?;
    let negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if negative {
        bytes.iter_mut().for_each(|b| *b = !*b);
        out.push(b'-');
    }
    let mut rest = bytes.as_slice();
    let mut text = String::new();
    let whole = digits - scale;
    // Digits that are left over stand first before the point, and last behind it.
    let groups =
        [whole % 9].into_iter().chain(std::iter::repeat_n(9, whole / 9 + scale / 9)).chain([scale % 9]);
    for group in groups.filter(|group| *group > 0) {
        let n = big(take(&mut rest, digit_bytes(group))?);
        text.push_str(&format!("{n:0group$}"));
    }
    let (integer, fraction) = text.split_at_checked(whole).ok_or(Unreadable)?;
    let integer = integer.trim_start_matches('0');
    out.extend_from_slice(if integer.is_empty() { "0" } else { integer }.as_bytes());
    if scale > 0 {
        put(out, format_args!(".{fraction}"));
    }
    Ok(())
}

/// Millionths of a second.
fn micros(bytes: &[u8], fraction: usize) -> u64 {
    big(bytes) * 10u64.pow(6 - 2 * u32::try_from(fraction.div_ceil(2)).unwrap_or(3))
}

fn fraction(out: &mut Vec<u8>, micros: u64, fraction: usize) {
    if fraction > 0 {
        out.push(b'.');
        out.extend_from_slice(&format!("{micros:06}").as_bytes()[..fraction]);
    }
}

/// `HHMMSS` as digits of a number.
fn old_time(out: &mut Vec<u8>, n: i64) {
    let (sign, n) = (if n < 0 { "-" } else { "" }, n.unsigned_abs());
    put(out, format_args!("{sign}{:02}:{:02}:{:02}", n / 10_000, n / 100 % 100, n % 100));
}

/// `YYYYMMDDHHMMSS` as digits of a number.
fn old_date_time(out: &mut Vec<u8>, n: u64) {
    let (date, time) = (n / 1_000_000, n % 1_000_000);
    put(out, format_args!("{:04}-{:02}-{:02}", date / 10_000, date / 100 % 100, date % 100));
    put(out, format_args!(" {:02}:{:02}:{:02}", time / 10_000, time / 100 % 100, time % 100));
}

/// Months (13 for each year), day, hour, minute and second in 40 bits, then the fraction. The top bit is always set:
/// there is no date before year 0.
fn date_time(out: &mut Vec<u8>, bytes: &[u8], digits: usize) {
    let n = big(&bytes[..5]) & 0x7f_ffff_ffff;
    let (month, rest) = (n >> 22, n & 0x3f_ffff);
    put(out, format_args!("{:04}-{:02}-{:02}", month / 13, month % 13, rest >> 17));
    put(out, format_args!(" {:02}:{:02}:{:02}", rest >> 12 & 31, rest >> 6 & 63, rest & 63));
    fraction(out, micros(&bytes[5..], digits), digits);
}

/// A signed number of 24 bits and the fraction's; a negative one is its complement as a whole.
fn time(out: &mut Vec<u8>, bytes: &[u8], digits: usize) {
    let bits = 8 * bytes.len() - 1;
    let raw = big(bytes).cast_signed() - (1 << bits);
    let (sign, n) = (if raw < 0 { "-" } else { "" }, raw.unsigned_abs());
    let below = bits - 23;
    let (whole, rest) = (n >> below, n & ((1 << below) - 1));
    put(out, format_args!("{sign}{:02}:{:02}:{:02}", whole >> 12 & 1023, whole >> 6 & 63, whole & 63));
    let micros = rest * 10u64.pow(6 - 2 * u32::try_from(digits.div_ceil(2)).unwrap_or(3));
    fraction(out, micros, digits);
}

/// In UTC; 0 is the zero date.
fn timestamp(out: &mut Vec<u8>, seconds: u64, micros: u64, digits: usize) {
    if seconds == 0 && micros == 0 {
        out.extend_from_slice(b"0000-00-00 00:00:00");
    } else {
        let (year, month, day) = date(seconds / 86_400);
        let time = seconds % 86_400;
        put(out, format_args!("{year:04}-{month:02}-{day:02}"));
        put(out, format_args!(" {:02}:{:02}:{:02}", time / 3_600, time / 60 % 60, time % 60));
    }
    fraction(out, micros, digits);
}

/// Year, month and day of a day since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let shifted = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(shifted <= 2), shifted, day - (153 * month + 2) / 5 + 1)
}

fn set(out: &mut Vec<u8>, bits: u64, names: &[String]) {
    let mut first = true;
    for (_, name) in names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1) {
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(name.as_bytes());
    }
}

/// What MySQL calls latin1 is Windows-1252, with the five places that it leaves open as they are.
fn latin1(out: &mut Vec<u8>, bytes: &[u8]) {
    const HIGH: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    for byte in bytes {
        let place = usize::from(byte.wrapping_sub(0x80));
        let c = if (0x80..0xa0).contains(byte) { HIGH.chars().nth(place) } else { None };
        out.extend_from_slice(c.unwrap_or(char::from(*byte)).encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests;
