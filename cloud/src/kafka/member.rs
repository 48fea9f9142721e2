//! A member of a consumer group that can be dropped at any time.
//!
//! Comes in: how to join, and the topics. Goes out: a consumer, for as long as it is wanted. Guarantees: dropping it takes at
//! most [`CLOSE_MAX`].
//! On failure: librdkafka closes a member by asking for its partitions back, and may never answer what the application asks
//! it meanwhile, if a rebalance came at that very moment (librdkafka issue 4884, open in 2.12). Such a client is left
//! behind, closed for the group but with its memory and threads, until the process ends; that is told.

use std::ops::Deref;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use weir_shared::clock::Deadline;

/// Longest wait for a client to close: a coordinator that is gone is given up after the session time-out, of 6 s.
const CLOSE_MAX: Duration = Duration::from_secs(7);
/// Longest wait for what was told before: records that were fetched come first.
const SETTLE_MAX: Duration = Duration::from_millis(200);
/// A poll that answers a rebalance brings nothing either, and there may be two of them.
const NOTHINGS: usize = 4;

/// A consumer that has joined a group.
pub(crate) struct Member<C: ConsumerContext + 'static>(Option<BaseConsumer<C>>);

impl<C: ConsumerContext + 'static> Member<C> {
    /// Joins the group of the configuration.
    pub(crate) fn join(config: &ClientConfig, context: C, topics: &[&str]) -> KafkaResult<Self> {
        let consumer: BaseConsumer<C> = config.create_with_context(context)?;
        consumer.subscribe(topics)?;
        Ok(Self(Some(consumer)))
    }
}

impl<C: ConsumerContext + 'static> Deref for Member<C> {
    type Target = BaseConsumer<C>;

    fn deref(&self) -> &BaseConsumer<C> {
        let Some(consumer) = &self.0 else { unreachable!("it is there until the drop") };
        consumer
    }
}

impl<C: ConsumerContext + 'static> Drop for Member<C> {
    fn drop(&mut self) {
        settle(self);
        if !drops_within(self.0.take(), CLOSE_MAX) {
            tracing::warn!("a consumer does not close: it is left behind until the process ends");
        }
    }
}

/// Answers the rebalance that was told already, which makes it rare that a client does not close.
fn settle<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    let (deadline, mut nothing) = (Deadline::after(SETTLE_MAX), 0);
    while nothing < NOTHINGS && !deadline.passed() {
        nothing = consumer.poll(Duration::ZERO).map_or(nothing + 1, |_| 0);
    }
}

/// Drops it on a thread beside this one; whether that was done in time. Without a thread it is dropped here.
fn drops_within<T: Send + 'static>(value: T, wait: Duration) -> bool {
    let (done, closed) = channel::<()>();
    let thread = std::thread::Builder::new().name("close".to_owned());
    let closing = thread.spawn(move || {
        drop(value);
        drop(done);
    });
    closing.is_err() || closed.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;

    use super::*;

    struct Slow(Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _until_the_sender_is_gone = self.0.recv();
        }
    }

    #[test]
    fn what_does_not_close_is_left_behind() {
        let (hold, held) = channel();
        assert!(!drops_within(Slow(held), Duration::from_millis(20)));
        drop(hold);
        let (hold, held) = channel();
        drop(hold);
        assert!(drops_within(Slow(held), Duration::from_secs(60)));
    }
}
