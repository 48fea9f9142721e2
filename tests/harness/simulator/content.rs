//! What a reading *says*, apart from how any store writes it, and its digest.
//!
//! Comes in: device, event time, original time and values, from the simulator or from a row of a store.
//! Goes out: a 64-bit digest that is equal exactly when all of them are.
//! Guarantees: the digest does not depend on the order of values or on how a number is spelled (`1`, `1.0`); an
//! integer that a 64-bit float cannot hold is compared digit by digit. Pure.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

/// One value of a reading.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number that a 64-bit float holds exactly, or that was a float to begin with.
    Number(f64),
    /// An integer beyond that.
    Integer(i64),
    /// A bool.
    Flag(bool),
    /// A string.
    Text(String),
}

impl Value {
    /// An integer in the form that it is compared in.
    #[must_use]
    pub fn integer(n: i64) -> Self {
        // Two casts that lose nothing, or else they differ: that is the question.
        let float = n as f64;
        if float as i128 == i128::from(n) { Self::Number(float) } else { Self::Integer(n) }
    }

    /// A JSON value in the form that it is compared in; `None` for null, objects, arrays and what no store holds.
    #[must_use]
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Bool(flag) => Some(Self::Flag(*flag)),
            serde_json::Value::String(text) => Some(Self::Text(text.clone())),
            serde_json::Value::Number(n) => {
                n.as_i64().map(Self::integer).or_else(|| n.as_f64().map(Self::Number))
            }
            _ => None,
        }
    }

    /// The value as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
            Self::Number(n) => (*n).into(),
            Self::Integer(n) => (*n).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Text(text) => text.as_str().into(),
        }
    }
}

/// What a reading says.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// Name of the device.
    pub device: String,
    /// Event time, ms since 1970.
    pub time_ms: i64,
    /// When the real series had this row; travels as the tag `source_time`.
    pub source_time: String,
    /// Named values.
    pub values: BTreeMap<String, Value>,
}

impl Content {
    /// The digest over everything in it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        text(&mut hash, &self.device);
        hash.update(&self.time_ms.to_le_bytes());
        text(&mut hash, &self.source_time);
        for (name, value) in &self.values {
            text(&mut hash, name);
            match value {
                Value::Number(n) => {
                    hash.update(b"n");
                    hash.update(&(n + 0.0).to_bits().to_le_bytes()); // -0.0 + 0.0 is 0.0
                }
                Value::Integer(n) => {
                    hash.update(b"i");
                    hash.update(&n.to_le_bytes());
                }
                Value::Flag(flag) => hash.update(if *flag { b"t" } else { b"f" }),
                Value::Text(value) => {
                    hash.update(b"s");
                    text(&mut hash, value);
                }
            }
        }
        hash.digest()
    }
}

/// With its length, so that no two lists of texts look alike.
fn text(hash: &mut Xxh3, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(values: &[(&str, Value)]) -> Content {
        Content {
            device: "d".to_owned(),
            time_ms: 1,
            source_time: "s".to_owned(),
            values: values.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(),
        }
    }

    #[test]
    fn spelling_does_not_matter_but_everything_else_does() {
        let json = |text: &str| Value::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        let one = content(&[("a", json("1")), ("b", json("true"))]).digest();
        assert_eq!(one, content(&[("b", json("true")), ("a", json("1.0"))]).digest());
        assert_ne!(one, content(&[("a", json("1"))]).digest());
        assert_ne!(one, content(&[("a", json("\"1\"")), ("b", json("true"))]).digest());
        assert_eq!(content(&[("a", json("-0.0"))]).digest(), content(&[("a", json("0"))]).digest());
        let (big, next) = (json("9007199254740993"), json("9007199254740992"));
        assert_eq!(big, Value::Integer(9_007_199_254_740_993));
        assert_ne!(content(&[("a", big)]).digest(), content(&[("a", next)]).digest());
        let moved = Content { time_ms: 2, ..content(&[]) };
        assert_ne!(moved.digest(), content(&[]).digest());
    }

    #[test]
    fn json_round_trips() {
        for text in ["1", "-5", "100.59", "9007199254740993", "true", "\"auto\"", "1e300"] {
            let value = Value::from_json(&serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!(Value::from_json(&value.to_json()), Some(value));
        }
        assert_eq!(Value::from_json(&serde_json::Value::Null), None);
    }
}
