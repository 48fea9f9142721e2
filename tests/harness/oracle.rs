//! The oracle: what was published and acknowledged, compared with what every store holds.
//!
//! Comes in: a run ([`Issued`]) and the servers' addresses. Goes out: a [`Verdict`] with one [`Judgement`] for each of
//! `weir.enriched`, MySQL, Elasticsearch and ClickHouse.
//! Guarantees: rows are read one by one and compared by content, never only counted; nothing is believed that the
//! product says of itself. A store that cannot be read is not right.
//! On failure: an error that names the store.

mod clickhouse;
mod document;
mod elasticsearch;
pub(crate) mod kafka;
mod mysql;
mod report;
mod statements;
pub mod tally;

use std::time::Duration;

use anyhow::Context;
use mysql_async::Pool;
use tokio::runtime::Runtime;
use weir_shared::clock::Deadline;

use crate::addresses::Addresses;
use crate::simulator::broken;
use crate::simulator::ledger::{Issued, Offsets};

pub use tally::{Judgement, Letters};

/// How long after the last change a run may be incomplete.
const STALLED: Duration = Duration::from_secs(60);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Rows must stand still this long before they are judged, so that a late double is seen.
const SETTLED: Duration = Duration::from_secs(1);

/// A place that holds readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// The topics `weir.enriched` and `weir.rejected`.
    Kafka,
    /// MySQL.
    Mysql,
    /// Elasticsearch.
    Elasticsearch,
    /// ClickHouse.
    Clickhouse,
}

impl Store {
    /// All of them, in the order of the flow.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Mysql, Self::Elasticsearch, Self::Clickhouse];

    /// How it is called in tables and figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Mysql => "mysql",
            Self::Elasticsearch => "elasticsearch",
            Self::Clickhouse => "clickhouse",
        }
    }
}

/// Rows of a run in one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Readings.
    pub readings: u64,
    /// Dead letters of its broken messages.
    pub letters: u64,
}

/// Readings in each of the three stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// In MySQL.
    pub mysql: u64,
    /// In Elasticsearch, as far as refreshed.
    pub elasticsearch: u64,
    /// In ClickHouse.
    pub clickhouse: u64,
}

impl Rows {
    /// In this store; 0 for Kafka, which has no rows.
    #[must_use]
    pub fn of(&self, store: Store) -> u64 {
        match store {
            Store::Kafka => 0,
            Store::Mysql => self.mysql,
            Store::Elasticsearch => self.elasticsearch,
            Store::Clickhouse => self.clickhouse,
        }
    }
}

/// What the oracle says about a run.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// By store, in the order of [`Store::ALL`].
    pub judgements: Vec<(Store, Judgement)>,
}

impl Verdict {
    /// Whether every store is right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.judgements.len() == Store::ALL.len() && self.judgements.iter().all(|(_, j)| j.is_right())
    }

    /// The judgement about one store.
    ///
    /// # Panics
    /// When there is none, which no verdict of [`Oracle::judge`] lacks.
    #[must_use]
    pub fn of(&self, store: Store) -> &Judgement {
        let found = self.judgements.iter().find(|(s, _)| *s == store);
        &found.expect("a verdict speaks about every store").1
    }

    fn is_complete(&self) -> bool {
        self.judgements.iter().all(|(_, j)| j.is_complete())
    }
}

/// Reads the stores.
pub struct Oracle {
    runtime: Runtime,
    addresses: Addresses,
    http: reqwest::Client,
    mysql: Pool,
}

impl Oracle {
    /// For the servers at these addresses; opens nothing yet.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(addresses: &Addresses) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Servers close what is idle for longer; nobody would notice between two questions.
        let idle = Duration::from_secs(2);
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(60)).pool_idle_timeout(idle).build()?;
        let mysql = Pool::from_url(&addresses.mysql_url).context("URL of MySQL")?;
        Ok(Self { runtime, addresses: addresses.clone(), http, mysql })
    }

    /// Where Kafka's topics end now: what comes later is the run's.
    ///
    /// # Errors
    /// When Kafka does not answer or lacks the topics.
    pub fn offsets(&self) -> anyhow::Result<Offsets> {
        kafka::offsets(&self.addresses.kafka)
    }

    /// Readings in the stores, of all runs.
    ///
    /// # Errors
    /// When a store does not answer.
    pub fn rows(&self) -> anyhow::Result<Rows> {
        self.runtime.block_on(async {
            Ok(Rows {
                mysql: mysql::total(&self.mysql).await?,
                elasticsearch: elasticsearch::total(&self.http, &self.addresses.elasticsearch_url).await?,
                clickhouse: clickhouse::total(&self.http, &self.addresses.clickhouse_url).await?,
            })
        })
    }

    /// Readings in one of the three stores, of all runs; Elasticsearch is refreshed first.
    ///
    /// # Errors
    /// When the store does not answer, or is Kafka.
    pub fn rows_of(&self, store: Store) -> anyhow::Result<u64> {
        let (http, a) = (&self.http, &self.addresses);
        self.runtime.block_on(async {
            match store {
                Store::Kafka => anyhow::bail!("Kafka has no rows"),
                Store::Mysql => mysql::total(&self.mysql).await,
                Store::Elasticsearch => {
                    elasticsearch::refresh(http, &a.elasticsearch_url).await?;
                    elasticsearch::total(http, &a.elasticsearch_url).await
                }
                Store::Clickhouse => clickhouse::total(http, &a.clickhouse_url).await,
            }
        })
    }

    /// How many rows or documents a store has taken so far, for watching them come: unlike [`Oracle::rows_of`] this costs the
    /// store nothing that counts, and only differences mean anything. MySQL's are of any table.
    ///
    /// # Errors
    /// When the store does not answer, or is Kafka.
    pub fn written(&self, store: Store) -> anyhow::Result<u64> {
        match store {
            Store::Mysql => self.runtime.block_on(mysql::written(&self.mysql)),
            Store::Elasticsearch => self.indexed(elasticsearch::READINGS),
            _ => self.rows_of(store),
        }
    }

    /// [`Oracle::written`] of the three stores.
    ///
    /// # Errors
    /// When a store does not answer.
    pub fn all_written(&self) -> anyhow::Result<Rows> {
        let [mysql, elasticsearch, clickhouse] =
            [Store::Mysql, Store::Elasticsearch, Store::Clickhouse].map(|store| self.written(store));
        Ok(Rows { mysql: mysql?, elasticsearch: elasticsearch?, clickhouse: clickhouse? })
    }

    /// How many documents Elasticsearch has put into some indices since it started; none where there is no index.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn indexed(&self, indices: &str) -> anyhow::Result<u64> {
        self.runtime.block_on(elasticsearch::indexed(&self.http, &self.addresses.elasticsearch_url, indices))
    }

    /// Rows of the run in the three stores, in the order of [`Store::ALL`].
    ///
    /// # Errors
    /// When a store does not answer.
    pub fn found(&self, issued: &Issued) -> anyhow::Result<[Found; 3]> {
        let (http, a) = (&self.http, &self.addresses);
        self.runtime.block_on(async {
            Ok([
                mysql::count(&self.mysql, issued).await?,
                elasticsearch::count(http, &a.elasticsearch_url, issued).await?,
                clickhouse::count(http, &a.clickhouse_url, issued).await?,
            ])
        })
    }

    /// Reads everything and compares.
    ///
    /// # Errors
    /// When a store cannot be read.
    pub fn judge(&self, issued: &Issued) -> anyhow::Result<Verdict> {
        let judgements = Store::ALL.into_iter().map(|store| Ok((store, self.judge_store(store, issued)?)));
        Ok(Verdict { judgements: judgements.collect::<anyhow::Result<_>>()? })
    }

    fn judge_store(&self, store: Store, issued: &Issued) -> anyhow::Result<Judgement> {
        let mut tally = tally::Tally::new(issued);
        let (http, a) = (&self.http, &self.addresses);
        let t = &mut tally;
        match store {
            Store::Kafka => kafka::read(&a.kafka, issued, t),
            Store::Mysql => self.runtime.block_on(mysql::read(&self.mysql, issued, t)),
            Store::Elasticsearch => {
                self.runtime.block_on(elasticsearch::read(http, &a.elasticsearch_url, issued, t))
            }
            Store::Clickhouse => self.runtime.block_on(clickhouse::read(http, &a.clickhouse_url, issued, t)),
        }?;
        Ok(tally.judge())
    }

    /// Waits until every store has everything that was acknowledged and stands still, then judges; gives up, and
    /// judges what is there, a minute after the last change.
    ///
    /// # Errors
    /// When a store cannot be read at the end.
    pub fn wait_and_judge(
        &self,
        issued: &Issued,
        mut progress: impl FnMut(&[Found; 3]),
    ) -> anyhow::Result<Verdict> {
        let wanted = Found {
            readings: issued.readings.iter().filter(|r| r.acked).count() as u64,
            letters: issued.broken.iter().filter(|b| b.acked).count() as u64,
        };
        let (mut last, mut stalled, mut settled) = (None, Deadline::after(STALLED), Deadline::after(SETTLED));
        loop {
            // A store that does not answer now has the same minute as one that lacks rows.
            let found = self.found(issued).ok();
            if let Some(found) = &found {
                progress(found);
            }
            if found != last {
                (last, stalled, settled) = (found, Deadline::after(STALLED), Deadline::after(SETTLED));
            }
            let has_all = |f: &Found| f.readings >= wanted.readings && f.letters >= wanted.letters;
            if stalled.passed() {
                return self.judge(issued);
            }
            if settled.passed() && last.is_some_and(|found| found.iter().all(has_all)) {
                let verdict = self.judge(issued)?;
                if verdict.is_complete() {
                    return Ok(verdict);
                }
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// What the topics of this run's dead letters start with, and what follows.
fn letter_topics(issued: &Issued, after: &str) -> String {
    format!("{}{after}", broken::topic_prefix(&issued.run))
}
