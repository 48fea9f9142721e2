//! The dimension table as it stood at each version.
//!
//! Comes in: what the suite itself wrote into MySQL, with the version it got. Goes out: the table to join with at the
//! version that an output names. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_cloud::reference::Tables;

use super::TABLE;

/// Rows by key, each a JSON object.
pub type Rows = Arc<BTreeMap<String, String>>;

/// All versions.
#[derive(Debug, Default)]
pub struct History {
    rows: BTreeMap<i64, Rows>,
    made: HashMap<i64, Arc<Tables>>,
}

impl History {
    /// From this version on, these are the rows.
    pub fn put(&mut self, version: i64, rows: Rows) {
        self.rows.insert(version, rows);
    }

    /// The newest version.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.rows.last_key_value().map_or(0, |(version, _)| *version)
    }

    /// Versions begin anew: the newest rows are those of any version.
    pub fn restart(&mut self) {
        let last = self.rows.pop_last().map(|(_, rows)| rows).unwrap_or_default();
        self.rows = BTreeMap::from([(0, last)]);
    }

    /// As it stood at this version.
    pub(super) fn at(&mut self, version: i64) -> Arc<Tables> {
        let rows = self.rows.range(..=version).next_back().map(|(_, rows)| Arc::clone(rows));
        let make = || {
            let rows = rows.unwrap_or_default();
            Arc::new(Tables::one(TABLE, version, rows.iter().map(|(key, row)| (key.as_str(), row.as_str()))))
        };
        Arc::clone(self.made.entry(version).or_insert_with(make))
    }

    /// Lets go of what was made for the last judgement.
    pub(super) fn forget(&mut self) {
        self.made.clear();
    }
}
