//! One connection to the MQTT broker that publishes with QoS 1.
//!
//! Comes in: messages from a closure, each with a token. Goes out: the token when the broker's PUBACK is there.
//! Guarantees: at most `in_flight` messages are unacknowledged; no message is published twice: after a lost
//! connection those in flight are given up (never reported as acknowledged), and the next connection goes on with
//! new ones. On failure: an error when nothing was acknowledged, or no connection made, for [`PATIENCE`].

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::Notify;
use weir_shared::backoff::Backoff;
use weir_shared::clock::Deadline;

/// How long the broker may say nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Messages between the maker and the connection.
const QUEUE: usize = 16;
const PACKET_BYTES_MAX: usize = 16 << 20;

/// Where and how to publish.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Host of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// MQTT client id.
    pub client_id: String,
    /// Most messages without an acknowledgement.
    pub in_flight: u16,
}

/// What the maker of messages wants next.
#[derive(Debug)]
pub enum Next<T> {
    /// Publish this.
    Send {
        /// MQTT topic.
        topic: String,
        /// Its bytes.
        payload: Vec<u8>,
        /// What comes back with the acknowledgement.
        token: T,
    },
    /// Ask again after this time.
    Wait(Duration),
    /// That was all.
    End,
}

/// Publishes until `next` ends and the broker has everything. Blocks.
///
/// # Errors
/// When the broker stays away, or `next` or `acked` fails.
pub fn publish<T>(
    connection: &Connection,
    mut next: impl FnMut() -> anyhow::Result<Next<T>>,
    mut acked: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut give_up = Deadline::after(PATIENCE);
        loop {
            let (session, mut events) = Session::new(connection);
            match session.run(&mut events, &mut next, &mut acked).await {
                Ok(()) => return Ok(()),
                Err(Failure::Own(error)) => return Err(error),
                Err(Failure::Broker(error)) if give_up.passed() && session.acks.get() == 0 => {
                    return Err(error).context("publishing over MQTT");
                }
                Err(Failure::Broker(_)) => {
                    if session.acks.get() > 0 {
                        give_up = Deadline::after(PATIENCE);
                        backoff.reset();
                    }
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        }
    })
}

enum Failure {
    /// The broker or the way to it.
    Broker(anyhow::Error),
    /// The maker of messages or the ledger: no other connection helps.
    Own(anyhow::Error),
}

/// One connection until it is lost or everything is acknowledged.
struct Session<T> {
    client: AsyncClient,
    /// Given to the client and without a packet identifier yet, in order.
    queued: RefCell<VecDeque<T>>,
    ended: Cell<bool>,
    wake: Notify,
    acks: Cell<u64>,
}

impl<T> Session<T> {
    fn new(connection: &Connection) -> (Self, EventLoop) {
        let mut options = MqttOptions::new(&connection.client_id, &connection.host, connection.port);
        options
            .set_clean_session(true)
            .set_keep_alive(Duration::from_secs(5))
            .set_inflight(connection.in_flight)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        let (client, events) = AsyncClient::new(options, QUEUE);
        let session = Self {
            client,
            queued: RefCell::default(),
            ended: Cell::new(false),
            wake: Notify::new(),
            acks: Cell::new(0),
        };
        (session, events)
    }

    async fn run(
        &self,
        events: &mut EventLoop,
        next: &mut impl FnMut() -> anyhow::Result<Next<T>>,
        acked: &mut impl FnMut(T) -> anyhow::Result<()>,
    ) -> Result<(), Failure> {
        // Nothing is asked of the maker before the connection stands: what it made would be given up.
        Self::connected(events).await?;
        tokio::try_join!(self.make(next), self.exchange(events, acked)).map(|_| ())
    }

    async fn connected(events: &mut EventLoop) -> Result<(), Failure> {
        match tokio::time::timeout(PATIENCE, events.poll()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::Broker(error.into())),
            Err(_) => Err(Failure::Broker(anyhow!("no answer to CONNECT"))),
        }
    }

    async fn make(&self, next: &mut impl FnMut() -> anyhow::Result<Next<T>>) -> Result<(), Failure> {
        loop {
            match next().map_err(Failure::Own)? {
                Next::Send { topic, payload, token } => {
                    self.queued.borrow_mut().push_back(token);
                    let sent = self.client.publish(topic, QoS::AtLeastOnce, false, payload).await;
                    sent.map_err(|error| Failure::Own(error.into()))?;
                }
                Next::Wait(wait) => tokio::time::sleep(wait).await,
                Next::End => break,
            }
        }
        self.ended.set(true);
        self.wake.notify_one();
        Ok(())
    }

    async fn exchange(
        &self,
        events: &mut EventLoop,
        acked: &mut impl FnMut(T) -> anyhow::Result<()>,
    ) -> Result<(), Failure> {
        let mut in_flight = HashMap::new();
        let mut patience = Deadline::after(PATIENCE);
        loop {
            if in_flight.is_empty() {
                patience = Deadline::after(PATIENCE);
                if self.ended.get() && self.queued.borrow().is_empty() {
                    return Ok(());
                }
            }
            let event = tokio::select! {
                event = events.poll() => event.map_err(|error| Failure::Broker(error.into()))?,
                () = self.wake.notified() => continue,
            };
            match event {
                Event::Outgoing(Outgoing::Publish(packet_id)) => {
                    let token = self.queued.borrow_mut().pop_front();
                    in_flight.insert(packet_id, token.expect("packets leave in the order they were queued"));
                }
                Event::Incoming(Packet::PubAck(ack)) => {
                    if let Some(token) = in_flight.remove(&ack.pkid) {
                        acked(token).map_err(Failure::Own)?;
                        self.acks.set(self.acks.get() + 1);
                        patience = Deadline::after(PATIENCE);
                    }
                }
                _ if patience.passed() => {
                    let waiting = in_flight.len();
                    return Err(Failure::Broker(anyhow!(
                        "{waiting} messages unacknowledged for {PATIENCE:?}"
                    )));
                }
                _ => {}
            }
        }
    }
}
