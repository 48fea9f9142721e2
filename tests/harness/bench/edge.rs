//! How fast the edge takes messages, how little CPU and memory it needs, and how Telegraf does the same job.
//!
//! The job: messages of 150 bytes with one reading of three numbers each, over MQTT with QoS 1 from 1 and from 20
//! connections, to Kafka record by record, and a 10 s window per device (count, mean, min, max, standard deviation)
//! to another topic. [`weir`] acknowledges a message after fsync; [`telegraf`] after Kafka has it, and keeps nothing on
//! disk. Mosquitto, Kafka and the publishers ([`load`]) share the machine.
//!
//! Each has lives of its own, in turns. **Full speed**: as fast as the publishers can, with 1, then with 20 connections;
//! twice each; the best round counts for speed, the worst for memory. **Idle and paced**: ten seconds without a message
//! from when it is ready, then 12,000 messages/s for ten seconds.
//! Guarantees: time and CPU count from the first publish: until the last message is taken (acknowledged), and until
//! Kafka has all ([`super::arrivals`]). On failure, and when a message is lost on the way: an error.

mod load;
mod session;
mod telegraf;
mod weir;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use weir_shared::clock;

use super::usage::{self, Usage};
use super::{LOOK_EVERY, watch};
use crate::programs::Programs;
use crate::stack::Stack;
use load::Load;

const MESSAGES: u64 = 500_000;
const CONNECTIONS: [u16; 2] = [1, 20];
const ROUNDS: usize = 2;
const WITHIN: Duration = Duration::from_secs(240);
const IDLE: Duration = Duration::from_secs(10);
const PACED_PER_SECOND: u64 = 12_000;
const PACED_SECONDS: u64 = 10;

const WANTED_PER_CPU_SECOND: u64 = 60_000;
const WANTED_PACED_MB: u64 = 20;
const WANTED_FULL_SPEED_MB: u64 = 40;
const WANTED_DECODED_PER_SECOND: u64 = 500_000;

/// A program between the MQTT broker and Kafka.
trait Contender {
    fn name(&self) -> &'static str;
    /// Starts it and waits until it takes messages.
    fn start(&self) -> anyhow::Result<()>;
    fn stop(&self) -> anyhow::Result<()>;
    fn pid(&self) -> anyhow::Result<u32>;
    /// The first level of its topics. Not the same for two: the broker keeps a session for each, and would queue
    /// for one what is meant for the other. As long, for they make the same work.
    fn topic_root(&self) -> &'static str;
    /// Messages that it has acknowledged since it started; `None` while it does not say.
    fn taken(&self) -> anyhow::Result<Option<u64>>;
    /// Readings that Kafka has of it.
    fn delivered(&self) -> anyhow::Result<u64>;
    /// Results of windows that Kafka has of it; `None` when it has no window.
    fn windows(&self) -> anyhow::Result<Option<u64>>;
}

/// Measures; the edge is stopped before and after. `peer`: the program of Telegraf, when it is wanted too.
///
/// # Errors
/// When not every message arrives, or something fails.
pub fn measure(
    stack: &Stack,
    programs: &Programs<'_>,
    peer: Option<&Path>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    let weir = weir::Weir::new(stack, programs)?;
    let telegraf = peer.map(|program| telegraf::Telegraf::new(stack, program)).transpose()?;
    let mut contenders: Vec<&dyn Contender> = vec![&weir];
    contenders.extend(telegraf.iter().map(|telegraf| telegraf as &dyn Contender));

    let mut measured: Vec<Measured> = contenders.iter().map(|_| Measured::default()).collect();
    for round in 1..=ROUNDS {
        for (contender, measured) in contenders.iter().zip(&mut measured) {
            full_speed(stack, *contender, measured, &mut |line| tell(&format!("round {round}, {line}")))?;
        }
    }
    for (contender, measured) in contenders.iter().zip(&mut measured) {
        idle_and_paced(stack, *contender, measured, tell)?;
    }
    let decoded = weir.decode_alone()?;
    let (weir, telegraf) = (&measured[0], measured.get(1));
    let mut figures = Map::new();
    figures.insert("ok".to_owned(), meets_what_is_wanted(weir, decoded).into());
    figures.insert("messages".to_owned(), MESSAGES.into());
    figures.insert("message_bytes".to_owned(), load::MESSAGE_BYTES.into());
    figures.insert("rounds".to_owned(), json!(ROUNDS));
    figures.insert("weir".to_owned(), weir.figures());
    if let Some(telegraf) = telegraf {
        figures.insert("telegraf".to_owned(), telegraf.figures());
        figures.insert("weir_to_telegraf".to_owned(), weir.ratios(telegraf));
    }
    figures.insert("decode_and_window_per_core_second".to_owned(), json!(decoded));
    figures.insert("wanted".to_owned(), wanted());
    Ok(Value::Object(figures))
}

/// What was seen of one program.
#[derive(Debug, Default)]
struct Measured {
    /// The best round with 1, and with 20 connections.
    full_speed: [Speed; CONNECTIONS.len()],
    full_speed_mb: u64,
    window_results: Option<u64>,
    idle_mb: u64,
    idle_wake_ups_per_second: f64,
    paced_mb: u64,
    paced_cpu_share: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    taken_per_second: u64,
    delivered_per_second: u64,
    per_cpu_second: u64,
}

impl Speed {
    fn best(self, other: Self) -> Self {
        Self {
            taken_per_second: self.taken_per_second.max(other.taken_per_second),
            delivered_per_second: self.delivered_per_second.max(other.delivered_per_second),
            per_cpu_second: self.per_cpu_second.max(other.per_cpu_second),
        }
    }
}

impl Measured {
    /// With that number of connections with which it did worse.
    fn per_cpu_second(&self) -> u64 {
        self.full_speed.iter().map(|speed| speed.per_cpu_second).min().unwrap_or_default()
    }

    fn figures(&self) -> Value {
        let mut figures = Map::new();
        for (connections, speed) in CONNECTIONS.iter().zip(&self.full_speed) {
            let speed = json!({
                "acknowledged_per_second": speed.taken_per_second,
                "in_kafka_per_second": speed.delivered_per_second,
                "messages_per_cpu_second": speed.per_cpu_second,
            });
            figures.insert(format!("connections_{connections}"), speed);
        }
        figures.insert("messages_per_cpu_second".to_owned(), self.per_cpu_second().into());
        figures.insert("full_speed_resident_mb_max".to_owned(), self.full_speed_mb.into());
        figures.insert("paced_resident_mb_max".to_owned(), self.paced_mb.into());
        figures.insert("paced_cpu_share".to_owned(), hundredths(self.paced_cpu_share).into());
        figures.insert("idle_resident_mb".to_owned(), self.idle_mb.into());
        figures
            .insert("idle_wake_ups_per_second".to_owned(), hundredths(self.idle_wake_ups_per_second).into());
        figures.insert("window_results".to_owned(), json!(self.window_results));
        Value::Object(figures)
    }

    /// This one's figures divided by the other's.
    fn ratios(&self, other: &Self) -> Value {
        let ratio = |of: &dyn Fn(&Self) -> u64| hundredths(of(self) as f64 / of(other) as f64);
        let mut ratios = Map::new();
        for (at, connections) in CONNECTIONS.iter().enumerate() {
            let per_second = ratio(&|m| m.full_speed[at].taken_per_second);
            let per_cpu_second = ratio(&|m| m.full_speed[at].per_cpu_second);
            ratios.insert(
                format!("connections_{connections}"),
                json!({"acknowledged_per_second": per_second, "messages_per_cpu_second": per_cpu_second}),
            );
        }
        ratios.insert("full_speed_resident_mb_max".to_owned(), ratio(&|m| m.full_speed_mb).into());
        ratios.insert("paced_resident_mb_max".to_owned(), ratio(&|m| m.paced_mb).into());
        Value::Object(ratios)
    }
}

fn meets_what_is_wanted(weir: &Measured, decoded: Option<u64>) -> bool {
    weir.per_cpu_second() >= WANTED_PER_CPU_SECOND
        && weir.paced_mb <= WANTED_PACED_MB
        && weir.full_speed_mb <= WANTED_FULL_SPEED_MB
        && decoded.is_none_or(|per_second| per_second >= WANTED_DECODED_PER_SECOND)
}

fn wanted() -> Value {
    json!({
        "messages_per_cpu_second": WANTED_PER_CPU_SECOND,
        "paced_resident_mb_max": WANTED_PACED_MB,
        "full_speed_resident_mb_max": WANTED_FULL_SPEED_MB,
        "decode_and_window_per_core_second": WANTED_DECODED_PER_SECOND,
    })
}

/// One life at full speed.
fn full_speed(
    stack: &Stack,
    contender: &dyn Contender,
    measured: &mut Measured,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let name = contender.name();
    let windows_before = contender.windows()?;
    contender.start()?;
    for (connections, best) in CONNECTIONS.into_iter().zip(&mut measured.full_speed) {
        let load = Load { messages: MESSAGES, connections, per_second: 0 };
        let (speed, usage) = carry(stack, contender, &load)?;
        tell(&format!("{name}, {connections} connections: {speed:?}, {} MB", usage.resident_mb_max));
        *best = best.best(speed);
        measured.full_speed_mb = measured.full_speed_mb.max(usage.resident_mb_max);
    }
    contender.stop()?;
    if let (Some(before), Some(after)) = (windows_before, contender.windows()?) {
        ensure!(after > before, "{name} sent no result of a window");
        measured.window_results = Some(measured.window_results.unwrap_or_default() + after - before);
    }
    Ok(())
}

/// One life: first without messages, then at a pace.
fn idle_and_paced(
    stack: &Stack,
    contender: &dyn Contender,
    measured: &mut Measured,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    contender.start()?;
    let before = usage::of(contender.pid()?)?;
    let idle_from = clock::instant();
    while let Some(left) = IDLE.checked_sub(clock::since(idle_from)).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
    let after = usage::of(contender.pid()?)?;
    let wake_ups = after.wake_ups.saturating_sub(before.wake_ups);
    measured.idle_wake_ups_per_second = wake_ups as f64 / clock::since(idle_from).as_secs_f64();
    measured.idle_mb = after.resident_mb;

    let messages = PACED_PER_SECOND * PACED_SECONDS;
    let load = Load { messages, connections: CONNECTIONS[1], per_second: PACED_PER_SECOND };
    let (_, usage) = carry(stack, contender, &load)?;
    measured.paced_cpu_share = (usage.cpu_seconds - after.cpu_seconds) / PACED_SECONDS as f64;
    measured.paced_mb = usage.resident_mb_max;
    contender.stop()?;
    tell(&format!(
        "{}, {PACED_PER_SECOND} messages/s: {} MB, {:.2} of a core; idle: {} MB, {:.1} wake-ups/s",
        contender.name(),
        measured.paced_mb,
        measured.paced_cpu_share,
        measured.idle_mb,
        measured.idle_wake_ups_per_second,
    ));
    Ok(())
}

/// From the first publish until Kafka has all of the load.
fn carry(stack: &Stack, contender: &dyn Contender, load: &Load) -> anyhow::Result<(Speed, Usage)> {
    let pid = contender.pid()?;
    let name = contender.name();
    let taken_before = contender.taken()?.context("it was ready, but does not say what it has taken")?;
    let delivered_before = contender.delivered()?;
    let cpu_before = usage::of(pid)?.cpu_seconds;
    let started = clock::instant();
    load.publish(&stack.addresses().mqtt, contender.topic_root())?;
    let since = |count: Option<u64>, before: u64| count.map(|n| n.saturating_sub(before));
    let taken = || Ok(since(contender.taken()?, taken_before));
    let seen = watch(load.messages, WITHIN, LOOK_EVERY, taken).context("messages acknowledged")?;
    let taken_after = clock::since(started);
    ensure!(seen.count == load.messages, "{name} took {} messages of {}", seen.count, load.messages);
    let delivered = || Ok(since(Some(contender.delivered()?), delivered_before));
    watch(load.messages, WITHIN, LOOK_EVERY, delivered).context("readings in Kafka")?;
    let delivered_after = clock::since(started);
    let usage = usage::of(pid)?;
    let per = |seconds: f64| (load.messages as f64 / seconds).round() as u64;
    let speed = Speed {
        taken_per_second: per(taken_after.as_secs_f64()),
        delivered_per_second: per(delivered_after.as_secs_f64()),
        per_cpu_second: per(usage.cpu_seconds - cpu_before),
    };
    Ok((speed, usage))
}

fn hundredths(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Measured {
        let speed = Speed { per_cpu_second: WANTED_PER_CPU_SECOND, ..Speed::default() };
        Measured {
            full_speed: [speed; CONNECTIONS.len()],
            full_speed_mb: WANTED_FULL_SPEED_MB,
            paced_mb: WANTED_PACED_MB,
            ..Measured::default()
        }
    }

    #[test]
    fn every_wanted_figure_decides() {
        let decoded = Some(WANTED_DECODED_PER_SECOND);
        assert!(meets_what_is_wanted(&good(), decoded));
        for at in 0..CONNECTIONS.len() {
            let mut slow = good();
            slow.full_speed[at].per_cpu_second -= 1;
            assert!(!meets_what_is_wanted(&slow, decoded));
        }
        let large = Measured { full_speed_mb: WANTED_FULL_SPEED_MB + 1, ..good() };
        assert!(!meets_what_is_wanted(&large, decoded));
        let large = Measured { paced_mb: WANTED_PACED_MB + 1, ..good() };
        assert!(!meets_what_is_wanted(&large, decoded));
        assert!(!meets_what_is_wanted(&good(), decoded.map(|n| n - 1)));
    }
}
