//! Where everything of a stack listens: one port base per stack name, loopback only.
//!
//! In: a stack's name (one of [`STACKS`]). Out: its ports and the addresses programs need.
//! Guarantees: the stacks share no port; nothing else in the harness knows a port number.
//! On failure: an unknown name is an error that lists the known ones.

use anyhow::{Result, bail};
use serde::Serialize;

/// Everything listens here and nowhere else.
pub const HOST: &str = "127.0.0.1";
/// Who logs in to Kafka where that wants a login.
pub const KAFKA_USER: &str = "weir";
/// See [`KAFKA_USER`].
pub const KAFKA_PASSWORD: &str = "weir-local";
/// User, password and database of MariaDB. The server listens on loopback only.
pub const MYSQL_USER: &str = "weir";
/// Who must show a certificate; the same password.
pub const MYSQL_TLS_USER: &str = "weir_tls";
/// Who may do anything, for faults; the same password.
pub const MYSQL_ADMIN: &str = "weir_admin";
/// See [`MYSQL_USER`].
pub const MYSQL_PASSWORD: &str = "weir-local";
/// See [`MYSQL_USER`].
pub const MYSQL_DATABASE: &str = "weir";

/// Stack names and their first ports, below Linux' range for outgoing connections (32768 and up).
pub const STACKS: [(&str, u16); 7] = [
    ("demo", 18100),
    ("test", 18200),
    (CHAOS, 18300),
    (CHAOS_CLOUD, 18400),
    (CHAOS_SINKS, 18500),
    (OLD_CLICKHOUSE, 18600),
    (SEARCH, 18700),
];
/// The stack of the edge's fault suite: only Mosquitto and Kafka.
pub const CHAOS: &str = "chaos";
/// The stack of the processor's fault suite: three brokers of Kafka, their controller, and MariaDB.
pub const CHAOS_CLOUD: &str = "chaos-cloud";
/// The stack of the sinks' fault suite: one broker of Kafka, MariaDB and its replica, Elasticsearch, ClickHouse.
pub const CHAOS_SINKS: &str = "chaos-sinks";
/// The stack of the test on an old server: ClickHouse 18.16, and a Kafka of its own, as a store has one consumer group.
pub const OLD_CLICKHOUSE: &str = "old-clickhouse";
/// The stack of the test over search servers: Kafka, Elasticsearch 8 and OpenSearch.
pub const SEARCH: &str = "search";
/// Brokers of [`CHAOS_CLOUD`].
pub const BROKERS: u16 = 3;

/// The ports of one stack.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    base: u16,
}

impl Ports {
    /// The ports of the stack called `name`.
    pub fn of(name: &str) -> Result<Self> {
        match STACKS.iter().find(|(known, _)| *known == name) {
            Some((_, base)) => Ok(Self { base: *base }),
            None => {
                let known = STACKS.map(|(known, _)| format!("`{known}`")).join(", ");
                bail!("there is no stack named `{name}`: there are {known}")
            }
        }
    }

    /// MQTT listener of Mosquitto.
    pub fn mqtt(self) -> u16 {
        self.base
    }
    /// Client listener of Kafka.
    pub fn kafka(self) -> u16 {
        self.base + 1
    }
    /// `KRaft` controller listener of Kafka.
    pub fn kafka_controller(self) -> u16 {
        self.base + 2
    }
    /// Client listener of one of several brokers, counted from 0.
    pub fn broker(self, number: u16) -> u16 {
        if number == 0 { self.kafka() } else { self.base + 11 + number }
    }
    /// The same broker's listener for clients that come through a proxy.
    pub fn broker_behind_proxy(self, number: u16) -> u16 {
        self.base + 14 + number
    }
    /// Where the proxy of that broker listens.
    pub fn broker_proxy(self, number: u16) -> u16 {
        self.base + 17 + number
    }
    /// MariaDB.
    pub fn mysql(self) -> u16 {
        self.base + 3
    }
    /// Its replica.
    pub fn mysql_replica(self) -> u16 {
        self.base + 7
    }
    /// HTTP interface of Elasticsearch.
    pub fn elasticsearch(self) -> u16 {
        self.base + 4
    }
    /// Transport of Elasticsearch.
    pub fn elasticsearch_transport(self) -> u16 {
        self.base + 5
    }
    /// HTTP interface of OpenSearch.
    pub fn opensearch(self) -> u16 {
        self.base + 8
    }
    /// Transport of OpenSearch.
    pub fn opensearch_transport(self) -> u16 {
        self.base + 9
    }
    /// HTTP interface of the ClickHouse engine.
    pub fn clickhouse(self) -> u16 {
        self.base + 6
    }
    /// Kept free for `weir-edge`'s admin endpoint.
    pub fn edge_admin(self) -> u16 {
        self.base + 10
    }
    /// Kept free for `weir-cloud`'s admin endpoint.
    pub fn cloud_admin(self) -> u16 {
        self.base + 11
    }
    /// MQTT listener of Mosquitto with TLS, for clients that show a certificate.
    pub fn mqtt_tls(self) -> u16 {
        self.base + 20
    }
    /// Listener of Kafka with TLS, for clients that show a certificate.
    pub fn kafka_tls(self) -> u16 {
        self.base + 21
    }
    /// Listener of Kafka with TLS and SASL.
    pub fn kafka_sasl(self) -> u16 {
        self.base + 22
    }
    /// The first of the ports that tests may use as they like (up to and with `base + 99`).
    pub fn first_free(self) -> u16 {
        self.base + 30
    }

    /// A database that listens on this port, as a URL.
    pub fn mysql_url(port: u16) -> String {
        format!("mysql://{MYSQL_USER}:{MYSQL_PASSWORD}@{HOST}:{port}/{MYSQL_DATABASE}")
    }

    /// The same, for [`MYSQL_ADMIN`].
    pub fn mysql_admin_url(port: u16) -> String {
        format!("mysql://{MYSQL_ADMIN}:{MYSQL_PASSWORD}@{HOST}:{port}/{MYSQL_DATABASE}")
    }

    /// The same as addresses.
    pub fn addresses(self) -> Addresses {
        Addresses {
            mqtt: (HOST.to_owned(), self.mqtt()),
            kafka: format!("{HOST}:{}", self.kafka()),
            mysql_url: Self::mysql_url(self.mysql()),
            elasticsearch_url: format!("http://{HOST}:{}", self.elasticsearch()),
            clickhouse_url: format!("http://{HOST}:{}", self.clickhouse()),
            edge_admin: format!("{HOST}:{}", self.edge_admin()),
            cloud_admin: format!("{HOST}:{}", self.cloud_admin()),
        }
    }
}

/// What a program needs to reach the servers of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Host and port of the MQTT broker.
    pub mqtt: (String, u16),
    /// Bootstrap server, `host:port`.
    pub kafka: String,
    /// `mysql://user:password@host:port/database`.
    pub mysql_url: String,
    /// `http://host:port`.
    pub elasticsearch_url: String,
    /// `http://host:port`.
    pub clickhouse_url: String,
    /// `host:port` kept free for `weir-edge`.
    pub edge_admin: String,
    /// `host:port` kept free for `weir-cloud`.
    pub cloud_admin: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_do_not_share_ports_and_unknown_names_are_refused() {
        for pair in STACKS.windows(2) {
            assert!(pair[0].1.abs_diff(pair[1].1) >= 100);
            let [one, other] = [pair[0].0, pair[1].0].map(|name| Ports::of(name).expect("known").addresses());
            assert_ne!(one, other);
        }
        let refused = Ports::of("prod").expect_err("unknown").to_string();
        assert!(
            refused.contains(
                "`demo`, `test`, `chaos`, `chaos-cloud`, `chaos-sinks`, `old-clickhouse`, `search`"
            ),
            "{refused}"
        );
    }
}
