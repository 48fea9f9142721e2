//! The MQTT source: QoS 1 with a persistent session and manual acknowledgement.
//!
//! Comes in: packets from the broker. Goes out: messages to the ingest stage, in the order received;
//! acknowledgements to the broker, in that same order, each only after the ingest stage gave the receipt back.
//! Guarantees: memory on the way is bounded (then nothing more is read from the socket); a receipt of an earlier
//! connection is never used (the broker sends that message again); subscribed again whenever the broker has no
//! session, or one with other subscriptions.
//! On failure: reconnects with jittered backoff for ever; `/ready` says why it is not subscribed.

mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event as Mqtt, MqttOptions, NetworkOptions, Outgoing, Packet, Publish, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::sync::{Semaphore, watch};
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock;
use weir_shared::pulse::Pulse;
use weir_shared::supervise::{Error, Stop};
use weir_shared::tls::Tls;

use super::{Message, Origin, Receipt};
use crate::events::Event;
use crate::faults;
use crate::journal::redelivery;
use link::Link;

/// Name under which this source complains.
const WHO: &str = "mqtt";
/// Room for our own requests: a subscription per connection.
const REQUESTS_MAX: usize = 16;
/// Messages of one connection whose acknowledgement is not proven: with more, the connection is ended in order, which
/// is a proof too. The journal remembers twice as many.
const UNPROVEN_MAX: u64 = redelivery::MESSAGES_MAX as u64 / 2;
/// Between two beats of the pulse.
const BEAT: Duration = Duration::from_secs(1);
/// How long the end in order may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// Memory is counted in units of this, as a semaphore counts to 2²⁹ only on 32-bit machines.
const MEMORY_UNIT_BYTES: usize = 64;

/// What a message takes beside its payload and topic.
const MESSAGE_BYTES: usize = size_of::<Event>() + 64;

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
    /// TLS, when it is on.
    pub tls: Option<Tls>,
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
    /// False while the broker is away: then silence says nothing of the devices.
    pub connected: Arc<AtomicBool>,
    /// Where to complain.
    pub ready: Health,
    /// Beats while the thread gets on, also while it waits: for the broker, or for room.
    pub pulse: Pulse,
}

/// Runs until told to stop, and then ends the connection in order.
pub(crate) fn run(config: &MqttConfig, wiring: Wiring, stop: &Stop) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pulse = wiring.pulse.clone();
    runtime.block_on(async {
        let serving = serve(config, wiring, stop);
        tokio::pin!(serving);
        loop {
            pulse.beat();
            if let Ok(ended) = tokio::time::timeout(BEAT, &mut serving).await {
                return ended;
            }
        }
    })
}

async fn serve(config: &MqttConfig, mut wiring: Wiring, stop: &Stop) -> Result<(), Error> {
    wiring.ready.bad(WHO, "waits for Kafka to say how many partitions there are; or set kafka.partitions");
    tokio::select! {
        open = wiring.open.wait_for(|open| *open) => drop(open?),
        () = stop.wait() => return Ok(()),
    }
    wiring.ready.bad(WHO, "not connected yet");
    let mut receiver = Receiver::new(config, wiring);
    receiver.note_connected(false);
    tokio::select! {
        result = receiver.receive() => return result,
        () = stop.wait() => {}
    }
    if receiver.link.is_connected() { receiver.goodbye().await } else { Ok(()) }
}

struct Receiver<'a> {
    config: &'a MqttConfig,
    wiring: Wiring,
    client: AsyncClient,
    link: Link,
    memory: Arc<Semaphore>,
    /// Its id, and the hash of what is subscribed in it.
    session: Option<(u64, u64)>,
    /// The hash of what is to be subscribed.
    subscriptions: u64,
    backoff: Backoff,
}

/// What the source turns to next.
enum Next {
    /// The network.
    Event(Result<Mqtt, String>),
    /// What the ingest stage gave back.
    Durable(Vec<Receipt>),
    /// Nobody takes messages any more.
    IngestEnded,
}

impl<'a> Receiver<'a> {
    fn new(config: &'a MqttConfig, wiring: Wiring) -> Self {
        let mut options = MqttOptions::new(&config.client_id, &config.host, config.port);
        options.set_clean_session(false);
        options.set_manual_acks(true);
        options.set_keep_alive(config.keep_alive);
        options.set_max_packet_size(config.packet_bytes_max, config.packet_bytes_max);
        if config.login != Default::default() {
            options.set_credentials(&config.login.0, &config.login.1);
        }
        let (client, mut network) = AsyncClient::new(options, REQUESTS_MAX);
        let mut sockets = NetworkOptions::new();
        sockets.set_tcp_nodelay(true);
        network.set_network_options(sockets);
        Self {
            config,
            client,
            link: Link::new(network),
            memory: Arc::new(Semaphore::new(config.memory_bytes_max / MEMORY_UNIT_BYTES)),
            session: wiring.session,
            subscriptions: xxhash_rust::xxh3::xxh3_64(config.topics.join("\n").as_bytes()),
            wiring,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
        }
    }

    async fn receive(&mut self) -> Result<(), Error> {
        loop {
            let done = match self.next().await {
                Next::Event(Ok(event)) => self.handle(event).await?,
                Next::Event(Err(error)) => Err(error),
                Next::Durable(receipts) => self.link.acknowledge(receipts).await,
                Next::IngestEnded => return Err("the ingest stage has ended".into()),
            };
            if let Err(why) = done {
                self.disconnected(&why).await?;
            }
        }
    }

    /// Acknowledgements go first: the client library would write one for every ten packets that it reads, and
    /// Mosquitto then sends without limit.
    async fn next(&mut self) -> Next {
        if !self.link.is_connected() {
            return Next::Event(self.link.connect(self.config.tls.as_ref()).await);
        }
        tokio::select! {
            biased;
            receipts = self.wiring.durable.recv_async() => receipts.map_or(Next::IngestEnded, Next::Durable),
            event = self.link.poll() => Next::Event(event),
        }
    }

    async fn disconnected(&mut self, why: &str) -> Result<(), Error> {
        self.note_connected(false);
        self.forget_connection().await?;
        let wait = if faults::is_broken("bad.no_backoff") { Duration::ZERO } else { self.backoff.wait() };
        let broker = format!("{}:{}", self.config.host, self.config.port);
        if let Some(more) = self.backoff.tells(why) {
            tracing::warn!(broker, why, "mqtt: not connected, will try again{more}");
        }
        self.wiring.ready.bad(WHO, format!("not connected to {broker}: {why}"));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Packets that were read together with the end came on the old connection: they count, and are not acknowledged.
    async fn forget_connection(&mut self) -> Result<(), Error> {
        for publish in self.link.forget() {
            self.message(publish).await?;
        }
        self.link.next_connection();
        Ok(())
    }

    /// Ends the connection in order.
    async fn goodbye(&mut self) -> Result<(), Error> {
        let mut kept = Vec::new();
        let closing = self.link.close(&self.wiring.durable, |publish| kept.push(publish));
        let closed = tokio::time::timeout(GOODBYE, closing).await;
        for publish in kept {
            self.message(publish).await?;
        }
        match closed {
            Ok(Ok(receipt)) => self.send(Event::Answered(receipt)).await?,
            Ok(Err(why)) => tracing::warn!(why, "mqtt: the connection did not end in order"),
            Err(_) => tracing::warn!("mqtt: the connection did not end in order within {GOODBYE:?}"),
        }
        self.forget_connection().await
    }

    async fn ready(&mut self) -> Result<(), Error> {
        self.backoff.reset();
        self.wiring.ready.good(WHO);
        self.note_connected(true);
        self.send(Event::Resumed).await
    }

    fn note_connected(&self, connected: bool) {
        self.wiring.connected.store(connected, Ordering::Relaxed);
        metrics::gauge!("weir_edge_mqtt_connected").set(if connected { 1.0 } else { 0.0 });
    }

    /// The inner error asks for a new connection, the outer one ends the process.
    async fn handle(&mut self, event: Mqtt) -> Result<Result<(), String>, Error> {
        match event {
            Mqtt::Incoming(Packet::Publish(publish)) => {
                self.message(publish).await?;
                if self.link.unproven() > UNPROVEN_MAX {
                    tracing::info!("mqtt: connecting anew, to be sure of the acknowledgements");
                    self.goodbye().await?;
                }
            }
            Mqtt::Incoming(Packet::ConnAck(ack)) => return self.connected(ack.session_present).await,
            Mqtt::Incoming(Packet::SubAck(ack)) => return self.subscribed(&ack).await,
            Mqtt::Incoming(Packet::PingResp) => {
                if let Some(receipt) = self.link.answered() {
                    self.send(Event::Answered(receipt)).await?;
                }
            }
            Mqtt::Outgoing(Outgoing::PingReq) => self.link.pinged(),
            Mqtt::Incoming(_) | Mqtt::Outgoing(_) => {}
        }
        Ok(Ok(()))
    }

    async fn connected(&mut self, resumed: bool) -> Result<Result<(), String>, Error> {
        metrics::counter!("weir_edge_mqtt_connections_total").increment(1);
        tracing::info!(resumed, client_id = self.config.client_id, "mqtt: connected");
        self.link.connected();
        match self.session {
            Some((_, subscriptions)) if resumed && subscriptions == self.subscriptions => {
                self.ready().await?;
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
        self.ready().await?;
        Ok(Ok(()))
    }

    async fn message(&mut self, publish: Publish) -> Result<(), Error> {
        let bytes = publish.payload.len() + publish.topic.len() + MESSAGE_BYTES;
        let units = bytes.div_ceil(MEMORY_UNIT_BYTES).min(self.config.memory_bytes_max / MEMORY_UNIT_BYTES);
        let units = u32::try_from(units)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(units).await?;
        let receipt = self.link.receipt(&publish);
        let message = Message {
            receipt,
            again: publish.dup,
            session: self.session.map_or(0, |(session, _)| session),
            topic: publish.topic,
            payload: publish.payload,
            arrived: clock::now(),
            origin: Origin::Mqtt,
            memory: Some(memory),
        };
        self.send(Event::Message(message)).await?;
        self.link.handed_on(receipt);
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), Error> {
        self.wiring.events.send_async(event).await.map_err(|_| "the ingest stage has ended".into())
    }
}
