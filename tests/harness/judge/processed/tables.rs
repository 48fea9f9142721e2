//! The dimension table as it stood at each version, and the rules of each number.
//!
//! Comes in: what the suite itself wrote into MySQL, with the version it got; rule sets as the processors numbered them.
//! Goes out: the table and the rules of the version and the number that an output names. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_cloud::reference::{Rules, Tables};

use super::TABLE;

/// Rows by key, each a JSON object.
pub type Rows = Arc<BTreeMap<String, String>>;

/// All versions.
#[derive(Debug, Default)]
pub struct History {
    rows: BTreeMap<i64, Rows>,
    newest: i64,
    made: HashMap<i64, Arc<Tables>>,
    rules: BTreeMap<u64, Arc<Rules>>,
}

impl History {
    /// From this version on, these are the rows.
    pub fn put(&mut self, version: i64, rows: Rows) {
        self.rows.insert(version, rows);
        self.newest = version;
    }

    /// The newest version.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.newest = 0;
        self.made.clear();
    }

    /// These are the rules of this number.
    pub fn put_rules(&mut self, number: u64, rules: Rules) {
        self.rules.insert(number, Arc::new(rules));
    }

    /// The largest number of a rule set.
    #[must_use]
    pub fn newest_rules(&self) -> u64 {
        self.rules.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// Whether it can be told what they were.
    pub(super) fn knows_rules(&self, number: u64) -> bool {
        self.rules.contains_key(&number)
    }

    /// The rules of this number; none when nobody knows it.
    pub(super) fn rules(&self, number: u64) -> Arc<Rules> {
        self.rules.get(&number).map_or_else(|| Arc::new(Rules::none()), Arc::clone)
    }

    /// Versions begin anew with small numbers: the newest rows are those of all of them, and those of the large numbers with
    /// which outputs still come until the processors notice.
    pub fn restart(&mut self) {
        let (version, last) = self.rows.pop_last().unwrap_or_default();
        self.rows = BTreeMap::from([(0, Arc::clone(&last)), (version, last)]);
        self.newest = 0;
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
