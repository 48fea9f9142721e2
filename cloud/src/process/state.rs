//! The state of a partition, and how it stands in its changelog `weir.state.<topic>` (same partition number).
//!
//! Format: key `mark/<stream, 32 hex digits>`, value `{"next": n}`, the next number expected of the stream; no value
//! is a tombstone. A key of another kind is left to versions that know it.
//! Guarantees: [`entry`] reads what [`mark_key`] and [`mark_value`] write; a mark that cannot be read is an error and
//! never skipped, since a lost mark would let repeats through. Pure; reading it back is in [`restore`].

pub(super) mod restore;

use serde::{Deserialize, Serialize};
use weir_shared::record::StreamId;

const MARK: &[u8] = b"mark/";

#[derive(Serialize, Deserialize)]
struct Mark {
    next: u64,
}

/// One entry of a changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The mark of a stream; `None` was deleted.
    Mark(StreamId, Option<u64>),
    /// Written by a version that keeps more than marks.
    Unknown,
}

/// Key of a stream's mark.
pub(super) fn mark_key(stream: StreamId) -> Vec<u8> {
    [MARK, &stream.to_hex()].concat()
}

/// Value of a mark.
pub(super) fn mark_value(next: u64) -> Vec<u8> {
    serde_json::to_vec(&Mark { next }).expect("a struct of one number is JSON")
}

/// Reads an entry; the error says what is wrong with it.
pub(super) fn entry(key: &[u8], value: Option<&[u8]>) -> Result<Entry, String> {
    let Some(hex) = key.strip_prefix(MARK) else { return Ok(Entry::Unknown) };
    let wrong = |what: &str| format!("mark {:?}: {what}", String::from_utf8_lossy(key));
    let stream = StreamId::from_hex(hex).ok_or_else(|| wrong("the key has no stream id"))?;
    let next = match value {
        None => None,
        Some(value) => {
            let mark: Mark = serde_json::from_slice(value).map_err(|e| wrong(&e.to_string()))?;
            Some(mark.next)
        }
    };
    Ok(Entry::Mark(stream, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_stays() {
        let s = StreamId([0xab; 16]);
        assert_eq!(mark_key(s), b"mark/abababababababababababababababab");
        assert_eq!(mark_value(17), br#"{"next":17}"#);
        assert_eq!(entry(&mark_key(s), Some(br#"{"next": 17}"#)), Ok(Entry::Mark(s, Some(17))));
        assert_eq!(entry(&mark_key(s), None), Ok(Entry::Mark(s, None)));
        assert_eq!(entry(b"window/x", Some(b"?")), Ok(Entry::Unknown));
    }

    #[test]
    fn a_damaged_mark_is_an_error() {
        let key = mark_key(StreamId([1; 16]));
        assert!(entry(&key, Some(b"{}")).is_err());
        assert!(entry(&key, Some(b"")).is_err());
        assert!(entry(&key[..20], Some(br#"{"next":1}"#)).is_err());
        for end in 1..mark_value(17).len() {
            assert!(entry(&key, Some(&mark_value(17)[..end])).is_err());
        }
    }
}
