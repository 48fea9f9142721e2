//! The section `[rules]` of the configuration.
//!
//! Comes in: the root section. Goes out: where the rules are, and what they may refer to beside the dimensions.
//! On failure: problems with their places, all at once. Reads the key file, opens nothing else.

use std::fmt;
use std::time::Duration;

use weir_shared::config::Section;

use crate::database::Server;
use crate::init;
use crate::rules::Schema;

/// Shortest secret, in bytes.
const KEY_BYTES_MIN: usize = 16;
/// Longest secret, in bytes: a file that is larger is not one.
const KEY_BYTES_MAX: usize = 4096;
/// Most topics that routes may name.
const TOPICS_MAX: usize = 100;

/// `[rules]`
#[derive(Clone, Debug, Default)]
pub(crate) struct RulesConfig {
    /// Database; `None`: there are no rules.
    pub(crate) server: Option<Server>,
    /// How often it is asked for changes.
    pub(crate) poll: Duration,
    /// How often a process says that it still follows them.
    pub(crate) status: Duration,
    /// Topics that routes may name.
    pub(crate) topics: Vec<String>,
    /// Secret of keyed hashes.
    pub(crate) mask_key: Option<Secret>,
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl RulesConfig {
    /// Reads `[rules]` of the root section.
    pub(crate) fn read(root: &Section<'_>) -> Self {
        let section = root.section("rules");
        Self {
            server: read_server(&section),
            poll: section.millis("poll_ms", 10..=60_000),
            status: section.millis("status_ms", 100..=60_000),
            topics: read_topics(&section),
            mask_key: read_key(&section),
        }
    }

    /// What rules may refer to, with the dimension tables and their columns as given.
    pub(crate) fn schema(&self, dims: Vec<(String, Vec<String>)>) -> Schema {
        let hash_key = self.mask_key.as_ref().map(|key| key.0.clone());
        Schema { dims, topics: self.topics.clone(), hash_key }
    }
}

fn read_server(section: &Section<'_>) -> Option<Server> {
    let url = section.string("url");
    if url.is_empty() { Server::unused(section) } else { Server::read_with_database(section, &url) }
}

fn read_topics(section: &Section<'_>) -> Vec<String> {
    let topics = section.strings("topics");
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    for (i, topic) in topics.iter().enumerate() {
        // What a route sends there would be there twice, or come in again.
        if init::is_own(topic) {
            section.problem("topics", &format!("{topic:?} is one of Weir's own; name others"));
        }
        if topics[..i].contains(topic) {
            section.problem("topics", &format!("{topic:?} stands there twice"));
        }
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(fits) {
            section.problem(
                "topics",
                &format!("{topic:?} must be 1 to 249 letters, digits, dots, underscores and dashes"),
            );
        }
    }
    if topics.len() > TOPICS_MAX {
        section.problem("topics", &format!("must be at most {TOPICS_MAX}"));
    }
    topics
}

/// The content of the key file without the line end that editors add.
fn read_key(section: &Section<'_>) -> Option<Secret> {
    let file = section.string("mask_key_file");
    if file.is_empty() {
        return None;
    }
    match std::fs::read(&file) {
        Err(error) => {
            section.file_problem("mask_key_file", &format!("{file}: {error}"));
            None
        }
        Ok(mut bytes) => {
            while bytes.last().is_some_and(|b| *b == b'\n' || *b == b'\r') {
                bytes.pop();
            }
            if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()) {
                let have = bytes.len();
                section.file_problem(
                    "mask_key_file",
                    &format!("{file}: has {have} bytes; must be {KEY_BYTES_MIN} to {KEY_BYTES_MAX}"),
                );
            }
            Some(Secret(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "[rules]\nurl = ''\npoll_ms = 200\nstatus_ms = 5000\ntopics = []\nmask_key_file = ''\n\
        [rules.tls]\nenabled = false\nca_file = ''\ncertificate_file = ''\nkey_file = ''\n";

    fn read(text: &str) -> Result<RulesConfig, String> {
        weir_shared::config::check("c.toml", text, REFERENCE, RulesConfig::read).map_err(|e| e.to_string())
    }

    #[test]
    fn no_url_means_no_rules() {
        let config = read("").unwrap();
        assert!(config.server.is_none() && config.mask_key.is_none());
        assert_eq!((config.poll.as_millis(), config.status.as_millis()), (200, 5000));
    }

    #[test]
    fn all_problems_at_once() {
        let text = "[rules]\nurl = 'mysql://h'\npoll_ms = 1\ntopics = ['a b','weir.enriched','weir.alerts.high','x','x']\nmask_key_file = '/no/such/key'\n";
        let shown = read(text).unwrap_err();
        for part in [
            "c.toml:2:7: rules.url: must name",
            "poll_ms: must be",
            "\"a b\" must be",
            "/no/such/key",
            "\"weir.enriched\" is one of",
            "\"weir.alerts.high\" is one of",
            "\"x\" stands there twice",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
    }

    #[test]
    fn the_key_is_read_and_never_shown() {
        let file = std::env::temp_dir().join(format!("weir-key-{}", std::process::id()));
        std::fs::write(&file, "a secret of 20 bytes\r\n").unwrap();
        let with = || read(&format!("[rules]\nmask_key_file = '{}'\n", file.display()));
        let config = with().unwrap();
        assert_eq!(config.schema(Vec::new()).hash_key.as_deref(), Some(b"a secret of 20 bytes".as_slice()));
        assert!(!format!("{config:?}").contains("secret"), "{config:?}");
        std::fs::write(&file, "short\n").unwrap();
        let refused = with().unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(refused.contains("has 5 bytes; must be 16"), "{refused}");
    }
}
