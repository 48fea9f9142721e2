//! The sections `[sink.…]` of the configuration.
//!
//! Comes in: the root section. Goes out: what each enabled sink needs; a disabled one is `None`.
//! On failure: problems with their places, all at once; opens nothing.

use std::time::Duration;

use weir_shared::config::Section;
use weir_shared::tls::Tls;

use super::SinkName;
use super::batch::{Batch, Topic};
use super::own::OwnTables;
use crate::database::{self, Server};

/// No batch is made smaller than this.
const ROWS_LEAST: usize = 100;
/// See [`ROWS_LEAST`].
const BYTES_LEAST: usize = 16 << 10;

/// All sinks.
#[derive(Clone, Debug)]
pub(crate) struct SinksConfig {
    /// `[sink.mysql]`
    pub(crate) mysql: Option<MysqlConfig>,
    /// `[sink.elasticsearch]`
    pub(crate) elasticsearch: Option<ElasticsearchConfig>,
    /// `[sink.clickhouse]`
    pub(crate) clickhouse: Option<ClickhouseConfig>,
    /// `[[sink.table]]`
    pub(super) own: OwnTables,
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most records.
    pub(crate) rows_max: usize,
    /// Most bytes of Kafka values, but for one record that is larger.
    pub(crate) bytes_max: usize,
    /// Longest wait after its first record.
    pub(crate) wait: Duration,
}

impl Limits {
    /// Half of what a batch had that was too large.
    pub(super) fn smaller(&self, batch: &Batch) -> Self {
        let half = |had: usize, least: usize| (had / 2).max(least);
        Self {
            rows_max: half(batch.records().len(), ROWS_LEAST).min(self.rows_max),
            bytes_max: half(batch.bytes(), BYTES_LEAST).min(self.bytes_max),
            wait: self.wait,
        }
    }

    /// Twice as much, up to what is configured.
    pub(super) fn larger(&self, configured: &Self) -> Self {
        Self {
            rows_max: self.rows_max.saturating_mul(2).min(configured.rows_max),
            bytes_max: self.bytes_max.saturating_mul(2).min(configured.bytes_max),
            wait: self.wait,
        }
    }
}

/// `[sink.mysql]`
#[derive(Clone, Debug)]
pub(crate) struct MysqlConfig {
    pub(super) server: Server,
    pub(super) limits: Limits,
}

/// `[sink.elasticsearch]`
#[derive(Clone, Debug)]
pub(crate) struct ElasticsearchConfig {
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) tls: Tls,
    pub(super) prefix: String,
    pub(super) replicas: u64,
    /// Days after which documents may be deleted; 0: never.
    pub(super) retention_days: u64,
    pub(super) accepted_past_ms: i64,
    pub(super) accepted_future_ms: i64,
    /// Whether the bodies of bulk requests are gzip.
    pub(super) compression: bool,
    /// Most bytes of the body of a bulk request before compression, but for one document that is larger.
    pub(super) bulk_bytes_max: usize,
    /// Most bulk requests at a time.
    pub(super) concurrency_max: usize,
    pub(super) limits: Limits,
}

/// `[sink.clickhouse]`
#[derive(Clone, Debug)]
pub(crate) struct ClickhouseConfig {
    pub(super) url: String,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) tls: Tls,
    pub(super) limits: Limits,
}

impl SinksConfig {
    /// Whether a store is enabled.
    pub(crate) fn has(&self, which: SinkName) -> bool {
        match which {
            SinkName::Mysql => self.mysql.is_some(),
            SinkName::Elasticsearch => self.elasticsearch.is_some(),
            SinkName::Clickhouse => self.clickhouse.is_some(),
        }
    }

    /// The topics that a store's sink reads.
    pub(crate) fn topics(&self, which: SinkName) -> Vec<&'static str> {
        self.own.topics(which).into_iter().map(Topic::name).collect()
    }

    /// Those that are spoken to with TLS.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (String, &Tls)> {
        let https = |url: &str, tls| url.starts_with("https").then_some(tls);
        let mysql = self.mysql.as_ref().and_then(|mysql| mysql.server.tls());
        let elastic = self.elasticsearch.as_ref().and_then(|config| https(&config.url, &config.tls));
        let click = self.clickhouse.as_ref().and_then(|config| https(&config.url, &config.tls));
        let all = SinkName::ALL.map(|which| match which {
            SinkName::Mysql => (which, mysql),
            SinkName::Elasticsearch => (which, elastic),
            SinkName::Clickhouse => (which, click),
        });
        all.into_iter().filter_map(|(which, tls)| Some((which.name().to_owned(), tls?)))
    }

    /// Reads the three sections and the tables; `routed` are the topics that routes may name.
    pub(crate) fn read(root: &Section<'_>, routed: &[String]) -> Self {
        let sink = root.section("sink");
        let (mysql, elastic, click) =
            (sink.section("mysql"), sink.section("elasticsearch"), sink.section("clickhouse"));
        Self {
            mysql: read_mysql(&mysql),
            elasticsearch: read_elasticsearch(&elastic),
            clickhouse: read_clickhouse(&click),
            own: OwnTables::read(&sink, routed),
        }
    }
}

fn read_mysql(section: &Section<'_>) -> Option<MysqlConfig> {
    let limits = read_limits(section, 1_000_000);
    if !section.boolean("enabled") {
        return Server::unused(section).map(|server| MysqlConfig { server, limits });
    }
    let url = section.required("url", database::FORM);
    if url.is_empty() {
        return None;
    }
    let server = Server::read_with_database(section, &url)?;
    Some(MysqlConfig { server, limits })
}

fn read_elasticsearch(section: &Section<'_>) -> Option<ElasticsearchConfig> {
    let days = |key| i64::try_from(section.integer(key, 0..=36_500)).map_or(0, |d| d * 86_400_000);
    let size = |key, range| usize::try_from(section.integer(key, range)).unwrap_or(usize::MAX);
    let config = ElasticsearchConfig {
        url: section.string("url"),
        user: section.string("user"),
        password: section.string("password"),
        tls: Tls::named(&section.section("tls")),
        prefix: section.required("prefix", "the first part of all index names"),
        replicas: section.integer("replicas", 0..=10),
        retention_days: section.integer("retention_days", 0..=36_500),
        accepted_past_ms: days("accepted_past_days"),
        accepted_future_ms: days("accepted_future_days"),
        compression: section.boolean("compression"),
        bulk_bytes_max: size("bulk_bytes_max", 16_384..=100 << 20),
        concurrency_max: size("concurrency_max", 1..=64),
        limits: read_limits(section, 100_000),
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let starts = config.prefix.starts_with(|c: char| c.is_ascii_lowercase());
    if !config.prefix.is_empty() && (!config.prefix.chars().all(fits) || !starts || config.prefix.len() > 100)
    {
        section.problem("prefix", "must be lower-case letters, digits, - and _, beginning with a letter");
    }
    http_url(section, &config.tls).then_some(config)
}

fn read_clickhouse(section: &Section<'_>) -> Option<ClickhouseConfig> {
    let config = ClickhouseConfig {
        url: section.string("url"),
        database: section.required("database", "the database of the tables"),
        user: section.string("user"),
        password: section.string("password"),
        tls: Tls::named(&section.section("tls")),
        limits: read_limits(section, 1_000_000),
    };
    http_url(section, &config.tls).then_some(config)
}

/// Whether the section is enabled, with an address that can be right.
fn http_url(section: &Section<'_>, tls: &Tls) -> bool {
    if !section.boolean("enabled") {
        return false;
    }
    let url = section.required("url", "http://host:port");
    let right = url.starts_with("http://") || url.starts_with("https://");
    if !url.is_empty() && !right {
        section.problem("url", "must begin with http:// or https://");
    }
    if right && let Err(error) = reqwest::Url::parse(&url) {
        section.problem("url", &format!("must be http://host:port: {error}"));
    }
    tls.check(&section.section("tls"));
    if url.contains('?') {
        section.problem(
            "url",
            "must be without a query (\"?…\"): user, password and database have keys of their own",
        );
        return false;
    }
    if right && url.starts_with("http://") && *tls != Tls::default() {
        section.problem("url", "must begin with https:// where files of tls are set");
    }
    if url
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')))
    {
        section.problem("url", "must be without user and password: they have keys of their own");
    }
    right
}

fn read_limits(section: &Section<'_>, rows_max: u64) -> Limits {
    let size = |key, range| usize::try_from(section.integer(key, range)).unwrap_or(usize::MAX);
    Limits {
        rows_max: size("rows_max", 1..=rows_max),
        bytes_max: size("bytes_max", 1_024..=256 << 20),
        wait: section.millis("wait_ms", 0..=60_000),
    }
}
