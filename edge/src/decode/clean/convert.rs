//! What a rule does to one value: its type, its range.
//!
//! Comes in: a value. Goes out: the value as the rule wants it. Guarantees: a conversion loses nothing; an integer that
//! is clamped to an integer stays one. On failure: what the value is instead; it is then unchanged.

use weir_shared::reading::Value;

use super::super::{Reason, Refused};

/// From here on floats do not hold every integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What a value must be, or become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Number,
    Integer,
    Bool,
    Text,
}

impl Type {
    pub(super) const WORDS: [(&'static str, Self); 4] =
        [("number", Self::Number), ("integer", Self::Integer), ("bool", Self::Bool), ("text", Self::Text)];

    /// Converts where nothing is lost.
    pub(super) fn convert(self, value: &mut Value<'_>) -> Result<(), String> {
        let converted = match (self, &*value) {
            (Self::Number | Self::Integer, Value::Unsigned(_) | Value::Signed(_))
            | (Self::Number, Value::Float(_))
            | (Self::Bool, Value::Bool(_))
            | (Self::Text, Value::Text(_)) => return Ok(()),
            (Self::Integer, Value::Float(v)) => whole(*v),
            (Self::Number, Value::Text(v)) => number(v.trim()),
            (Self::Integer, Value::Text(v)) => number(v.trim()).and_then(|number| match number {
                Value::Float(v) => whole(v),
                integer => Some(integer),
            }),
            (Self::Bool, Value::Unsigned(v @ (0 | 1))) => Some(Value::Bool(*v == 1)),
            (Self::Bool, Value::Text(v)) => v.trim().to_ascii_lowercase().parse().ok().map(Value::Bool),
            (Self::Text, Value::Bool(v)) => Some(Value::Text(v.to_string().into())),
            (Self::Text, Value::Unsigned(v)) => Some(Value::Text(v.to_string().into())),
            (Self::Text, Value::Signed(v)) => Some(Value::Text(v.to_string().into())),
            (Self::Text, Value::Float(v)) => Some(Value::Text(v.to_string().into())),
            (Self::Number | Self::Integer, Value::Bool(_))
            | (Self::Bool, Value::Unsigned(_) | Value::Signed(_) | Value::Float(_)) => None,
        };
        match converted {
            Some(converted) => *value = converted,
            None => return Err(format!("is {}, not {}", shown(value), self.word())),
        }
        Ok(())
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, t)| *t == self).map_or("", |(word, _)| word)
    }
}

fn whole(v: f64) -> Option<Value<'static>> {
    let whole = v.fract() == 0.0 && v.abs() <= EXACT_MAX;
    whole.then_some(if v < 0.0 { Value::Signed(v as i64) } else { Value::Unsigned(v as u64) })
}

fn number(text: &str) -> Option<Value<'static>> {
    if let Ok(v) = text.parse() {
        return Some(Value::Unsigned(v));
    }
    if let Ok(v) = text.parse() {
        return Some(Value::Signed(v));
    }
    text.parse().ok().filter(|v: &f64| v.is_finite()).map(Value::Float)
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Bool(v) => v.to_string(),
        Value::Unsigned(v) => v.to_string(),
        Value::Signed(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Text(v) => format!("{:?}", &v[..v.floor_char_boundary(60)]),
    }
}

/// What happens to a value outside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    Reject,
    Clamp,
    Drop,
}

/// Where a value must lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) outside: Outside,
}

impl Range {
    /// False when the value is to be dropped.
    pub(super) fn keep(&self, name: &str, value: &mut Value<'_>) -> Result<bool, Refused> {
        let Some(number) = value.number() else {
            return match self.outside {
                Outside::Drop => Ok(false),
                _ => Err((Reason::ValueWrongType, format!("{name} is {}, not a number", shown(value)))),
            };
        };
        if (self.min..=self.max).contains(&number) {
            return Ok(true);
        }
        match self.outside {
            Outside::Drop => Ok(false),
            Outside::Reject => {
                let detail =
                    format!("{name} is {}, from {} to {} are taken", shown(value), self.min, self.max);
                Err((Reason::ValueOutOfRange, detail))
            }
            Outside::Clamp => {
                let end = Value::Float(number.clamp(self.min, self.max));
                *value = match (&*value, &end) {
                    (Value::Unsigned(_) | Value::Signed(_), Value::Float(v)) => whole(*v).unwrap_or(end),
                    _ => end,
                };
                Ok(true)
            }
        }
    }
}
