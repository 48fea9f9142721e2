//! An MQTT session that stands before its owner comes.
//!
//! Comes in: a client id and a topic filter. Goes out: at the broker an empty session with this one subscription, so
//! that what is published from now on waits for whoever connects with this id; nobody has to guess when its
//! subscription stands. On failure: what the broker answered, or that it did not within [`PATIENCE`].

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, SubscribeReasonCode};

const PATIENCE: Duration = Duration::from_secs(10);

/// Replaces the session of this id, if there is one.
pub(super) fn renew((host, port): &(String, u16), client_id: &str, filter: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let exchange = async {
            connect(host, *port, client_id, None).await?; // a clean one: ends what there was
            connect(host, *port, client_id, Some(filter)).await
        };
        tokio::time::timeout(PATIENCE, exchange).await.context("the MQTT broker does not answer")?
    })
}

/// Connects, subscribes, and disconnects in order.
async fn connect(host: &str, port: u16, client_id: &str, filter: Option<&str>) -> anyhow::Result<()> {
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_clean_session(filter.is_none());
    let (client, mut events) = AsyncClient::new(options, 4);
    let Packet::ConnAck(_) = incoming(&mut events).await? else { bail!("no CONNACK") };
    if let Some(filter) = filter {
        client.subscribe(filter, QoS::AtLeastOnce).await?;
        let Packet::SubAck(answer) = incoming(&mut events).await? else { bail!("no SUBACK") };
        let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        ensure!(answer.return_codes == [granted], "{filter}: {:?}", answer.return_codes);
    }
    client.disconnect().await?;
    // The broker closes the connection when it has read the DISCONNECT.
    while events.poll().await.is_ok() {}
    Ok(())
}

async fn incoming(events: &mut EventLoop) -> anyhow::Result<Packet> {
    loop {
        if let Event::Incoming(packet) = events.poll().await? {
            return Ok(packet);
        }
    }
}
