//! The simulated devices: real series over MQTT with QoS 1, stamped now, with a few broken messages among them.
//!
//! Comes in: a [`Plan`] and the [`Series`]. Goes out: messages to the broker; in the [`Ledger`] what each of them says
//! and whether the broker acknowledged it.
//! Guarantees: each reading carries the run's name and a unique id in its tags; a message is never published twice.
//! On failure: an error; what was acknowledged until then stands in the ledger.
//!
//! A reading: `{"device":"shuttle-07","ts":1790000000000,"values":{"f1":50,…},"tags":{"run":"r…","id":"r…-17",
//! "source_time":"row 8"}}`; some messages are arrays of 2 to 5 of them, some times are RFC 3339.

pub mod broken;
pub mod content;
pub mod ledger;
pub mod message;
pub mod publisher;
pub mod series;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use weir_shared::clock;

use ledger::{Ledger, Ticket};
use message::{Maker, Shapes};
use publisher::{Connection, Next};
use series::Series;

/// How much to publish, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Readings in all.
    pub readings: u64,
    /// Readings per second; 0: as fast as it goes.
    pub rate: u64,
    /// Connections to the broker, one thread each.
    pub connections: u16,
    /// Most unacknowledged messages of each connection.
    pub in_flight: u16,
    /// Which shapes, how often.
    pub shapes: Shapes,
}

/// Publishes a whole run; blocks until the broker has acknowledged it.
///
/// # Errors
/// When a connection fails for good, or the ledger's log cannot be written.
pub fn simulate(mqtt: &(String, u16), series: &Series, plan: &Plan, ledger: &Ledger) -> anyhow::Result<()> {
    let left = AtomicU64::new(plan.readings);
    let left = &left;
    std::thread::scope(|scope| {
        let connections: Vec<_> = (0..plan.connections)
            .map(|n| scope.spawn(move || connection(n, mqtt, series, plan, ledger, left)))
            .collect();
        // All are joined, so that none outlives its run; the first failure is told.
        let mut results =
            connections.into_iter().map(|c| c.join().map_err(|_| anyhow!("a publisher panicked"))?);
        let first = results.find(Result::is_err).unwrap_or(Ok(()));
        results.for_each(drop);
        first
    })
}

fn connection(
    n: u16,
    mqtt: &(String, u16),
    series: &Series,
    plan: &Plan,
    ledger: &Ledger,
    left: &AtomicU64,
) -> anyhow::Result<()> {
    let connection = Connection {
        host: mqtt.0.clone(),
        port: mqtt.1,
        client_id: format!("simulator-{}-{n}", ledger.run()),
        in_flight: plan.in_flight,
    };
    let mut maker = Maker::new(series, plan.shapes, (n.into(), plan.connections.into()));
    let mut pace = Pace::new(plan.rate as f64 / f64::from(plan.connections));
    let next = || {
        let most = left.load(Ordering::Relaxed);
        if most == 0 {
            return Ok(Next::End);
        }
        if let Some(wait) = pace.wait() {
            return Ok(Next::Wait(wait));
        }
        let draft = maker.draft(most, clock::wall_ms());
        let count = draft.contents.len() as u64;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count));
        if taken.is_err() {
            return Ok(Next::Wait(Duration::ZERO)); // another connection took the last ones
        }
        pace.sent(count.max(1));
        let digests: Vec<u64> = draft.contents.iter().map(content::Content::digest).collect();
        let ticket = ledger.issue(&digests, draft.broken)?;
        let (topic, payload) = draft.encode(ledger.run(), &ticket);
        Ok(Next::Send { topic, payload, token: ticket })
    };
    publisher::publish(&connection, next, |ticket: Ticket| Ok(ledger.acknowledge(&ticket)?))
}

/// Keeps a rate: so many readings are due at any time since the start.
pub(crate) struct Pace {
    rate: f64,
    start: std::time::Instant,
    sent: u64,
}

impl Pace {
    /// So many per second; 0: everything is due at once.
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, start: clock::instant(), sent: 0 }
    }

    /// How long until the next is due.
    pub(crate) fn wait(&self) -> Option<Duration> {
        if self.rate <= 0.0 {
            return None;
        }
        let due = self.start + Duration::from_secs_f64(self.sent as f64 / self.rate);
        let wait = due.saturating_duration_since(clock::instant());
        (!wait.is_zero()).then_some(wait)
    }

    /// So many more went out.
    pub(crate) fn sent(&mut self, readings: u64) {
        self.sent += readings;
    }
}
