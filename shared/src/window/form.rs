//! A rule made ready.
//!
//! Comes in: a checked [`Rule`]. Goes out: panes, cells and JSON heads worked out once; the keys of readings.
//! Guarantees: nothing here changes with what is read. On failure: a rule that does not hold is refused.

use super::calendar::Calendar;
use super::outputs::write;
use super::rule::{Kind, Rule, Span, divisor};
use super::tally::{Plan, Tally};
use super::{Filter, Limits};
use crate::reading::Reading;

/// A rule made ready.
pub(super) struct Form {
    pub(super) rule: Rule,
    pub(super) limits: Limits,
    pub(super) filter: Option<Filter>,
    pub(super) plan: Plan,
    pub(super) calendar: Calendar,
    /// Window and slide in panes, or in chunks of readings.
    pub(super) size: i64,
    pub(super) slide: i64,
    /// Readings per chunk.
    pub(super) chunk: i64,
    pub(super) lateness: i64,
    pub(super) delay: i64,
    pub(super) idle: i64,
    /// `{"rule":"…","key":{`
    head: String,
    /// `"device":` of each part of the key.
    parts: Vec<String>,
}

impl Form {
    pub(super) fn new(rule: Rule, limits: Limits, filter: Option<Filter>) -> Result<Self, String> {
        rule.check()?;
        let (mut width, mut size, mut slide, mut chunk) = (Span::Ms(1), 1, 1, 1);
        match rule.kind {
            Kind::Tumbling { size } => width = size,
            Kind::Sliding { size: Span::Days(n), slide: Span::Days(m) } => {
                let days = divisor(u64::from(n), u64::from(m));
                width = Span::Days(u32::try_from(days).unwrap_or(1));
                (size, slide) = (u64::from(n) / days, u64::from(m) / days);
            }
            Kind::Sliding { size: Span::Ms(n), slide: Span::Ms(m) } => {
                let ms = divisor(n, m);
                width = Span::Ms(ms);
                (size, slide) = (n / ms, m / ms);
            }
            Kind::SlidingCount { n, slide: m } => {
                let readings = divisor(u64::from(n), u64::from(m));
                (size, slide) = (u64::from(n) / readings, u64::from(m) / readings);
                chunk = readings;
            }
            Kind::Count { n } => chunk = u64::from(n),
            Kind::Session { .. } | Kind::Sliding { .. } => {}
        }
        let json = |text: &str| serde_json::Value::from(text).to_string();
        Ok(Self {
            plan: Plan::new(&rule),
            calendar: Calendar::new(width, rule.zone.as_deref())?,
            size: size.cast_signed(),
            slide: slide.cast_signed(),
            chunk: chunk.cast_signed(),
            lateness: rule.lateness_ms.cast_signed(),
            delay: rule.delay_ms.cast_signed(),
            idle: i64::try_from(rule.idle_ms).unwrap_or(i64::MAX),
            head: format!("{{\"rule\":{},\"key\":{{", json(&rule.name)),
            parts: rule.key.iter().map(|part| format!("{}:", json(part))).collect(),
            rule,
            limits,
            filter,
        })
    }

    /// Writes the key of a reading to `id`; false if the reading lacks a part.
    pub(super) fn key_of(&self, reading: &Reading<'_>, id: &mut Vec<u8>) -> bool {
        id.clear();
        for name in &self.rule.key {
            let part = if name == "device" { Some(&*reading.device) } else { reading.tag(name) };
            let Some(part) = part else { return false };
            if self.parts.len() > 1 {
                let Ok(length) = u32::try_from(part.len()) else { return false };
                id.extend_from_slice(&length.to_be_bytes());
            }
            id.extend_from_slice(part.as_bytes());
        }
        true
    }

    /// The parts of a key, or `None` where these bytes are no key of this rule.
    pub(super) fn parts<'a>(&self, mut id: &'a [u8]) -> Option<Vec<&'a str>> {
        if self.parts.len() == 1 {
            return Some(vec![std::str::from_utf8(id).ok()?]);
        }
        let mut parts = Vec::with_capacity(self.parts.len());
        for _ in &self.parts {
            let (length, rest) = id.split_first_chunk::<4>()?;
            let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            parts.push(std::str::from_utf8(part).ok()?);
            id = rest;
        }
        id.is_empty().then_some(parts)
    }

    pub(super) fn write_head(&self, id: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        let parts = self.parts(id).expect("keys are made by key_of, and checked when they are restored");
        for (i, (name, part)) in self.parts.iter().zip(parts).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            write(out, part);
        }
    }

    pub(super) fn write_kafka_key(&self, id: &[u8], out: &mut Vec<u8>) {
        let parts = self.parts(id).expect("keys are made by key_of, and checked when they are restored");
        if parts.is_empty() {
            out.extend_from_slice(self.rule.name.as_bytes());
        }
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                out.push(b'/');
            }
            out.extend_from_slice(part.as_bytes());
        }
    }

    /// Whether keys hold one device each.
    pub(super) fn one_device(&self) -> bool {
        self.rule.key.iter().any(|part| part == "device")
    }

    /// Whether windows are made of panes of time.
    pub(super) const fn aligned(&self) -> bool {
        matches!(self.rule.kind, Kind::Tumbling { .. } | Kind::Sliding { .. })
    }

    /// Whether time, not a count, ends windows.
    pub(super) const fn ends_by_time(&self) -> bool {
        !matches!(self.rule.kind, Kind::Count { .. } | Kind::SlidingCount { .. })
    }

    pub(super) fn completeness(&self, start: i64, end: i64, tally: &Tally) -> Option<f64> {
        let interval = self.rule.expected_interval_ms? as f64;
        let expected = if self.aligned() {
            (end - start) as f64 / interval
        } else {
            (tally.last - tally.first) as f64 / interval + 1.0
        };
        Some((tally.readings as f64 / expected).min(1.0))
    }
}
