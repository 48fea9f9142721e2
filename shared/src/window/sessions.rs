//! Session windows of one key.
//!
//! Comes in: readings, the watermark. Goes out: results. Guarantees: while it is open, a session reaches from its first
//! reading to its last + gap, takes what lies less than a gap away from it as long as it stays within its greatest
//! length, and joins the next one where they meet. Once sent it keeps its start and its end; late readings between them
//! are a new revision, until its end + lateness; no other session ever has both. On failure: a reading so late that a session of it alone would be over
//! changes nothing; nor does one that would make more sessions than allowed.

use super::codec::{Corrupt, Cursor, put_length, put_unsigned};
use super::entry::{Entry, Placed};
use super::form::Form;
use super::outputs::Emit;
use super::rule::Kind;
use super::tally::Tally;

/// Sessions by their start.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Session>);

#[derive(Debug)]
struct Session {
    tally: Tally,
    /// Start and end, once they are sent.
    fixed: Option<(i64, i64)>,
    revision: u32,
}

const fn limits(form: &Form) -> (i64, i64) {
    match form.rule.kind {
        Kind::Session { gap_ms, length_ms_max } => (gap_ms.cast_signed(), length_ms_max.cast_signed()),
        _ => (1, 1),
    }
}

/// When a session that was sent is forgotten. One that its length cut short is kept until no reading of it could begin
/// another: that one could get the same start and end, and be taken for a revision of this.
const fn forgotten(form: &Form, (start, end): (i64, i64)) -> i64 {
    let (gap, length) = limits(form);
    let last = if end - start < length { end } else { end - 1 + gap };
    last + form.lateness
}

impl Session {
    fn bounds(&self, form: &Form) -> (i64, i64) {
        let (gap, length) = limits(form);
        let (first, last) = (self.tally.first, self.tally.last);
        self.fixed.unwrap_or_else(|| (first, (last + gap).min(first + length)))
    }

    fn takes(&self, form: &Form, first: i64, last: i64) -> bool {
        let (gap, length) = limits(form);
        let near = self.tally.first - gap < last && first < self.tally.last + gap;
        self.fixed.is_none() && near && last.max(self.tally.last) - first.min(self.tally.first) < length
    }

    fn send(&mut self, emit: &mut Emit<'_>) {
        let (start, end) = self.bounds(emit.form);
        if self.fixed.is_some() {
            self.revision = self.revision.saturating_add(1);
        } else {
            self.tally.why = emit.why(start, self.tally.why);
            self.fixed = Some((start, end));
        }
        emit.window(start, end, self.revision, self.tally.why, &self.tally);
    }
}

impl Sessions {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, emit: &mut Emit<'_>, watermark: i64, entry: &Entry<'_>) -> Placed {
        let form = emit.form;
        let time = entry.time;
        let sent = |s: &Session| s.fixed.is_some_and(|(start, end)| (start..end).contains(&time));
        let takes_late = |s: &Session| sent(s) && s.bounds(form).1 + form.lateness > watermark;
        if let Some(session) = self.0.iter_mut().find(|s| takes_late(s)) {
            entry.put(&form.plan, &mut session.tally);
            session.send(emit);
            return Placed::Entered;
        }
        let holds = |s: &Session| s.fixed.is_none() && (s.tally.first..=s.tally.last).contains(&time);
        if let Some(session) = self.0.iter_mut().find(|s| holds(s)) {
            entry.put(&form.plan, &mut session.tally);
            return Placed::Entered;
        }
        if self.0.iter().any(sent) {
            return Placed::Late;
        }
        if let Some(at) = self.0.iter().position(|s| s.takes(form, time, time)) {
            entry.put(&form.plan, &mut self.0[at].tally);
            self.meet(form, at);
            return Placed::Entered;
        }
        let (gap, _) = limits(form);
        if time + gap + form.lateness <= watermark {
            return Placed::Late;
        }
        if self.0.len() >= form.limits.windows_per_key_max {
            return Placed::Refused;
        }
        let mut session = Session { tally: Tally::new(), fixed: None, revision: 0 };
        entry.put(&form.plan, &mut session.tally);
        if time + gap <= watermark {
            session.send(emit);
        }
        let at = self.0.partition_point(|s| s.bounds(form).0 <= time);
        self.0.insert(at, session);
        Placed::Entered
    }

    /// Joins a session that grew with the next one, and puts it where it belongs.
    fn meet(&mut self, form: &Form, at: usize) {
        let mut session = self.0.remove(at);
        if let Some(next) = self.0[at..].iter().position(|s| s.fixed.is_none()).map(|next| at + next)
            && self.0[next].takes(form, session.tally.first, session.tally.last)
        {
            let later = self.0.remove(next);
            session.tally.merge(&form.plan, &later.tally);
        }
        let start = session.bounds(form).0;
        let at = self.0.partition_point(|s| s.bounds(form).0 <= start);
        self.0.insert(at, session);
    }

    /// Sends what ends by `to`, and drops what takes no more readings.
    pub(super) fn close(&mut self, emit: &mut Emit<'_>, to: i64) {
        let form = emit.form;
        for session in self.0.iter_mut().filter(|s| s.fixed.is_none()) {
            if session.bounds(form).1 <= to {
                session.send(emit);
            }
        }
        self.0.retain(|s| s.fixed.is_none_or(|bounds| forgotten(form, bounds) > to));
    }

    /// The watermark at which [`Self::close`] has something to do.
    pub(super) fn next(&self, form: &Form) -> i64 {
        let when = |s: &Session| s.fixed.map_or_else(|| s.bounds(form).1, |bounds| forgotten(form, bounds));
        self.0.iter().map(when).min().unwrap_or(i64::MAX)
    }

    /// Marks all open sessions.
    pub(super) fn mark(&mut self, why: u8) {
        for session in self.0.iter_mut().filter(|s| s.fixed.is_none() && s.tally.why == 0) {
            session.tally.why = why;
        }
    }

    /// Sends all open sessions as they are.
    pub(super) fn flush(&mut self, emit: &mut Emit<'_>) {
        self.0.iter_mut().filter(|s| s.fixed.is_none()).for_each(|s| s.send(emit));
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_length(out, self.0.len());
        for session in &self.0 {
            session.tally.encode(out);
            // A session that was sent, with its revision from 1 on; its bounds do not follow from its readings.
            put_unsigned(out, session.fixed.map_or(0, |_| u64::from(session.revision) + 1));
            if let Some((start, end)) = session.fixed {
                super::codec::put_signed(out, start);
                super::codec::put_signed(out, end);
            }
        }
    }

    pub(super) fn decode(form: &Form, fields: usize, cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let mut sessions: Vec<Session> = Vec::new();
        for _ in 0..cursor.length(6)? {
            let tally = Tally::decode(&form.plan, fields, cursor)?;
            let (fixed, revision) = match cursor.unsigned()?.checked_sub(1) {
                None => (None, 0),
                Some(revision) => {
                    let revision = u32::try_from(revision).map_err(|_| Corrupt("a revision is too large"))?;
                    (Some((cursor.time()?, cursor.time()?)), revision)
                }
            };
            let session = Session { tally, fixed, revision };
            let start = session.bounds(form).0;
            if sessions.last().is_some_and(|s| s.bounds(form).0 > start) {
                return Err(Corrupt("sessions in disorder"));
            }
            sessions.push(session);
        }
        Ok(Self(sessions))
    }
}
