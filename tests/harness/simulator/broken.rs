//! Broken messages of every kind, each with the reason that its dead letter must carry.
//!
//! Comes in: kind, run, number. Goes out: the bytes, always the same for the same input, so that an oracle that only
//! has the run's log can compare them. The mark that finds a message again is its MQTT topic (an empty message can
//! carry nothing else); where the kind allows, run and number also stand in the bytes.

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Text that is not JSON.
    NotJson,
    /// An object where a value is expected.
    ValueObject,
    /// An array where a value is expected.
    ValueArray,
    /// No device.
    DeviceMissing,
    /// No time.
    TimeMissing,
    /// A bare `NaN`, as Python's `json` writes it.
    NotANumber,
    /// 300 KB.
    TooLarge,
    /// A string that is not UTF-8.
    InvalidUtf8,
    /// No bytes.
    Empty,
    /// One bad reading in a message of several: rejects that reading alone.
    OneOfSeveral,
}

/// How large the too large message is.
const TOO_LARGE_BYTES: usize = 300 * 1024;

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::NotJson,
        Self::ValueObject,
        Self::ValueArray,
        Self::DeviceMissing,
        Self::TimeMissing,
        Self::NotANumber,
        Self::TooLarge,
        Self::InvalidUtf8,
        Self::Empty,
        Self::OneOfSeveral,
    ];

    /// The name in the run's log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::ValueObject => "value_object",
            Self::ValueArray => "value_array",
            Self::DeviceMissing => "device_missing",
            Self::TimeMissing => "time_missing",
            Self::NotANumber => "not_a_number",
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Empty => "empty",
            Self::OneOfSeveral => "one_of_several",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The reason that the dead letter must carry.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::ValueObject | Self::ValueArray | Self::OneOfSeveral => "value_wrong_type",
            Self::DeviceMissing => "device_missing",
            Self::TimeMissing => "time_missing",
            Self::NotANumber => "value_not_finite",
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Empty => "empty",
        }
    }
}

/// One broken message (or, for [`Kind::OneOfSeveral`], the bad reading in it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong with it.
    pub kind: Kind,
    /// Its number in the run, from 0.
    pub number: u64,
    /// When it was made, ms since 1970.
    pub time_ms: i64,
}

impl Broken {
    /// The bytes that its dead letter must carry.
    #[must_use]
    pub fn bytes(&self, run: &str) -> Vec<u8> {
        let Self { kind, number, time_ms } = self;
        let tags = format!(r#""tags":{{"run":"{run}","id":"{run}-broken-{number}"}}"#);
        let reading =
            |values: &str| format!(r#"{{"device":"shuttle-00","ts":{time_ms},"values":{values},{tags}}}"#);
        match kind {
            Kind::NotJson => format!("flow=3.5 l/s; run {run}, broken {number}").into_bytes(),
            Kind::ValueObject | Kind::OneOfSeveral => reading(r#"{"f1":{"nested":1}}"#).into_bytes(),
            Kind::ValueArray => reading(r#"{"f1":[1,2]}"#).into_bytes(),
            Kind::DeviceMissing => format!(r#"{{"ts":{time_ms},"values":{{"f1":1}},{tags}}}"#).into_bytes(),
            Kind::TimeMissing => {
                format!(r#"{{"device":"shuttle-00","values":{{"f1":1}},{tags}}}"#).into_bytes()
            }
            Kind::NotANumber => reading(r#"{"f1":NaN,"f2":1}"#).into_bytes(),
            Kind::TooLarge => {
                let empty = reading(r#"{"text":""}"#).len();
                reading(&format!(r#"{{"text":"{}"}}"#, "x".repeat(TOO_LARGE_BYTES - empty))).into_bytes()
            }
            Kind::InvalidUtf8 => {
                let mut bytes = reading(r#"{"text":"??"}"#).into_bytes();
                let at =
                    bytes.windows(2).position(|w| w == b"??").expect("the two marks stand in the line above");
                bytes[at..at + 2].copy_from_slice(&[0xc3, 0x28]);
                bytes
            }
            Kind::Empty => Vec::new(),
        }
    }

    /// The MQTT topic that it is published under, which finds it again.
    #[must_use]
    pub fn topic(&self, run: &str) -> String {
        format!("{}{}", topic_prefix(run), self.number)
    }
}

/// What the topics of all broken messages of a run start with.
#[must_use]
pub fn topic_prefix(run: &str) -> String {
    format!("sensors/broken/{run}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_broken_in_its_own_way() {
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            let bytes = Broken { kind, number, time_ms: 5 }.bytes("r1");
            let json = serde_json::from_slice::<serde_json::Value>(&bytes);
            let utf8 = std::str::from_utf8(&bytes).is_ok();
            let (is_json, is_utf8) = match kind {
                Kind::NotJson | Kind::NotANumber | Kind::Empty => (false, true),
                Kind::InvalidUtf8 => (false, false),
                _ => (true, true),
            };
            assert_eq!((json.is_ok(), utf8), (is_json, is_utf8), "{kind:?}");
            assert_eq!(bytes.len() >= TOO_LARGE_BYTES, kind == Kind::TooLarge);
        }
    }
}
