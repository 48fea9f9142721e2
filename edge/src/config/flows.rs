//! The flows: the default one in `[journal]`, others in `[[flow]]`.
//!
//! Comes in: both sections. Goes out: the flows, the default one last. Guarantees: names and folders are unique, and
//! names are fit for a folder. Pure.

use std::path::{Path, PathBuf};

use weir_shared::config::Section;

use crate::flow::{Flow, Forward, Policy};
use crate::journal::RESERVE_BYTES;
use crate::journal::writer::reserve::OTHER_SHARE;

/// Every key of a `[[flow]]` with its default.
pub(super) const REFERENCE: &str = r#"
name = ""
topics = []
budget_bytes = 2147483648
retain_bytes = 0
policy = "block"
roll_up = "1m"
forward = "both"
live_first = false
"#;

const FORWARD: [(&str, Forward); 3] =
    [("both", Forward::Both), ("readings", Forward::Readings), ("windows", Forward::Windows)];
const BUDGET_MAX: u64 = 1 << 50;

pub(super) fn read(root: &Section<'_>, journal: &Section<'_>, batch_bytes: u64) -> Vec<Flow> {
    let dir = PathBuf::from(journal.required("dir", "the folder of the journal"));
    let mut flows = root.each("flow", REFERENCE, |s| named(s, &dir, batch_bytes));
    let mut names: Vec<&str> = flows.iter().map(|flow| &*flow.name).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        root.problem("flow", "two flows have the same name");
    }
    let name = Flow::DEFAULT.to_owned();
    flows.push(flow(journal, name, vec!["#".to_owned()], dir, batch_bytes));
    flows
}

fn named(s: &Section<'_>, dir: &Path, batch_bytes: u64) -> Flow {
    let name = s.required("name", "the name of the flow, which is also that of its folder");
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.len() > 64 || !name.chars().all(fit) || name == Flow::DEFAULT || name == "set-aside" {
        s.problem("name", "letters, digits, - and _, at most 64, and neither \"default\" nor \"set-aside\"");
    }
    let topics = s.strings("topics");
    if topics.is_empty() || topics.iter().any(|topic| !rumqttc::valid_filter(topic)) {
        s.problem("topics", "must be at least one valid topic filter, for example [\"sensors/vibration/#\"]");
    }
    let dir = dir.join("flows").join(&name);
    flow(s, name, topics, dir, batch_bytes)
}

fn flow(s: &Section<'_>, name: String, topics: Vec<String>, dir: PathBuf, batch_bytes: u64) -> Flow {
    let roll_up = super::duration_ms(s, "roll_up", 1000..=86_400_000);
    let policy = match s.choice("policy", &["block", "drop_oldest", "roll_up"]) {
        0 => Policy::Block,
        1 => Policy::DropOldest,
        _ => Policy::RollUp(roll_up),
    };
    let budget_bytes = s.integer("budget_bytes", 0..=BUDGET_MAX);
    let least = 2 * (RESERVE_BYTES + batch_bytes) / (OTHER_SHARE - 1) * OTHER_SHARE;
    if budget_bytes > 0 && budget_bytes < least {
        let why = format!(
            "0 (no limit) or at least {least}: two of segment_bytes or commit_bytes and twice the reserve of 1 MiB, \
             as the state of windows may take a quarter"
        );
        s.problem("budget_bytes", &why);
    }
    Flow {
        name,
        topics,
        dir,
        budget_bytes,
        retain_bytes: s.integer("retain_bytes", 0..=BUDGET_MAX),
        policy,
        forward: FORWARD[s.choice("forward", &FORWARD.map(|(word, _)| word))].1,
        live_first: s.boolean("live_first"),
    }
}
