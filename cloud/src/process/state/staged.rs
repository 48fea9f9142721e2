//! A map whose changes wait for a commit.
//!
//! Guarantees: reads see what was staged; [`Staged::abort`] leaves no trace of it; only [`Staged::commit`] makes it
//! stay. Pure.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// See the module.
#[derive(Debug)]
pub(in crate::process) struct Staged<K, V> {
    committed: HashMap<K, V, RandomState>,
    /// `None` is to be removed.
    staged: HashMap<K, Option<V>, RandomState>,
}

impl<K, V> Default for Staged<K, V> {
    fn default() -> Self {
        Self { committed: HashMap::default(), staged: HashMap::default() }
    }
}

impl<K: Eq + Hash + Clone, V> Staged<K, V> {
    /// As it is now, in this cycle.
    #[inline]
    pub(in crate::process) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self.staged.get(key) {
            Some(staged) => staged.as_ref(),
            None => self.committed.get(key),
        }
    }

    /// Changes it in this cycle; `None` removes.
    #[inline]
    pub(in crate::process) fn set(&mut self, key: K, value: Option<V>) {
        self.staged.insert(key, value);
    }

    /// What this cycle changed.
    pub(in crate::process) fn staged(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.staged.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// What was committed, without what is staged.
    pub(in crate::process) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.committed.iter()
    }

    /// What was staged stays.
    pub(in crate::process) fn commit(&mut self) {
        for (key, value) in self.staged.drain() {
            match value {
                Some(value) => drop(self.committed.insert(key, value)),
                None => drop(self.committed.remove(&key)),
            }
        }
    }

    /// What was staged is forgotten.
    pub(in crate::process) fn abort(&mut self) {
        self.staged.clear();
    }

    /// An entry of the changelog; `None` is a tombstone.
    pub(in crate::process) fn restore(&mut self, key: K, value: Option<V>) {
        match value {
            Some(value) => drop(self.committed.insert(key, value)),
            None => drop(self.committed.remove(&key)),
        }
    }

    /// Entries that are committed.
    pub(in crate::process) fn len(&self) -> usize {
        self.committed.len()
    }
}
