//! Readings: joined, run through the rules, passed on.
//!
//! Comes in: a record of `weir.readings`. Goes out: the enriched reading to `weir.enriched` and the topics that its route
//! names, alerts to `weir.alerts`, a dead letter for each rule that failed on it.
//! Guarantees: what no rule touches keeps its bytes; nothing leaves but with all masks laid on.
//! On failure: a refusal, the reason of the dead letter; then nothing else of the reading leaves.
//! What lacks a row may have to wait first: [`super::held`].

use weir_shared::reading::Reading;
use weir_shared::reading::strict::Refusal;
use weir_shared::record::Identity;
use weir_shared::wire;

use super::{Cycle, Emit, Failure, Incoming, Outgoing, Refused, Whose, fits, origin};
use crate::process::measures::Tally;
use crate::process::outputs::{self, Joined, Letter, Raw};
use crate::process::state::State;
use crate::rules::{self, AlertContext, write_alert, write_body, write_dims};

/// Stage of dead letters that a rule made; the record itself was passed on.
const RULE: &str = "rule";

impl Cycle<'_> {
    /// A reading that just came.
    pub(super) fn reading(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        body: &[u8],
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        self.checked(body, |cycle, reading| cycle.came(record, whose, (reading, body), state, tally, emit))
    }

    /// A reading that is not to wait, whatever it lacks.
    pub(super) fn reading_now(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        body: &[u8],
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        self.checked(body, |cycle, reading| {
            let joined = cycle.join(reading);
            cycle.goes_on(record, whose, (reading, body, joined), state, tally, emit)
        })
    }

    /// Parses a reading in the room of the one before.
    #[inline]
    fn checked(
        &mut self,
        body: &[u8],
        then: impl FnOnce(&mut Self, &Reading<'_>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut reading = std::mem::take(&mut self.engine.reading).recycled();
        let done = match reading.check(body) {
            Ok(()) => then(self, &reading),
            Err(refusal) => Err(refusal.into()),
        };
        self.engine.reading = reading.recycled();
        done
    }

    fn came(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        (reading, body): (&Reading<'_>, &[u8]),
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        let mut joined = self.join(reading);
        if self.waits(reading, joined, state) {
            match self.hold(record, whose, (reading, body, joined), state, tally, emit)? {
                Some(goes_on) => joined = goes_on,
                None => return Ok(()),
            }
        }
        self.goes_on(record, whose, (reading, body, joined), state, tally, emit)
    }

    #[inline]
    pub(super) fn join(&mut self, reading: &Reading<'_>) -> bool {
        self.world.tables.join(reading, &mut self.engine.dims, &mut self.found)
    }

    fn goes_on(
        &mut self,
        record: &Incoming<'_>,
        whose: Whose<'_>,
        (reading, body, joined): (&Reading<'_>, &[u8], bool),
        state: &mut State,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        let set = &self.world.rules.set;
        state.rules.bind(set);
        if set.is_empty() {
            return self.enriched(whose, (reading, body), joined, tally, emit);
        }
        let engine = &mut *self.engine;
        let from = rules::Origin { identity: whose.0, backlog: record.headers.backlog };
        engine.evaluator.run(reading, &self.found, &from, &mut state.rules, &mut engine.verdict);
        if engine.verdict.changes_body() {
            let masks = set.masks(&engine.verdict);
            write_body(&mut engine.body, body, reading, &engine.verdict.derived, masks)?;
            write_dims(&mut engine.masked_dims, &engine.dims, masks)?;
        }
        let sent = if engine.verdict.filtered.is_some() {
            tally.filtered += 1;
            Ok(())
        } else {
            self.enriched(whose, (reading, body), joined, tally, emit)
        };
        if let Err(Refused::Emit(failure)) = sent {
            return Err(failure.into());
        }
        // Also of a reading that is too large to be passed on: the states of the rules have seen it.
        self.told(record, whose, reading, tally, emit)?;
        sent
    }

    /// The enriched reading, to where its route wants it.
    #[inline]
    fn enriched(
        &mut self,
        whose: Whose<'_>,
        (reading, body): (&Reading<'_>, &[u8]),
        joined: bool,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Refused> {
        let (engine, set) = (&mut *self.engine, &self.world.rules.set);
        // Without rules the verdict stays the empty one.
        let changed = engine.verdict.changes_body();
        let route = set.route(&engine.verdict);
        let (body, dims) =
            if changed { (engine.body.as_slice(), &engine.masked_dims) } else { (body, &engine.dims) };
        let joined = Joined {
            joined,
            rules: self.world.rules.number,
            stores: route.and_then(|route| route.stores.as_deref()),
            versions: self.world.tables.versions(),
            dims,
        };
        outputs::enriched(&mut engine.value, whose, &joined, body);
        fits(&engine.value)?;
        let device = if changed { set.masks(&engine.verdict).device(&reading.device) } else { None };
        let key = Some(device.as_deref().unwrap_or(&reading.device).as_bytes());
        let value = engine.value.as_slice();
        let (enriched, topics) = route.map_or((true, [].as_slice()), |r| (r.enriched, &r.topics));
        if enriched {
            emit.emit(Outgoing { topic: wire::ENRICHED, key, value })?;
        }
        for topic in topics {
            emit.emit(Outgoing { topic, key, value })?;
        }
        if enriched || !topics.is_empty() {
            tally.enriched += 1;
        } else {
            tally.filtered += 1;
        }
        Ok(())
    }

    /// Alerts, and dead letters of rules.
    fn told(
        &mut self,
        record: &Incoming<'_>,
        whose: (Identity, &str),
        reading: &Reading<'_>,
        tally: &mut Tally,
        emit: &mut impl Emit,
    ) -> Result<(), Failure> {
        let (engine, set) = (&mut *self.engine, &self.world.rules.set);
        for alert in &engine.verdict.alerts {
            let context = AlertContext {
                identity: whose.0,
                edge: whose.1,
                rules: self.world.rules.number,
                versions: self.world.tables.versions(),
                dims: &engine.dims,
            };
            let written = write_alert(&mut engine.value, set, &engine.verdict, alert, reading, &context);
            let fits = written.map_err(Refusal::from).and_then(|()| fits(&engine.value));
            if let Err(refusal) = fits {
                let rule = &set.rules()[alert.rule];
                let detail =
                    format!("alert of rule {} version {}: {}", rule.id, rule.version, refusal.detail);
                let refusal = Refusal::new("alert_refused", detail);
                let raw = Raw::Withheld(engine.value.len());
                let letter = Letter { stage: RULE, refusal: &refusal, received_ms: record.timestamp_ms, raw };
                outputs::rejection(&mut engine.value, &origin(record, Some(whose)), &letter);
                emit.emit(Outgoing { topic: wire::REJECTED, key: None, value: &engine.value })?;
                tally.rule_failures += 1;
                continue;
            }
            let key = set.alert_key(&engine.verdict, alert);
            let out = Outgoing { topic: wire::ALERTS, key: Some(key.as_bytes()), value: &engine.value };
            emit.emit(out)?;
            if engine.alerts_by_severity {
                emit.emit(Outgoing { topic: alert.severity.topic(), ..out })?;
            }
            tally.alerts += 1;
        }
        let raw = if engine.verdict.changes_body() { &engine.body } else { record.value.unwrap_or_default() };
        for (rule, why) in &engine.verdict.failures {
            let rule = &set.rules()[*rule];
            let detail = format!("rule {} version {}: {why}", rule.id, rule.version);
            let refusal = Refusal::new("rule_failed", detail);
            let letter = Letter {
                stage: RULE,
                refusal: &refusal,
                received_ms: record.timestamp_ms,
                raw: Raw::Shown(raw),
            };
            outputs::rejection(&mut engine.value, &origin(record, Some(whose)), &letter);
            emit.emit(Outgoing { topic: wire::REJECTED, key: None, value: &engine.value })?;
            tally.rule_failures += 1;
        }
        Ok(())
    }
}
