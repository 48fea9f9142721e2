//! Whether the threads that receive, journal, compute, send or store get on, seen from another one.
//!
//! Comes in: a beat for each round of each thread. Goes out: `/live`, which turns bad while one of them does not beat, and
//! systemd's watchdog.
//! Guarantees: the watchdog is fed only when every thread has beaten since it was fed last: a thread that hangs, in work or in
//! waiting, is seen, and a timer alone feeds nothing. One that waits for a server says so by beating.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::admin::Health;
use crate::clock;
use crate::supervise::{Error, Stop};
use crate::systemd::Systemd;

/// How often the pulses are felt.
const FELT: Duration = Duration::from_secs(1);

/// Shared by a thread and who watches it. Without a watcher it means nothing.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// A round begins, also one in which there is nothing to do.
    pub fn beat(&self) {
        self.0.store(clock::now().mono_ns, Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that are watched.
#[derive(Debug, Default)]
pub struct Pulses(Vec<Watched>);

#[derive(Debug)]
struct Watched {
    who: String,
    pulse: Pulse,
    max: Duration,
    /// Its last beat when the watchdog was fed.
    fed: u64,
}

impl Pulses {
    /// Watches one more: `who` is not alive when a round takes longer than `max`.
    pub fn add(&mut self, who: &str, max: Duration) -> Pulse {
        let pulse = Pulse::default();
        pulse.beat();
        self.0.push(Watched { who: who.to_owned(), pulse: pulse.clone(), max, fed: 0 });
        pulse
    }

    /// Watches until told to stop, and tells systemd that all is started, how it is, and that it ends. `nudge` wakes who
    /// waits for something to do.
    ///
    /// # Errors
    /// None; it is shaped to run under the supervisor.
    pub fn watch(
        mut self,
        live: &Health,
        ready: &Health,
        mut nudge: impl FnMut(),
        stop: &Stop,
    ) -> Result<(), Error> {
        let mut systemd = Systemd::default();
        systemd.ready();
        while !stop.wait_for(FELT) {
            nudge();
            self.feel(live);
            systemd.status(&ready.line());
            if live.is_good() && self.all_beat() {
                systemd.alive();
            }
        }
        systemd.stopping();
        Ok(())
    }

    fn feel(&self, live: &Health) {
        let now = clock::now().mono_ns;
        for Watched { who, pulse, max, .. } in &self.0 {
            let round = Duration::from_nanos(now.saturating_sub(pulse.last()));
            if round > *max {
                live.bad(who, format!("at the same work for {} s", round.as_secs()));
            } else {
                live.good(who);
            }
        }
    }

    /// Whether all have beaten since the last time that this was so.
    fn all_beat(&mut self) -> bool {
        let beat = self.0.iter().all(|watched| watched.pulse.last() > watched.fed);
        if beat {
            self.0.iter_mut().for_each(|watched| watched.fed = watched.pulse.last());
        }
        beat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_round_is_seen_and_its_end_too() {
        let (mut pulses, live) = (Pulses::default(), Health::default());
        let pulse = pulses.add("worker", Duration::from_millis(1));
        while live.is_good() {
            pulses.feel(&live);
        }
        pulse.beat();
        pulses.0[0].max = Duration::from_secs(60);
        pulses.feel(&live);
        assert!(live.is_good());
    }

    #[test]
    fn the_watchdog_is_fed_only_when_all_have_beaten_since() {
        let mut pulses = Pulses::default();
        let [first, second] = ["a", "b"].map(|who| pulses.add(who, Duration::MAX));
        assert!(pulses.all_beat() && !pulses.all_beat());
        first.beat();
        assert!(!pulses.all_beat());
        second.beat();
        assert!(pulses.all_beat() && !pulses.all_beat());
    }
}
