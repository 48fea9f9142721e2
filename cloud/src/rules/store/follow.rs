//! The loop: look, decide or take over what was decided, publish, say so.
//!
//! Comes in: the tables, every `poll_ms`; schema changes and reports of workers. Goes out: what [`Rules::current`]
//! gives.
//! Guarantees: a decision is made when something else is wanted, when the schema of this process changed, and when
//! the process starts; everything else is taken over from the latest row of `weir_rules_sets`. A set that this
//! process cannot run (its schema may lag behind for a moment) leaves its last one in force; if that lasts, it decides
//! again and only takes away, so that processes which differ come to rest.
//! On failure: a new connection after a growing wait; the last set stays. A tripped rule leaves without the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use weir_shared::backoff::Backoff;
use weir_shared::clock::{self, Deadline};
use weir_shared::supervise::{Error, Stop};

use super::audited::Told;
use super::decide::{self, Decision, Force, Key, State};
use super::look::{self, Fingerprint, Picture};
use super::measures::Measures;
use super::tables::{self, Failure};
use super::{Loaded, Report, Rules};
use crate::database::Server;
use crate::faults;
use crate::rules::{RuleRow, RuleSet, Schema};

/// How long a set that this process cannot run may wait for its schema.
const BEHIND_MAX: Duration = Duration::from_secs(10);
/// Longest wait before a database that was away is asked again.
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// How often another process may be faster at one look.
const RACES_MAX: usize = 20;
/// Saying good-bye takes no longer.
const GOODBYE: Duration = Duration::from_secs(1);

/// See [`Rules::follow`].
pub(super) fn run(rules: &Rules, stop: &Stop) -> Result<(), Error> {
    let Some(server) = rules.0.config.server.clone() else {
        tracing::info!("rules: none, since rules.url is empty");
        return wait_for_stop(stop);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut follower = Follower::new(rules);
        let mut connection = None;
        tokio::select! {
            () = follower.follow(&server, &mut connection) => {}
            () = stop.wait() => {}
        }
        // The connection may have been cut off in an exchange: good-bye needs one of its own.
        drop(connection);
        let goodbye = async {
            let mut connection = tables::connect(&server).await?;
            look::gone(&mut connection, &rules.0.slot).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(GOODBYE, goodbye).await {
            tracing::debug!("rules: {error}");
        }
        Ok(())
    })
}

fn wait_for_stop(stop: &Stop) -> Result<(), Error> {
    while !stop.wait_for(Duration::from_secs(3600)) {}
    Ok(())
}

/// What this process has in force.
struct Published {
    number: u64,
    force: Force,
    rows: Vec<RuleRow>,
    /// `changed_at` of the rows of `weir_rules_active`.
    changed_at: BTreeMap<String, String>,
    schema: u64,
    /// Tripped, so not in the compiled set; in order.
    out: Vec<Key>,
}

/// A version that this process took out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trip {
    version: u32,
    changed_at: String,
    reason: String,
}

struct Follower<'a> {
    rules: &'a Rules,
    measures: Measures,
    told: Told,
    seen: Option<Fingerprint>,
    /// Which schema the last look was made with; 0: none.
    schema: u64,
    published: Option<Published>,
    trips: BTreeMap<String, Trip>,
    /// Since the latest set cannot be run here.
    behind: Option<Deadline>,
    say_here: Deadline,
    looked: Instant,
}

impl<'a> Follower<'a> {
    fn new(rules: &'a Rules) -> Self {
        Self {
            rules,
            measures: Measures::new(),
            told: Told::default(),
            seen: None,
            schema: 0,
            published: None,
            trips: BTreeMap::new(),
            behind: None,
            say_here: Deadline::after(Duration::ZERO),
            looked: clock::instant(),
        }
    }

    async fn follow(&mut self, server: &Server, connection: &mut Option<Conn>) {
        let mut backoff = Backoff::new(self.rules.0.config.poll, AGAIN_MAX);
        loop {
            let wait = match self.step(server, connection).await {
                Ok(looked) => {
                    backoff.reset();
                    if looked {
                        self.looked = clock::instant();
                    }
                    self.rules.0.config.poll
                }
                Err(failure) => {
                    *connection = None;
                    self.measures.failed();
                    let wait = backoff.wait();
                    if let Some(audit) = self.rules.0.audit.get() {
                        audit.note_logins(&[("rules".to_owned(), failure.to_string())]);
                    }
                    let held = if self.published.is_some() { "the last set stays in force; " } else { "" };
                    if let Some(more) = backoff.tells(&failure.to_string()) {
                        tracing::warn!("rules: {failure}; {held}will look again{more}");
                    }
                    wait
                }
            };
            self.measures.age(clock::since(self.looked));
            tokio::time::sleep(wait).await;
        }
    }

    /// One look; false while there is no schema to look with.
    async fn step(&mut self, server: &Server, connection: &mut Option<Conn>) -> Result<bool, Failure> {
        let (reports, schema) = {
            let mut shared = self.rules.lock();
            (std::mem::take(&mut shared.reports), shared.schema.clone())
        };
        let Some((times, schema)) = schema else { return Ok(false) };
        let tripped = self.take_out(&reports, &schema);
        self.compile_again(times, &schema);
        // Put back only when it went well to the end.
        let mut open = match connection.take() {
            Some(open) => open,
            None => {
                let mut open = tables::connect(server).await?;
                tables::check(&mut open).await?;
                self.seen = None;
                open
            }
        };
        let fingerprint = look::fingerprint(&mut open).await?;
        let waited = self.behind.is_some_and(Deadline::passed);
        if self.seen.as_ref() != Some(&fingerprint) || self.schema != times || tripped || waited {
            let number = self.look(&mut open, times, &schema).await?;
            self.seen = Some(Fingerprint { number, ..fingerprint });
            self.schema = times;
        }
        if self.say_here.passed()
            && let Some(published) = &self.published
        {
            look::here(&mut open, &self.rules.0.slot, published.number).await?;
            self.say_here = Deadline::after(self.rules.0.config.status);
        }
        *connection = Some(open);
        Ok(true)
    }

    /// Reads everything, until this process has in force what all have; gives the latest number.
    async fn look(&mut self, connection: &mut Conn, times: u64, schema: &Schema) -> Result<u64, Failure> {
        for _ in 0..RACES_MAX {
            let picture = look::picture(connection, &self.rules.0.slot).await?;
            let asked = decide::hash_of_wanted(&picture.wanted, &picture.rows);
            let latest = &picture.latest;
            let compile = |rows: &[RuleRow]| RuleSet::compile(rows, schema);
            let afresh = asked != latest.wanted || self.schema != times;
            let (decision, set) = if afresh {
                decide::decide(&picture.wanted, &picture.rows, &latest.force, compile)
            } else {
                decide::take_over(&picture.wanted, &picture.rows, &latest.force, compile)
            };
            let hash = decide::hash_of_force(&decision.force, &picture.rows);
            let same = decision.force == latest.force && (hash == latest.hash || latest.number == 0);
            if !afresh && !same && self.waits() {
                self.stay(connection, &picture, decision).await?;
                return Ok(latest.number);
            }
            self.behind = None;
            let number = if !same {
                look::add_set(connection, latest, &decision.force, (&hash, &asked), &self.rules.0.slot)
                    .await?
            } else if asked == latest.wanted || latest.number == 0 {
                Some(latest.number)
            } else {
                look::same_set(connection, latest, &asked).await?.then_some(latest.number)
            };
            let Some(number) = number else { continue };
            self.publish(connection, &picture, (number, decision, set), (times, schema)).await?;
            return Ok(number);
        }
        Err(Failure::Wrong(format!("other processes were faster {RACES_MAX} times in a row")))
    }

    /// Whether a set that cannot be run may still be waited for.
    fn waits(&mut self) -> bool {
        if self.published.is_none() {
            return false;
        }
        !self.behind.get_or_insert_with(|| Deadline::after(BEHIND_MAX)).passed()
    }

    /// The latest set cannot be run here: the last one stays, and the status says why.
    async fn stay(
        &mut self,
        connection: &mut Conn,
        picture: &Picture,
        decision: Decision,
    ) -> Result<(), Failure> {
        let Some(published) = &self.published else { return Ok(()) };
        for ((id, version), why) in &decision.refused {
            tracing::warn!(
                "rules: set {} cannot be run here: {id} version {version}: {why}; set {} stays in force",
                picture.latest.number,
                published.number
            );
        }
        let decision = Decision { force: published.force.clone(), refused: decision.refused };
        let tripped = self.tripped_of(&decision.force);
        let verdicts = decide::verdicts(&picture.wanted, &decision, &tripped);
        if let Some(audit) = self.rules.0.audit.get() {
            let authors = look::authors(connection).await.unwrap_or_default();
            let force = (published.number, Some(&published.force), &published.force);
            self.told.tell(audit, &authors, force, (&verdicts, &picture.mine));
        }
        look::say(connection, &self.rules.0.slot, &picture.mine, &verdicts).await
    }

    /// What was decided is in force here from now on.
    async fn publish(
        &mut self,
        connection: &mut Conn,
        picture: &Picture,
        (number, decision, set): (u64, Decision, RuleSet),
        (times, schema): (u64, &Schema),
    ) -> Result<(), Failure> {
        self.keep_trips(picture);
        let before = self.published.take();
        let changed = before.as_ref().is_none_or(|b| b.number != number);
        let stood = before.as_ref().map(|b| b.force.clone());
        if changed {
            let from = stood.clone().unwrap_or_default();
            let changes = decide::changed(&from, &decision.force).join(", ");
            tracing::info!("rules: set {number}, {} in force; {changes}", decision.force.len());
        }
        let tripped = self.tripped_of(&decision.force);
        let published = Published {
            number,
            rows: decide::rows_of(&decision.force, &picture.rows, &decision.force),
            force: decision.force.clone(),
            changed_at: picture.wanted.iter().map(|w| (w.id.clone(), w.changed_at.clone())).collect(),
            schema: times,
            out: tripped.keys().cloned().collect(),
        };
        let same = before.is_some_and(|b| !changed && b.schema == times && b.out == published.out);
        if !same {
            let set = if published.out.is_empty() { set } else { published.compile(schema).0 };
            self.swap(&published, set);
        }
        self.published = Some(published);
        let verdicts = decide::verdicts(&picture.wanted, &decision, &tripped);
        let refused = verdicts.values().filter(|(state, _)| *state == State::Refused).count();
        self.measures.loaded(changed, refused);
        if let Some(audit) = self.rules.0.audit.get() {
            // What came into force is written down also when this cannot be said.
            let authors = look::authors(connection).await.unwrap_or_default();
            let force = (number, stood.as_ref(), &decision.force);
            self.told.tell(audit, &authors, force, (&verdicts, &picture.mine));
        }
        look::say(connection, &self.rules.0.slot, &picture.mine, &verdicts).await?;
        if changed {
            self.say_here = Deadline::after(Duration::ZERO);
        }
        Ok(())
    }

    fn swap(&self, published: &Published, set: RuleSet) {
        let old = faults::is_broken("bad.stale_rules").then(|| self.rules.current()).flatten();
        let set = old.map_or_else(|| Arc::new(set), |old| Arc::clone(&old.set));
        let loaded = Loaded { number: published.number, set };
        self.rules.lock().current = Some(Arc::new(loaded));
        self.measures.published(published.number, published.rows.len() - published.out.len());
    }

    /// Takes what workers reported out of the set; true when there was something.
    fn take_out(&mut self, reports: &[Report], schema: &Schema) -> bool {
        let Some(mut published) = self.published.take() else { return false };
        let mut some = false;
        for report in reports {
            let key = (report.id.clone(), report.version);
            if published.force.get(&key.0) != Some(&key.1) || published.out.contains(&key) {
                continue;
            }
            tracing::error!("rules: {} version {} is taken out here: {}", key.0, key.1, report.reason);
            let changed_at = published.changed_at.get(&key.0).cloned().unwrap_or_default();
            let trip = Trip { version: report.version, changed_at, reason: report.reason.clone() };
            self.trips.insert(key.0.clone(), trip);
            published.out.push(key);
            some = true;
        }
        if some {
            published.out.sort();
            self.swap(&published, published.compile(schema).0);
        }
        self.published = Some(published);
        some
    }

    /// The schema has changed: the same set for the new one, if it fits; what is to be done otherwise, a look decides.
    fn compile_again(&mut self, times: u64, schema: &Schema) {
        let Some(mut published) = self.published.take() else { return };
        if published.schema != times {
            let (set, refused) = published.compile(schema);
            if refused == 0 {
                published.schema = times;
                self.swap(&published, set);
            }
        }
        self.published = Some(published);
    }

    /// A trip lasts as long as the row of `weir_rules_active` for which it was made; at the start, those are known
    /// from the status.
    fn keep_trips(&mut self, picture: &Picture) {
        if self.published.is_none() {
            for w in &picture.wanted {
                let said = picture.mine.get(&(w.id.clone(), w.version));
                if let Some(said) = said.filter(|s| s.of_this && s.state == State::Tripped.word()) {
                    let (changed_at, reason) = (w.changed_at.clone(), said.reason.clone());
                    self.trips.insert(w.id.clone(), Trip { version: w.version, changed_at, reason });
                }
            }
        }
        self.trips.retain(|id, trip| {
            let now = picture.wanted.iter().find(|w| w.id == *id);
            now.is_some_and(|w| w.changed_at == trip.changed_at)
        });
    }

    /// The trips of versions in force.
    fn tripped_of(&self, force: &Force) -> BTreeMap<Key, String> {
        let in_force = |(id, trip): &(&String, &Trip)| force.get(*id) == Some(&trip.version);
        let trips = self.trips.iter().filter(in_force);
        trips.map(|(id, trip)| ((id.clone(), trip.version), trip.reason.clone())).collect()
    }
}

impl Published {
    /// The set without what is out, and how many were refused.
    fn compile(&self, schema: &Schema) -> (RuleSet, usize) {
        let out =
            |row: &RuleRow| self.out.iter().any(|(id, version)| *id == row.id && *version == row.version);
        let rows: Vec<RuleRow> = self.rows.iter().filter(|row| !out(row)).cloned().collect();
        let (set, refused) = RuleSet::compile(&rows, schema);
        (set, refused.len())
    }
}
