//! The loop of a sink, the same for all stores.
//!
//! Comes in: batches from the consumer. Goes out: calls to the store.
//! Guarantees: the store is asked where to read from before a partition is read, and again after every failure; a
//! batch that fails is dropped whole, with what was collected meanwhile, and read again from the log. The next batch is
//! collected while one is written; nothing is taken away from this process before the writing has ended.
//! On failure: a store that is away is asked again with growing, jittered waits, for ever, while the consumer stays
//! in its group and `/ready` says why; a lost place in the group means a new consumer. Fenced by another process with
//! the same slot: it stays away for a minute. A batch that was not answered in time is halved, and grows again with each
//! that is.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Runtime;
use weir_shared::admin::Health;
use weir_shared::backoff::Backoff;
use weir_shared::clock;
use weir_shared::kafka_security::RENEWED;
use weir_shared::pulse::Pulse;
use weir_shared::supervise::{Error, Stop};
use weir_shared::tls::Renewals;

use super::batch::{Batch, Part};
use super::config::Limits;
use super::consumer::Source;
use super::measures::{Measures, Stored};
use super::own::OwnTables;
use super::{Failure, SinkName};
use crate::actions::Pauses;
use crate::kafka::KafkaConfig;

/// Said until the group gave it partitions.
const UNASSIGNED: &str = "no partition assigned yet";
/// Between two looks at the lag, and two calls of [`Store::idle`].
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// What is being written when the wish to stop comes may take this much longer.
const LAST_WRITE: Duration = Duration::from_secs(8);
/// How soon a sink that rests sees that it is to go on.
const PAUSE_LOOK: Duration = Duration::from_millis(100);
/// How long a sink that was fenced stays away before it looks for its twin again.
const FENCED_PAUSE: Duration = Duration::from_secs(60);

/// A store: keeps rows and knows how far it is.
pub(super) trait Store {
    /// Where to read each of these partitions from. Whatever an earlier owner or an earlier try left open is finished
    /// or fenced off before this answers.
    async fn positions(
        &mut self,
        source: &Source,
        parts: &[Part],
        stop: &Stop,
    ) -> Result<Vec<(Part, i64)>, Failure>;

    /// Keeps the batch whole, with its progress, or fails; then nobody knows what arrived until
    /// [`Store::positions`] was asked.
    async fn write(&mut self, source: &Source, batch: &Batch, stop: &Stop) -> Result<Stored, Failure>;

    /// Called about once a second between batches.
    async fn idle(&mut self, source: &Source) -> Result<(), Failure>;
}

/// Who runs, where.
pub(super) struct Place<'a> {
    pub(super) which: SinkName,
    pub(super) kafka: &'a KafkaConfig,
    pub(super) slot: &'a str,
    pub(super) tables: OwnTables,
    pub(super) health: &'a Health,
    /// Beats with each round.
    pub(super) pulse: &'a Pulse,
    /// Whether it is to rest.
    pub(super) pauses: &'a Pauses,
    pub(super) stop: &'a Stop,
}

impl Place<'_> {
    fn is_paused(&self) -> bool {
        self.pauses.is_paused(self.which)
    }

    /// Rests, out of its group, until it is resumed.
    fn rest(&self) {
        let sink = self.which.name();
        tracing::warn!(sink, "paused");
        let why = format!(
            "paused through the admin port; POST /api/sinks/resume {{\"sink\": \"{sink}\"}} ends that"
        );
        self.health.bad(self.which.stage(), why);
        while self.is_paused() && !self.stop.wait_for(PAUSE_LOOK) {
            self.pulse.beat();
        }
        tracing::info!(sink, "resumed");
    }

    /// How long to wait before the next try.
    fn complain(&self, failure: &Failure, backoff: &mut Backoff) -> Duration {
        let (sink, reason) = (self.which.name(), failure.to_string());
        let wait = if matches!(failure, Failure::Fenced) {
            tracing::error!(sink, reason, "staying away for a while");
            FENCED_PAUSE
        } else {
            if let Some(more) = backoff.tells(&reason) {
                tracing::warn!(sink, reason, "trying again{more}");
            }
            backoff.wait()
        };
        self.health.bad(self.which.stage(), reason);
        wait
    }
}

/// Runs until told to stop.
///
/// # Errors
/// When the client library refuses its configuration.
pub(super) fn run(place: &Place<'_>, limits: Limits, mut store: impl Store) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measures = Measures::new(place.which, &place.tables.topics(place.which));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    place.health.bad(place.which.stage(), UNASSIGNED);
    while !place.stop.is_stopped() {
        place.pulse.beat();
        if place.is_paused() {
            measures.rests(true);
            place.rest();
            measures.rests(false);
            place.health.bad(place.which.stage(), UNASSIGNED);
            continue;
        }
        let renewals = place.kafka.security.renewals();
        let source = match Source::open(place.kafka, place.which, place.slot, place.tables) {
            Ok(source) => source,
            // The settings were tried when they were read: a certificate has gone since.
            Err(error) => {
                let wait = place.complain(&Failure::Kafka(error.to_string()), &mut backoff);
                if place.stop.wait_for(wait) {
                    break;
                }
                continue;
            }
        };
        let mut member = Member {
            place,
            configured: limits,
            limits,
            source,
            renewals,
            measures: &measures,
            runtime: &runtime,
            backoff: &mut backoff,
            write_failed: false,
            assigned: false,
        };
        if let Err(failure) = member.run(&mut store) {
            measures.retry();
            drop(member);
            let wait = place.complain(&failure, &mut backoff);
            measures.fenced(matches!(failure, Failure::Fenced));
            if place.stop.wait_for(wait) {
                break;
            }
            measures.fenced(false);
        }
    }
    Ok(())
}

/// One membership in the group.
struct Member<'a> {
    place: &'a Place<'a>,
    configured: Limits,
    /// Smaller while the store does not answer in time.
    limits: Limits,
    source: Source,
    renewals: Option<Renewals>,
    measures: &'a Measures,
    runtime: &'a Runtime,
    backoff: &'a mut Backoff,
    /// The last write failed: answering questions is no proof that the store takes rows again.
    write_failed: bool,
    /// It got partitions, at any time.
    assigned: bool,
}

impl Member<'_> {
    /// Until told to stop or to rest (`Ok`), or the place in the group is lost.
    fn run(&mut self, store: &mut impl Store) -> Result<(), Failure> {
        let (mut batch, mut next) = (Batch::default(), Batch::default());
        let mut housekeeping = clock::Deadline::after(HOUSEKEEPING);
        while !self.place.stop.is_stopped() && !self.place.is_paused() {
            self.place.pulse.beat();
            self.source.collect(&mut batch, &self.limits, self.place.stop)?;
            match self.step(store, &mut batch, &mut next, &mut housekeeping) {
                Ok(()) => {}
                Err(failure @ (Failure::Kafka(_) | Failure::Fenced)) => return Err(failure),
                Err(failure @ (Failure::Store(_) | Failure::Late(_))) => {
                    self.source.must_be_alive()?;
                    if matches!(failure, Failure::Late(_)) && self.write_failed && !batch.is_empty() {
                        self.limits = self.limits.smaller(&batch);
                    }
                    batch.clear();
                    next.clear();
                    self.measures.retry();
                    self.measures.failing(true);
                    let wait = self.place.complain(&failure, self.backoff);
                    self.source.stop_reading()?;
                    self.show_lag();
                    self.source.rest(wait, self.place.stop)?;
                }
            }
        }
        // What was collected and not written stays in the log.
        if let Err(failure) = self.runtime.block_on(store.idle(&self.source)) {
            tracing::debug!(reason = %failure, "last housekeeping");
        }
        Ok(())
    }

    fn show_lag(&self) {
        self.measures.lag(self.source.lags().into_iter().map(|(part, lag)| (part.topic, lag)));
        self.measures.age(&self.source.oldest(), clock::wall_ms());
    }

    /// Shows the lag while `work` takes its time: a store that is slow is when somebody looks. This thread is not to blame for
    /// it, and beats.
    async fn showing_lag<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(HOUSEKEEPING) => {
                    self.place.pulse.beat();
                    self.show_lag();
                }
            }
        }
    }

    fn step(
        &mut self,
        store: &mut impl Store,
        batch: &mut Batch,
        next: &mut Batch,
        housekeeping: &mut clock::Deadline,
    ) -> Result<(), Failure> {
        let stop = self.place.stop;
        let waiting = self.source.waiting();
        if self.write_failed && self.source.owns_nothing() {
            // Others try now.
            self.works();
        }
        if waiting.is_empty()
            && !self.assigned
            && let Some(why) = self.source.trouble()
        {
            self.place.health.bad(self.place.which.stage(), format!("{UNASSIGNED}: {why}"));
        }
        if !waiting.is_empty() {
            self.assigned = true;
            let asked = in_time(stop, store.positions(&self.source, &waiting, stop));
            let from = self.runtime.block_on(self.showing_lag(asked))?;
            self.source.start(&from)?;
            if !self.write_failed {
                self.works();
            }
        }
        if !batch.is_empty() {
            self.write_failed = true;
            let (source, limits) = (&self.source, &self.limits);
            let (written, collected) =
                source.beside(|| self.write(store, batch), || source.collect_ahead(next, limits, stop));
            if let Err(failure) = written {
                // A lost place in the group is told once, and stands behind most failures that come with it.
                collected?;
                return Err(failure);
            }
            self.works();
            batch.clear();
            std::mem::swap(batch, next);
            self.limits = self.limits.larger(&self.configured);
            self.backoff.reset();
            collected?;
        }
        if housekeeping.passed() {
            *housekeeping = clock::Deadline::after(HOUSEKEEPING);
            self.show_lag();
            self.runtime.block_on(store.idle(&self.source))?;
            if self.renewals.as_mut().is_some_and(Renewals::came) {
                return Err(Failure::Kafka(RENEWED.to_owned()));
            }
        }
        Ok(())
    }

    /// Nothing is to be said against it.
    fn works(&mut self) {
        self.write_failed = false;
        self.measures.failing(false);
        self.place.health.good(self.place.which.stage());
    }

    fn write(&self, store: &mut impl Store, batch: &Batch) -> Result<(), Failure> {
        let (stop, begun) = (self.place.stop, clock::instant());
        let write = in_time(stop, store.write(&self.source, batch, stop));
        let stored = self.runtime.block_on(self.showing_lag(write))?;
        for range in batch.ranges(|part| self.source.stored(part)) {
            self.source.set_stored(range.part, range.end);
        }
        let seconds = clock::since(begun).as_secs_f64();
        tracing::debug!(sink = self.place.which.name(), records = batch.records().len(), seconds, "stored");
        self.measures.stored(batch, &stored, seconds, clock::wall_ms());
        Ok(())
    }
}

/// Lets `work` end, but not for longer than [`LAST_WRITE`] after the wish to stop. Giving up is safe at any point: the
/// next owner asks the store what it has.
async fn in_time<T>(stop: &Stop, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let too_late = async {
        stop.wait().await;
        tokio::time::sleep(LAST_WRITE).await;
    };
    tokio::select! {
        done = work => done,
        () = too_late => Err(Failure::Store("stopped before the store answered".to_owned())),
    }
}
