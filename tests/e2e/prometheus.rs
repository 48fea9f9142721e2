//! What Prometheus is given: its own tool understands the configuration and the rules, and each alert fires and clears when it
//! should; every metric that they name is one that a program has.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_harness::install;
use weir_harness::places::Places;

fn promtool(words: &[&str]) {
    let places = Places::find().unwrap();
    let say = &mut |line: &str| eprintln!("{line}");
    install::programs(&places, &[("promtool", "prometheus")], say).unwrap();
    let folder = places.root().join("deploy/prometheus");
    let output = Command::new("promtool").args(words).current_dir(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {}:\n{said}", words.join(" "));
}

#[test]
fn prometheus_takes_the_configuration_and_every_alert_fires_and_clears() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "tests.yml"]);
}

/// All files of a kind below a folder.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
}

/// The words of a text that are names of metrics, without what Prometheus adds to a summary's.
fn metrics(text: &str) -> BTreeSet<String> {
    // With a colon it is the name of a recording rule.
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let words = words.filter(|word| !word.trim_end_matches(':').contains(':'));
    let words = words.map(|word| word.trim_end_matches(':'));
    let ours = words.filter(|word| {
        ["weir_edge_", "weir_cloud_", "weir_event_"].iter().any(|start| word.starts_with(start))
    });
    let bare = |word: &str| {
        let ending = ["_sum", "_count", "_bucket"].into_iter().find_map(|ending| word.strip_suffix(ending));
        ending.unwrap_or(word).to_owned()
    };
    ours.map(bare).collect()
}

#[test]
fn every_metric_of_rules_and_dashboards_is_in_the_programs() {
    let root = Places::find().unwrap().root().to_owned();
    let mut sources = Vec::new();
    for program in ["edge/src", "cloud/src", "shared/src"] {
        files(&root.join(program), "rs", &mut sources);
    }
    let mut known = BTreeSet::new();
    for source in sources {
        known.extend(metrics(&std::fs::read_to_string(source).unwrap()));
    }
    let (mut users, mut wanted) = (Vec::new(), BTreeSet::new());
    files(&root.join("deploy/prometheus"), "yml", &mut users);
    files(&root.join("deploy/grafana/dashboards"), "json", &mut users);
    assert!(users.len() >= 9, "{users:?}");
    for user in &users {
        wanted.extend(metrics(&std::fs::read_to_string(user).unwrap()));
    }
    let unknown: Vec<_> = wanted.difference(&known).collect();
    assert!(wanted.len() > 50 && unknown.is_empty(), "of {} not in the programs: {unknown:?}", wanted.len());
}
