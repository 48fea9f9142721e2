//! The messages, and their publishers.
//!
//! Comes in: how many, over how many connections, at what pace. Goes out: messages of [`MESSAGE_BYTES`] from 1,000
//! devices, each device on one connection, with QoS 1.
//! Guarantees: returns when the broker has acknowledged all; each was published once. On failure: an error, also when
//! a connection was lost on the way.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use weir_shared::clock;

use crate::simulator::Pace;
use crate::simulator::publisher::{self, Connection, Next};

pub(super) const MESSAGE_BYTES: usize = 150;
const DEVICES: u64 = 1000;
/// Most unacknowledged messages of all connections together.
const IN_FLIGHT: u16 = 4000;

/// What to publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// In all.
    pub(super) messages: u64,
    /// One thread each.
    pub(super) connections: u16,
    /// In all; 0: as fast as it goes.
    pub(super) per_second: u64,
}

impl Load {
    /// Publishes to `<root>/<device>`.
    pub(super) fn publish(&self, (host, port): &(String, u16), root: &str) -> anyhow::Result<()> {
        let acked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let publishers: Vec<_> = (0..self.connections)
                .map(|n| {
                    let client_id = format!("bench-{}-{n}", std::process::id());
                    let in_flight = (IN_FLIGHT / self.connections).min(1000);
                    let connection = Connection { host: host.clone(), port: *port, client_id, in_flight };
                    let acked = &acked;
                    scope.spawn(move || self.publish_one(&connection, n, root, acked))
                })
                .collect();
            publishers
                .into_iter()
                .try_for_each(|p| p.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))?)
        })?;
        ensure!(acked.into_inner() == self.messages, "a connection to the broker was lost while publishing");
        Ok(())
    }

    /// The share of one connection.
    fn publish_one(
        &self,
        connection: &Connection,
        publisher: u16,
        root: &str,
        acked: &AtomicU64,
    ) -> anyhow::Result<()> {
        let (publisher, connections) = (u64::from(publisher), u64::from(self.connections));
        let mut next_message = publisher;
        let mut pace = Pace::new(self.per_second as f64 / f64::from(self.connections));
        let next = || {
            if next_message >= self.messages {
                return Ok(Next::End);
            }
            if let Some(wait) = pace.wait() {
                return Ok(Next::Wait(wait));
            }
            pace.sent(1);
            let device = format!("pump-{:04}", next_message % DEVICES);
            let payload = message(&device, next_message);
            next_message += connections;
            Ok(Next::Send { topic: format!("{root}/{device}"), payload, token: () })
        };
        publisher::publish(connection, next, |()| {
            acked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }
}

fn message(device: &str, n: u64) -> Vec<u8> {
    let (time, speed) = (clock::wall_ms(), 1400 + n % 200);
    let values = format!(r#"{{"t":{}.{},"p":1.0135,"rpm":{speed},"on":true}}"#, 20 + n % 10, n % 97);
    let mut message =
        format!(r#"{{"device":"{device}","ts":{time},"values":{values},"tags":{{"line":""#).into_bytes();
    message.resize(MESSAGE_BYTES - 3, b'3');
    message.extend_from_slice(br#""}}"#);
    message
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn messages_are_json_of_the_size_that_is_told() {
        for n in [0, 1, 96, 74_999] {
            let message = message("pump-0249", n);
            assert_eq!(message.len(), MESSAGE_BYTES);
            serde_json::from_slice::<Value>(&message).unwrap();
        }
    }
}
