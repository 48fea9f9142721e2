//! Apache Kafka: one KRaft node that is broker and controller.
//!
//! In: folders and ports. Out: its recipe. Guarantees: topics are made on purpose only; transactions and
//! groups work with one broker and time out quickly. On failure: see `server.rs`.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Recipe, text};
use crate::addresses::{HOST, KAFKA_PASSWORD, KAFKA_USER, Ports};
use crate::certificates::Certificates;
use crate::install;
use crate::readiness::Probe;

const HEAP: &str = "-Xmx512m";

pub(super) fn recipe(data: &Path, dist: &Path, ports: Ports) -> Result<Recipe> {
    let folder = data.join("kafka");
    let config = folder.join("server.properties");
    let certificates = Certificates::of(data);
    certificates.ensure()?;
    let (mut prepare, run) = commands(dist, &config, &cluster_id()?, HEAP)?;
    prepare.push("--add-scram".to_owned());
    prepare.push(format!("SCRAM-SHA-512=[name={KAFKA_USER},password={KAFKA_PASSWORD}]"));
    let properties = properties(&folder.join("log"), ports) + &encrypted(&certificates);
    Ok(Recipe {
        name: "kafka",
        files: vec![(config, properties)],
        prepare: vec![prepare],
        run,
        ports: vec![ports.kafka(), ports.kafka_controller(), ports.kafka_tls(), ports.kafka_sasl()],
        probe: Probe::Kafka(format!("{HOST}:{}", ports.kafka())),
        folder,
    })
}

/// How a node's folder is formatted, and how it is run.
pub(super) fn commands(
    dist: &Path,
    config: &Path,
    cluster: &str,
    heap: &str,
) -> Result<(Vec<String>, Vec<String>)> {
    let java = text(&install::java_home().context("no JDK of version 17 or newer")?.join("bin/java"));
    let classes = text(&dist.join("kafka/lib/*"));
    let prepare = vec![
        java.clone(),
        "-Xshare:auto".to_owned(),
        "-cp".to_owned(),
        classes.clone(),
        "kafka.tools.StorageTool".to_owned(),
        "format".to_owned(),
        "-t".to_owned(),
        cluster.to_owned(),
        "-c".to_owned(),
        text(config),
    ];
    let run = vec![
        java,
        heap.to_owned(),
        "-Xms256m".to_owned(),
        "-XX:+UseG1GC".to_owned(),
        "-Djava.awt.headless=true".to_owned(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".to_owned(),
        "-cp".to_owned(),
        classes,
        "kafka.Kafka".to_owned(),
        text(config),
    ];
    Ok((prepare, run))
}

/// The broker's session is shorter than the default 9 s: after a kill -9 the next start waits for its end.
fn properties(log: &Path, ports: Ports) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{HOST}:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{HOST}:{broker},CONTROLLER://{HOST}:{controller},SSL://{HOST}:{tls},SASL_SSL://{HOST}:{sasl}\n\
         advertised.listeners=PLAINTEXT://{HOST}:{broker},SSL://{HOST}:{tls},SASL_SSL://{HOST}:{sasl}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
         log.dirs={log}\n\
         num.partitions=4\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=8\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=8\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n\
         group.initial.rebalance.delay.ms=0\n\
         broker.session.timeout.ms=4000\n\
         broker.heartbeat.interval.ms=1000\n",
        broker = ports.kafka(),
        tls = ports.kafka_tls(),
        sasl = ports.kafka_sasl(),
        controller = ports.kafka_controller(),
        log = text(log),
    )
}

/// The two listeners with TLS: one for clients that show a certificate, one for those that log in.
fn encrypted(certificates: &Certificates) -> String {
    let mechanisms = "PLAIN,SCRAM-SHA-512";
    let sasl = "listener.name.sasl_ssl";
    format!(
        "ssl.keystore.type=PEM\n\
         ssl.keystore.location={bundle}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={ca}\n\
         listener.name.ssl.ssl.client.auth=required\n\
         {sasl}.ssl.client.auth=none\n\
         {sasl}.sasl.enabled.mechanisms={mechanisms}\n\
         {sasl}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_{KAFKA_USER}=\"{KAFKA_PASSWORD}\";\n\
         {sasl}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
        bundle = text(&certificates.server_bundle()),
        ca = text(&certificates.ca()),
    )
}

/// A random cluster id as `kafka-storage random-uuid` makes them: 16 bytes in base64 that do not start
/// with a dash.
pub(super) fn cluster_id() -> Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random number")?;
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).context("not a UUID")?;
    Ok(URL_SAFE_NO_PAD.encode(number.to_be_bytes()).replace('-', "A"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_sixteen_bytes_and_differ() {
        let (one, other) = (cluster_id().expect("random"), cluster_id().expect("random"));
        assert_eq!((one.len(), other.len()), (22, 22));
        assert_ne!(one, other);
        assert!(!one.starts_with('-'));
    }
}
