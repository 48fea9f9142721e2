//! Which file a file is.
//!
//! Comes in: an inode and the file's first bytes. Goes out: 64 bits that stay the same while the file grows, is renamed
//! or the machine boots anew, and differ when it is truncated and written again or its inode is reused.
//! The lowest 11 bits say how many first bytes (1 to 1024) the other 53 were computed from: what was there when the
//! file was first read. The device number is left out: it changes when the machine boots.

use std::collections::{BTreeSet, HashMap};

use xxhash_rust::xxh3::Xxh3;

/// Most first bytes that count.
pub(super) const HEAD_BYTES_MAX: usize = 1024;
const LENGTH_BITS: u32 = 11;

/// The identity by these first bytes.
pub(super) fn of(inode: u64, head: &[u8]) -> u64 {
    let head = &head[..head.len().min(HEAD_BYTES_MAX)];
    let mut hash = Xxh3::new();
    hash.update(&inode.to_le_bytes());
    hash.update(head);
    hash.digest() << LENGTH_BITS | head.len() as u64
}

/// How many first bytes an identity was computed from.
pub(super) const fn head_bytes(id: u64) -> usize {
    (id & ((1 << LENGTH_BITS) - 1)) as usize
}

/// Whether the file that begins with `head` is that one.
pub(super) fn is(id: u64, inode: u64, head: &[u8]) -> bool {
    head.get(..head_bytes(id)).is_some_and(|head| of(inode, head) == id)
}

/// What the journal knows of the file that begins with `head`; if that is several files, the one of most first bytes.
pub(super) fn find(marks: &HashMap<u64, (u64, u64)>, inode: u64, head: &[u8]) -> Option<u64> {
    let lengths: BTreeSet<usize> = marks.keys().map(|id| head_bytes(*id)).collect();
    let ids = lengths.into_iter().rev().filter_map(|length| Some(of(inode, head.get(..length)?)));
    ids.into_iter().find(|id| marks.contains_key(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_the_same_while_it_grows() {
        let text: Vec<u8> = (0..3000_u32).map(|i| (i % 251) as u8).collect();
        for first in [1, 10, 1024, 3000] {
            let id = of(7, &text[..first]);
            assert_eq!(head_bytes(id), first.min(HEAD_BYTES_MAX));
            assert!(is(id, 7, &text) && is(id, 7, &text[..first]));
            assert!(!is(id, 8, &text) && !is(id, 7, &text[1..]) && !is(id, 7, b""));
            let marks = HashMap::from([(id, (first as u64, 1)), (of(9, b"x"), (1, 1))]);
            assert_eq!(find(&marks, 7, &text), Some(id));
            assert_eq!(find(&marks, 6, &text), None);
        }
    }
}
