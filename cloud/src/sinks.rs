//! The last hop: each store gets what stands in the output topics ([`batch::Topic`]), once.
//!
//! The flow, in the order of the modules: [`config`] is read; a [`consumer`] collects a [`batch`]; [`row`] turns its
//! readings into typed columns, [`table`] all else by a description of its columns, [`own`] what the configuration describes; a store ([`mysql`], [`elasticsearch`], [`clickhouse`]) keeps them together with
//! the progress; [`verify`] compares the stores with the log; what no store can hold goes to `weir.rejected` through [`dead_letters`]. [`drive`] is the loop
//! around it, the same for all, and [`measures`] shows it.
//!
//! Guarantees: each sink is a consumer group of its own, on a thread of its own: none waits for another. Its input is
//! an immutable log, so whatever goes wrong, the answer is the same: drop the work, ask the store how far it is, read
//! on from there.
//! On failure: a store or broker that is away is asked again with growing waits, for ever; `/ready` says why.

pub(crate) mod config;

mod batch;
mod calendar;
mod clickhouse;
mod consumer;
mod dead_letters;
mod drive;
mod elasticsearch;
mod measures;
mod mysql;
mod own;
mod reread;
mod row;
mod table;
pub(crate) mod verify;

use std::future::Future;
use std::time::Duration;

use weir_shared::admin::Health;
use weir_shared::pulse::Pulse;
use weir_shared::supervise::{Error, Stop};

use crate::actions::Pauses;
use crate::kafka::KafkaConfig;
use config::SinksConfig;
use dead_letters::DeadLetters;
use reread::Reread;

/// Longest that making the tables of one store may take before it counts as away.
const INIT_SECONDS_MAX: u64 = 30;

/// The stores, by the names used in groups, metrics, threads and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkName {
    /// MySQL or MariaDB.
    Mysql,
    /// Elasticsearch or OpenSearch.
    Elasticsearch,
    /// ClickHouse.
    Clickhouse,
}

impl SinkName {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Mysql, Self::Elasticsearch, Self::Clickhouse];

    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Elasticsearch => "elasticsearch",
            Self::Clickhouse => "clickhouse",
        }
    }

    /// The store of a name; else which there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|sink| sink.name() == text);
        named.ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// Its consumer group, which `init` gives its first offsets.
    pub(crate) const fn group(self) -> &'static str {
        match self {
            Self::Mysql => "weir-sink-mysql",
            Self::Elasticsearch => "weir-sink-elasticsearch",
            Self::Clickhouse => "weir-sink-clickhouse",
        }
    }

    /// What its dead letters say in `stage`; also who it is in `/ready`.
    pub(crate) const fn stage(self) -> &'static str {
        match self {
            Self::Mysql => "sink.mysql",
            Self::Elasticsearch => "sink.elasticsearch",
            Self::Clickhouse => "sink.clickhouse",
        }
    }
}

/// The topics that every store gets.
pub(crate) fn topics() -> [&'static str; batch::Topic::ALL.len()] {
    batch::Topic::ALL.map(batch::Topic::name)
}

/// Why a batch was given up. Nothing of it counts as stored; the log still has it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The store is away or takes nothing now: wait, ask it how far it is, go on.
    #[error("{0}")]
    Store(String),
    /// The store did not answer in time: the same, with smaller batches.
    #[error("{0}")]
    Late(String),
    /// The place in the consumer group is lost or unclear: join again.
    #[error("kafka: {0}")]
    Kafka(String),
    /// Another process has the same slot and took our place: leave it alone for a while.
    #[error("fenced: another process runs with the same `slot`; each needs a name of its own")]
    Fenced,
}

/// Why a store cannot be made ready; waiting does not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

/// Makes the tables, indices and templates of the enabled stores; with `dry_run` only prints them.
///
/// # Errors
/// The first store that is away or refuses; calling again is safe, and in vain where it is [`Refused`].
pub(crate) fn init(config: &SinksConfig, dry_run: bool) -> Result<(), Error> {
    let own = config.own;
    if let Some(config) = &config.mysql {
        within(SinkName::Mysql, mysql::tables::init(config, own, dry_run))?;
    }
    if let Some(config) = &config.elasticsearch {
        within(SinkName::Elasticsearch, elasticsearch::templates::init(config, own, dry_run))?;
    }
    if let Some(config) = &config.clickhouse {
        within(SinkName::Clickhouse, clickhouse::tables::init(config, own, dry_run))?;
    }
    Ok(())
}

/// Does it within [`INIT_SECONDS_MAX`]; an error says of which store it is.
fn within(which: SinkName, work: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let limited = async { tokio::time::timeout(Duration::from_secs(INIT_SECONDS_MAX), work).await };
    let done = match runtime.block_on(limited) {
        Ok(done) => done,
        Err(_) => Err(format!("no answer within {INIT_SECONDS_MAX} s").into()),
    };
    done.map_err(|error| match error.downcast::<Refused>() {
        Ok(refused) => Refused(format!("{}: {refused}", which.name())).into(),
        Err(away) => format!("{}: {away}", which.name()).into(),
    })
}

/// What a store says of itself.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Its address.
    pub(crate) at: String,
    /// Its version.
    pub(crate) version: String,
    /// Whether tables or templates are there and fit; else which is not, with the way out.
    pub(crate) tables: Result<(), String>,
    /// Database, and what `SHOW GRANTS` gives.
    pub(crate) grants: Option<(String, Vec<String>)>,
}

/// Asks a store what its sink asks at start; changes nothing.
///
/// # Errors
/// It is not enabled, or does not answer.
pub(crate) async fn probe(config: &SinksConfig, which: SinkName) -> Result<Probe, String> {
    let disabled = || format!("sink.{} is not enabled in the configuration", which.name());
    let own = config.own;
    let asked = match which {
        SinkName::Mysql => mysql::tables::probe(config.mysql.as_ref().ok_or_else(disabled)?, own).await,
        SinkName::Elasticsearch => {
            elasticsearch::templates::probe(config.elasticsearch.as_ref().ok_or_else(disabled)?, own).await
        }
        SinkName::Clickhouse => {
            clickhouse::tables::probe(config.clickhouse.as_ref().ok_or_else(disabled)?, own).await
        }
    };
    asked.map_err(|e| e.to_string())
}

/// Runs one sink until told to stop. Blocks: call it on a thread of its own.
///
/// # Errors
/// When the sink is not enabled in `config`, or the client libraries refuse their configuration.
pub(crate) fn run(
    which: SinkName,
    kafka: &KafkaConfig,
    slot: &str,
    config: &SinksConfig,
    (health, pulse, pauses): (&Health, &Pulse, &Pauses),
    stop: &Stop,
) -> Result<(), Error> {
    let disabled = || format!("sink.{} is not enabled in the configuration", which.name());
    let dead_letters = DeadLetters::new(kafka, which, slot);
    let tables = config.own;
    let place = drive::Place { which, kafka, slot, tables, health, pulse, pauses, stop };
    match which {
        SinkName::Mysql => {
            let config = config.mysql.as_ref().ok_or_else(disabled)?;
            drive::run(&place, config.limits, mysql::Mysql::new(config, dead_letters, tables))
        }
        SinkName::Elasticsearch => {
            let config = config.elasticsearch.as_ref().ok_or_else(disabled)?;
            let store = elasticsearch::Elasticsearch::new(config, dead_letters, tables)?;
            drive::run(&place, config.limits, store)
        }
        SinkName::Clickhouse => {
            let config = config.clickhouse.as_ref().ok_or_else(disabled)?;
            let reread = Reread::new(kafka, which, slot);
            let store = clickhouse::Clickhouse::new(config, dead_letters, reread, tables)?;
            drive::run(&place, config.limits, store)
        }
    }
}

/// Whether the stores take a record of `weir.alerts`: for the tests of what writes it.
#[cfg(test)]
pub(crate) fn takes_alert(json: &[u8]) -> Result<(), String> {
    let alerts = table::table(batch::Topic::Alerts).expect("it has one");
    table::Row::decode(alerts, json, SinkName::Mysql).map(|_| ()).map_err(|e| e.to_string())
}
