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

use std::collections::HashMap;
use std::io::Write as _;
use std::ops::Range;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use weir_shared::clock::{self, Deadline};
use weir_shared::supervise::Error;

use super::batch::{Batch, Part};
use super::config::SinksConfig;
use super::own::{OwnTables, Target};
use super::{Failure, SinkName, clickhouse, elasticsearch, mysql};
use crate::dlq::Since;
use crate::kafka::KafkaConfig;
pub(super) use log::Logs;
use log::{Chunk, Log, Place};
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
    /// It goes only to other stores, or the table wants no such record.
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

    /// What became in a table of each record of the batch (which is of one partition) that stands before `end`.
    async fn look(
        &mut self,
        target: Target,
        batch: &Batch,
        end: i64,
        deep: bool,
    ) -> Result<Vec<(i64, Found)>, Failure>;
}

/// Verifies.
///
/// # Errors
/// A server that does not answer, a store that is not enabled.
pub(crate) fn run(config: &SinksConfig, kafka: &KafkaConfig, asked: &Asked) -> Result<Report, Error> {
    let now_ms = clock::wall_ms();
    let [from_ms, to_ms] = [asked.from, asked.to].map(|time| time.map(|time| time.at(now_ms)));
    if from_ms.zip(to_ms).is_some_and(|(from, to)| from >= to) {
        return Err("--from must be before --to".into());
    }
    let tables = config.own;
    let logs = Logs::open(kafka, config.own)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::new(asked.deep);
    for which in SinkName::ALL {
        let wanted = asked.stores.is_empty() || asked.stores.contains(&which);
        if !wanted || (asked.stores.is_empty() && !config.has(which)) {
            continue;
        }
        let disabled = || format!("sink.{} is not enabled in the configuration", which.name());
        let span = (from_ms, to_ms);
        let mut store = Store {
            which,
            logs: &logs,
            tables,
            span,
            deep: asked.deep,
            runtime: &runtime,
            report: &mut report,
        };
        let verified = match which {
            SinkName::Mysql => {
                let config = config.mysql.as_ref().ok_or_else(disabled)?;
                let witness = runtime.block_on(mysql::witness::Witness::open(config, tables));
                witness.map_err(Error::from).and_then(|witness| store.verify(witness))
            }
            SinkName::Elasticsearch => {
                let config = config.elasticsearch.as_ref().ok_or_else(disabled)?;
                store.verify(elasticsearch::witness::Witness::open(config)?)
            }
            SinkName::Clickhouse => {
                let config = config.clickhouse.as_ref().ok_or_else(disabled)?;
                store.verify(clickhouse::witness::Witness::open(config, tables)?)
            }
        };
        verified.map_err(|e| format!("{}: {e}", which.name()))?;
    }
    if report.is_empty() {
        return Err("no store is enabled in the configuration: there is nothing to compare".into());
    }
    report.close();
    Ok(report)
}

/// A record of which a table has no row.
struct Missed {
    target: Target,
    place: Place,
}

/// One store's turn.
struct Store<'a> {
    which: SinkName,
    logs: &'a Logs,
    tables: OwnTables,
    /// From and up to, ms since 1970.
    span: (Option<i64>, Option<i64>),
    deep: bool,
    runtime: &'a Runtime,
    report: &'a mut Report,
}

impl Store<'_> {
    fn verify(&mut self, mut witness: impl Witness) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut progress = Deadline::after(PROGRESS);
        let mut compared = 0_u64;
        let (from_ms, to_ms) = self.span;
        let ends = self.runtime.block_on(witness.ends(self.logs))?;
        for topic in self.tables.topics(self.which) {
            let (mut stored, mut left) = (Vec::new(), Vec::new());
            for part in self.logs.parts(topic)? {
                let Range { start, end } = self.logs.range(part, from_ms, to_ms)?;
                let reached = ends.iter().find(|(of, _)| *of == part).map_or(start, |(_, end)| *end);
                stored.push((part, start..end.min(reached)));
                left.push((part, reached.max(start)..end));
            }
            let behind = self.logs.with_records(topic, left.clone())?;
            let behind = left.iter().filter(|(part, _)| behind.contains(part));
            self.report.behind(self.which, behind.map(|(_, range)| range.end - range.start).sum());
            let mut log = Log::read(self.logs, topic, stored)?;
            while let Some(Chunk { part, batch, end }) = log.chunk(CHUNK_RECORDS)? {
                for target in self.tables.targets(topic, self.which) {
                    let looked = witness.look(target, &batch, end, self.deep);
                    let found = self.runtime.block_on(looked)?;
                    compared += found.len() as u64;
                    let own = target.own().map(|own| own.name.as_str());
                    for (offset, found) in found {
                        match found {
                            Found::Missing => {
                                missing.push(Missed { target, place: Place::of(&batch, part, offset) });
                            }
                            found => self.report.add(self.which, own, part, offset, found),
                        }
                    }
                }
                if progress.passed() {
                    progress = Deadline::after(PROGRESS);
                    let name = self.which.name();
                    writeln!(std::io::stderr(), "{name}: {compared} records compared, now {part}")?;
                }
            }
        }
        self.settle(missing)
    }

    /// What is not in the store may be a dead letter: one was written before the store's progress passed it.
    fn settle(&mut self, missing: Vec<Missed>) -> Result<(), Error> {
        let letters =
            if missing.is_empty() { HashMap::new() } else { self.logs.letters_of(self.which.stage())? };
        for Missed { target, place } in missing {
            let tables = letters.get(&place.letter);
            let is_letter = tables.is_some_and(|tables| tables.contains(target.name()));
            let found = if is_letter { Found::Refused } else { Found::Missing };
            let own = target.own().map(|own| own.name.as_str());
            self.report.add(self.which, own, place.part, place.offset, found);
        }
        Ok(())
    }
}
