//! Sessions of the model: where a reading goes, when a session is sent, and for how long it is kept.

use super::{Given, Kind, Model, NEVER, Out, Rule, Sent};

pub(super) struct Session {
    pub(super) readings: Vec<Given>,
    pub(super) fixed: Option<(i64, i64)>,
    revision: u64,
    pub(super) marked: bool,
}

/// A session of the greatest length is kept until a reading of it would be too late for a session of its own.
pub(super) fn forgotten(rule: &Rule, (start, end): (i64, i64)) -> i64 {
    let Kind::Session { gap_ms, length_ms_max } = rule.kind else { return 0 };
    let is_longest = end - start == length_ms_max.cast_signed();
    end + rule.lateness_ms.cast_signed() + if is_longest { gap_ms.cast_signed() - 1 } else { 0 }
}

pub(super) fn bounds(rule: &Rule, session: &Session) -> (i64, i64) {
    let Kind::Session { gap_ms, length_ms_max } = rule.kind else { return (0, 0) };
    let first = session.readings.iter().map(|r| r.time).min().unwrap();
    let last = session.readings.iter().map(|r| r.time).max().unwrap();
    let end = (last + gap_ms.cast_signed()).min(first + length_ms_max.cast_signed());
    session.fixed.unwrap_or((first, end))
}

impl Model {
    pub(super) fn send_session(&mut self, name: &(usize, String), at: usize) {
        let rule = self.rules[name.0].clone();
        let session = &mut self.keys.get_mut(name).unwrap().sessions[at];
        let (start, end) = bounds(&rule, session);
        if session.fixed.is_some() {
            session.revision += 1;
        } else {
            session.fixed = Some((start, end));
            session.marked |= self.loss.is_some_and(|clock| start <= clock);
        }
        let (readings, incomplete) = (session.readings.clone(), session.marked);
        let (rule, key, revision) = (name.0, name.1.clone(), session.revision);
        self.out.push(Out::Window(Sent { rule, key, start, end, revision, incomplete, readings }));
    }

    pub(super) fn place_in_session(
        &mut self,
        name: &(usize, String),
        rule: &Rule,
        given: Given,
        gap: i64,
        longest: i64,
    ) {
        let key = self.keys.get_mut(name).unwrap();
        let watermark = key.watermark.unwrap_or(NEVER);
        let sent = |s: &Session| s.fixed.is_some_and(|(start, end)| (start..end).contains(&given.time));
        let lateness = rule.lateness_ms.cast_signed();
        let takes_late = |s: &Session| sent(s) && bounds(rule, s).1 + lateness > watermark;
        if let Some(at) = key.sessions.iter().position(takes_late) {
            key.sessions[at].readings.push(given);
            self.send_session(name, at);
            return;
        }
        let holds = |s: &Session| {
            let times = || s.readings.iter().map(|r| r.time);
            s.fixed.is_none() && times().min() <= Some(given.time) && Some(given.time) <= times().max()
        };
        if let Some(at) = key.sessions.iter().position(holds) {
            key.sessions[at].readings.push(given);
            return;
        }
        if key.sessions.iter().any(sent) {
            self.out.push(Out::Late { rule: name.0, watermark });
            return;
        }
        let takes = |s: &Session, first: i64, last: i64| {
            let least = s.readings.iter().map(|r| r.time).min().unwrap();
            let most = s.readings.iter().map(|r| r.time).max().unwrap();
            let near = least - gap < last && first < most + gap;
            s.fixed.is_none() && near && most.max(last) - least.min(first) < longest
        };
        if let Some(at) = key.sessions.iter().position(|s| takes(s, given.time, given.time)) {
            key.sessions[at].readings.push(given);
            let (first, _) = bounds(rule, &key.sessions[at]);
            let last = key.sessions[at].readings.iter().map(|r| r.time).max().unwrap();
            let next = (at + 1..key.sessions.len()).find(|&i| key.sessions[i].fixed.is_none());
            if let Some(next) = next.filter(|&next| takes(&key.sessions[next], first, last)) {
                let joined = key.sessions.remove(next);
                key.sessions[at].readings.extend(joined.readings);
                key.sessions[at].marked |= joined.marked;
            }
            key.sessions.sort_by_key(|s| bounds(rule, s).0);
        } else if given.time + gap + rule.lateness_ms.cast_signed() <= watermark {
            self.out.push(Out::Late { rule: name.0, watermark });
        } else {
            let session = Session { readings: vec![given], fixed: None, revision: 0, marked: false };
            key.sessions.push(session);
            if given.time + gap <= watermark {
                let at = key.sessions.len() - 1;
                self.send_session(name, at);
            }
            self.keys.get_mut(name).unwrap().sessions.sort_by_key(|s| bounds(rule, s).0);
        }
    }
}
