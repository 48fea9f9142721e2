//! `weir-cloud verify`: whether each store holds what the log says, once and unchanged.
//!
//! Comes in: a span of time. Goes out: for each store and topic how many records the log has in it and what became of each,
//! with the offsets of those that are lost, doubled or altered.
//! Guarantees: asks only, and may run while everything works: a store is asked about what its own progress says that it
//! has. A record counts as there when its row is, by what the record is; `deep` also compares every column. What a store
//! refused is looked up among the dead letters, and what a rule sent elsewhere is not expected.
//! On failure: a server that does not answer ends it; what was compared until then says nothing of the rest. Rows that
//! belong to no record of the log are found in ClickHouse only where they double one.

mod log;
mod report;

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use weir_shared::clock::{self, Deadline};
use weir_shared::supervise::Error;

use super::batch::{Batch, Part};
use super::config::SinksConfig;
use super::{Failure, SinkName, clickhouse, elasticsearch, mysql};
use crate::dlq::Since;
use crate::kafka::KafkaConfig;
use log::Log;
pub(super) use log::Logs;
pub(crate) use report::Report;

/// Records that are compared at a time.
const CHUNK_RECORDS: usize = 20_000;
/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What is to be verified.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asked {
    /// From records that came to Kafka then: 90s, 15m, 2h, 7d ago, or a time like 2026-11-21T06:00:00Z [default: all that
    /// Kafka still has]
    #[arg(long, value_name = "TIME")]
    from: Option<Since>,
    /// Up to records that came to Kafka then [default: all that the store has]
    #[arg(long, value_name = "TIME")]
    to: Option<Since>,
    /// Also compare the content of every column
    #[arg(long)]
    deep: bool,
    /// Only this store (mysql, elasticsearch, clickhouse); may be repeated [default: all that are enabled]
    #[arg(long = "store", value_name = "STORE", value_parser = SinkName::parse)]
    stores: Vec<SinkName>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Asked {
    /// What was found, as it is wanted.
    pub(crate) fn shown(&self, report: &Report) -> String {
        if self.json { format!("{}\n", report.json()) } else { report.text() }
    }
}

/// What a store says of one record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is there.
    Stored,
    /// It is there; other records may be the same thing with other content, of which one stands.
    Kept { key: u128 },
    /// It goes only to other stores.
    Elsewhere,
    /// No row can be made of it: it is a dead letter.
    Refused,
    /// A higher revision stands in its place.
    Replaced,
    /// It is not there.
    Missing,
    /// There are so many rows of what it is; `key` says what that is.
    Times { key: u128, rows: u64 },
    /// It is there, with other content than this record's.
    Altered { key: u128 },
}

/// A store, asked and not written to.
pub(super) trait Witness {
    /// Up to where each partition is stored; partitions without progress are left out.
    async fn ends(&mut self, logs: &Logs) -> Result<Vec<(Part, i64)>, Failure>;

    /// What became of each record of the batch (which is of one partition) that stands before `end`.
    async fn look(&mut self, batch: &Batch, end: i64, deep: bool) -> Result<Vec<(i64, Found)>, Failure>;
}

/// Verifies.
///
/// # Errors
/// A server that does not answer, a store that is not enabled.
pub(crate) fn run(config: &SinksConfig, kafka: &KafkaConfig, asked: &Asked) -> Result<Report, Error> {
    if let (Some(from), Some(to)) = (asked.from, asked.to)
        && from.at(0) >= to.at(0)
        && matches!((from, to), (Since::Ago(_), Since::Ago(_)) | (Since::At(_), Since::At(_)))
    {
        return Err("--from must be before --to".into());
    }
    let logs = Logs::open(kafka)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new(asked.deep);
    for which in SinkName::ALL {
        let wanted = asked.stores.is_empty() || asked.stores.contains(&which);
        if !wanted || (asked.stores.is_empty() && !config.has(which)) {
            continue;
        }
        let disabled = || format!("sink.{} is not enabled in the configuration", which.name());
        let mut store = Store { which, logs: &logs, asked, runtime: &runtime, report: &mut report };
        match which {
            SinkName::Mysql => {
                let config = config.mysql.as_ref().ok_or_else(disabled)?;
                let witness = runtime.block_on(mysql::witness::Witness::open(config))?;
                store.verify(witness).map_err(|e| format!("{}: {e}", which.name()))?;
            }
            SinkName::Elasticsearch => {
                let config = config.elasticsearch.as_ref().ok_or_else(disabled)?;
                store
                    .verify(elasticsearch::witness::Witness::open(config)?)
                    .map_err(|e| format!("{}: {e}", which.name()))?;
            }
            SinkName::Clickhouse => {
                let config = config.clickhouse.as_ref().ok_or_else(disabled)?;
                store
                    .verify(clickhouse::witness::Witness::open(config)?)
                    .map_err(|e| format!("{}: {e}", which.name()))?;
            }
        }
    }
    if report.is_empty() {
        return Err("no store is enabled in the configuration: there is nothing to compare".into());
    }
    report.close();
    Ok(report)
}

/// One store's turn.
struct Store<'a> {
    which: SinkName,
    logs: &'a Logs,
    asked: &'a Asked,
    runtime: &'a Runtime,
    report: &'a mut Report,
}

impl Store<'_> {
    fn verify(&mut self, mut witness: impl Witness) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut progress = Deadline::after(PROGRESS);
        let mut compared = 0_u64;
        let now_ms = clock::wall_ms();
        let at = |time: Option<Since>| time.map(|time| time.at(now_ms));
        let ends = self.runtime.block_on(witness.ends(self.logs))?;
        for part in self.logs.all_parts()? {
            let range = self.logs.range(part, at(self.asked.from), at(self.asked.to))?;
            let stored = ends.iter().find(|(of, _)| *of == part).map_or(range.start, |(_, end)| *end);
            self.report.behind(self.which, (range.end - stored.max(range.start)).max(0));
            let mut log = Log::read(self.logs, part, range.start, range.end.min(stored))?;
            let mut batch = Batch::default();
            while log.chunk(&mut batch, CHUNK_RECORDS)? {
                let found = self.runtime.block_on(witness.look(&batch, log.end(), self.asked.deep))?;
                compared += found.len() as u64;
                for (offset, found) in found {
                    match found {
                        Found::Missing => missing.push(log::Place::of(&batch, part, offset)),
                        found => self.report.add(self.which, part, offset, found),
                    }
                }
                if progress.passed() {
                    progress = Deadline::after(PROGRESS);
                    writeln!(
                        std::io::stderr(),
                        "{}: {compared} records compared, now {part}",
                        self.which.name()
                    )?;
                }
            }
        }
        self.settle(missing)
    }

    /// What is not in the store may be a dead letter: one was written before the store's progress passed it.
    fn settle(&mut self, missing: Vec<log::Place>) -> Result<(), Error> {
        let letters =
            if missing.is_empty() { HashSet::new() } else { self.logs.letters_of(self.which.stage())? };
        for place in missing {
            let found = if letters.contains(&place.letter) { Found::Refused } else { Found::Missing };
            self.report.add(self.which, place.part, place.offset, found);
        }
        Ok(())
    }
}
