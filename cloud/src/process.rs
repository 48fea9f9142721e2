//! From the edges' topics to `weir.enriched` and `weir.rejected`, exactly once.
//!
//! The flow, in the order of the modules: a [`worker`] collects records of its partitions, [`dedupe`] drops repeats
//! by the marks of the partition's [`state`], [`reading`] checks, [`join`] adds dimensions, [`outputs`] writes; one
//! [`transaction`] carries results, marks and offsets. [`assignment`] keeps what belongs to which partition.
//!
//! Guarantees: outputs, changed marks and offsets of a cycle become visible together or not at all; what cannot be
//! read becomes a dead letter and the partition goes on.
//! On failure: an abortable error takes the cycle back and reads it again; anything else drops consumer, producer
//! and state, and builds them anew with growing waits, for ever. Fenced by another process with the same slot: this
//! one stops working, says so, and looks again after a minute.

pub(crate) mod join;

mod assignment;
mod dedupe;
mod engine;
mod measures;
mod outputs;
mod reading;
mod state;
mod transaction;
mod worker;

use std::time::Duration;

use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::config::Section;
use weir_shared::pulse::Pulse;
use weir_shared::supervise::{Error, Stop};
use weir_shared::wire;

use crate::kafka::KafkaConfig;
use join::{DimensionConfig, Dimensions};
use measures::Measures;
use worker::Worker;

/// Who speaks in `/live` and `/ready`.
const WHO: &str = "process";
/// How long a slot that was fenced stays away before it looks for its twin again.
const FENCED_PAUSE: Duration = Duration::from_secs(60);

/// The topics that are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    /// `weir.readings`
    Readings,
    /// `weir.edge-rejected`
    EdgeRejected,
}

impl Input {
    /// All of them, in the order of [`Input::index`].
    pub(crate) const ALL: [Self; 2] = [Self::Readings, Self::EdgeRejected];

    /// Its topic.
    pub(crate) const fn topic(self) -> &'static str {
        match self {
            Self::Readings => wire::READINGS,
            Self::EdgeRejected => wire::EDGE_REJECTED,
        }
    }

    /// The changelog of its state.
    pub(crate) fn state_topic(self) -> String {
        format!("{}{}", wire::STATE_PREFIX, self.topic())
    }

    const fn index(self) -> usize {
        self as usize
    }

    fn from_topic(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|input| input.topic() == name)
    }
}

/// The sections `[process]` and `[[dimension]]`.
#[derive(Clone, Debug)]
pub(crate) struct ProcessConfig {
    /// Longest time that one cycle collects.
    pub(crate) cycle: Duration,
    /// Most records of one cycle.
    pub(crate) cycle_records_max: usize,
    /// Consumer group.
    pub(crate) group: String,
    /// Dimension tables.
    pub(crate) dimensions: Vec<DimensionConfig>,
}

impl ProcessConfig {
    /// Reads `[process]` and `[[dimension]]` of the root section.
    pub(crate) fn read(root: &Section<'_>) -> Self {
        let process = root.section("process");
        let records = process.integer("cycle_records_max", 1..=1_000_000);
        Self {
            cycle: process.millis("cycle_ms", 1..=1_000),
            cycle_records_max: usize::try_from(records).unwrap_or(usize::MAX),
            group: process.required("group", "the consumer group"),
            dimensions: DimensionConfig::read_all(root),
        }
    }
}

/// How a worker ended.
pub(super) enum Ended {
    /// Told to stop; everything is committed.
    Stopped,
    /// Something that only new clients can mend.
    Broken(String),
    /// Another process has the same slot.
    Fenced(String),
}

/// Runs the processor until told to stop. Blocks: call it on a thread of its own.
///
/// # Errors
/// None while servers or topics are missing: it says so and tries again. Only what a restart cannot mend either.
pub(crate) fn run(
    config: &ProcessConfig,
    kafka: &KafkaConfig,
    slot: &str,
    ready: &Health,
    pulse: &Pulse,
    stop: &Stop,
) -> Result<(), Error> {
    ready.bad(WHO, "loading dimension tables");
    let Some(dimensions) = Dimensions::load(&config.dimensions, stop)? else { return Ok(()) };
    let measures = Measures::new();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    while !stop.is_stopped() {
        ready.bad(WHO, "waiting for Kafka");
        let ended = match Worker::build(config, kafka, slot, &measures) {
            Ok(mut worker) => {
                let ended = worker.run(&dimensions, ready, pulse, stop);
                if worker.has_committed() {
                    backoff.reset();
                }
                ended
            }
            Err(ended) => ended,
        };
        pulse.idle();
        match ended {
            Ended::Stopped => break,
            Ended::Broken(why) => {
                measures.rebuilt();
                let wait = backoff.wait();
                tracing::warn!("process: {why}; starting again in {} ms", wait.as_millis());
                ready.bad(WHO, why);
                if stop.wait_for(wait) {
                    break;
                }
            }
            Ended::Fenced(why) => {
                measures.fenced();
                ready.bad(WHO, format!("fenced: {why}"));
                if wait_for_twin(config, kafka, slot, &why, stop) {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Waits a minute, and then as long as a member of the group has this slot's name; true when told to stop.
fn wait_for_twin(config: &ProcessConfig, kafka: &KafkaConfig, slot: &str, why: &str, stop: &Stop) -> bool {
    loop {
        tracing::error!(
            "process: ALARM: another process works as slot {slot:?} ({why}); this one pauses for {} s. Give each \
             process a slot of its own, or stop one of the two",
            FENCED_PAUSE.as_secs()
        );
        if stop.wait_for(FENCED_PAUSE) {
            return true;
        }
        match worker::check::slot_is_taken(kafka, &config.group, slot) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => tracing::warn!("process: cannot ask for the members of {}: {error}", config.group),
        }
    }
}
