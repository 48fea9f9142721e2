//! The MQTT source: QoS 1 with a persistent session and manual acknowledgement.
//!
//! Comes in: packets from the broker. Goes out: messages to the ingest stage, in the order received;
//! acknowledgements to the broker, in that same order, each only after the ingest stage gave the receipt back.
//! Guarantees: memory on the way is bounded (then nothing more is read from the socket); a receipt of an earlier
//! connection is never used (the broker sends that message again); subscribed again whenever the broker has no
//! session, or one with other subscriptions.
//! On failure: reconnects with jittered backoff for ever; `/ready` says why it is not subscribed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event as Mqtt, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{Semaphore, watch};
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock;
use weir_shared::supervise::{Error, Stop};

use super::{Event, Message, Receipt};

/// Name under which this source complains.
const WHO: &str = "mqtt";
/// More acknowledgements than there are packet identifiers can never wait.
const REQUESTS_MAX: usize = 70_000;
/// Memory is counted in units of this, as a semaphore counts to 2²⁹ only on 32-bit machines.
const MEMORY_UNIT_BYTES: usize = 64;

/// Where and how to subscribe.
#[derive(Clone, Debug)]
pub(crate) struct MqttConfig {
    /// Broker.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Under which the broker keeps the session.
    pub client_id: String,
    /// User and password; none where both are empty.
    pub login: (String, String),
    /// Topic filters.
    pub topics: Vec<String>,
    /// Ping interval.
    pub keep_alive: Duration,
    /// Largest packet.
    pub packet_bytes_max: usize,
    /// Most bytes on their way to the journal.
    pub memory_bytes_max: usize,
}

/// What the source is connected to inside the process.
pub(crate) struct Wiring {
    /// To the ingest stage.
    pub events: flume::Sender<Event>,
    /// From the ingest stage: what is durable.
    pub durable: flume::Receiver<Vec<Receipt>>,
    /// The session that the journal knows, with the hash of its subscriptions.
    pub session: Option<(u64, u64)>,
    /// True once readings can be numbered, that is when the partition counts are known.
    pub open: watch::Receiver<bool>,
    /// Where to complain.
    pub ready: Health,
}

/// Runs until told to stop.
pub(crate) fn run(config: &MqttConfig, wiring: Wiring, stop: &Stop) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = serve(config, wiring) => result,
            () = stop.wait() => Ok(()),
        }
    })
}

async fn serve(config: &MqttConfig, mut wiring: Wiring) -> Result<(), Error> {
    wiring.ready.bad(WHO, "waits for Kafka to say how many partitions there are; or set kafka.partitions");
    wiring.open.wait_for(|open| *open).await?;
    wiring.ready.bad(WHO, "not connected yet");
    let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
    options.set_clean_session(false);
    options.set_manual_acks(true);
    options.set_keep_alive(config.keep_alive);
    options.set_max_packet_size(config.packet_bytes_max, config.packet_bytes_max);
    if config.login != Default::default() {
        options.set_credentials(&config.login.0, &config.login.1);
    }
    let (client, mut network) = AsyncClient::new(options, REQUESTS_MAX);
    let mut sockets = rumqttc::NetworkOptions::new();
    sockets.set_tcp_nodelay(true);
    network.set_network_options(sockets);
    let state = State::default();
    let durable = wiring.durable.clone();
    let mut receiver = Receiver::new(config, wiring, client.clone(), network, &state)?;
    tokio::select! {
        result = receiver.receive() => result,
        result = acknowledge(&durable, &client, &state) => result,
    }
}

/// What receiving and acknowledging share; both run on one thread.
#[derive(Default)]
struct State {
    connection: Cell<u64>,
    /// Receipts of acknowledgements that were handed over and are not written yet.
    unwritten: RefCell<VecDeque<u64>>,
}

async fn acknowledge(
    durable: &flume::Receiver<Vec<Receipt>>,
    client: &AsyncClient,
    state: &State,
) -> Result<(), Error> {
    let mut publish = Publish::new("", QoS::AtLeastOnce, "");
    while let Ok(receipts) = durable.recv_async().await {
        for receipt in receipts {
            if receipt.connection == state.connection.get() {
                publish.pkid = receipt.packet;
                client.try_ack(&publish).map_err(|e| format!("acknowledgements piled up: {e}"))?;
                state.unwritten.borrow_mut().push_back(receipt.count);
            }
        }
    }
    // The ingest stage ended and says itself why.
    std::future::pending().await
}

struct Receiver<'a> {
    config: &'a MqttConfig,
    wiring: Wiring,
    client: AsyncClient,
    network: EventLoop,
    state: &'a State,
    memory: Arc<Semaphore>,
    /// Its id, and the hash of what is subscribed in it.
    session: Option<(u64, u64)>,
    /// The hash of what is to be subscribed.
    subscriptions: u64,
    /// Messages received.
    count: u64,
    /// Receipt of the last acknowledgement written.
    written: u64,
    /// What `written` was when the last ping went out.
    pinged: Option<u64>,
    backoff: Backoff,
}

impl<'a> Receiver<'a> {
    fn new(
        config: &'a MqttConfig,
        wiring: Wiring,
        client: AsyncClient,
        network: EventLoop,
        state: &'a State,
    ) -> Result<Self, Error> {
        let memory = Arc::new(Semaphore::new(config.memory_bytes_max / MEMORY_UNIT_BYTES));
        let subscriptions = xxhash_rust::xxh3::xxh3_64(config.topics.join("\n").as_bytes());
        let session = wiring.session;
        Ok(Self {
            config,
            wiring,
            client,
            network,
            state,
            memory,
            session,
            subscriptions,
            count: 0,
            written: 0,
            pinged: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
        })
    }

    async fn receive(&mut self) -> Result<(), Error> {
        loop {
            let lost = match self.network.poll().await {
                Ok(event) => self.handle(event).await?,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = lost {
                self.disconnected(&why).await?;
            }
        }
    }

    async fn disconnected(&mut self, why: &str) -> Result<(), Error> {
        self.network.clean();
        // Packets that were read together with the failure came on the old connection: they count, but the next
        // connection must not acknowledge them, as it may have given their identifiers to other messages.
        for event in std::mem::take(&mut self.network.state.events) {
            if let Mqtt::Incoming(Packet::Publish(publish)) = event {
                self.message(publish).await?;
            }
        }
        self.state.connection.set(self.state.connection.get() + 1);
        self.state.unwritten.borrow_mut().clear();
        self.pinged = None;
        let wait = self.backoff.wait();
        let broker = format!("{}:{}", self.config.host, self.config.port);
        tracing::warn!(broker, why, wait_ms = wait.as_millis(), "mqtt: not connected, will try again");
        self.wiring.ready.bad(WHO, format!("not connected to {broker}: {why}"));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn ready(&mut self) {
        self.backoff.reset();
        self.wiring.ready.good(WHO);
    }

    /// The inner error asks for a new connection, the outer one ends the process.
    async fn handle(&mut self, event: Mqtt) -> Result<Result<(), String>, Error> {
        match event {
            Mqtt::Incoming(Packet::Publish(publish)) => self.message(publish).await?,
            Mqtt::Incoming(Packet::ConnAck(ack)) => return self.connected(ack.session_present).await,
            Mqtt::Incoming(Packet::SubAck(ack)) => return self.subscribed(&ack).await,
            Mqtt::Incoming(Packet::PingResp) => {
                if let Some(receipt) = self.pinged.take() {
                    self.send(Event::Proven(receipt)).await?;
                }
            }
            Mqtt::Outgoing(Outgoing::PubAck(_)) => {
                if let Some(receipt) = self.state.unwritten.borrow_mut().pop_front() {
                    self.written = receipt;
                }
            }
            Mqtt::Outgoing(Outgoing::PingReq) => self.pinged = Some(self.written),
            Mqtt::Incoming(_) | Mqtt::Outgoing(_) => {}
        }
        Ok(Ok(()))
    }

    async fn connected(&mut self, resumed: bool) -> Result<Result<(), String>, Error> {
        metrics::counter!("weir_edge_mqtt_connections_total").increment(1);
        tracing::info!(resumed, client_id = self.config.client_id, "mqtt: connected");
        // What was written on earlier connections either arrived or comes again before the broker answers a ping.
        self.written = self.count;
        match self.session {
            Some((_, subscriptions)) if resumed && subscriptions == self.subscriptions => {
                self.ready();
                return Ok(Ok(()));
            }
            Some(_) if resumed => {}
            _ => {
                // The journal must know the session before its first message.
                let session = getrandom::u64()? | 1;
                self.session = Some((session, 0));
                self.send(Event::Session { session, subscriptions: 0 }).await?;
            }
        }
        let filters = self.config.topics.iter().map(|t| SubscribeFilter::new(t.clone(), QoS::AtLeastOnce));
        Ok(self.client.try_subscribe_many(filters).map_err(|e| format!("cannot subscribe: {e}")))
    }

    async fn subscribed(&mut self, ack: &SubAck) -> Result<Result<(), String>, Error> {
        let refused = ack.return_codes.iter().zip(&self.config.topics);
        let refused: Vec<_> = refused
            .filter(|(code, _)| **code == SubscribeReasonCode::Failure)
            .map(|(_, topic)| &**topic)
            .collect();
        if !refused.is_empty() {
            return Ok(Err(format!("the broker refuses to subscribe {}", refused.join(", "))));
        }
        let Some((session, _)) = self.session else { return Ok(Ok(())) };
        self.session = Some((session, self.subscriptions));
        self.send(Event::Session { session, subscriptions: self.subscriptions }).await?;
        self.ready();
        Ok(Ok(()))
    }

    async fn message(&mut self, publish: Publish) -> Result<(), Error> {
        let bytes = publish.payload.len() + publish.topic.len();
        let units = bytes.div_ceil(MEMORY_UNIT_BYTES).min(self.config.memory_bytes_max / MEMORY_UNIT_BYTES);
        let units = u32::try_from(units)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(units).await?;
        self.count += 1;
        let receipt =
            Receipt { connection: self.state.connection.get(), packet: publish.pkid, count: self.count };
        let message = Message {
            receipt,
            again: publish.dup,
            session: self.session.map_or(0, |(session, _)| session),
            topic: publish.topic,
            payload: publish.payload,
            arrived: clock::now(),
            memory: Some(memory),
        };
        self.send(Event::Message(message)).await
    }

    async fn send(&self, event: Event) -> Result<(), Error> {
        self.wiring.events.send_async(event).await.map_err(|_| "the ingest stage has ended".into())
    }
}
