//! Canaries: readings sent at a known moment, and how long each store takes until it has them.
//!
//! Must hold: looking costs a store little, or it would be slow for that.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use weir_harness::faults::fleet;
use weir_harness::oracle::Store;
use weir_shared::clock::{self, Deadline};
use weir_shared::wire;

use super::{DEVICES, LOOK, Lab, PARTITIONS, STORES};
use crate::controls::NO_CANARY;

/// The longest wait for a canary: what takes longer than it may is told, with how long it took.
const CANARY: Duration = Duration::from_secs(90);

/// A reading that must come through: when it was sent, and the readings by device and event time.
struct Canaries {
    sent: Instant,
    readings: Vec<(String, u64)>,
}

impl Lab {
    /// Sends a reading into each partition.
    fn send_canaries(&self) -> anyhow::Result<Canaries> {
        let sent = clock::instant();
        let ids = self.fleet()?.canaries()?;
        let home = |partition: i32| {
            let at_home = |n: &u64| wire::partition_of(fleet::device(*n).as_bytes(), PARTITIONS) == partition;
            (0..DEVICES).find(at_home).map(fleet::device)
        };
        // What a rule sends to one store only is not looked for.
        let readings = ids.into_iter().zip(0..).filter(|(id, _)| !fleet::is_routed(*id));
        let readings = readings.filter_map(|(id, partition)| Some((home(partition)?, fleet::time_of(id))));
        Ok(Canaries { sent, readings: readings.collect() })
    }

    /// Whether a store has them all.
    fn has(&self, store: Store, canaries: &Canaries) -> anyhow::Result<bool> {
        let wanted = canaries.readings.len();
        let found = match store {
            Store::Mysql => {
                // Pairs joined by OR would read the whole table.
                let each = |(device, ms): &(String, u64)| {
                    format!("('{device}', FROM_UNIXTIME({}.{:03}))", ms / 1000, ms % 1000)
                };
                let pairs = canaries.readings.iter().map(each).collect::<Vec<_>>().join(", ");
                self.database
                    .count(&format!("SELECT COUNT(*) FROM weir_readings WHERE (device, time) IN ({pairs})"))?
            }
            Store::Clickhouse | Store::Kafka => {
                let each = |(device, ms): &(String, u64)| {
                    format!("(device = '{device}' AND time = fromUnixTimestamp64Milli({ms}))")
                };
                let any = canaries.readings.iter().map(each).collect::<Vec<_>>().join(" OR ");
                let ask = format!("SELECT count() FROM weir_readings WHERE {any} FORMAT TabSeparated");
                self.oracle.in_clickhouse(&ask)?.trim().parse()?
            }
            Store::Elasticsearch => {
                let each = |(device, ms): &(String, u64)| {
                    let filter = [json!({"term": {"device": device}}), json!({"term": {"time": ms}})];
                    json!({"bool": {"filter": filter}})
                };
                let should: Vec<Value> = canaries.readings.iter().map(each).collect();
                self.oracle.refresh_elasticsearch()?;
                let query = json!({"query": {"bool": {"should": should}}});
                let answer = self.oracle.in_elasticsearch("weir-readings-*/_count", &query)?;
                answer["count"].as_u64().context("count")?
            }
        };
        Ok(found >= wanted as u64)
    }

    /// Waits until these stores have the canaries: seconds since they were sent.
    fn arrival(&self, stores: &[Store], canaries: &Canaries) -> anyhow::Result<f64> {
        let deadline = Deadline::after(CANARY);
        for store in stores {
            loop {
                match self.has(*store, canaries) {
                    Ok(true) => break,
                    // A store that does not answer does not have them.
                    Ok(false) | Err(_) if !deadline.passed() => std::thread::park_timeout(between(*store)),
                    Ok(false) => bail!("{NO_CANARY} within {CANARY:?}: {} lacks some", store.name()),
                    Err(error) => return Err(error.context(format!("{NO_CANARY} within {CANARY:?}"))),
                }
            }
        }
        Ok(clock::since(canaries.sent).as_secs_f64())
    }

    /// Sends a reading into each partition and waits until every store has it: how many seconds that took.
    pub(in super::super) fn canary(&self) -> anyhow::Result<f64> {
        self.canary_in(&STORES)
    }

    /// The same, in these stores.
    pub(in super::super) fn canary_in(&self, stores: &[Store]) -> anyhow::Result<f64> {
        let canaries = self.send_canaries()?;
        self.arrival(stores, &canaries)
    }
}

/// A look at Elasticsearch refreshes its indices, and one at ClickHouse starts a query on all cores: twenty a second are more
/// work for them than what the sinks send.
fn between(store: Store) -> Duration {
    match store {
        Store::Mysql | Store::Kafka => LOOK,
        Store::Clickhouse => 5 * LOOK,
        Store::Elasticsearch => 10 * LOOK,
    }
}
