//! From the edges' topics to the output topics, exactly once.
//!
//! The flow, in the order of the modules: a [`worker`] collects records of its partitions, [`dedupe`] drops repeats
//! by the marks of the partition's [`state`], the [`engine`] checks, [`join`] adds dimensions, [`outputs`] writes; one
//! [`transaction`] carries results, marks and offsets. [`assignment`] keeps what belongs to which partition.
//!
//! Guarantees: outputs, changed marks and offsets of a cycle become visible together or not at all; what cannot be
//! read becomes a dead letter and the partition goes on.
//! On failure: an abortable error takes the cycle back and reads it again; anything else drops consumer, producer
//! and state, and builds them anew with growing waits, for ever. Fenced by another process with the same slot: this
//! one stops working, says so, and goes on when the other is gone.

pub(crate) mod join;

mod assignment;
mod dedupe;
mod engine;
mod measures;
mod outputs;
pub(crate) mod reference;
mod state;
mod transaction;
mod worker;

use std::time::{Duration, Instant};

use weir_shared::admin::{Feed, Health};
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::config::Section;
use weir_shared::pulse::Pulse;
use weir_shared::supervise::{Error, Stop};
use weir_shared::wire;

use crate::kafka::KafkaConfig;
use crate::rules::Rule;
use crate::rules::store::Rules;
use crate::rules::store::config::RulesConfig;
use engine::World;
use join::DimensionConfig;
pub(crate) use join::{Dimensions, columns};
use measures::Measures;
use state::held::Limits;
pub(crate) use worker::Name;
use worker::Worker;

/// Said until the group gave this worker its partitions.
const WAITS: &str = "waiting for Kafka";
/// How often to look whether tables and rules are there, or have changed their shape.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often a slot that has a twin says so.
const ALARM_AGAIN: Duration = Duration::from_secs(60);
/// How often it looks whether the twin is gone.
const TWIN_LOOK: Duration = Duration::from_secs(3);

/// Somebody who was not heard for so long is no member of the group any more.
const SESSION: Duration = Duration::from_secs(6);
/// A fenced slot without a twin is free again after this time: more than a session.
const GHOST: Duration = Duration::from_secs(9);
/// How often to look for it.
const GHOST_LOOK: Duration = Duration::from_millis(300);

/// How many topics are processed.
const INPUTS: usize = 4;

/// The topics that are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Input {
    /// `weir.readings`
    Readings,
    /// `weir.edge-rejected`
    EdgeRejected,
    /// `weir.windows`
    Windows,
    /// `weir.gaps`
    Gaps,
}

impl Input {
    /// All of them, in the order of [`Input::index`].
    pub(crate) const ALL: [Self; INPUTS] = [Self::Readings, Self::EdgeRejected, Self::Windows, Self::Gaps];

    /// Its topic.
    pub(crate) const fn topic(self) -> &'static str {
        match self {
            Self::Readings => wire::READINGS,
            Self::EdgeRejected => wire::EDGE_REJECTED,
            Self::Windows => wire::WINDOWS,
            Self::Gaps => wire::GAPS,
        }
    }

    /// The changelog of its state.
    pub(crate) fn state_topic(self) -> String {
        format!("{}{}", wire::STATE_PREFIX, self.topic())
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    fn from_topic(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|input| input.topic() == name)
    }
}

/// What is done about records that are gone from the log before they were processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// Tell exactly which, and go on.
    Report,
    /// Tell, and wait for a person.
    Stop,
}

/// The sections `[process]` and `[[dimension]]`.
#[derive(Clone, Debug)]
pub(crate) struct ProcessConfig {
    /// Longest time that one cycle collects.
    pub(crate) cycle: Duration,
    /// Most records of one cycle.
    pub(crate) cycle_records_max: usize,
    /// Workers, each a thread with clients of its own.
    pub(crate) workers: usize,
    /// What is done about records that are gone from the log.
    lost: Lost,
    /// How readings wait for their rows.
    hold: Limits,
    /// Whether alerts also go to a topic for each severity.
    pub(crate) alerts_by_severity: bool,
    /// Topics that results may go to beside Weir's own; known when all of the configuration is.
    pub(crate) more_topics: Vec<String>,
    /// Consumer group.
    pub(crate) group: String,
    /// Dimension tables.
    pub(crate) dimensions: Vec<DimensionConfig>,
}

impl ProcessConfig {
    /// Reads `[process]` and `[[dimension]]` of the root section.
    pub(crate) fn read(root: &Section<'_>) -> Self {
        let process = root.section("process");
        let size = |key: &str, range| usize::try_from(process.integer(key, range)).unwrap_or(usize::MAX);
        Self {
            cycle: process.millis("cycle_ms", 1..=1_000),
            cycle_records_max: size("cycle_records_max", 1..=1_000_000),
            workers: workers(process.integer("workers", 0..=256)),
            lost: process.parsed("lost_records", "\"report\" or \"stop\"", |text| match text {
                "report" => Some(Lost::Report),
                "stop" => Some(Lost::Stop),
                _ => None,
            }),
            hold: Limits {
                ms: process.integer("hold_ms", 1..=86_400_000),
                records_max: size("hold_records_max", 1..=1_000_000),
                bytes_max: size("hold_bytes_max", 1 << 20..=1 << 30),
            },
            group: process.required("group", "the consumer group"),
            alerts_by_severity: process.boolean("alerts_by_severity"),
            more_topics: Vec::new(),
            dimensions: DimensionConfig::read_all(root),
        }
    }
}

/// 0 is one for each core.
fn workers(configured: u64) -> usize {
    match usize::try_from(configured) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
        Ok(n) => n,
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

/// What all workers share: dimension tables and rules, followed elsewhere.
#[derive(Clone)]
pub(crate) struct Versions {
    dimensions: Dimensions,
    rules: Rules,
}

impl Versions {
    /// Nothing is there before both are followed.
    pub(crate) fn new(dimensions: &Dimensions, rules: &Rules) -> Self {
        Self { dimensions: dimensions.clone(), rules: rules.clone() }
    }

    /// What is in force now; `None` until everything was loaded once.
    fn current(&self) -> Option<World> {
        Some(World { tables: self.dimensions.current()?, rules: self.rules.current()? })
    }

    fn have_rules(&self) -> bool {
        self.rules.are_configured()
    }

    fn tripped(&self, rule: &Rule) {
        let why = "at least half of its evaluations failed within 10 s, and 100 at least";
        self.rules.tripped(&rule.id, rule.version, why);
    }

    /// Tells the rules what the tables have, whenever that changes. Blocks: call it on a thread of its own.
    ///
    /// # Errors
    /// None.
    pub(crate) fn tell_schema(&self, rules: &RulesConfig, stop: &Stop) -> Result<(), Error> {
        let mut told = None;
        loop {
            if let Some(tables) = self.dimensions.current() {
                let dims = tables.schema();
                if told.as_ref() != Some(&dims) {
                    self.rules.set_schema(rules.schema(dims.clone()));
                    told = Some(dims);
                }
            }
            if stop.wait_for(LOOK_AGAIN) {
                return Ok(());
            }
        }
    }
}

/// The workers of this process: those of readings, and one for all else. Kafka shares partitions by their number, so a worker
/// of all topics could get those where little comes while another gets all readings.
pub(crate) fn names(config: &ProcessConfig, slot: &str) -> Vec<Name> {
    const ALL: &[Input] = &Input::ALL;
    let (readings, rest) = ALL.split_at(1);
    let name =
        |last: &str, inputs| Name { slot: format!("{slot}.{last}"), who: format!("process.{last}"), inputs };
    let workers = (0..config.workers).map(|n| name(&n.to_string(), readings));
    workers.chain([name("rest", rest)]).collect()
}

/// Runs one worker until told to stop. Blocks: call it on a thread of its own.
///
/// # Errors
/// None while servers or topics are missing: it says so and tries again. Only what a restart cannot mend either.
pub(crate) fn run(
    config: &ProcessConfig,
    kafka: &KafkaConfig,
    name: &Name,
    versions: &Versions,
    (ready, feed, pulse): (&Health, &Feed, &Pulse),
    stop: &Stop,
) -> Result<(), Error> {
    let who = &name.who;
    while versions.current().is_none() {
        pulse.beat();
        ready.bad(who, "loading dimension tables and rules");
        if stop.wait_for(LOOK_AGAIN) {
            return Ok(());
        }
    }
    let measures = Measures::new(who, feed.clone());
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let (mut committed, mut member) = (None, String::new());
    ready.bad(who, WAITS);
    while !stop.is_stopped() {
        pulse.beat();
        let ended = match Worker::build(config, kafka, name, versions, &measures) {
            Ok(mut worker) => {
                ready.bad(who, WAITS);
                let ended = worker.run(ready, pulse, stop);
                if let Some(at) = worker.committed_at() {
                    backoff.reset();
                    committed = Some(at);
                }
                if !worker.member().is_empty() {
                    worker.member().clone_into(&mut member);
                }
                ended
            }
            Err(ended) => ended,
        };
        pulse.beat();
        let is_taken = || worker::check::slot_is_taken(kafka, &config.group, &name.slot, &member);
        match or_fenced(ended, committed, || matches!(is_taken(), Ok(true))) {
            Ended::Stopped => break,
            Ended::Broken(why) => {
                pulse.beat();
                measures.rebuilt();
                let wait = backoff.wait();
                if let Some(more) = backoff.tells(&why) {
                    tracing::warn!("{who}: {why}; starting again{more}");
                }
                ready.bad(who, why);
                if stop.wait_for(wait) {
                    break;
                }
            }
            Ended::Fenced(why) => {
                measures.fenced();
                ready.bad(who, format!("fenced: another process works as slot {:?}, it seems", name.slot));
                if wait_for_twin(config, kafka, (name, &member), &why, (pulse, stop)) {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Whose last commit is older than a session is no member any more (it was frozen, say): one with its name is a twin, and to
/// make new clients would fence it.
fn or_fenced(ended: Ended, committed: Option<Instant>, is_taken: impl FnOnce() -> bool) -> Ended {
    let is_late = |at| clock::instant().saturating_duration_since(at) > SESSION;
    match ended {
        Ended::Broken(why) if committed.is_some_and(is_late) && is_taken() => Ended::Fenced(why),
        ended => ended,
    }
}

/// Waits as long as a member of the group has this slot's name; true when told to stop. A broker that failed while the
/// slot joined the group leaves a member that nobody is; unlike a twin it sends no heartbeats and soon goes. `member` was
/// this slot itself: librdkafka takes itself for a twin when its session ends while the coordinator moves.
fn wait_for_twin(
    config: &ProcessConfig,
    kafka: &KafkaConfig,
    (Name { slot, who, .. }, member): (&Name, &str),
    why: &str,
    (pulse, stop): (&Pulse, &Stop),
) -> bool {
    tracing::warn!("{who}: fenced ({why}); looking whether there is a twin");
    let deadline = Deadline::after(GHOST);
    while !deadline.passed() {
        pulse.beat();
        if stop.wait_for(GHOST_LOOK) {
            return true;
        }
        if let Ok(false) = worker::check::slot_is_taken(kafka, &config.group, slot, member) {
            return false;
        }
    }
    let mut alarm = Deadline::after(Duration::ZERO);
    loop {
        pulse.beat();
        if alarm.passed() {
            tracing::error!(
                "{who}: ALARM: another process works as slot {slot:?} ({why}); this one pauses until that is gone. Give \
                 each process a slot of its own, or stop one of the two"
            );
            alarm = Deadline::after(ALARM_AGAIN);
        }
        if stop.wait_for(TWIN_LOOK) {
            return true;
        }
        match worker::check::slot_is_taken(kafka, &config.group, slot, member) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => tracing::warn!("{who}: cannot ask for the members of {}: {error}", config.group),
        }
    }
}
