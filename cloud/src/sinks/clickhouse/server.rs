//! Talking to ClickHouse over HTTP.
//!
//! Questions go through the `clickhouse` crate, answered in RowBinary, which every server knows, and only when the whole
//! answer is there. Inserts do not: its `insert_formatted_with` streams the body in
//! chunks (read in 0.15.3, `request_body.rs`), and a chunked body cut short by a dying sender can be taken for a
//! whole one; so inserts are sent with `reqwest`, from a complete body with its length, uncompressed.
//!
//! Guarantees: an insert that is answered with `Ok` is in the table, in one block. On failure (no answer, an error
//! status) nobody knows: [`Failure::Store`], and the caller asks what arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use clickhouse::Client;
use hyper_tls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use weir_shared::client::root_cause;
use weir_shared::clock::Deadline;
use weir_shared::supervise::Error;
use weir_shared::tls::Renewals;

use super::super::Failure;
use super::super::batch::{Part, Range};
use super::super::config::ClickhouseConfig;
use super::super::own::Target;
use super::blocks::Format;
use super::columns::columns;
use crate::faults::is_broken;

/// An insert, from its first byte to the answer.
const INSERT: Duration = Duration::from_secs(60);
/// A connection that was idle for so long is not used again: servers close them after 3 s or more.
const IDLE: Duration = Duration::from_secs(2);
/// The server gives an insert up before we do.
const EXECUTION_SECONDS: &str = "45";
/// Any other question.
const ANSWER: Duration = Duration::from_secs(30);
/// How long an insert that cannot be killed may take to end, and how often that is asked.
const ENDED: Duration = Duration::from_secs(30);
const ENDED_ASK: Duration = Duration::from_millis(100);
/// Rows that the server may put into one block: more than a batch has.
const BLOCK_ROWS: &str = "1100000";

/// Settings of every insert: the defaults of servers and users differ, so each is said. Those that a server does not
/// know are left out.
const SETTINGS: [(&str, &str); 12] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("max_insert_block_size", BLOCK_ROWS),
    ("max_insert_block_size_rows", BLOCK_ROWS),
    ("max_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows", BLOCK_ROWS),
    ("min_insert_block_size_bytes", "0"),
    ("input_format_max_block_size_bytes", "0"),
    ("input_format_parallel_parsing", "0"),
    ("max_execution_time", EXECUTION_SECONDS),
];
const TOKEN: &str = "insert_deduplication_token";

/// A server and how to ask it.
pub(super) struct Server {
    config: ClickhouseConfig,
    renewals: Renewals,
    questions: Client,
    inserts: reqwest::Client,
    /// Which of [`SETTINGS`] and [`TOKEN`] it knows; empty until asked.
    known: Vec<String>,
}

impl Server {
    pub(super) fn new(config: &ClickhouseConfig) -> Result<Self, Error> {
        let renewals = Renewals::of(&config.tls);
        let (questions, inserts) = clients(config)?;
        Ok(Self { config: config.clone(), renewals, questions, inserts, known: Vec::new() })
    }

    /// Speaks with the certificates that there are now.
    pub(super) fn renew(&mut self) -> Result<(), Failure> {
        if self.renewals.came() {
            (self.questions, self.inserts) =
                clients(&self.config).map_err(|e| Failure::Store(e.to_string()))?;
        }
        Ok(())
    }

    /// Where its tables are.
    pub(super) fn database(&self) -> &str {
        &self.config.database
    }

    /// The same server, without naming a database: to make it.
    pub(super) fn without_database(&self) -> Client {
        self.questions.clone().with_database("default")
    }

    pub(super) fn questions(&self) -> &Client {
        &self.questions
    }

    /// Asks which of our settings the server knows.
    pub(super) async fn learn_settings(&mut self) -> Result<(), Failure> {
        let names = SETTINGS.iter().map(|(name, _)| *name).chain([TOKEN]);
        let list = names.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(",");
        let ask = format!("SELECT name FROM system.settings WHERE name IN ({list})");
        self.known = answer(self.questions.query(&ask).fetch_all::<String>()).await?;
        if !self.has_tokens() {
            tracing::warn!(
                "this ClickHouse has no deduplication tokens: an insert that is still on its way when its sender \
                 dies can arrive late"
            );
        }
        Ok(())
    }

    /// Whether it recognises an insert by its token.
    pub(super) fn has_tokens(&self) -> bool {
        self.known.iter().any(|name| name == TOKEN)
    }

    /// Inserts one block; without a token, whatever was inserted before. What is given back needs nothing of us, so that it
    /// may run on another thread.
    pub(super) fn insert(
        &self,
        target: Target,
        token: Option<&str>,
        query_id: &str,
        (format, body): (Format, Vec<u8>),
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let (table, names) = (target.name(), names(target));
        let query = format!("INSERT INTO `{table}` ({names}) FORMAT {}", format.name());
        let mut parameters: Vec<(&str, &str)> = vec![
            ("query", &query),
            ("database", &self.config.database),
            ("query_id", query_id),
            ("wait_end_of_query", "1"),
        ];
        let knows = |name: &str| self.known.iter().any(|k| k == name);
        // The newer name of the same switch; a server that has both wants only this one.
        let newer = knows("deduplicate_insert");
        let settings = SETTINGS.iter().filter(|(name, _)| knows(name));
        parameters.extend(settings.filter(|(name, _)| !(newer && *name == "insert_deduplicate")));
        match token.filter(|_| !is_broken("bad.ch_no_token")) {
            Some(token) if knows(TOKEN) => parameters.push((TOKEN, token)),
            Some(_) => {}
            None => {
                parameters.retain(|(name, _)| !name.contains("dedup"));
                // Without a token the server still knows a block by its content.
                let switches = [("deduplicate_insert", "disable"), ("insert_deduplicate", "0")];
                parameters.extend(switches.into_iter().find(|(name, _)| knows(name)));
            }
        }
        let request = self.post(&parameters).body(body);
        async move {
            let response = request.send().await.map_err(|e| unreachable(&e))?;
            let refused = response.headers().contains_key("X-ClickHouse-Exception-Code");
            let status = response.status();
            let text = response.text().await.map_err(|e| unreachable(&e))?;
            if status.is_success() && !refused {
                return Ok(());
            }
            let text: String = text.chars().take(500).collect();
            Err(Failure::Store(format!("insert into {table}: {status}: {}", text.trim())))
        }
    }

    /// Ends every query whose id begins with one of these, and waits until none is left.
    pub(super) async fn kill(&self, prefixes: &[String]) -> Result<(), Failure> {
        let ids: Vec<_> = prefixes.iter().map(|p| format!("startsWith(query_id, {})", quoted(p))).collect();
        let ids = ids.join(" OR ");
        let statement = format!("KILL QUERY WHERE {ids} SYNC");
        let ask = format!("SELECT count() FROM system.processes WHERE {ids}");
        let deadline = Deadline::after(ENDED);
        loop {
            // Older servers kill no insert, and nothing after it (CANNOT_KILL, seen in 18.16): it ends by itself.
            let Err(refused) = answer(self.questions.query(&statement).execute()).await else {
                return Ok(());
            };
            if answer(self.questions.query(&ask).fetch_one::<u64>()).await? == 0 {
                return Ok(());
            }
            if deadline.passed() {
                return Err(refused);
            }
            tokio::time::sleep(ENDED_ASK).await;
        }
    }

    /// Of each of these partitions of the table's topic the highest offset from its start on that stands in the table, if
    /// any does.
    pub(super) async fn beyond(
        &self,
        target: Target,
        starts: &[(Part, i64)],
    ) -> Result<Vec<(i32, i64)>, Failure> {
        let spans = starts.iter().map(|(part, start)| {
            format!("(_weir_partition = {} AND _weir_offset >= {start})", part.partition)
        });
        let ask = format!(
            "SELECT _weir_partition, max(_weir_offset) {} GROUP BY _weir_partition",
            from_spans(target, spans)
        );
        answer(self.questions.query(&ask).fetch_all::<(i32, i64)>()).await
    }

    /// The offset of each row of a range.
    pub(super) async fn offsets(&self, target: Target, range: &Range) -> Result<Vec<i64>, Failure> {
        let ask = format!("SELECT _weir_offset {}", from_range(target, range));
        answer(self.questions.query(&ask).fetch_all::<i64>()).await
    }

    /// The rows of a range in the order of their offsets, each encoded as it is when it is sent.
    pub(super) async fn rows(&self, target: Target, range: &Range) -> Result<Vec<u8>, Failure> {
        let names = names(target);
        let from = from_range(target, range);
        self.binary(format!("SELECT {names} {from} ORDER BY _weir_offset FORMAT RowBinary")).await
    }

    /// The answer to a question in a binary format.
    pub(super) async fn binary(&self, query: String) -> Result<Vec<u8>, Failure> {
        let request =
            self.post(&[("database", &self.config.database), ("wait_end_of_query", "1")]).body(query);
        let response = request.send().await.map_err(|e| unreachable(&e))?;
        let refused = response.headers().contains_key("X-ClickHouse-Exception-Code");
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| unreachable(&e))?;
        if status.is_success() && !refused {
            return Ok(bytes.to_vec());
        }
        let text: String = String::from_utf8_lossy(&bytes).chars().take(500).collect();
        Err(Failure::Store(format!("rows: {status}: {}", text.trim())))
    }

    fn post(&self, parameters: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let request = self.inserts.post(&self.config.url).query(parameters);
        request
            .header("X-ClickHouse-User", &self.config.user)
            .header("X-ClickHouse-Key", &self.config.password)
    }

    /// The offsets of some ranges of the table's topic that stand in the table, by partition.
    pub(super) async fn arrived(
        &self,
        target: Target,
        ranges: &[Range],
    ) -> Result<BTreeMap<Part, BTreeSet<i64>>, Failure> {
        let mut arrived: BTreeMap<Part, BTreeSet<i64>> = BTreeMap::new();
        let (topic, table) = (target.topic(), target.name());
        let from = from_spans(target, ranges.iter().map(span));
        let ask = format!("SELECT _weir_partition, _weir_offset {from}");
        let mut doubled = 0;
        for (partition, offset) in answer(self.questions.query(&ask).fetch_all::<(i32, i64)>()).await? {
            let new = arrived.entry(Part { topic, partition }).or_default().insert(offset);
            doubled += u64::from(!new);
        }
        if doubled > 0 {
            tracing::error!(table, doubled, "rows of open plans stand more than once in the table");
        }
        Ok(arrived)
    }
}

/// For questions, and for inserts.
fn clients(config: &ClickhouseConfig) -> Result<(Client, reqwest::Client), Error> {
    let connector = config.tls.connector()?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    let https = HttpsConnector::from((http, connector.clone().into()));
    let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    let questions = Client::with_http_client(pool.clone().pool_idle_timeout(IDLE).build(https))
        .with_url(&config.url)
        .with_database(&config.database)
        .with_user(&config.user)
        .with_password(&config.password)
        .with_validation(false)
        .with_setting("wait_end_of_query", "1");
    // Other addresses than the one configured are nobody's business: no proxy.
    let inserts = reqwest::Client::builder().no_proxy().tcp_nodelay(true);
    let inserts = inserts.use_preconfigured_tls(connector);
    Ok((questions, inserts.timeout(INSERT).pool_idle_timeout(IDLE).build()?))
}

/// The columns of a table, as a statement lists them.
fn names(target: Target) -> String {
    columns(target).iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The rows of a range.
fn from_range(target: Target, range: &Range) -> String {
    from_spans(target, [span(range)].into_iter())
}

/// The rows of a table's topic that lie in one of these spans.
fn from_spans(target: Target, spans: impl Iterator<Item = String>) -> String {
    let (table, topic) = (target.name(), quoted(target.topic().name()));
    let spans = spans.collect::<Vec<_>>().join(" OR ");
    format!("FROM `{table}` WHERE _weir_topic = {topic} AND ({spans})")
}

fn span(range: &Range) -> String {
    let Range { part, start, end } = *range;
    let partition = part.partition;
    format!("(_weir_partition = {partition} AND _weir_offset >= {start} AND _weir_offset < {end})")
}

/// One question, within [`ANSWER`].
pub(super) async fn answer<T>(
    work: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error @ clickhouse::error::Error::BadResponse(_))) => Err(Failure::Store(error.to_string())),
        Ok(Err(error)) => Err(Failure::Store(format!("no answer: {}", root_cause(&error)))),
        Err(_) => Err(Failure::Store(format!("no answer within {ANSWER:?}"))),
    }
}

/// A string literal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn unreachable(error: &reqwest::Error) -> Failure {
    let text = format!("insert not answered: {}", root_cause(error));
    if error.is_timeout() { Failure::Late(text) } else { Failure::Store(text) }
}
