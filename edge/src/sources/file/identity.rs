//! Which file a file is, and how far it is read.
//!
//! Comes in: an inode and the file's first bytes. Goes out: 64 bits that stay the same while the file grows, is renamed
//! or the machine boots anew, and differ when it is truncated and written again or its inode is reused.
//! The lowest 11 bits say how many first bytes (1 to 1024) the other 53 were computed from: what was there when the
//! file was first read. The device number is left out: it changes when the machine boots.
//! Marks: what the journal said at the start, and the last [`MARKS_MAX`] files that were handed on since, which count
//! first; so a file that vanished and comes back goes on where it was. On failure: only what the caller's function gives.

use std::collections::{BTreeSet, HashMap};
use std::io;

use xxhash_rust::xxh3::Xxh3;

use super::Mark;

/// Most first bytes that count.
pub(super) const HEAD_BYTES_MAX: usize = 1024;
const LENGTH_BITS: u32 = 11;
/// Most files that were handed on whose marks are kept: as many as the journal keeps. The oldest goes.
const MARKS_MAX: usize = 10_000;

/// How far files are read.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// At the start, as offset and row.
    journaled: HashMap<u64, (u64, u64)>,
    handed_on: HashMap<u64, HandedOn>,
    noted: u64,
}

#[derive(Clone, Copy, Debug)]
struct HandedOn {
    mark: Mark,
    /// Of what stands before the mark.
    digest: u64,
    /// The order in which they were noted.
    noted: u64,
}

impl Marks {
    pub(super) fn new(journaled: HashMap<u64, (u64, u64)>) -> Self {
        Self { journaled, ..Self::default() }
    }

    /// Something was handed on; `digest` is of what stands before the mark.
    pub(super) fn note(&mut self, mark: Mark, digest: u64) {
        self.noted += 1;
        self.handed_on.insert(mark.file, HandedOn { mark, digest, noted: self.noted });
        if self.handed_on.len() > MARKS_MAX
            && let Some(oldest) = self.handed_on.iter().min_by_key(|(_, h)| h.noted).map(|(file, _)| *file)
        {
            self.handed_on.remove(&oldest);
        }
    }

    /// Where the file that begins with `head` goes on. `digest_before` an offset tells apart files that have the inode
    /// and the first bytes in common, such as a long header: inodes are given out again at once.
    pub(super) fn find(
        &self,
        inode: u64,
        head: &[u8],
        digest_before: impl Fn(u64) -> io::Result<u64>,
    ) -> io::Result<Option<Mark>> {
        if let Some((_, HandedOn { mark, digest, .. })) = find(&self.handed_on, inode, head) {
            return Ok((digest_before(mark.offset)? == *digest).then_some(*mark));
        }
        let journaled = find(&self.journaled, inode, head);
        Ok(journaled.map(|(file, (offset, row))| Mark { file, offset: *offset, row: *row }))
    }
}

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

/// What is known of the file that begins with `head`; if that is several files, the one of most first bytes.
fn find<'m, M>(marks: &'m HashMap<u64, M>, inode: u64, head: &[u8]) -> Option<(u64, &'m M)> {
    let lengths: BTreeSet<usize> = marks.keys().map(|id| head_bytes(*id)).collect();
    let ids = lengths.into_iter().rev().filter_map(|length| Some(of(inode, head.get(..length)?)));
    ids.into_iter().find_map(|id| Some((id, marks.get(&id)?)))
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
            assert_eq!(find(&marks, 7, &text), Some((id, &(first as u64, 1))));
            assert_eq!(find(&marks, 6, &text), None);
        }
    }

    #[test]
    fn the_oldest_mark_goes_and_what_was_handed_on_counts_before_the_journal() {
        let mark = |file: u64, offset| Mark { file: of(file, b"x"), offset, row: 1 };
        let journaled = [1, 2].map(|file| (mark(file, 0).file, (1, 1)));
        let mut marks = Marks::new(HashMap::from(journaled));
        let limit = MARKS_MAX as u64;
        (1..=limit).for_each(|file| marks.note(mark(file, 2), 9));
        marks.note(mark(1, 3), 9);
        marks.note(mark(limit + 1, 2), 9);
        assert_eq!(marks.handed_on.len(), MARKS_MAX);
        let find = |file| marks.find(file, b"xyz", |_| Ok(9)).unwrap();
        assert_eq!(find(1), Some(mark(1, 3)));
        assert_eq!(find(2), Some(mark(2, 1)), "only the journal knows it");
        assert_eq!((find(3), find(limit + 1)), (Some(mark(3, 2)), Some(mark(limit + 1, 2))));
        assert_eq!(marks.find(1, b"xyz", |_| Ok(8)).unwrap(), None, "another file with that inode");
    }
}
