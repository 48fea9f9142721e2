//! Dead letters of the decoder.
//!
//! Comes in: why a message (or one reading of it) was refused, and its bytes. Goes out: the JSON of
//! `weir.edge-rejected`. Guarantees: the value never exceeds `raw_bytes_max` · 4/3 + 16 KiB; `bytes` always says how
//! long the original was, also where `raw` holds only its first part (of a line of a file that is too long to be read
//! whole: how much was read).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Input;

/// Longest part of a topic that a dead letter shows, in bytes.
const TOPIC_BYTES_MAX: usize = 1024;
/// Longest detail, in bytes.
const DETAIL_BYTES_MAX: usize = 300;

/// Why something was refused. The text forms are labels of a metric and values in the stores: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// No bytes at all.
    Empty,
    /// More bytes than `decode.message_bytes_max`, as a message or as a line of a file.
    TooLarge,
    /// Not UTF-8.
    InvalidUtf8,
    /// Not JSON.
    NotJson,
    /// Neither an object nor an array of objects.
    NotAnObject,
    /// An array without readings, or with too many.
    ReadingsCount,
    /// No device in field or topic.
    DeviceMissing,
    /// A device that is no string or integer, is empty or too long.
    DeviceInvalid,
    /// No time in its field.
    TimeMissing,
    /// A time that is not written as the section says.
    TimeInvalid,
    /// A time that not all stores can hold.
    TimeOutOfRange,
    /// No value at all.
    ValuesMissing,
    /// A value (or the object of values) of a type that readings do not have.
    ValueWrongType,
    /// NaN or an infinity.
    ValueNotFinite,
    /// A tag that is no string.
    TagWrongType,
    /// Names that are empty, too long, too many, or twice the same.
    NamesInvalid,
    /// The reading would exceed `kafka.record_bytes_max`.
    RecordTooLarge,
    /// Kafka refused the reading three times, for reasons of its own.
    RefusedByKafka,
    /// A row that is not CSV, or not of the header's width.
    NotCsv,
    /// A time longer before the arrival than is accepted.
    ClockPast,
    /// A time longer after the arrival than is accepted.
    ClockFuture,
    /// A value that a rule requires is not there.
    ValueRequired,
    /// A value outside the range of a rule.
    ValueOutOfRange,
    /// An expression of a rule has no result for this reading.
    ExpressionFailed,
}

impl Reason {
    /// All of them, for metrics that start at zero.
    pub(crate) const ALL: [Self; 24] = [
        Self::Empty,
        Self::TooLarge,
        Self::InvalidUtf8,
        Self::NotJson,
        Self::NotAnObject,
        Self::ReadingsCount,
        Self::DeviceMissing,
        Self::DeviceInvalid,
        Self::TimeMissing,
        Self::TimeInvalid,
        Self::TimeOutOfRange,
        Self::ValuesMissing,
        Self::ValueWrongType,
        Self::ValueNotFinite,
        Self::TagWrongType,
        Self::NamesInvalid,
        Self::RecordTooLarge,
        Self::RefusedByKafka,
        Self::NotCsv,
        Self::ClockPast,
        Self::ClockFuture,
        Self::ValueRequired,
        Self::ValueOutOfRange,
        Self::ExpressionFailed,
    ];

    /// The text form.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::ReadingsCount => "readings_count",
            Self::DeviceMissing => "device_missing",
            Self::DeviceInvalid => "device_invalid",
            Self::TimeMissing => "time_missing",
            Self::TimeInvalid => "time_invalid",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::ValuesMissing => "values_missing",
            Self::ValueWrongType => "value_wrong_type",
            Self::ValueNotFinite => "value_not_finite",
            Self::TagWrongType => "tag_wrong_type",
            Self::NamesInvalid => "names_invalid",
            Self::RecordTooLarge => "record_too_large",
            Self::RefusedByKafka => "refused_by_kafka",
            Self::NotCsv => "not_csv",
            Self::ClockPast => "clock_past",
            Self::ClockFuture => "clock_future",
            Self::ValueRequired => "value_required",
            Self::ValueOutOfRange => "value_out_of_range",
            Self::ExpressionFailed => "expression_failed",
        }
    }
}

/// A dead letter, ready to be journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Why.
    pub reason: Reason,
    /// The Kafka key: the topic, or its first part.
    pub key: String,
    /// The Kafka value, as in `weir_shared::wire`.
    pub value: Vec<u8>,
}

/// The JSON of a dead letter; the order of the fields is part of the format.
#[derive(Serialize)]
struct Letter<'a> {
    stage: &'static str,
    reason: &'static str,
    detail: &'a str,
    source: &'static str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    received: i64,
    bytes: usize,
    raw: String,
}

/// A dead letter for `raw`: the whole payload, or the `index`-th reading of it.
pub(crate) fn reject(
    input: &Input<'_>,
    reason: Reason,
    detail: &str,
    raw: &[u8],
    index: Option<usize>,
    raw_bytes_max: usize,
) -> Rejection {
    let stage = if reason == Reason::RefusedByKafka { "edge.forward" } else { "edge.decode" };
    let letter = Letter {
        stage,
        reason: reason.as_str(),
        detail: first_part(detail, DETAIL_BYTES_MAX),
        source: input.origin.name(),
        topic: first_part(input.topic, TOPIC_BYTES_MAX),
        index,
        received: input.arrived.wall_ms,
        bytes: raw.len(),
        raw: STANDARD.encode(&raw[..raw.len().min(raw_bytes_max)]),
    };
    let value = serde_json::to_vec(&letter).expect("a struct of texts and numbers is JSON");
    Rejection { reason, key: first_part(input.topic, 255).to_owned(), value }
}

/// At most `max` bytes of `text`, cut between characters.
fn first_part(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
