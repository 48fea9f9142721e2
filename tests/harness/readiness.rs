//! Is a server ready? Asked in its own protocol, the way its clients will.
//!
//! In: a [`Probe`]. Out: `Ok` once the server gave the right answer.
//! Guarantees: a question takes at most a few seconds; asking changes nothing in the server.
//! On failure: the error says what was wrong with the answer; [`Probe::wait`] asks again until its
//! deadline and then returns the last error.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use weir_shared::clock::Deadline;

use crate::addresses::HOST;
use crate::patience::holds_within;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(25);

/// The question for one server.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// CONNECT on this port must be answered with CONNACK, accepted.
    Mqtt(u16),
    /// Metadata from this bootstrap server must list a broker.
    Kafka(String),
    /// This port must take connections.
    Port(u16),
    /// A login with this URL must be possible, and `SELECT 1`.
    Mysql(String),
    /// Cluster health at this URL must be yellow or better.
    Elasticsearch(String),
    /// `SELECT 1` at this URL must give 1.
    Clickhouse(String),
}

impl Probe {
    /// Asks until the answer is right, the deadline has passed, or nobody wants to know any more.
    pub(crate) fn wait(&self, deadline: Deadline, given_up: &AtomicBool) -> Result<()> {
        let mut error = None;
        let is_over = || {
            error = self.ask().err();
            Ok(error.is_none() || given_up.load(Ordering::Relaxed))
        };
        let _the_last_error_tells = holds_within(deadline.left(), ASK_EVERY, is_over)?;
        error.map_or(Ok(()), Err)
    }

    /// Asks once.
    pub(crate) fn ask(&self) -> Result<()> {
        match self {
            Self::Mqtt(port) => ask_mqtt(*port),
            Self::Kafka(bootstrap) => ask_kafka(bootstrap),
            Self::Port(port) => ask_port(*port),
            Self::Mysql(url) => run(ask_mysql(url)),
            Self::Elasticsearch(url) => run(ask_elasticsearch(url)),
            Self::Clickhouse(url) => run(ask_clickhouse(url)),
        }
    }
}

fn run(question: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(ANSWER_TIME_MAX, question).await.context("no answer")? })
}

fn ask_mqtt(port: u16) -> Result<()> {
    let address: SocketAddr = format!("{HOST}:{port}").parse()?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIME_MAX)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    // MQTT 3.1.1 CONNECT: clean session, no keep-alive, an empty client id.
    stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(answer[0] == 0x20 && answer[3] == 0, "CONNECT was not accepted: {answer:?}");
    stream.write_all(b"\xe0\x00")?; // DISCONNECT
    Ok(())
}

fn ask_kafka(bootstrap: &str) -> Result<()> {
    TcpStream::connect_timeout(&bootstrap.parse()?, ANSWER_TIME_MAX)?;
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "weir-stack")
        .set("log_level", "0")
        .create()?;
    let metadata = client.fetch_metadata(None, ANSWER_TIME_MAX)?;
    ensure!(!metadata.brokers().is_empty(), "the cluster has no broker yet");
    Ok(())
}

fn ask_port(port: u16) -> Result<()> {
    let address: SocketAddr = format!("{HOST}:{port}").parse()?;
    TcpStream::connect_timeout(&address, ANSWER_TIME_MAX).map(drop).context("no connection")
}

async fn ask_mysql(url: &str) -> Result<()> {
    let mut connection = mysql_async::Conn::from_url(url).await?;
    let one: Option<u8> = connection.query_first("SELECT 1").await?;
    connection.disconnect().await?;
    ensure!(one == Some(1), "SELECT 1 gave {one:?}");
    Ok(())
}

async fn ask_elasticsearch(url: &str) -> Result<()> {
    let answer = reqwest::get(format!("{url}/_cluster/health")).await?;
    let health: serde_json::Value = answer.error_for_status()?.json().await?;
    match health["status"].as_str() {
        Some("yellow" | "green") => Ok(()),
        other => bail!("cluster health is {other:?}"),
    }
}

async fn ask_clickhouse(url: &str) -> Result<()> {
    let answer = reqwest::Client::new().post(url).body("SELECT 1").send().await?;
    let text = answer.error_for_status()?.text().await?;
    ensure!(text == "1\n", "SELECT 1 gave {text:?}");
    Ok(())
}
