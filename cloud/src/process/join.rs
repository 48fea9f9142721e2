//! Dimension tables: business data by device, added to each reading.
//!
//! Comes in: the `[[dimension]]` tables, loaded once at start by [`mysql`]. Goes out: the member `dims` of a reading.
//! Guarantees: every reading of one run is joined with the same snapshot, whose version it carries; rows are written
//! as JSON when they are loaded, so that a join is a lookup and a copy.
//! On failure: a database that is away, or a table that must not be used, is tried again with growing waits; no
//! record is processed before.

mod mysql;
mod rows;

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, counter, gauge};
use mysql_async::Opts;
use weir_shared::backoff::Backoff;
use weir_shared::config::Section;
use weir_shared::supervise::{Error, Stop};

/// Every key of one `[[dimension]]` with its default.
const ITEM: &str = "name = ''\nurl = ''\ntable = ''\nkey = 'device'\ncolumns = []\n";

/// One `[[dimension]]`.
#[derive(Clone, Debug)]
pub(crate) struct DimensionConfig {
    /// Name under `dims`.
    pub(crate) name: String,
    /// Database.
    pub(crate) url: Opts,
    /// `table` or `database.table`.
    pub(crate) table: String,
    /// Unique column that is compared with the device.
    pub(crate) key: String,
    /// Columns to add; empty: all but the key.
    pub(crate) columns: Vec<String>,
}

impl DimensionConfig {
    /// Reads all `[[dimension]]` of the root section.
    pub(crate) fn read_all(root: &Section<'_>) -> Vec<Self> {
        let mut names = Vec::new();
        root.each("dimension", ITEM, |item| {
            let name = item.required("name", "the name under \"dims\"");
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if !name.chars().all(fits) || name.len() > 60 {
                item.problem("name", "must be at most 60 letters, digits, _ and -");
            }
            if !name.is_empty() && names.contains(&name) {
                item.problem("name", &format!("{name:?} is there twice"));
            }
            names.push(name.clone());
            let url = Opts::from_url(&item.required("url", "mysql://user:password@host:3306/database"));
            let url = url.unwrap_or_else(|error| {
                item.problem("url", &format!("must be mysql://user:password@host:3306/database: {error}"));
                Opts::default()
            });
            let table = item.required("table", "the table, or database.table");
            if table.split('.').count() > 2 || (!table.contains('.') && url.db_name().is_none()) {
                item.problem(
                    "table",
                    "must be database.table, or a table of the database that the url names",
                );
            }
            let (key, columns) = (item.required("key", "the unique column"), item.strings("columns"));
            Self { name, url, table, key, columns }
        })
    }
}

/// All tables, each as it stood in one moment.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    tables: Vec<Table>,
    /// JSON: name → version.
    versions: Vec<u8>,
}

/// One table in memory.
#[derive(Debug)]
struct Table {
    /// `"name":`
    member: Vec<u8>,
    /// Device → JSON object.
    rows: HashMap<Box<str>, Box<[u8]>>,
    hits: Counter,
    misses: Counter,
}

impl Dimensions {
    /// Loads all tables, as long as it takes; `None` when told to stop.
    ///
    /// # Errors
    /// When there is no runtime.
    pub(super) fn load(configs: &[DimensionConfig], stop: &Stop) -> Result<Option<Self>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut dimensions = Self::default();
        let mut versions = serde_json::Map::new();
        for config in configs {
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            let snapshot = loop {
                let loaded = runtime.block_on(async {
                    tokio::select! {
                        loaded = mysql::load(config) => Some(loaded),
                        () = stop.wait() => None,
                    }
                });
                match loaded {
                    None => return Ok(None),
                    Some(Ok(snapshot)) => break snapshot,
                    Some(Err(error)) => {
                        let wait = backoff.wait();
                        let name = &config.name;
                        tracing::warn!("dimension {name}: {error}; again in {} ms", wait.as_millis());
                        if stop.wait_for(wait) {
                            return Ok(None);
                        }
                    }
                }
            };
            tracing::info!(
                "dimension {}: {} rows, version {}",
                config.name,
                snapshot.rows.len(),
                snapshot.version
            );
            versions.insert(config.name.clone(), snapshot.version.into());
            dimensions.tables.push(Table::new(&config.name, snapshot));
        }
        dimensions.versions = serde_json::Value::Object(versions).to_string().into_bytes();
        Ok(Some(dimensions))
    }

    /// Number of tables.
    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    /// JSON object: name → version.
    pub(super) fn versions(&self) -> &[u8] {
        &self.versions
    }

    /// Writes the member `dims` for a device; true when every table has it. Counts hits and misses per table.
    pub(super) fn join(&self, device: &str, out: &mut Vec<u8>, looked_up: &mut [(u64, u64)]) -> bool {
        out.clear();
        out.push(b'{');
        let mut joined = true;
        for (table, (hits, misses)) in self.tables.iter().zip(looked_up) {
            if let Some(row) = table.rows.get(device) {
                *hits += 1;
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(&table.member);
                out.extend_from_slice(row);
            } else {
                *misses += 1;
                joined = false;
            }
        }
        out.push(b'}');
        joined
    }

    /// Shows the hits and misses of a committed cycle.
    pub(super) fn count(&self, looked_up: &[(u64, u64)]) {
        for (table, (hits, misses)) in self.tables.iter().zip(looked_up) {
            table.hits.increment(*hits);
            table.misses.increment(*misses);
        }
    }
}

impl Table {
    fn new(name: &str, snapshot: rows::Snapshot) -> Self {
        let label = || name.to_owned();
        gauge!("weir_cloud_dimension_rows", "dimension" => label()).set(snapshot.rows.len() as f64);
        gauge!("weir_cloud_dimension_version", "dimension" => label()).set(snapshot.version as f64);
        Self {
            member: format!("\"{name}\":").into_bytes(),
            rows: snapshot.rows,
            hits: counter!("weir_cloud_dimension_hits_total", "dimension" => label()),
            misses: counter!("weir_cloud_dimension_misses_total", "dimension" => label()),
        }
    }
}

#[cfg(test)]
impl Dimensions {
    /// Tables of one row each, for tests: name, device, JSON of the row.
    pub(super) fn of(tables: &[(&str, &str, &str)]) -> Self {
        let mut versions = serde_json::Map::new();
        let mut list = Vec::new();
        for (name, device, row) in tables {
            let rows = HashMap::from([(Box::from(*device), Box::from(row.as_bytes()))]);
            versions.insert((*name).to_owned(), 7.into());
            list.push(Table::new(name, rows::Snapshot { rows, version: 7 }));
        }
        Self { tables: list, versions: serde_json::Value::Object(versions).to_string().into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_only_when_every_table_has_the_device() {
        let dims = Dimensions::of(&[("a", "d", r#"{"x":1}"#), ("b", "d", "{}"), ("c", "e", "{}")]);
        let (mut out, mut looked_up) = (Vec::new(), vec![(0, 0); 3]);
        assert!(!dims.join("d", &mut out, &mut looked_up));
        assert_eq!(out, br#"{"a":{"x":1},"b":{}}"#);
        assert!(!dims.join("nobody", &mut out, &mut looked_up));
        assert_eq!(out, b"{}");
        assert_eq!(looked_up, [(1, 1), (1, 1), (0, 2)]);
        assert_eq!(dims.versions(), br#"{"a":7,"b":7,"c":7}"#);
        assert!(Dimensions::of(&[]).join("d", &mut out, &mut []));
    }
}
