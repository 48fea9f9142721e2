//! The connection to the broker, and what is proven about its acknowledgements.
//!
//! Comes in: receipts of messages that are on disk. Goes out: PUBACKs, in the order received, many in one write; and
//! up to which receipt they are proven to have reached the broker.
//! Guarantees: a receipt of an earlier connection is never used, as the broker may have given its identifier to
//! another message. A broker works through a connection in order: so a PINGRESP proves what was written before its
//! ping, and the end of a connection that was told to end (DISCONNECT, then end of file, no reset) proves all of it.
//! On failure: the reason; the caller connects anew.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rumqttc::{Event, EventLoop, Packet, PubAck, Publish, QoS, StateError, Transport};
use weir_shared::clock;
use weir_shared::tls::Tls;

use super::super::Receipt;

/// How long a write may take before the connection is given up.
const WRITE: Duration = Duration::from_secs(10);
/// A ping goes out after this many acknowledgements, or after this long.
const PING_MESSAGES: u64 = 8192;
const PING: Duration = Duration::from_secs(5);

/// One client's connections, one after the other.
pub(super) struct Link {
    network: EventLoop,
    /// Counts the connections.
    connection: u64,
    /// Messages received on all of them.
    count: u64,
    /// Receipt of the last message that wants an acknowledgement.
    owed: u64,
    /// Receipt of the last acknowledgement written, or of the last message of earlier connections.
    written: u64,
    /// Up to here the acknowledgements of this connection are proven.
    proven: u64,
    /// What `written` was when each ping went out that is not answered yet.
    pings: VecDeque<u64>,
    pinged: Instant,
}

impl Link {
    pub(super) fn new(network: EventLoop) -> Self {
        let pings = VecDeque::new();
        Self {
            network,
            connection: 0,
            count: 0,
            owed: 0,
            written: 0,
            proven: 0,
            pings,
            pinged: clock::instant(),
        }
    }

    /// Makes a connection; with TLS, with the certificates that are there now.
    pub(super) async fn connect(&mut self, tls: Option<&Tls>) -> Result<Event, String> {
        if let Some(tls) = tls {
            let connector = tls.connector().map_err(|e| e.to_string())?;
            self.network.mqtt_options.set_transport(Transport::tls_with_config(connector.into()));
        }
        self.poll().await
    }

    /// Whether there is a connection; if not, [`Link::connect`] makes one.
    pub(super) const fn is_connected(&self) -> bool {
        self.network.network.is_some()
    }

    /// What the broker sends next. Giving this up loses nothing while connected; while connecting it starts anew.
    pub(super) async fn poll(&mut self) -> Result<Event, String> {
        self.network.poll().await.map_err(|e| e.to_string())
    }

    /// Messages of this connection whose acknowledgement is not proven.
    pub(super) const fn unproven(&self) -> u64 {
        self.count - self.proven
    }

    /// The receipt for a message that came now.
    pub(super) fn receipt(&mut self, publish: &Publish) -> Receipt {
        self.count += 1;
        Receipt { connection: self.connection, packet: publish.pkid, count: self.count }
    }

    /// The message of this receipt was handed on: it will come back, unless it wants no acknowledgement.
    pub(super) fn handed_on(&mut self, receipt: Receipt) {
        if receipt.packet != 0 {
            self.owed = receipt.count;
        }
    }

    /// The broker accepted the connection. What was open before comes again first of all, or has arrived.
    pub(super) fn connected(&mut self) {
        (self.written, self.proven) = (self.count, self.count);
    }

    /// The client library sent a ping of its own.
    pub(super) fn pinged(&mut self) {
        self.pings.push_back(self.written);
    }

    /// The broker answered the oldest ping: what that proves.
    pub(super) fn answered(&mut self) -> Option<u64> {
        let receipt = self.pings.pop_front()?;
        self.proven = receipt;
        Some(receipt)
    }

    /// Writes the acknowledgements of this connection, and a ping behind them when one is due.
    pub(super) async fn acknowledge(&mut self, receipts: Vec<Receipt>) -> Result<(), String> {
        let mut receipts = receipts;
        receipts.retain(|r| r.connection == self.connection);
        let Some(last) = receipts.last().map(|r| r.count) else { return Ok(()) };
        self.write(receipts.iter().map(|r| Packet::PubAck(PubAck::new(r.packet)))).await?;
        self.written = last;
        let asked = self.pings.back().copied().unwrap_or(self.proven);
        let due = self.written >= asked + PING_MESSAGES || clock::since(self.pinged) >= PING;
        if due && self.pings.len() < 2 {
            self.pinged = clock::instant();
            self.pings.push_back(self.written);
            self.write([Packet::PingReq]).await?;
        }
        Ok(())
    }

    async fn write(&mut self, packets: impl IntoIterator<Item = Packet>) -> Result<(), String> {
        let Some(network) = &mut self.network.network else { return Ok(()) };
        let written = async {
            for packet in packets {
                network.write(packet).await?;
            }
            network.flush().await
        };
        match tokio::time::timeout(WRITE, written).await {
            Ok(done) => done.map_err(|e| e.to_string()),
            Err(_) => Err(format!("the broker takes nothing for {WRITE:?}")),
        }
    }

    /// Ends the connection in order: the receipt up to which that proves its acknowledgements. What the broker sends
    /// meanwhile is not taken, and comes again; but QoS 0 would not, and is given to `keep`.
    pub(super) async fn close(
        &mut self,
        durable: &flume::Receiver<Vec<Receipt>>,
        mut keep: impl FnMut(Publish),
    ) -> Result<u64, String> {
        while self.written < self.owed {
            let receipts = durable.recv_async().await.map_err(|e| e.to_string())?;
            self.acknowledge(receipts).await?;
        }
        self.write([Packet::Disconnect]).await?;
        while let Some(network) = &mut self.network.network {
            match network.read().await {
                Ok(Packet::Publish(publish)) if publish.qos == QoS::AtMostOnce => keep(publish),
                Ok(_) => {}
                Err(error) if is_end(&error) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(self.written)
    }

    /// Forgets the connection. Gives back what was read and not handled yet: it came on that connection.
    pub(super) fn forget(&mut self) -> Vec<Publish> {
        self.network.clean();
        let events = std::mem::take(&mut self.network.state.events);
        let publish = |event| match event {
            Event::Incoming(Packet::Publish(publish)) => Some(publish),
            _ => None,
        };
        events.into_iter().filter_map(publish).collect()
    }

    /// From here on messages come on another connection.
    pub(super) fn next_connection(&mut self) {
        self.connection += 1;
        self.pings.clear();
    }
}

/// Whether the broker closed its side, maybe in the middle of a packet, after it had read all that was sent to it: a
/// connection with unread bytes is reset instead.
fn is_end(error: &StateError) -> bool {
    match error {
        StateError::ConnectionAborted => true,
        StateError::Deserialization(rumqttc::Error::Io(error)) => error.kind() == ErrorKind::Other,
        _ => false,
    }
}
