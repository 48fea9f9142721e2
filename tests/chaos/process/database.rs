//! The dimension table and the rules in MariaDB, and what the suite knows of their versions.
//!
//! Guarantees: after each change of the table the history says from which version on which rows stand; after
//! [`Database::read_rules`] it knows every rule set that a processor may have used.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::runtime::Runtime;
use weir_cloud::reference::{Rules, Version};
use weir_harness::faults::fleet::{self, device};
use weir_harness::judge::processed::{History, Rows};

/// A table version is the binlog's file, this many times, and the position in it.
const FILE: i64 = 10_000_000_000;
/// One device in so many has no row.
const MISSING: u64 = 11;

/// Columns that the table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// site, line, generation
    All,
    /// Without line.
    WithoutLine,
    /// Without line, and site is called place.
    Renamed,
}

/// Rows of generation `generation`, for so many devices.
pub(super) fn rows(devices: u64, generation: u64, columns: Columns) -> Rows {
    let row = |n: u64| {
        let name = if columns == Columns::Renamed { "place" } else { "site" };
        let line = if columns == Columns::All { format!(",\"line\":{}", n % 40) } else { String::new() };
        (device(n), format!("{{\"{name}\":\"site {}\"{line},\"generation\":{generation}}}", n % 9))
    };
    Arc::new((0..devices).filter(|n| n % MISSING != 0).map(row).collect::<BTreeMap<_, _>>())
}

/// Asks and changes it.
pub(crate) struct Database {
    runtime: Runtime,
    url: String,
}

impl Database {
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, url: url.to_owned() })
    }

    /// Runs these statements, one after the other, on one connection.
    pub(crate) fn run(&self, statements: &[String]) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut conn = Conn::from_url(&self.url).await?;
            for statement in statements {
                let short: String = statement.chars().take(80).collect();
                conn.query_drop(statement).await.with_context(|| short)?;
            }
            conn.disconnect().await.context("MariaDB")
        })
    }

    /// What a statement that counts gives.
    pub(crate) fn count(&self, statement: &str) -> anyhow::Result<u64> {
        self.runtime.block_on(async {
            let mut conn = Conn::from_url(&self.url).await?;
            let count: Option<u64> = conn.query_first(statement).await?;
            conn.disconnect().await?;
            count.context("no count")
        })
    }

    /// What a statement that asks for one text gives.
    pub(crate) fn text(&self, statement: &str) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let mut conn = Conn::from_url(&self.url).await?;
            let text: Option<String> = conn.query_first(statement).await?;
            conn.disconnect().await?;
            text.context("no text")
        })
    }

    /// Where the binlog stands, as a version.
    pub(super) fn version(&self) -> anyhow::Result<i64> {
        self.runtime.block_on(async {
            let mut conn = Conn::from_url(&self.url).await?;
            let row: Row = conn.query_first("SHOW MASTER STATUS").await?.context("there is no binlog")?;
            let file: String = row.get(0).context("no file")?;
            let position: i64 = row.get(1).context("no position")?;
            conn.disconnect().await?;
            let index: i64 = file.rsplit('.').next().context("no index")?.parse()?;
            Ok(index * FILE + position)
        })
    }

    /// Makes the table, generation 0; whatever version an output may name, these are its rows.
    pub(super) fn fill(&self, devices: u64, history: &mut History) -> anyhow::Result<()> {
        let values: Vec<String> = (0..devices)
            .filter(|n| n % MISSING != 0)
            .map(|n| format!("('{}','site {}',{},0)", device(n), n % 9, n % 40))
            .collect();
        self.run(&[
            "DROP TABLE IF EXISTS weir_devices".to_owned(),
            "CREATE TABLE weir_devices (device VARCHAR(32) PRIMARY KEY, site VARCHAR(32), line INT, \
             generation BIGINT)"
                .to_owned(),
            format!("INSERT INTO weir_devices VALUES {}", values.join(",")),
        ])?;
        history.put(0, rows(devices, 0, Columns::All));
        Ok(())
    }

    /// One transaction that rewrites every row, in several statements.
    pub(super) fn rewrite(
        &self,
        devices: u64,
        (generation, columns): (u64, Columns),
        history: &mut History,
    ) -> anyhow::Result<()> {
        let half = device(devices / 2);
        self.run(&[
            "START TRANSACTION".to_owned(),
            format!("UPDATE weir_devices SET generation = {generation} WHERE device < '{half}'"),
            "SELECT SLEEP(0.02)".to_owned(),
            format!("UPDATE weir_devices SET generation = {generation} WHERE device >= '{half}'"),
            "COMMIT".to_owned(),
        ])?;
        history.put(self.version()?, rows(devices, generation, columns));
        Ok(())
    }

    /// New versions of the rules, as an analyst makes them: those that say something else, all in one transaction.
    pub(crate) fn put_rules(&self, generation: u64) -> anyhow::Result<()> {
        let before = if generation > 1 { fleet::rules(generation - 1).to_vec() } else { Vec::new() };
        let mut statements = vec!["START TRANSACTION".to_owned()];
        for (id, kind, spec) in fleet::rules(generation) {
            if before.iter().any(|old| old.0 == id && old.2 == spec) {
                continue;
            }
            let spec = spec.replace('\'', "''");
            statements.push(format!(
                "INSERT INTO weir_rules (id, version, kind, spec) VALUES ('{id}', {generation}, '{kind}', '{spec}')"
            ));
            statements.push(format!(
                "INSERT INTO weir_rules_active (id, version) VALUES ('{id}', {generation}) \
                 ON DUPLICATE KEY UPDATE version = {generation}"
            ));
        }
        statements.push("COMMIT".to_owned());
        self.run(&statements)
    }

    /// Reads the rule sets that were made since the last time.
    pub(super) fn read_rules(&self, history: &mut History) -> anyhow::Result<()> {
        let known = history.newest_rules();
        let (versions, sets) = self.runtime.block_on(async {
            let mut conn = Conn::from_url(&self.url).await?;
            let ask = "SELECT id, version, kind, spec, priority FROM weir_rules";
            let versions = conn.query_map(ask, |(id, version, kind, spec, priority)| {
                ((id, version), (kind, spec, priority))
            });
            let versions: HashMap<(String, u32), (String, String, i32)> =
                versions.await?.into_iter().collect();
            let ask = format!("SELECT number, rules FROM weir_rules_sets WHERE number > {known}");
            let sets: Vec<(u64, String)> = conn.query(ask).await?;
            conn.disconnect().await?;
            anyhow::Ok((versions, sets))
        })?;
        for (number, rules) in sets {
            let mut set = Vec::new();
            for (id, version) in serde_json::from_str::<Vec<(String, u32)>>(&rules)? {
                let row = versions
                    .get(&(id.clone(), version))
                    .with_context(|| format!("{id} {version} is gone"))?;
                let (kind, spec, priority) = row.clone();
                set.push(Version { id, version, kind, spec, priority });
            }
            history.put_rules(number, Rules::of(number, &set).map_err(|why| anyhow!(why))?);
        }
        Ok(())
    }

    /// Whether the newest rule set is what is wanted now.
    pub(super) fn rules_in_force(&self) -> anyhow::Result<bool> {
        self.runtime.block_on(async {
            let mut conn = Conn::from_url(&self.url).await?;
            let ask = "SELECT id, version FROM weir_rules_active WHERE version IS NOT NULL ORDER BY id";
            let wanted: Vec<(String, u32)> = conn.query(ask).await?;
            let newest = "SELECT rules FROM weir_rules_sets ORDER BY number DESC LIMIT 1";
            let newest: Option<String> = conn.query_first(newest).await?;
            conn.disconnect().await?;
            Ok(serde_json::from_str::<Vec<(String, u32)>>(&newest.unwrap_or_default())
                .is_ok_and(|set| set == wanted))
        })
    }

    /// Deletes all files of the binlog but the newest.
    pub(super) fn purge(&self) -> anyhow::Result<()> {
        let index = self.version()? / FILE;
        self.run(&[format!("PURGE BINARY LOGS TO 'bin.{index:06}'")])
    }
}
