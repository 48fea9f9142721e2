//! The configuration of `weir-edge`: its reference is compiled in.
//!
//! Comes in: the text of a TOML file. Goes out: a [`Config`], or every problem with file, line and column.
//! Opens nothing; reads only the files that it names as secrets and certificates.

mod clock;
mod flows;
mod windows;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::windows::rules::FlowRule;
use weir_shared::admin::AdminConfig;
use weir_shared::audit;
use weir_shared::config::{self, Problems, Section};
use weir_shared::kafka_security::{Security, options, refused};
use weir_shared::supervise::Error;
use weir_shared::tls::Tls;

use crate::decode::json::Mapping;
use crate::decode::times::Times;
use crate::decode::{self, Clean, Decoder, Form, Format};
pub(crate) use clock::ClockConfig;

use crate::flow::Flow;
use crate::forward::{self, KafkaConfig};
use crate::ingest::IngestConfig;
use crate::sources::file::{self, FileConfig};
use crate::sources::mqtt::MqttConfig;

/// Every key with its default.
pub(crate) const REFERENCE: &str = include_str!("../../deploy/weir-edge.toml");
/// Arrays of tables that the reference shows only in comments.
const ARRAYS: &str = "\n[[flow]]\n[[window]]\n[[clean]]\n[[file]]\n[[admin.token]]\n";

/// Everything that the stages need.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The admin port.
    pub admin: AdminConfig,
    /// Where the audit log is.
    pub audit: Option<PathBuf>,
    /// The source.
    pub mqtt: MqttConfig,
    /// The files to read.
    pub files: Vec<FileConfig>,
    /// The decoder.
    pub decoder: Decoder,
    /// The flows, the default one last.
    pub flows: Vec<Flow>,
    /// The window rules.
    pub rules: Vec<FlowRule>,
    /// How the clock is judged.
    pub clock: ClockConfig,
    /// Group commit and journal.
    pub ingest: IngestConfig,
    /// The forwarder.
    pub kafka: KafkaConfig,
}

/// Reads and checks the configuration.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn check(file: &str, text: &str) -> Result<Config, Problems> {
    let reference = format!("{REFERENCE}{ARRAYS}");
    config::check(file, text, &reference, read)
}

/// The text that these bytes are.
///
/// # Errors
/// Where they are no UTF-8.
pub(crate) fn text<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        let (at, byte) = (before.len(), rest.first().copied().unwrap_or_default());
        format!(
            "{file}:{line}:{column}: not UTF-8: byte {at} is {byte:#04x}; save the file as UTF-8\n1 problem in {file}"
        )
    })
}

fn read(root: &Section<'_>) -> Config {
    let name = root.required("name", "the name of this gateway, unique among all");
    check_name(root, &name);
    let (admin, audit) = (AdminConfig::read(root), audit::directory(root));
    let kafka = root.section("kafka");
    let journal = root.section("journal");
    let decode = root.section("decode");
    let record_bytes_max = size(&kafka, "record_bytes_max", 1024..=64 << 20);
    let limits = decode::Limits {
        message_bytes_max: size(&decode, "message_bytes_max", 1..=64 << 20),
        raw_bytes_max: size(&decode, "raw_bytes_max", 0..=32 << 20),
        record_bytes_max,
    };
    // Base64 makes four bytes of three, and a dead letter has its other fields too.
    if limits.raw_bytes_max / 3 * 4 + 16 * 1024 > record_bytes_max {
        decode.problem("raw_bytes_max", "three quarters of kafka.record_bytes_max less 16 KiB is the most");
    }
    let (files, forms): (Vec<_>, Vec<_>) = file::read(root, limits.message_bytes_max).into_iter().unzip();
    let mqtt = mqtt(&root.section("mqtt"), &name, size(&journal, "memory_bytes_max", 65_536..=1 << 31));
    if files.is_empty() && mqtt.topics.is_empty() {
        root.section("mqtt").problem("topics", "or a [[file]] must say where readings come from");
    }
    let decoder = Decoder {
        limits,
        mqtt: Form { format: Format::Json(mapping(&decode)), times: Times::read(&decode) },
        files: forms,
        clean: Clean::read(root),
    };
    let ingest = IngestConfig {
        segment_bytes: journal.integer("segment_bytes", 65_536..=1 << 30),
        commit: journal.millis("commit_ms", 0..=1000),
        commit_bytes_max: size(&journal, "commit_bytes", 1024..=256 << 20),
    };
    let flows = flows::read(root, &journal, ingest.segment_bytes.max(ingest.commit_bytes_max as u64));
    let rules = windows::read(root, &flows);
    let clock = clock::read(&root.section("clock"));
    Config {
        admin,
        audit,
        mqtt,
        files,
        decoder,
        flows,
        rules,
        clock,
        ingest,
        kafka: kafka_config(&kafka, name),
    }
}

/// A name stands in headers, keys and log lines.
fn check_name(s: &Section<'_>, name: &str) {
    if name.len() > 255 {
        s.problem("name", "at most 255 bytes");
    }
    if name.contains(char::is_control) {
        s.problem("name", "must be without line breaks and other control characters");
    }
}

fn mqtt(s: &Section<'_>, name: &str, memory_bytes_max: usize) -> MqttConfig {
    let topics = s.strings("topics");
    if topics.iter().any(|t| !rumqttc::valid_filter(t)) {
        s.problem("topics", "must be valid topic filters, for example [\"sensors/#\"]");
    }
    let client_id = s.string("client_id");
    MqttConfig {
        host: s.required("host", "the broker's host"),
        port: u16::try_from(s.integer("port", 1..=65_535)).unwrap_or(u16::MAX),
        client_id: if client_id.is_empty() { format!("weir-edge-{name}") } else { client_id },
        login: (s.string("username"), s.string("password")),
        tls: Tls::read(s),
        topics,
        keep_alive: Duration::from_secs(s.integer("keep_alive_s", 1..=3600)),
        packet_bytes_max: size(s, "packet_bytes_max", 1024..=268_435_455),
        memory_bytes_max,
    }
}

fn mapping(s: &Section<'_>) -> Mapping {
    let device_topic_level = size(s, "device_topic_level", 0..=100);
    let mapping = Mapping { device_topic_level, ..Mapping::read(s) };
    if mapping.device.is_empty() && device_topic_level == 0 {
        s.problem("device_field", "or device_topic_level must say where the device is");
    }
    mapping
}

fn kafka_config(s: &Section<'_>, edge: String) -> KafkaConfig {
    let security = Security::read(s);
    let options = options(s, &security, &forward::settings::PINNED, "weir-edge");
    let compressions = ["none", "gzip", "lz4", "snappy"];
    let config = KafkaConfig {
        edge,
        brokers: brokers(s),
        partitions: u32::try_from(s.integer("partitions", 0..=100_000)).unwrap_or(0),
        linger_ms: s.integer("linger_ms", 0..=10_000),
        compression: compressions[s.choice("compression", &compressions)],
        in_flight_records_max: size(s, "in_flight_records_max", 1..=1_000_000),
        record_bytes_max: size(s, "record_bytes_max", 1024..=64 << 20),
        cursor: s.millis("cursor_ms", 10..=60_000),
        bytes_per_s_max: s.integer("bytes_per_s_max", 0..=u64::from(u32::MAX)),
        security,
        options,
    };
    // Only librdkafka knows its options: ask it, without opening anything.
    if let Err(error) = config.client().create_native_config() {
        let option = if let KafkaError::ClientConfig(_, _, option, _) = &error { option } else { "" };
        s.problem("options", &refused(option, &error));
    }
    config
}

/// A text that was checked, with every key and no secret.
pub(crate) fn shown(text: &str) -> Result<String, Error> {
    config::shown(text, &format!("{REFERENCE}{ARRAYS}"))
}

/// `host:port[,host:port…]`, without the blanks.
fn brokers(s: &Section<'_>) -> String {
    let text = s.required("brokers", "host:port of one broker or more");
    let list: Vec<&str> = text.split(',').map(str::trim).collect();
    let right = |broker: &&str| {
        let Some((host, port)) = broker.rsplit_once(':') else { return false };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_right = literal.map_or_else(
            || !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_')),
            |address| address.parse::<std::net::Ipv6Addr>().is_ok(),
        );
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        host_right && digits && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if !text.is_empty() && !list.iter().all(right) {
        s.problem("brokers", "must be host:port[,host:port…], for example \"k1:9092,k2:9092\"");
    }
    list.join(",")
}

/// A duration with its unit, as "500ms", "10s", "5m", "2h" or "7d", in ms.
fn duration_ms(s: &Section<'_>, key: &str, range: RangeInclusive<i64>) -> i64 {
    let ms = s.parsed(key, "a duration with its unit, for example \"10s\" (ms, s, m, h, d)", parse_duration);
    if !range.contains(&ms) {
        s.problem(key, &format!("must be from {} to {} ms", range.start(), range.end()));
    }
    ms
}

fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    text[..digits].parse::<i64>().ok()?.checked_mul(unit)
}

fn size(s: &Section<'_>, key: &str, range: std::ops::RangeInclusive<u64>) -> usize {
    usize::try_from(s.integer(key, range)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
