//! Elasticsearch: one embedded node, started by `server/EmbeddedElasticsearch.java` with `server/Launch.java`.
//!
//! In: folders and ports. Out: its recipe; further settings for the next start may be written to [`more_settings`]. Guarantees: a full disk of the developer's machine does not
//! turn indices read-only. On failure: see `server.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Recipe, text};
use crate::addresses::{HOST, Ports};
use crate::install;
use crate::readiness::Probe;

/// Where further settings of a stack's node stand, a line each, for its next start.
pub(crate) fn more_settings(stack: &Path) -> PathBuf {
    stack.join("data/elasticsearch/config/more")
}

pub(super) fn recipe(data: &Path, dist: &Path, ports: Ports) -> Result<Recipe> {
    let folder = data.join("elasticsearch");
    let java = install::java_home().context("no JDK of version 17 or newer")?.join("bin/java");
    let home = dist.join("elasticsearch");
    let mut run = vec![
        text(&java),
        "-Xms512m".to_owned(),
        "-Xmx1g".to_owned(),
        "-Djava.awt.headless=true".to_owned(),
        "-Dlog4j2.disable.jmx=true".to_owned(),
        "-Dlog4j2.formatMsgNoLookups=true".to_owned(),
        "-Dorg.apache.logging.log4j.level=INFO".to_owned(),
        "-Des.distribution.type=tar".to_owned(),
        "-cp".to_owned(),
        format!("{}:{}", text(&home.join("launcher")), text(&home.join("lib/*"))),
        "EmbeddedElasticsearch".to_owned(),
        text(&folder.join("config")),
    ];
    run.extend([
        format!("path.home={}", text(&folder)),
        format!("network.host={HOST}"),
        format!("http.port={}", ports.elasticsearch()),
        format!("transport.port={}", ports.elasticsearch_transport()),
        "discovery.type=single-node".to_owned(),
        "http.type=netty4".to_owned(),
        "transport.type=netty4".to_owned(),
        "cluster.name=weir".to_owned(),
        "node.name=weir".to_owned(),
        "cluster.routing.allocation.disk.threshold_enabled=false".to_owned(),
    ]);

    Ok(Recipe {
        name: "elasticsearch",
        files: vec![(folder.join("config/README"), "Settings are given on the command line.\n".to_owned())],
        prepare: Vec::new(),
        run,
        ports: vec![ports.elasticsearch(), ports.elasticsearch_transport()],
        probe: Probe::Elasticsearch(format!("http://{HOST}:{}", ports.elasticsearch())),
        folder,
    })
}
