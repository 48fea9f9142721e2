//! Where and how the forwarder sends.
//!
//! Comes in: the configuration's values. Goes out: the settings of librdkafka. Guarantees: nothing that the guarantees
//! stand on can be changed by an option.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use weir_shared::kafka_security::Security;

/// Options that `kafka.options` may not change: the guarantees stand on them, or they have keys of their own.
pub(crate) const PINNED: [&str; 16] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "client.id",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.send.max.retries",
    "retries",
    "message.max.bytes",
    "linger.ms",
    "compression.codec",
    "compression.type",
];
/// KiB that librdkafka may hold: an edge has little memory. It takes no record that is larger than that.
const QUEUE_KBYTES: usize = 8192;

/// Where and how to send.
#[derive(Clone, Debug)]
pub(crate) struct KafkaConfig {
    /// Name of this edge.
    pub edge: String,
    /// Bootstrap servers.
    pub brokers: String,
    /// Partition count of the topics; 0 to ask.
    pub partitions: u32,
    /// How long a batch waits for company, in ms.
    pub linger_ms: u64,
    /// Codec.
    pub compression: &'static str,
    /// Most records in flight.
    pub in_flight_records_max: usize,
    /// Largest record in bytes.
    pub record_bytes_max: usize,
    /// How often the cursor is written.
    pub cursor: Duration,
    /// Most bytes a second, 0 for no cap.
    pub bytes_per_s_max: u64,
    /// TLS and login.
    pub security: Security,
    /// Further settings of librdkafka.
    pub options: Vec<(String, String)>,
}

impl KafkaConfig {
    /// The settings of a producer. `options` may add to them, but nothing of [`PINNED`]: the configuration's check
    /// sees to that.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("weir-edge-{}", self.edge))
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", (self.record_bytes_max + 4096).to_string())
            .set("linger.ms", self.linger_ms.to_string())
            .set("compression.codec", self.compression)
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES.max(self.record_bytes_max / 512).to_string())
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "5000");
        for (name, value) in self.security.librdkafka() {
            client.set(name, value);
        }
        for (name, value) in &self.options {
            client.set(name, value);
        }
        client
    }
}
