//! Mosquitto: the MQTT broker, with its queue on disk.
//!
//! In: folder and ports. Out: its recipe. Guarantees: a listener without TLS, and one with TLS for clients that show a
//! certificate; QoS 1 queues of any length survive a stop; payloads
//! of any size that MQTT allows pass (no `message_size_limit`). On failure: see `server.rs`.

use std::path::Path;

use anyhow::Result;

use super::{Recipe, text};
use crate::addresses::{HOST, Ports};
use crate::certificates::{Certificates, Identity};
use crate::install;
use crate::readiness::Probe;

pub(super) fn recipe(data: &Path, ports: Ports) -> Result<Recipe> {
    let folder = data.join("mosquitto");
    let config = folder.join("mosquitto.conf");
    // Started as root, Mosquitto drops to its own user, which cannot write the persistence file.
    let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
    let certificates = Certificates::of(data);
    certificates.ensure()?;
    let Identity { certificate, key } = certificates.server();
    let content = format!(
        "{user}listener {port} {HOST}\n\
         allow_anonymous true\n\
         listener {tls} {HOST}\n\
         cafile {ca}\n\
         certfile {certificate}\n\
         keyfile {key}\n\
         require_certificate true\n\
         persistence true\n\
         persistence_location {folder}/\n\
         autosave_interval 30\n\
         max_inflight_messages 1000\n\
         max_queued_messages 0\n\
         log_dest stderr\n\
         log_timestamp_format %Y-%m-%dT%H:%M:%S\n",
        port = ports.mqtt(),
        tls = ports.mqtt_tls(),
        ca = text(&certificates.ca()),
        certificate = text(&certificate),
        key = text(&key),
        folder = text(&folder),
    );
    Ok(Recipe {
        name: "mosquitto",
        run: vec![text(&install::program("mosquitto")?), "-c".to_owned(), text(&config)],
        files: vec![(config, content)],
        prepare: Vec::new(),
        ports: vec![ports.mqtt(), ports.mqtt_tls()],
        probe: Probe::Mqtt(ports.mqtt()),
        folder,
    })
}
