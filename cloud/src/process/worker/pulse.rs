//! Whether the worker gets on with its work, seen from another thread.
//!
//! Comes in: work begun, work done. Goes out: how long it has been at the same piece of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_shared::clock;

/// Shared by the worker and who watches it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// A cycle with records has begun.
    pub(crate) fn working(&self) {
        self.0.store(clock::now().mono_ns, Ordering::Relaxed);
    }

    /// There is nothing to do.
    pub(crate) fn idle(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How long the current cycle has taken; zero when there is none.
    pub(crate) fn working_for(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(clock::now().mono_ns.saturating_sub(since)),
        }
    }
}
