//! The figures of the programs on one machine that also runs the servers and the load.
//!
//! The flow: [`edge`] (messages per second, acknowledged), [`cloud`] (events per second out of a backlog), [`latency`]
//! (from publishing to each store), [`process`] (the processor beside Apache [`flink`]), [`sinks`] (rows per second into each
//! store, beside Flink again). Each gives a JSON object with its figures, what was wanted, and `ok`.
//! Guarantees: counts come from the servers (rows, offsets) or from counters that are compared with what was sent; a
//! figure over the wrong number of rows is an error. On failure: an error.

mod arrivals;
mod backlog;
pub mod cloud;
pub mod edge;
mod flink;
pub mod latency;
pub mod process;
pub mod sinks;
mod usage;

use std::time::Duration;

use weir_shared::clock::{self, Deadline};

/// How often to look at a counter that costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often to count the rows of a store, which costs it something.
const COUNT_EVERY: Duration = Duration::from_millis(200);

/// Looks at `count` until it reaches `target`; gives the time of the last look before it first moved, the time it
/// was reached, and the count at the former.
fn watch(
    target: u64,
    within: Duration,
    look_every: Duration,
    mut count: impl FnMut() -> anyhow::Result<Option<u64>>,
) -> anyhow::Result<Drained> {
    let deadline = Deadline::after(within);
    let mut start = None;
    let (mut first_look, mut most) = (clock::instant(), 0);
    loop {
        let now = clock::instant();
        if let Some(n) = count()? {
            most = n;
            if n == 0 {
                first_look = now;
            } else if start.is_none() {
                start = Some(first_look);
            }
            if n >= target {
                return Ok(Drained { count: n, took: clock::instant() - start.unwrap_or(first_look) });
            }
        }
        if deadline.passed() {
            anyhow::bail!("{most} of {target} after {within:?}");
        }
        std::thread::park_timeout(look_every);
    }
}

/// How long a backlog took, from before the first of it moved until the last of it was seen.
struct Drained {
    count: u64,
    took: Duration,
}

impl Drained {
    fn per_second(&self) -> u64 {
        (self.count as f64 / self.took.as_secs_f64()).round() as u64
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100.0).round() / 100.0
}
