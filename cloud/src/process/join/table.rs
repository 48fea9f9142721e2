//! One dimension table in memory.
//!
//! Comes in: rows (key, JSON object) of a load, then changes. Goes out: the row of a key.
//! Guarantees: a lookup is one hash and no allocation; a clone shares everything, and a change copies the list of
//! shards and the one shard of its key, so that a clone never changes.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Parts of a table that are copied on their own: at a million rows one has a thousand rows.
const SHARDS: usize = 1024;

/// Key and JSON of a row in one allocation.
#[derive(Clone, Debug)]
pub(super) struct Row {
    bytes: Arc<[u8]>,
    key_bytes: u32,
}

impl Row {
    /// A row.
    pub(super) fn new(key: &[u8], json: &[u8]) -> Self {
        let key_bytes =
            u32::try_from(key.len()).expect("a key is shorter than a packet, which is below 1 GiB");
        Self { bytes: [key, json].concat().into(), key_bytes }
    }

    /// What is looked up.
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes as usize]
    }

    /// A JSON object.
    pub(super) fn json(&self) -> &[u8] {
        &self.bytes[self.key_bytes as usize..]
    }
}

type Shard = HashTable<Row>;

/// Rows by key.
#[derive(Clone, Debug)]
pub(super) struct Table {
    shards: Arc<[Arc<Shard>]>,
    rows: usize,
    bytes: usize,
}

impl Default for Table {
    fn default() -> Self {
        let empty = Arc::new(Shard::new());
        Self { shards: std::iter::repeat_n(empty, SHARDS).collect(), rows: 0, bytes: 0 }
    }
}

impl Table {
    /// The row with this key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Row> {
        let hash = hash(key);
        self.shards[shard(hash)].find(hash, |row| row.key() == key)
    }

    /// Puts a row in, in place of one with its key.
    pub(super) fn put(&mut self, row: Row) {
        let hash = hash(row.key());
        self.bytes += row.bytes.len();
        match self.change(hash).entry(hash, |r| r.key() == row.key(), |r| self::hash(r.key())) {
            hashbrown::hash_table::Entry::Occupied(mut entry) => {
                let old = std::mem::replace(entry.get_mut(), row);
                self.bytes -= old.bytes.len();
            }
            hashbrown::hash_table::Entry::Vacant(entry) => {
                entry.insert(row);
                self.rows += 1;
            }
        }
    }

    /// Takes the row with this key away.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let hash = hash(key);
        if self.get(key).is_none() {
            return;
        }
        if let Ok(entry) = self.change(hash).find_entry(hash, |row| row.key() == key) {
            let (old, _) = entry.remove();
            self.rows -= 1;
            self.bytes -= old.bytes.len();
        }
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of all keys and JSON.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether both hold the same rows.
    pub(super) fn equals(&self, other: &Self) -> bool {
        let same = |row: &Row| other.get(row.key()).is_some_and(|o| o.json() == row.json());
        self.rows == other.rows && self.shards.iter().all(|shard| shard.iter().all(same))
    }

    fn change(&mut self, hash: u64) -> &mut Shard {
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard(hash)])
    }
}

/// The keys are those of the operator's own table, so nobody chooses them to collide.
fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

/// The table inside a shard uses the lowest and the highest bits.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_never_changes() {
        let mut table = Table::default();
        for i in 0..5_000u32 {
            table.put(Row::new(format!("k{i}").as_bytes(), b"{}"));
        }
        let before = table.clone();
        table.put(Row::new(b"k7", b"{\"a\":1}"));
        table.remove(b"k8");
        table.remove(b"nobody");
        table.put(Row::new(b"new", b"{}"));
        assert_eq!((before.rows(), table.rows()), (5_000, 5_000));
        assert_eq!(before.get(b"k7").map(Row::json), Some(b"{}".as_slice()));
        assert_eq!(table.get(b"k7").map(Row::json), Some(b"{\"a\":1}".as_slice()));
        assert!(before.get(b"k8").is_some() && table.get(b"k8").is_none());
        assert!(before.get(b"new").is_none() && table.get(b"new").is_some());
        // One row has 7 bytes more, "k8" is gone, "new" is there.
        assert_eq!(table.bytes(), before.bytes() + 5 + 1);
        assert!(!table.equals(&before) && before.equals(&before.clone()));
        table.put(Row::new(b"k7", b"{}"));
        table.remove(b"new");
        table.put(Row::new(b"k8", b"{}"));
        assert!(table.equals(&before));
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut table = Table::default();
        (0..5_000u32).for_each(|i| table.put(Row::new(&i.to_le_bytes(), b"{}")));
        let before = table.clone();
        table.put(Row::new(&7u32.to_le_bytes(), b"{\"a\":1}"));
        let copied = table.shards.iter().zip(before.shards.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b));
        assert_eq!(copied.count(), 1);
    }
}
