//! How fast the edge takes messages, and with how much memory.
//!
//! Messages of 150 bytes with one reading each, from four publishers with QoS 1; Mosquitto, Kafka and the publishers
//! share the machine. **Paced**: 12,000 messages/s for ten seconds, for the memory. **Drain**: 300,000 messages wait in
//! Mosquitto's queue when the edge starts, so that publishing costs nothing; from the last look at which nothing had
//! moved. **Live**: 300,000 more, from the first publish until the edge has acknowledged the last (by then it is
//! fsynced). Counted by the edge's own counters, which must come to exactly what was published.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use weir_shared::clock;

use super::usage::{self, Usage};
use super::{Drained, LOOK_EVERY, seconds, watch};
use crate::programs::{Program, Programs, Samples};
use crate::simulator::Pace;
use crate::simulator::publisher::{self, Connection, Next};
use crate::stack::Stack;

const MESSAGES: u64 = 300_000;
const PUBLISHERS: u16 = 4;
const MESSAGE_BYTES: usize = 150;
const WITHIN: Duration = Duration::from_secs(120);
/// requirements.md, E: in this much memory at this rate.
const WANTED_PER_SECOND: u64 = 12_000;
const WANTED_MB: u64 = 20;
const PACED_SECONDS: u64 = 10;

/// Measures; the edge is stopped before and after.
///
/// # Errors
/// When not every message arrives, or something fails.
pub fn measure(stack: &Stack, programs: &Programs<'_>, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Value> {
    programs.start(Program::Edge)?;
    programs.wait_ready(Program::Edge)?;
    let paced = WANTED_PER_SECOND * PACED_SECONDS;
    let before = taken(programs)?.context("the edge's metrics")?;
    publish_all(stack, paced, WANTED_PER_SECOND)?;
    exactly(paced, &watch(paced, WITHIN, LOOK_EVERY, || Ok(taken(programs)?.map(|n| n - before)))?)?;
    let paced_usage = usage(programs)?;
    tell(&format!("edge, {WANTED_PER_SECOND} messages/s: {} MB", paced_usage.resident_mb_max));
    programs.stop_one(Program::Edge)?;

    publish_all(stack, MESSAGES, 0)?;
    programs.start(Program::Edge)?;
    let drained = watch(MESSAGES, WITHIN, LOOK_EVERY, || taken(programs))?;
    exactly(MESSAGES, &drained)?;
    tell(&format!("edge, drain: {} messages/s", drained.per_second()));

    // Without a restart in between: what Mosquitto has not heard an acknowledgement of yet would come again.
    let cpu_before = usage(programs)?.cpu_seconds;
    let before = taken(programs)?.context("the edge's metrics")?;
    let started = clock::instant();
    publish_all(stack, MESSAGES, 0)?;
    let published = started.elapsed();
    exactly(MESSAGES, &watch(MESSAGES, WITHIN, LOOK_EVERY, || Ok(taken(programs)?.map(|n| n - before)))?)?;
    let took = started.elapsed();
    let flat_out = usage(programs)?;
    let per_second = (MESSAGES as f64 / took.as_secs_f64()).round() as u64;
    tell(&format!("edge, live: {per_second} messages/s, {} MB", flat_out.resident_mb_max));
    programs.stop_one(Program::Edge)?;
    let cpu = flat_out.cpu_seconds - cpu_before;
    Ok(json!({
        "ok": per_second >= WANTED_PER_SECOND && paced_usage.resident_mb_max <= WANTED_MB,
        "messages": MESSAGES,
        "message_bytes": MESSAGE_BYTES,
        "live_messages_per_second": per_second,
        "live_publish_seconds": seconds(published),
        "live_messages_per_cpu_second": (MESSAGES as f64 / cpu).round(),
        "drain_messages_per_second": drained.per_second(),
        "paced_messages_per_second": WANTED_PER_SECOND,
        "paced_cpu_share": (paced_usage.cpu_seconds / PACED_SECONDS as f64 * 100.0).round() / 100.0,
        "paced_resident_mb_max": paced_usage.resident_mb_max,
        "flat_out_resident_mb_max": flat_out.resident_mb_max,
        "wanted": {"live_messages_per_second": WANTED_PER_SECOND, "paced_resident_mb_max": WANTED_MB},
    }))
}

/// New messages that are durable and were acknowledged; those that came again are not new.
fn taken(programs: &Programs<'_>) -> anyhow::Result<Option<u64>> {
    let sum = |m: &Samples, name| m.sum(name, "").round() as u64;
    Ok(programs.metrics(Program::Edge).map(|m| {
        let acknowledged = sum(&m, "weir_edge_messages_acknowledged_total");
        acknowledged.saturating_sub(sum(&m, "weir_edge_messages_redelivered_total"))
    }))
}

fn exactly(messages: u64, seen: &Drained) -> anyhow::Result<()> {
    ensure!(seen.count == messages, "{} messages taken of {messages} published", seen.count);
    Ok(())
}

fn usage(programs: &Programs<'_>) -> anyhow::Result<Usage> {
    usage::of(programs.pid(Program::Edge)?.context("the edge ended")?)
}

/// At a rate in messages per second; 0: as fast as it goes.
fn publish_all(stack: &Stack, messages: u64, rate: u64) -> anyhow::Result<()> {
    let acked = AtomicU64::new(0);
    let (acked_ref, (host, port)) = (&acked, &stack.addresses().mqtt);
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|n| {
                let client_id = format!("bench-{}-{n}", std::process::id());
                let connection = Connection { host: host.clone(), port: *port, client_id, in_flight: 1000 };
                scope.spawn(move || publish(&connection, n, messages, rate, acked_ref))
            })
            .collect();
        publishers
            .into_iter()
            .try_for_each(|p| p.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))?)
    })?;
    ensure!(acked.into_inner() == messages, "a connection to the broker was lost while publishing");
    Ok(())
}

fn publish(
    connection: &Connection,
    publisher: u16,
    messages: u64,
    rate: u64,
    acked: &AtomicU64,
) -> anyhow::Result<()> {
    let mut left = messages / u64::from(PUBLISHERS);
    let mut pace = Pace::new(rate as f64 / f64::from(PUBLISHERS));
    let next = || {
        if left == 0 {
            return Ok(Next::End);
        }
        if let Some(wait) = pace.wait() {
            return Ok(Next::Wait(wait));
        }
        pace.sent(1);
        left -= 1;
        let device = format!("pump-{publisher}-{:03}", left % 250);
        Ok(Next::Send { topic: format!("sensors/{device}"), payload: message(&device, left), token: () })
    };
    publisher::publish(connection, next, |()| {
        acked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
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
    use super::*;

    #[test]
    fn messages_are_json_of_the_size_that_is_told() {
        for n in [0, 1, 96, 74_999] {
            let message = message("pump-3-249", n);
            assert_eq!(message.len(), MESSAGE_BYTES);
            serde_json::from_slice::<Value>(&message).unwrap();
        }
    }
}
