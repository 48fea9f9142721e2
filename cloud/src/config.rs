//! The configuration of `weir-cloud`: `deploy/weir-cloud.toml` is its reference and holds every default.
//!
//! Comes in: the text of a file. Goes out: a checked [`Config`], or all problems with their places.
//! Guarantees: opens nothing but the file itself and the key file that `[rules]` names.

use std::path::{Path, PathBuf};

use weir_shared::admin::AdminConfig;
use weir_shared::audit;
use weir_shared::config::{Problems, Section, check};
use weir_shared::tls::Tls;

use crate::database::Server;
use crate::kafka::KafkaConfig;
use crate::process::ProcessConfig;
use crate::rules::store::config::RulesConfig;
use crate::sinks::config::SinksConfig;

/// The shipped file; compiled in as the defaults.
pub(crate) const REFERENCE: &str = include_str!("../../deploy/weir-cloud.toml");
/// Arrays of tables that the reference shows only in comments.
const ARRAYS: &str = "\n[[dimension]]\n[[sink.table]]\n[[admin.token]]\n";

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Name of this process among its like.
    pub(crate) slot: String,
    /// The admin port.
    pub(crate) admin: AdminConfig,
    /// Where the audit log is.
    pub(crate) audit: Option<PathBuf>,
    /// Brokers.
    pub(crate) kafka: KafkaConfig,
    /// The processor.
    pub(crate) process: ProcessConfig,
    /// Where the rules are.
    pub(crate) rules: RulesConfig,
    /// The stores.
    pub(crate) sinks: SinksConfig,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// What is in it is wrong.
    #[error(transparent)]
    Problems(#[from] Problems),
}

impl Error {
    /// Whether all is right but for files that the configuration names.
    pub(crate) fn is_of_files(&self) -> bool {
        matches!(self, Self::Problems(problems) if problems.are_of_files())
    }
}

/// Reads and checks a file; its text comes with it.
pub(crate) fn load(path: &Path) -> Result<(Config, String), Error> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Error::File(name.clone(), e))?;
    Ok((parse(&name, &text)?, text))
}

/// A text that was checked, with every key and no secret.
pub(crate) fn shown(text: &str) -> Result<String, weir_shared::supervise::Error> {
    weir_shared::config::shown(text, &format!("{REFERENCE}{ARRAYS}"))
}

fn parse(name: &str, text: &str) -> Result<Config, Problems> {
    check(name, text, &format!("{REFERENCE}{ARRAYS}"), read)
}

fn read(root: &Section<'_>) -> Config {
    let slot = root.required("slot", "a name of its own for each process");
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if slot.len() > 100 || !slot.chars().all(fits) {
        root.problem("slot", "must be at most 100 letters, digits, dots, underscores and dashes");
    }
    let rules = RulesConfig::read(root);
    Config {
        slot,
        admin: AdminConfig::read(root),
        audit: audit::directory(root),
        kafka: KafkaConfig::read(root),
        process: ProcessConfig::read(root),
        sinks: SinksConfig::read(root, &rules.topics),
        rules,
    }
}

impl Config {
    /// Who is spoken to with TLS.
    pub(crate) fn peers(&self) -> Vec<(String, Tls)> {
        let rules = self.rules.server.as_ref().and_then(Server::tls);
        let (kafka, admin) = (self.kafka.security.tls.as_ref(), self.admin.tls.as_ref());
        let others =
            [("kafka", kafka), ("rules", rules), ("admin", admin)].map(|(name, tls)| (name.to_owned(), tls));
        let all = self.process.dimensions.iter().map(|d| (format!("dimension.{}", d.name), d.server.tls()));
        let all = all.chain(others).filter_map(|(name, tls)| Some((name, tls?))).chain(self.sinks.peers());
        all.map(|(name, tls)| (name, tls.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_as_the_reference_shows_it_has_the_defaults() {
        let start = REFERENCE.find("# [[dimension]]").unwrap();
        let block = REFERENCE[start..].lines().take_while(|line| line.starts_with("# "));
        let text: Vec<&str> = block.map(|line| &line[2..]).filter(|line| !line.starts_with(' ')).collect();
        let shown = parse("shown", &text.join("\n")).unwrap().process.dimensions;
        let short = "[[dimension]]\nname = 'devices'\nurl = 'mysql://user:password@host:3306/database'\n\
            table = 'weir_devices'\n";
        let short = parse("short", short).unwrap().process.dimensions;
        assert_eq!(format!("{shown:?}"), format!("{short:?}"));
    }

    #[test]
    fn a_table_as_the_reference_shows_it_lacks_its_time_and_where_its_column_comes_from() {
        let start = REFERENCE.find("# [[sink.table]]").unwrap();
        let block = REFERENCE[start..].lines().take_while(|line| line.starts_with("# "));
        let text: Vec<&str> = block.map(|line| &line[2..]).filter(|line| !line.starts_with(' ')).collect();
        let shown = parse("shown", &text.join("\n")).unwrap_err().to_string();
        for part in [
            "sink.table[0].time: there is no column \"time\"; known here: kw",
            "sink.table[0].column[0].from: records of weir.enriched have no member \"kw\"",
            "sink.table[0].column[0].default: is not a string",
            "3 problems",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
    }

    #[test]
    fn the_reference_reads_as_its_own_defaults() {
        let shipped = parse("reference", REFERENCE).unwrap();
        let empty = parse("empty", "").unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{empty:?}"));
        assert_eq!(empty.kafka.partitions, 4);
        assert_eq!(empty.process.cycle.as_millis(), 25);
    }

    #[test]
    fn what_is_printed_reads_as_the_same() {
        let all = shown("slot = 'x'").unwrap();
        let (printed, short) = (parse("printed", &all).unwrap(), parse("short", "slot = 'x'").unwrap());
        assert_eq!(format!("{printed:?}"), format!("{short:?}"));
    }

    #[test]
    fn all_problems_come_at_once() {
        let text = "slot = 'a b'\n[kafka]\noptions = ['acks=1', 'nonsense.option=1', 'x', 'enable.ssl.certificate.verification=false']\n\
            [process]\ncycle_ms = 0\nhold_bytes_max = 5\n\
            [[dimension]]\nname = 'd'\nurl = 'mysql://h/d'\ntable = 't'\nkey = 'k'\n\
            [[dimension]]\nname = 'd'\nurl = 'ftp://h'\ntable = ''\nkey = 'k'\n\
            [[dimension]]\nname = 'e'\nurl = 'mysql://h'\ntable = 't'\nkey = ['a', 'b']\non = ['device']\n\
            mode = 'push'\npoll_ms = 5\nmissing = 'drop'\ncolum = []\n\
            [[dimension]]\nname = 'f'\nurl = 'mysql://h/d'\ntable = 'a.b.c'\nkey = []\non = ['tag.x']\n\
            missing = 'correct'\n";
        let shown = parse("c.toml", text).unwrap_err().to_string();
        for part in [
            "c.toml:1:8: slot: must be at most",
            "kafka.options: \"acks\" is set by weir-cloud itself",
            "nonsense.option",
            "\"enable.ssl.certificate.verification\": certificates are always checked",
            "kafka.options: number 3 must be \"name=value\"",
            "process.cycle_ms: must be an integer",
            "dimension[1].name: \"d\" is there twice",
            "dimension[1].url: must be",
            "dimension[1].table: must be set",
            "c.toml:20:9: dimension[2].table: must be database.table",
            "c.toml:22:6: dimension[2].on: must have one part of the reading for each column of key",
            "dimension[2].mode: must be one of binlog, poll",
            "dimension[2].poll_ms: must be an integer from 100 to 86400000",
            "dimension[2].missing: must be one of emit, hold, correct",
            "c.toml:26:1: dimension[2].colum: unknown key; did you mean \"columns\"?",
            "c.toml:33:11: dimension[3].missing: \"correct\" would send a reading once more",
            "use \"hold\" (it waits for its row) or \"emit\"",
            "process.hold_bytes_max: must be an integer from 1048576",
            "dimension[3].table: must be database.table",
            "dimension[3].key: must name 1 to 8 columns",
            "dimension[3].on: \"tag.x\" must be device, tags.<name> or values.<name>",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
    }
}
