//! The image of the windows' state: one checksummed file beside the journal.
//!
//! Comes in: the whole state and the journal position it stands for. Goes out: the same. Guarantees: the file is
//! replaced as a whole (written beside, fsynced, renamed, folder fsynced); what is read back is what was written, or
//! nothing. On failure: an error of the file system is given back; an image that is damaged is no image.
//!
//! Format, little-endian: 8 magic "WEIRWIMG", 4 version = 1, 8 position, 16 stream, 4 length of the rules' text, the text, 4
//! number of entries, per entry 4 length of the key, 4 length of the value, key, value; 4 CRC-32C of all before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use weir_shared::record::StreamId;

/// State of the windows, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// All batches of the journal that end at or below it are in the state.
    pub position: u64,
    /// The stream of the last of them.
    pub stream: StreamId,
    /// The rules that it was computed with.
    pub rules: String,
    /// Keys and values as the engine gave them.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
}

const MAGIC: &[u8; 8] = b"WEIRWIMG";
const VERSION: u32 = 1;
const NAME: &str = "image";

/// Replaces the image in `dir`; durable when this returns.
pub(super) fn write(dir: &Path, state: &State) -> io::Result<u64> {
    let bytes = encode(state);
    let unfinished = dir.join("image.new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(NAME))?;
    File::open(dir)?.sync_all()?;
    Ok(bytes.len() as u64)
}

/// The image in `dir`: none, whole, or (as an error text) damaged.
pub(super) fn read(dir: &Path) -> io::Result<Option<Result<State, &'static str>>> {
    match fs::read(dir.join(NAME)) {
        Ok(bytes) => Ok(Some(decode(&bytes).ok_or("not a whole image of version 1"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a damaged image aside, in place of an earlier one.
pub(super) fn set_aside(dir: &Path) -> io::Result<()> {
    fs::rename(dir.join(NAME), dir.join("image.damaged"))
}

fn encode(state: &State) -> Vec<u8> {
    let room: usize = state.entries.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
    let mut out = Vec::with_capacity(32 + state.rules.len() + room);
    let length = |n: usize| u32::try_from(n).expect("state is far below 4 GiB").to_le_bytes();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&state.position.to_le_bytes());
    out.extend_from_slice(&state.stream.0);
    out.extend_from_slice(&length(state.rules.len()));
    out.extend_from_slice(state.rules.as_bytes());
    out.extend_from_slice(&length(state.entries.len()));
    for (key, value) in &state.entries {
        out.extend_from_slice(&length(key.len()));
        out.extend_from_slice(&length(value.len()));
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<State> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    (u32(&mut rest)? == VERSION).then_some(())?;
    let (position, tail) = rest.split_first_chunk::<8>()?;
    let (stream, tail) = tail.split_first_chunk::<16>()?;
    rest = tail;
    let length = u32(&mut rest)?;
    let rules = String::from_utf8(take(&mut rest, length)?.to_vec()).ok()?;
    let count = u32(&mut rest)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (key, value) = (u32(&mut rest)?, u32(&mut rest)?);
        entries.push((take(&mut rest, key)?.to_vec(), take(&mut rest, value)?.to_vec()));
    }
    let (position, stream) = (u64::from_le_bytes(*position), StreamId(*stream));
    rest.is_empty().then_some(State { position, stream, rules, entries })
}

fn take<'a>(rest: &mut &'a [u8], length: u32) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(length as usize)?;
    *rest = tail;
    Some(taken)
}

fn u32(rest: &mut &[u8]) -> Option<u32> {
    let (taken, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written_or_nothing() {
        let state = State {
            position: 77,
            stream: StreamId([5; 16]),
            rules: "[]".to_owned(),
            entries: vec![(vec![1], vec![2, 3]), (vec![], vec![]), (vec![9; 300], vec![8; 70_000])],
        };
        let bytes = encode(&state);
        assert_eq!(decode(&bytes).as_ref(), Some(&state));
        let small = encode(&State { entries: vec![(vec![1], vec![2, 3])], ..state.clone() });
        for at in 0..small.len() {
            assert_eq!(decode(&small[..at]), None, "cut at {at}");
            let mut flipped = small.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "flipped at {at}");
        }
    }
}
