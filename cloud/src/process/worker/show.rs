//! What a worker shows: whether it is ready, its sizes and how far behind it is.

use std::time::Duration;

use weir_shared::admin::Health;
use weir_shared::clock;

use super::Worker;
use crate::kafka::native;
use crate::process::assignment::Partition;
use crate::process::measures::Sizes;

/// How often lag and sizes are shown.
const SHOWN: Duration = Duration::from_secs(1);

impl Worker<'_> {
    fn joined(&self) -> bool {
        native::generation(&self.consumer).is_some_and(|generation| generation >= 0)
    }

    pub(super) fn show(&mut self, ready: &Health) {
        let (mut sizes, mut restoring) = (Sizes::default(), 0);
        for (_, partition) in self.partitions.iter() {
            match partition {
                Partition::Restoring { .. } => restoring += 1,
                Partition::Ready { state, .. } => {
                    sizes.partitions += 1;
                    sizes.marks += state.marks.len();
                    sizes.rule_states += state.rules.len();
                    sizes.held += state.held.len();
                }
            }
        }
        match (sizes.partitions, restoring) {
            // More workers than partitions are a reserve, not a fault, once there was a first rebalance.
            (0, 0) if !self.joined() => ready.bad(&self.name.who, "no partitions assigned"),
            (_, 0) => ready.good(&self.name.who),
            _ => ready.bad(&self.name.who, format!("reading back the state of {restoring} partitions")),
        }
        let now = clock::instant();
        if now.saturating_duration_since(self.shown) < SHOWN {
            return;
        }
        self.shown = now;
        // A client that was thrown out has none.
        self.member = native::member(&self.consumer).unwrap_or(std::mem::take(&mut self.member));
        self.measures.holding(&sizes);
        for &input in self.name.inputs {
            let lag =
                self.partitions.iter().filter(|(place, _)| place.0 == input).map(|(place, partition)| {
                    let Partition::Ready { next, .. } = partition else { return 0 };
                    native::cached_end(&self.consumer, input.topic(), place.1)
                        .map_or(0, |end| (end - next).max(0))
                });
            self.measures.lag(input, lag.sum(), clock::wall_ms());
        }
    }
}
