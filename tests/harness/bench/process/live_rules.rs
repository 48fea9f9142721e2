//! How soon a changed rule works, while 50,000 readings per second pass.
//!
//! A derived value gets a new version a hundred times, by plain SQL as an analyst would write it. A latency is the time
//! from the return of the statement that makes a version active to the first reading with its value, read committed, at
//! a consumer of `weir.enriched`. Goes out: p50, p99, and the fullest and emptiest second of the output, without the
//! first and the last ones. On failure: an error when a change is not seen in time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use super::{Bench, DEVICES, hundredths, reading};
use crate::bench::backlog::{self, Backlog};
use crate::programs::Program;

const CHANGES: u32 = 100;
const PER_SECOND: u64 = 50_000;
/// How long readings come: longer than the changes take.
const SECONDS: u64 = 60;
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const WANTED_P99_MS: f64 = 1_000.0;
/// The emptiest second may have so much less than the pace.
const WANTED_DIP: f64 = 0.1;

pub(super) fn measure(bench: &Bench<'_>, tell: &mut dyn FnMut(&str)) -> anyhow::Result<Value> {
    bench.programs.start_role(&["process"])?;
    bench.programs.wait_ready(Program::Cloud)?;
    let mut tail = Tail::new(&bench.brokers, &bench.enriched.ends()?)?;
    let load =
        Backlog { readings: PER_SECOND * SECONDS, devices: DEVICES, per_second: PER_SECOND, value: reading };
    let latencies = std::thread::scope(|scope| {
        let putting = scope.spawn(|| backlog::put(&bench.brokers, &load));
        let mut latencies = Vec::new();
        for n in 1..=CHANGES {
            // At every phase of whatever goes by the clock.
            tail.until(
                &format!("a pause before change {n}"),
                Duration::from_millis(u64::from(50 + n * 37 % 251)),
                None,
            )?;
            bench.oracle.in_mysql(&format!(
                "REPLACE INTO weir_rules (id, version, kind, spec, author, note) VALUES \
                 ('bench-live', {n}, 'derive', '{{\"set\":{{\"live\":\"{n}\"}}}}', 'bench', 'bench')"
            ))?;
            bench.oracle.in_mysql(&format!(
                "REPLACE INTO weir_rules_active (id, version, author, note) VALUES ('bench-live', {n}, 'bench', 'bench')"
            ))?;
            let changed = clock::instant();
            ensure!(!putting.is_finished(), "the load ended before change {n}");
            tail.until(&format!("change {n}"), SEEN_WITHIN, Some(&format!("\"live\":{n}")))?;
            latencies.push(clock::since(changed));
        }
        putting.join().map_err(|_| anyhow!("the load panicked"))??;
        anyhow::Ok(latencies)
    })?;
    bench.oracle.in_mysql("UPDATE weir_rules_active SET version = NULL WHERE id = 'bench-live'")?;
    bench.programs.stop_one(Program::Cloud)?;
    Ok(figures(latencies, &tail.seconds, tell))
}

fn figures(mut latencies: Vec<Duration>, seconds: &BTreeMap<u64, u64>, tell: &mut dyn FnMut(&str)) -> Value {
    latencies.sort_unstable();
    let ms = |rank: usize| hundredths(latencies[rank.min(latencies.len()) - 1].as_secs_f64() * 1e3);
    let (p50, p99) = (ms(latencies.len() / 2), ms(latencies.len() * 99 / 100));
    let whole: Vec<u64> = seconds.values().copied().skip(2).collect();
    let whole = &whole[..whole.len().saturating_sub(2)];
    let (least, most) = (whole.iter().min().copied().unwrap_or(0), whole.iter().max().copied().unwrap_or(0));
    let wanted = PER_SECOND as f64 * (1.0 - WANTED_DIP);
    tell(&format!("live rules: p50 {p50} ms, p99 {p99} ms; seconds with {least} to {most} readings"));
    json!({
        "changes": CHANGES, "p50_ms": p50, "p99_ms": p99,
        "readings_per_second": PER_SECOND, "emptiest_second": least, "fullest_second": most,
        "wanted": {"p99_ms": WANTED_P99_MS, "emptiest_second": wanted},
        "ok": p99 < WANTED_P99_MS && least as f64 >= wanted,
    })
}

/// Reads what is committed to `weir.enriched` from now on.
struct Tail {
    consumer: BaseConsumer,
    began: std::time::Instant,
    /// Records seen in each second.
    seconds: BTreeMap<u64, u64>,
}

impl Tail {
    fn new(brokers: &str, from: &BTreeMap<i32, i64>) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "weir-bench") // never joined
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        let mut assigned = TopicPartitionList::new();
        for (partition, offset) in from {
            assigned.add_partition_offset(wire::ENRICHED, *partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&assigned)?;
        Ok(Self { consumer, began: clock::instant(), seconds: BTreeMap::new() })
    }

    /// Reads until a record holds `text`; without one for this long.
    fn until(&mut self, what: &str, within: Duration, text: Option<&str>) -> anyhow::Result<()> {
        let deadline = Deadline::after(within);
        while !deadline.passed() {
            let Some(message) = self.consumer.poll(Duration::from_millis(5)) else { continue };
            let message = message.context("reading weir.enriched")?;
            *self.seconds.entry(clock::since(self.began).as_secs()).or_default() += 1;
            let value = std::str::from_utf8(message.payload().unwrap_or_default())?;
            if text.is_some_and(|text| value.contains(text)) {
                return Ok(());
            }
        }
        ensure!(text.is_none(), "{what} is not seen within {within:?}");
        Ok(())
    }
}
