//! Jars from Maven Central: Kafka and Elasticsearch, further search servers for their test, and Flink, the peer of
//! `make bench-process` and `make bench-sinks`.
//!
//! In: pinned coordinates. Out: `kafka/lib/*.jar`, `elasticsearch/lib/*.jar` and so on, and the compiled launchers of all but
//! the first. Guarantees and failure: see `install.rs`.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::{Part, java_home, program, run_tied};

const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";
const KAFKA: &[&str] = &["org.apache.kafka:kafka_2.13:3.9.1", "org.slf4j:slf4j-simple:1.7.36"];
const ELASTICSEARCH: &[&str] = &[
    "org.elasticsearch:elasticsearch:7.17.28",
    "org.elasticsearch.plugin:transport-netty4-client:7.17.28",
    "org.apache.logging.log4j:log4j-core:2.17.1",
];
const ELASTICSEARCH_8: &[&str] = &[
    "org.elasticsearch:elasticsearch:8.17.0",
    "org.elasticsearch.plugin:transport-netty4:8.17.0",
    "org.apache.logging.log4j:log4j-core:2.19.0",
];
/// What tells Elasticsearch 8 of its module for HTTP, which it takes from a folder only.
const NETTY_DESCRIPTOR: &str = "description=HTTP and transport\nname=transport-netty4\nversion=8.17.0\n\
    elasticsearch.version=8.17.0\njava.version=17\nclassname=org.elasticsearch.transport.netty4.Netty4Plugin\n";
const OPENSEARCH: &[&str] = &[
    "org.opensearch:opensearch:2.19.1",
    "org.opensearch.plugin:transport-netty4-client:2.19.1",
    "org.apache.logging.log4j:log4j-core:2.21.0",
];
/// Flink 1.19 without its distribution, which is not there: the same jars, for a cluster inside one process. The newest
/// connector for Elasticsearch 7 is that of 1.17, which runs on 1.19.
const FLINK: &[&str] = &[
    "org.apache.flink:flink-clients:1.19.2",
    "org.apache.flink:flink-table-planner_2.12:1.19.2",
    "org.apache.flink:flink-table-runtime:1.19.2",
    "org.apache.flink:flink-json:1.19.2",
    "org.apache.flink:flink-connector-base:1.19.2",
    "org.apache.flink:flink-connector-kafka:3.3.0-1.19",
    "org.apache.flink:flink-connector-jdbc:3.2.0-1.19",
    "org.apache.flink:flink-sql-connector-elasticsearch7:3.0.1-1.17",
    "org.mariadb.jdbc:mariadb-java-client:3.4.1",
    "com.mysql:mysql-connector-j:8.4.0",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.17.1",
    "org.apache.logging.log4j:log4j-core:2.17.1",
];
/// All jars, as `javac` takes them.
const JARS: &[&str] = &["-cp", "lib/*"];
/// Sources of a launcher: file and text, the first being the one with `main`.
type Sources = &'static [(&'static str, &'static str)];

const FLINK_LAUNCHER: Sources = &[("FlinkJob.java", include_str!("../bench/flink/FlinkJob.java"))];
/// What the launchers of search servers share.
const LAUNCH: (&str, &str) = ("Launch.java", include_str!("../server/Launch.java"));
const LAUNCHER: Sources =
    &[("EmbeddedElasticsearch.java", include_str!("../server/EmbeddedElasticsearch.java")), LAUNCH];
const LAUNCHER_8: Sources =
    &[("EmbeddedElasticsearch8.java", include_str!("../server/EmbeddedElasticsearch8.java")), LAUNCH];
const OPENSEARCH_LAUNCHER: Sources =
    &[("EmbeddedOpenSearch.java", include_str!("../server/EmbeddedOpenSearch.java")), LAUNCH];

pub(super) fn kafka(dist: &Path) -> Part {
    Part {
        name: "kafka",
        content: format!("Kafka from Maven: {}", KAFKA.join(" ")),
        folder: dist.join("kafka"),
        needs: &["mvn"],
        build: |folder, log| copy(KAFKA, folder, log),
    }
}

pub(super) fn elasticsearch(dist: &Path) -> Part {
    Part {
        name: "elasticsearch",
        content: content("Elasticsearch from Maven", ELASTICSEARCH, LAUNCHER),
        folder: dist.join("elasticsearch"),
        needs: &["mvn"],
        build: |folder, log| {
            copy(ELASTICSEARCH, folder, log)?;
            compile(LAUNCHER, JARS, folder, log)
        },
    }
}

pub(super) fn elasticsearch_8(dist: &Path) -> Part {
    Part {
        name: "elasticsearch-8",
        content: content("Elasticsearch 8 from Maven", ELASTICSEARCH_8, LAUNCHER_8),
        folder: dist.join("elasticsearch-8"),
        needs: &["mvn"],
        build: |folder, log| {
            copy(ELASTICSEARCH_8, folder, log)?;
            netty_module(folder)?;
            let modules = ["--module-path", "lib", "--add-modules", "org.elasticsearch.server"];
            compile(LAUNCHER_8, &modules, folder, log)
        },
    }
}

/// Moves the jars of HTTP where Elasticsearch 8 looks for them; on the module path too they would be there twice.
fn netty_module(folder: &Path) -> Result<()> {
    let module = folder.join("modules/transport-netty4");
    fs::create_dir_all(&module)?;
    for jar in fs::read_dir(folder.join("lib"))? {
        let jar = jar?;
        let name = jar.file_name();
        let of_module = |name: &str| name.starts_with("netty-") || name.starts_with("transport-netty4-");
        if name.to_str().is_some_and(of_module) {
            fs::rename(jar.path(), module.join(name))?;
        }
    }
    fs::write(module.join("plugin-descriptor.properties"), NETTY_DESCRIPTOR)?;
    Ok(())
}

pub(super) fn opensearch(dist: &Path) -> Part {
    Part {
        name: "opensearch",
        content: content("OpenSearch from Maven", OPENSEARCH, OPENSEARCH_LAUNCHER),
        folder: dist.join("opensearch"),
        needs: &["mvn"],
        build: |folder, log| {
            copy(OPENSEARCH, folder, log)?;
            compile(OPENSEARCH_LAUNCHER, JARS, folder, log)
        },
    }
}

pub(super) fn flink(dist: &Path) -> Part {
    Part {
        name: "flink",
        content: content("Flink from Maven", FLINK, FLINK_LAUNCHER),
        folder: dist.join("flink"),
        needs: &["mvn"],
        build: |folder, log| {
            copy(FLINK, folder, log)?;
            compile(FLINK_LAUNCHER, JARS, folder, log)
        },
    }
}

fn copy(coordinates: &[&str], folder: &Path, log: &Path) -> Result<()> {
    let pom = folder.join("pom.xml");
    fs::write(&pom, pom_of(coordinates)?)?;
    let mut maven = Command::new(program("mvn")?);
    maven.args(["-q", "-B", "-f"]).arg(&pom).arg(COPY).arg("-DincludeScope=runtime");
    maven.arg(format!("-DoutputDirectory={}", folder.join("lib").display()));
    if let Some(home) = java_home() {
        maven.env("JAVA_HOME", home);
    }
    run_tied(&mut maven, log)
}

fn pom_of(coordinates: &[&str]) -> Result<String> {
    let mut dependencies = String::new();
    for coordinate in coordinates {
        let mut parts = coordinate.split(':');
        let mut part = || parts.next().context("a coordinate is group:artifact:version");
        let (group, artifact, version) = (part()?, part()?, part()?);
        write!(
            dependencies,
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        )?;
    }
    Ok(format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>weir</groupId><artifactId>jars</artifactId>\
         <version>1</version><dependencies>{dependencies}</dependencies></project>\n"
    ))
}

/// What a folder with jars and a launcher holds; other text, other content.
fn content(what: &str, coordinates: &[&str], launcher: Sources) -> String {
    let sources: String = launcher.iter().map(|(_, text)| *text).collect();
    format!("{what}: {} (launcher {:08x})", coordinates.join(" "), xxh3_64(sources.as_bytes()) >> 32)
}

/// Compiles a launcher against the jars, which `jars` names as seen from `folder`, into `launcher/`.
fn compile(launcher: Sources, jars: &[&str], folder: &Path, log: &Path) -> Result<()> {
    for (name, text) in launcher {
        fs::write(folder.join(name), text)?;
    }
    let javac = java_home().context("no JDK of version 17 or newer")?.join("bin/javac");
    let mut command = Command::new(javac);
    command.args(jars).arg("-d").arg(folder.join("launcher")).current_dir(folder);
    command.args(launcher.iter().map(|(name, _)| name));
    run_tied(&mut command, log)
}
