//! Elasticsearch 8 and OpenSearch: one embedded node each, started by launchers like that of Elasticsearch 7.
//!
//! In: folders and ports. Out: their recipes. Guarantees: as for `server/elasticsearch.rs`; small heaps, as they run beside a
//! whole stack. On failure: see `server.rs`.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Recipe, text};
use crate::addresses::{HOST, Ports};
use crate::install;
use crate::readiness::Probe;

/// Elasticsearch 8. Its jars must be modules of the JVM, and its home is where its module for HTTP stands.
pub(super) fn elasticsearch_8(data: &Path, dist: &Path, ports: Ports) -> Result<Recipe> {
    let (folder, home) = (data.join("elasticsearch-8"), dist.join("elasticsearch-8"));
    let jars = ["--module-path", &text(&home.join("lib")), "--add-modules", "ALL-MODULE-PATH", "-cp"];
    let mut run = java(&["-Des.distribution.type=tar"])?;
    run.extend(jars.map(str::to_owned));
    run.extend([
        text(&home.join("launcher")),
        "EmbeddedElasticsearch8".to_owned(),
        text(&folder.join("config")),
    ]);
    run.push(format!("path.home={}", text(&home)));
    run.push(format!("path.logs={}", text(&folder.join("logs"))));
    Ok(recipe("elasticsearch-8", folder, run, [ports.elasticsearch(), ports.elasticsearch_transport()]))
}

/// OpenSearch.
pub(super) fn opensearch(data: &Path, dist: &Path, ports: Ports) -> Result<Recipe> {
    let (folder, home) = (data.join("opensearch"), dist.join("opensearch"));
    let mut run = java(&["-Dopensearch.distribution.type=tar", "-cp"])?;
    run.push(format!("{}:{}", text(&home.join("launcher")), text(&home.join("lib/*"))));
    run.extend(["EmbeddedOpenSearch".to_owned(), text(&folder.join("config"))]);
    run.push(format!("path.home={}", text(&folder)));
    run.extend(["http.type=netty4", "transport.type=netty4"].map(str::to_owned));
    Ok(recipe("opensearch", folder, run, [ports.opensearch(), ports.opensearch_transport()]))
}

fn java(more: &[&str]) -> Result<Vec<String>> {
    let java = install::java_home().context("no JDK of version 17 or newer")?.join("bin/java");
    let flags = ["-Xms256m", "-Xmx512m", "-Djava.awt.headless=true", "-Dlog4j2.disable.jmx=true"];
    let flags = flags.iter().chain(more).map(|flag| (*flag).to_owned());
    Ok(std::iter::once(text(&java)).chain(flags).collect())
}

/// `run` goes on with what both have in common; the ports are those of HTTP and of the transport.
fn recipe(name: &'static str, folder: std::path::PathBuf, mut run: Vec<String>, ports: [u16; 2]) -> Recipe {
    let [http, transport] = ports;
    run.extend([
        format!("path.data={}", text(&folder.join("data"))),
        format!("network.host={HOST}"),
        format!("http.port={http}"),
        format!("transport.port={transport}"),
        "discovery.type=single-node".to_owned(),
        "cluster.name=weir".to_owned(),
        "node.name=weir".to_owned(),
        "cluster.routing.allocation.disk.threshold_enabled=false".to_owned(),
    ]);
    Recipe {
        name,
        files: vec![(folder.join("config/README"), "Settings are given on the command line.\n".to_owned())],
        prepare: Vec::new(),
        run,
        ports: ports.to_vec(),
        probe: Probe::Elasticsearch(format!("http://{HOST}:{http}")),
        folder,
    }
}
