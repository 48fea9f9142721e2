//! `weir-edge check --connect`, and what `weir-edge doctor` looks at: whether the servers and the disk are as they must be.
//!
//! Comes in: the configuration. Goes out: findings. Guarantees: only asks; MQTT is asked under another client id and without a
//! session, so that an edge that runs keeps its own. On failure: that is a finding.

use std::path::Path;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, Transport};
use weir_shared::doctor::Finding;

use crate::config::Config;
use crate::flow::Flow;
use crate::forward;
use crate::sources::mqtt::MqttConfig;

/// One question takes no longer.
const ASK: Duration = Duration::from_secs(10);
/// What a journal without a budget should find free, at least.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Asks everything.
pub(crate) fn all(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    if !config.mqtt.topics.is_empty() {
        found.push(mqtt(&config.mqtt));
    }
    found.extend(config.files.iter().map(|file| readable(file.pattern.folder())));
    found.push(kafka(config));
    found.extend(config.flows.iter().map(disk));
    let synchronized = &config.clock.synchronized_file;
    if config.clock.limits.require_synchronized && !synchronized.exists() {
        let detail = format!("{} is not there", synchronized.display());
        found.push(Finding::fail("synchronised clock", detail, "start chrony or systemd-timesyncd"));
    }
    found
}

fn mqtt(config: &MqttConfig) -> Finding {
    let what = format!("mqtt {}:{}", config.host, config.port);
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())
        .and_then(|runtime| runtime.block_on(mqtt_answers(config)));
    match asked {
        Ok(()) => Finding::ok(what, "connects"),
        Err(why) => Finding::fail(what, why, "look at the section mqtt, and at the broker's log"),
    }
}

async fn mqtt_answers(config: &MqttConfig) -> Result<(), String> {
    let mut options = MqttOptions::new(format!("{}-check", config.client_id), &config.host, config.port);
    if config.login != Default::default() {
        options.set_credentials(&config.login.0, &config.login.1);
    }
    if let Some(tls) = &config.tls {
        let connector = tls.connector().map_err(|e| e.to_string())?;
        options.set_transport(Transport::tls_with_config(connector.into()));
    }
    let (client, mut network) = AsyncClient::new(options, 1);
    let answer = async {
        loop {
            match network.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let answered = tokio::time::timeout(ASK, answer).await;
    drop(client);
    answered.unwrap_or_else(|_| Err(format!("no answer within {} s", ASK.as_secs())))
}

fn kafka(config: &Config) -> Finding {
    let what = format!("kafka {}", config.kafka.brokers);
    match forward::partitions(&config.kafka) {
        Ok(counts) => Finding::ok(what, format!("answers; the topics have {counts:?} partitions")),
        Err(why) => {
            Finding::fail(what, why, "look at the section kafka, and whether `weir-cloud init` was run")
        }
    }
}

fn readable(folder: &Path) -> Finding {
    let what = format!("files in {}", folder.display());
    match std::fs::read_dir(folder) {
        Ok(_) => Finding::ok(what, "the folder can be read"),
        Err(error) => {
            Finding::fail(what, error.to_string(), "make it, and give the edge's user the right to read it")
        }
    }
}

/// The file system of a journal.
fn disk(flow: &Flow) -> Finding {
    let what = format!("journal {}", flow.dir.display());
    let there = flow.dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let stat = match rustix::fs::statvfs(there) {
        Ok(stat) => stat,
        Err(error) => return Finding::fail(what, error.to_string(), "give the edge's user the folder"),
    };
    // As for making a file in it.
    if let Err(error) = rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
    {
        let detail = format!("{}: {error}", there.display());
        return Finding::fail(what, detail, "give the edge's user the folder; or is this another user?");
    }
    let (free, used) = (stat.f_bavail * stat.f_frsize, used(&flow.dir));
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let detail = format!("{} MB used, {} MB free", megabytes(used), megabytes(free));
    let wanted = if flow.budget_bytes == 0 { FREE_BYTES_MIN } else { flow.budget_bytes.saturating_sub(used) };
    if free >= wanted {
        return Finding::ok(what, detail);
    }
    let way_out = format!("free {} MB more, or lower budget_bytes", megabytes(wanted - free));
    Finding::warn(what, detail, way_out)
}

fn used(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}
