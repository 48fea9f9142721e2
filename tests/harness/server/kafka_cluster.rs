//! Three brokers of Apache Kafka and their controller, for faults of the cluster itself.
//!
//! In: folders and ports. Out: their recipes. Guarantees: every topic, also Kafka's own, is held by all three and takes a
//! write only when two have it; the controller is apart, so that stopping two brokers leaves the third able to tell;
//! each broker has a second listener, advertised at a proxy's port. On failure: see `server.rs`.

use std::path::Path;

use anyhow::Result;

use super::kafka::{cluster_id, commands};
use super::{Recipe, text};
use crate::addresses::{BROKERS, HOST, Ports};
use crate::readiness::Probe;

const CONTROLLER_ID: u16 = 100;
const CONTROLLER_HEAP: &str = "-Xmx256m";
const BROKER_HEAP: &str = "-Xmx400m";
/// By number.
const NAMES: [&str; BROKERS as usize] = ["kafka-0", "kafka-1", "kafka-2"];

/// The controller first.
pub(super) fn recipes(data: &Path, dist: &Path, ports: Ports) -> Result<Vec<Recipe>> {
    let cluster = cluster_id()?;
    let folder = data.join("kafka-controller");
    let config = folder.join("server.properties");
    let (prepare, run) = commands(dist, &config, &cluster, CONTROLLER_HEAP)?;
    let mut recipes = vec![Recipe {
        name: "kafka-controller",
        files: vec![(config, controller(&folder.join("log"), ports))],
        prepare: vec![prepare],
        run,
        ports: vec![ports.kafka_controller()],
        probe: Probe::Port(ports.kafka_controller()),
        folder,
    }];
    for (name, number) in NAMES.into_iter().zip(0..) {
        let folder = data.join(name);
        let config = folder.join("server.properties");
        let (prepare, run) = commands(dist, &config, &cluster, BROKER_HEAP)?;
        recipes.push(Recipe {
            name,
            files: vec![(config, broker(&folder.join("log"), ports, number))],
            prepare: vec![prepare],
            run,
            ports: vec![ports.broker(number), ports.broker_behind_proxy(number)],
            probe: Probe::Kafka(format!("{HOST}:{}", ports.broker(number))),
            folder,
        });
    }
    Ok(recipes)
}

fn quorum(ports: Ports) -> String {
    let controller = ports.kafka_controller();
    format!(
        "controller.quorum.voters={CONTROLLER_ID}@{HOST}:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         auto.create.topics.enable=false\n\
         broker.session.timeout.ms=4000\n\
         broker.heartbeat.interval.ms=1000\n"
    )
}

fn controller(log: &Path, ports: Ports) -> String {
    format!(
        "process.roles=controller\n\
         node.id={CONTROLLER_ID}\n\
         listeners=CONTROLLER://{HOST}:{port}\n\
         log.dirs={log}\n{quorum}",
        port = ports.kafka_controller(),
        log = text(log),
        quorum = quorum(ports),
    )
}

/// A follower that does not follow leaves the replicas in sync after 4 s instead of 30.
fn broker(log: &Path, ports: Ports, number: u16) -> String {
    format!(
        "process.roles=broker\n\
         node.id={number}\n\
         listeners=PLAINTEXT://{HOST}:{own},PROXIED://{HOST}:{behind}\n\
         advertised.listeners=PLAINTEXT://{HOST}:{own},PROXIED://{HOST}:{proxy}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={log}\n\
         num.partitions=4\n\
         num.io.threads=4\n\
         num.network.threads=2\n\
         default.replication.factor=3\n\
         min.insync.replicas=2\n\
         replica.lag.time.max.ms=4000\n\
         offsets.topic.replication.factor=3\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=3\n\
         transaction.state.log.min.isr=2\n\
         transaction.state.log.num.partitions=4\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n\
         group.initial.rebalance.delay.ms=0\n{quorum}",
        own = ports.broker(number),
        behind = ports.broker_behind_proxy(number),
        proxy = ports.broker_proxy(number),
        log = text(log),
        quorum = quorum(ports),
    )
}
