//! Whether a thread gets on with its work, seen from another one.
//!
//! Comes in: work begun, work done. Goes out: `/live`, which turns bad while one piece of work takes too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::admin::Health;
use crate::clock;
use crate::supervise::{Error, Stop};

/// How often the pulse is felt.
const FELT: Duration = Duration::from_secs(1);

/// Shared by the worker and who watches it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// A piece of work has begun.
    pub fn working(&self) {
        self.0.store(clock::now().mono_ns, Ordering::Relaxed);
    }

    /// There is nothing to do.
    pub fn idle(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How long the current piece of work has taken; zero when there is none.
    fn working_for(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(clock::now().mono_ns.saturating_sub(since)),
        }
    }

    /// Watches until told to stop: `who` is not alive while a piece of work takes longer than `max`.
    ///
    /// # Errors
    /// None; it is shaped to run under the supervisor.
    pub fn watch(&self, who: &str, max: Duration, live: &Health, stop: &Stop) -> Result<(), Error> {
        while !stop.wait_for(FELT) {
            match self.working_for() {
                stuck if stuck > max => live.bad(who, format!("at the same work for {} s", stuck.as_secs())),
                _ => live.good(who),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;

    #[test]
    fn long_work_is_seen_and_its_end_too() {
        let (pulse, live, stop) = (Pulse::default(), Health::default(), Stop::new());
        let until = |bad: bool| {
            let deadline = Deadline::after(Duration::from_secs(10));
            while live.is_good() == bad && !deadline.passed() {
                std::thread::yield_now();
            }
            assert_eq!(live.is_good(), !bad);
        };
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| pulse.watch("worker", Duration::from_millis(1), &live, &stop));
            pulse.working();
            until(true);
            pulse.idle();
            until(false);
            stop.trigger();
            watch.join().unwrap().unwrap();
        });
    }
}
