//! A stream of transactions, and a kill in the midst of it.
//!
//! Guarantees: the kill comes while the stream goes on, however slow the machine is: behind its first half transactions come
//! slowly until the kill was there, and the last one waits for it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_harness::patience::holds_within;
use weir_shared::clock::Deadline;

/// How much slower the second half is until the kill.
const SLOWER: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the program may take until it is killed, and the stream waits for that.
const KILLED: Duration = Duration::from_secs(60);

pub(crate) struct MidStream {
    every: Duration,
    killed: AtomicBool,
}

impl MidStream {
    /// One that is killed in its midst, with a transaction so often.
    pub(crate) const fn new(every: Duration) -> Self {
        Self { every, killed: AtomicBool::new(false) }
    }

    /// One without a kill.
    pub(crate) const fn undisturbed(every: Duration) -> Self {
        Self { every, killed: AtomicBool::new(true) }
    }

    /// Gives the records to `send`, so many at a time.
    pub(crate) fn send<T>(&self, records: &[T], size: usize, mut send: impl FnMut(&[T])) {
        let (half, last) = (records.len() / size / 2, records.len().div_ceil(size) - 1);
        for (n, transaction) in records.chunks(size).enumerate() {
            let is_killed = || Ok(self.killed.load(Ordering::SeqCst));
            let next = Deadline::after(self.every);
            if n == last {
                assert!(holds_within(KILLED, LOOK_EVERY, is_killed).unwrap(), "the stream was not disturbed");
            } else if n >= half {
                holds_within(self.every * SLOWER, LOOK_EVERY, is_killed).unwrap();
            }
            send(transaction);
            while !next.passed() {
                std::thread::park_timeout(next.left());
            }
        }
    }

    /// Kills once there is enough.
    pub(crate) fn kill_when<K>(&self, mut has_enough: impl FnMut() -> bool, kill: impl FnOnce() -> K) -> K {
        let enough = holds_within(KILLED, LOOK_EVERY, || Ok(has_enough())).unwrap();
        assert!(enough, "too few records of the first half came through within {KILLED:?}");
        let killed = kill();
        self.killed.store(true, Ordering::SeqCst);
        killed
    }
}
