//! Which partitions are ours, and the state of each.
//!
//! Comes in: rebalances, noted by [`Rebalances`] while the consumer is polled, and restored state. Goes out: the
//! state of a partition that may be processed.
//! Guarantees: a new partition is paused before its first record can arrive and stays so until its state is
//! restored; the state of a revoked one is dropped.

use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::state::State;
use super::{INPUTS, Input};

/// A partition of an input topic.
pub(super) type Place = (Input, i32);

/// What a rebalance did.
#[derive(Debug)]
pub(super) enum Change {
    /// These are ours now, and paused.
    Assigned(Vec<Place>),
    /// These are no longer ours.
    Revoked(Vec<Place>),
}

/// Notes rebalances; they happen inside a poll, and are acted upon right after it, on the same thread.
#[derive(Debug, Default)]
pub(super) struct Rebalances {
    changes: Mutex<Vec<Change>>,
}

impl Rebalances {
    /// What happened since the last call.
    pub(super) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.note(Change::Revoked(places(list)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // A record that slips through all the same is dropped and read again, so a failure only costs time.
            if let Err(error) = consumer.pause(list) {
                tracing::debug!("process: cannot pause new partitions: {error}");
            }
            self.note(Change::Assigned(places(list)));
        }
    }
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    let elements = list.elements();
    elements.iter().filter_map(|e| Some((Input::from_topic(e.topic())?, e.partition()))).collect()
}

/// A list for the client.
pub(super) fn list(places: impl IntoIterator<Item = Place>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (input, partition) in places {
        list.add_partition(input.topic(), partition);
    }
    list
}

/// One of our partitions.
#[derive(Debug)]
pub(super) enum Partition {
    /// Its state is being read back; `skipped` when a record came too early and has to be read again.
    Restoring {
        /// A record was dropped.
        skipped: bool,
    },
    /// It may be processed.
    Ready {
        /// Its state.
        state: Box<State>,
        /// Committed offset: the next record to process.
        next: i64,
    },
}

/// Our partitions.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    lists: [Vec<Option<Partition>>; INPUTS],
}

impl Partitions {
    /// The partition, when it is ours.
    pub(super) fn get(&mut self, (input, partition): Place) -> Option<&mut Partition> {
        let at = usize::try_from(partition).ok()?;
        self.lists[input.index()].get_mut(at)?.as_mut()
    }

    /// Makes it ours (or replaces what is known of it).
    pub(super) fn put(&mut self, (input, partition): Place, state: Partition) {
        let at = usize::try_from(partition).expect("Kafka's partitions count from 0");
        let list = &mut self.lists[input.index()];
        if list.len() <= at {
            list.resize_with(at + 1, || None);
        }
        list[at] = Some(state);
    }

    /// Drops the partition with its state.
    pub(super) fn remove(&mut self, (input, partition): Place) {
        let slot = usize::try_from(partition).ok().and_then(|at| self.lists[input.index()].get_mut(at));
        if let Some(slot) = slot {
            *slot = None;
        }
    }

    /// All of ours.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Partition)> {
        Input::ALL.into_iter().zip(&self.lists).flat_map(|(input, list)| {
            list.iter().zip(0..).filter_map(move |(state, n)| Some(((input, n), state.as_ref()?)))
        })
    }

    /// All of ours, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Place, &mut Partition)> {
        Input::ALL.into_iter().zip(&mut self.lists).flat_map(|(input, list)| {
            list.iter_mut().zip(0..).filter_map(move |(state, n)| Some(((input, n), state.as_mut()?)))
        })
    }
}
