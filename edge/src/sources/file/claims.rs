//! Which section reads a file that the patterns of several match.
//!
//! Comes in: which files each section holds. Goes out: whether another one holds a file. Guarantees: a file, by whatever
//! name it is seen (hard link, symbolic link, rotated into another pattern), is held by one section at a time, the one
//! that came first; once that has let go of it, another goes on where it was read to. Pure.

use std::collections::HashMap;

use super::folder::Seen;

/// Device and inode: a file under all its names.
pub(super) type Key = (u64, u64);

/// Who holds which file.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: HashMap<Key, usize>,
}

impl Claims {
    /// Takes the file for this section; false when another one holds it.
    pub(super) fn take(&mut self, seen: &Seen, section: usize) -> bool {
        *self.held.entry(seen.key()).or_insert(section) == section
    }

    /// Lets go of all files of this section but those that `keep` says.
    pub(super) fn release(&mut self, section: usize, keep: impl Fn(&Key) -> bool) {
        self.held.retain(|key, holder| *holder != section || keep(key));
    }
}
