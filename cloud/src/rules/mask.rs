//! Masks: what leaves in place of what nobody may see.
//!
//! Comes in: a text (numbers by their digits). Goes out: a keyed hash, the last characters, or nothing.
//! Guarantees: pure; the same text gives the same hash wherever it stands, so that hashes can be counted and joined;
//! without the secret a hash can neither be turned back nor tried out. HMAC-SHA256 (RFC 2104), the first 16 bytes.
//! What an expression computes of something hidden is hidden too. On failure: nothing can fail; a text too short to keep
//! a part of is hidden whole.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use weir_shared::expr::{Field, Program};
use weir_shared::reading::Value;
use weir_shared::record::hex;

use super::{Action, HASH_KEY_BYTES_MIN, RuleSet};

/// Stands for hidden characters, however many.
const HIDDEN: &str = "***";
/// Bytes of a hash that are shown.
const HASH_BYTES: usize = 16;

/// How a field is masked.
#[derive(Clone)]
pub(super) enum Method {
    Hash(Hmac<Sha256>),
    Drop,
    KeepLast(usize),
}

/// What a rule masks.
pub(super) struct Mask {
    pub(super) fields: Vec<Field>,
    pub(super) method: Method,
}

/// The method `hash` with its secret.
pub(super) fn hash(key: Option<&[u8]>) -> Result<Method, String> {
    let key = key.ok_or("hash needs a secret, and none is configured")?;
    if key.len() < HASH_KEY_BYTES_MIN {
        return Err(format!(
            "the secret of hashes has {} bytes, at least {HASH_KEY_BYTES_MIN} are wanted",
            key.len()
        ));
    }
    Hmac::new_from_slice(key).map(Method::Hash).map_err(|error| error.to_string())
}

impl Method {
    /// What stands in place of a text; `None`: nothing.
    pub(super) fn apply(&self, text: &str) -> Option<String> {
        match self {
            Self::Drop => None,
            Self::KeepLast(keep) => {
                let mut shown = String::from(HIDDEN);
                let length = text.chars().count();
                if length > *keep {
                    shown.extend(text.chars().skip(length - keep));
                }
                Some(shown)
            }
            Self::Hash(mac) => {
                let hash = mac.clone().chain_update(text.as_bytes()).finalize().into_bytes();
                Some(hex(&hash[..HASH_BYTES]))
            }
        }
    }
}

impl Mask {
    /// Whether an expression looks at something that is masked.
    pub(super) fn hides(&self, program: &Program) -> bool {
        program.looks_at().iter().any(|seen| match seen {
            Field::AnyValue => self.fields.iter().any(|field| matches!(field, Field::Value(_))),
            Field::AnyTag => self.fields.iter().any(|field| matches!(field, Field::Tag(_))),
            seen => self.fields.contains(seen),
        })
    }
}

/// The text by which a value is masked: a number's digits are the same however it was written.
pub(super) fn text_of(value: &Value<'_>) -> String {
    match value {
        Value::Bool(v) => v.to_string(),
        Value::Unsigned(v) => v.to_string(),
        Value::Signed(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Text(v) => v.to_string(),
    }
}

/// The masks that lie on a record.
#[derive(Clone, Copy)]
pub(crate) struct Masks<'a> {
    set: &'a RuleSet,
    rules: &'a [usize],
}

impl<'a> Masks<'a> {
    pub(super) fn new(set: &'a RuleSet, rules: &'a [usize]) -> Self {
        Self { set, rules }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The device as it may be shown; also the key of the records that leave.
    pub(crate) fn device(&self, device: &str) -> Option<String> {
        self.method(|field| *field == Field::Device).and_then(|method| method.apply(device))
    }

    /// Whether nothing of this value may be shown as it is.
    pub(crate) fn hides_value(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// A tag as it may be shown, if it is masked; an empty text when nothing of it may be.
    pub(crate) fn tag_text(&self, name: &str, text: &str) -> Option<String> {
        self.tag(name).map(|method| method.apply(text).unwrap_or_default())
    }

    pub(super) fn find(&self, field: &Field) -> Option<&'a Method> {
        self.method(|masked| masked == field)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a Method> {
        self.method(|field| matches!(field, Field::Value(masked) if masked == name))
    }

    pub(super) fn tag(&self, name: &str) -> Option<&'a Method> {
        self.method(|field| matches!(field, Field::Tag(masked) if masked == name))
    }

    pub(super) fn column(&self, dimension: &str, column: &str) -> Option<&'a Method> {
        self.method(|field| matches!(field, Field::Column(d, c) if d == dimension && c == column))
    }

    /// The method for what an expression gave.
    pub(super) fn result(&self, program: &Program) -> Option<&'a Method> {
        self.masks().find(|mask| mask.hides(program)).map(|mask| &mask.method)
    }

    fn masks(&self) -> impl Iterator<Item = &'a Mask> {
        let set = self.set;
        self.rules.iter().filter_map(move |rule| match &set.rules.get(*rule)?.action {
            Action::Mask(mask) => Some(mask),
            _ => None,
        })
    }

    /// The first by priority wins.
    fn method(&self, is: impl Fn(&Field) -> bool) -> Option<&'a Method> {
        self.masks().find(|mask| mask.fields.iter().any(&is)).map(|mask| &mask.method)
    }
}
