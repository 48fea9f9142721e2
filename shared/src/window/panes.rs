//! Tumbling and sliding windows of one key: a tumbling one is a pane, a sliding one a row of panes.
//!
//! Comes in: readings, the watermark. Goes out: results. Guarantees: a window is sent once when the watermark reaches its
//! end, and again with the next revision for each later reading until its end + lateness; one without readings is
//! not sent, and not looked at, however many of them lie between two readings. On failure: a reading that is late for
//! all its windows, or would make more panes than allowed, changes nothing.

use super::codec::{Corrupt, Cursor, put_length, put_signed, put_unsigned};
use super::entry::{Entry, Placed};
use super::form::Form;
use super::outputs::Emit;
use super::tally::Tally;
use super::tree::{Pane, Tree};
use crate::record::TIME_MS_MAX;

/// Panes and what was sent of them.
#[derive(Debug, Default)]
pub(super) struct Panes {
    /// By number.
    panes: Vec<Pane>,
    /// By window; only while late readings are taken.
    sent: Vec<Sent>,
    tree: Tree,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    window: i64,
    revision: u32,
    why: u8,
}

const fn start(form: &Form, window: i64) -> i64 {
    window * form.slide
}

fn end_ms(form: &Form, window: i64) -> i64 {
    form.calendar.start(start(form, window) + form.size)
}

/// The first window that ends after this pane starts.
const fn first_with(form: &Form, pane: i64) -> i64 {
    (pane - form.size).div_euclid(form.slide) + 1
}

const fn last_with(form: &Form, pane: i64) -> i64 {
    pane.div_euclid(form.slide)
}

impl Panes {
    pub(super) const fn len(&self) -> usize {
        self.panes.len()
    }

    pub(super) fn add(&mut self, emit: &mut Emit<'_>, watermark: i64, entry: &Entry<'_>) -> Placed {
        let form = emit.form;
        let index = form.calendar.pane(entry.time);
        let last = last_with(form, index);
        let late = entry.time < watermark;
        if late && end_ms(form, last) + form.lateness <= watermark {
            return Placed::Late;
        }
        let at = match self.panes.last() {
            Some(pane) if pane.index == index => self.panes.len() - 1,
            _ => self.panes.partition_point(|p| p.index < index),
        };
        if self.panes.get(at).is_none_or(|p| p.index != index) {
            if self.panes.len() >= form.limits.windows_per_key_max {
                return Placed::Refused;
            }
            if self.panes.len() < 4 {
                // Most keys have one or two.
                self.panes.reserve_exact(1);
            }
            self.panes.insert(at, Pane::new(index, Tally::new()));
            self.tree.forget(index);
        }
        self.tree.change(&mut self.panes[at]);
        entry.put(&form.plan, &mut self.panes[at].tally);
        if late {
            for window in first_with(form, index)..=last {
                let end = end_ms(form, window);
                if end <= watermark && end + form.lateness > watermark {
                    self.send(emit, window);
                }
            }
        }
        Placed::Entered
    }

    /// Sends what ends after `from` and not after `to`, and drops what takes no more readings.
    pub(super) fn close(&mut self, emit: &mut Emit<'_>, from: i64, to: i64) {
        let form = emit.form;
        let mut window = first_with(form, form.calendar.pane(from));
        while let Some(next) = self.next_window(form, window)
            && end_ms(form, next) <= to
        {
            self.send(emit, next);
            window = next + 1;
        }
        let over = |window: i64| end_ms(form, window) + form.lateness <= to;
        let gone = self.panes.iter().take_while(|p| over(last_with(form, p.index))).count();
        for pane in self.panes.drain(..gone) {
            self.tree.forget(pane.index);
        }
        let gone = self.sent.iter().take_while(|s| over(s.window)).count();
        self.sent.drain(..gone);
    }

    /// The first window from this one on that has readings.
    fn next_window(&self, form: &Form, window: i64) -> Option<i64> {
        let at = self.panes.partition_point(|p| p.index < start(form, window));
        let pane = self.panes.get(at)?;
        Some(window.max(first_with(form, pane.index)))
    }

    fn send(&mut self, emit: &mut Emit<'_>, window: i64) {
        let form = emit.form;
        let from = start(form, window);
        let joined;
        let tally = if form.size == 1 {
            let Ok(at) = self.panes.binary_search_by_key(&from, |p| p.index) else { return };
            &self.panes[at].tally
        } else {
            let Some(tally) = self.tree.tally(&form.plan, &mut self.panes, from..from + form.size) else {
                return;
            };
            joined = tally;
            &joined
        };
        let start = form.calendar.start(from);
        let at = self.sent.partition_point(|s| s.window < window);
        let sent = match self.sent.get(at) {
            Some(sent) if sent.window == window => {
                let why = if sent.why == 0 { tally.why } else { sent.why };
                Sent { revision: sent.revision.saturating_add(1), why, ..*sent }
            }
            _ => Sent { window, revision: 0, why: emit.why(start, tally.why) },
        };
        emit.window(start, end_ms(form, window), sent.revision, sent.why, tally);
        if form.lateness > 0 {
            match self.sent.get_mut(at) {
                Some(before) if before.window == window => *before = sent,
                _ => self.sent.insert(at, sent),
            }
        }
    }

    /// The watermark at which [`Self::close`] has something to do.
    pub(super) fn next(&self, form: &Form, watermark: i64) -> i64 {
        let Some(first) = self.panes.first() else { return i64::MAX };
        let over = end_ms(form, last_with(form, first.index)) + form.lateness;
        let open = first_with(form, form.calendar.pane(watermark));
        self.next_window(form, open).map_or(over, |window| over.min(end_ms(form, window)))
    }

    /// Marks all open windows.
    pub(super) fn mark(&mut self, form: &Form, watermark: i64, why: u8) {
        for pane in &mut self.panes {
            if pane.tally.why == 0 && end_ms(form, last_with(form, pane.index)) > watermark {
                self.tree.change(pane);
                pane.tally.why = why;
            }
        }
    }

    /// Sends all open windows as they are.
    pub(super) fn flush(&mut self, emit: &mut Emit<'_>, watermark: i64) {
        let mut window = first_with(emit.form, emit.form.calendar.pane(watermark));
        while let Some(next) = self.next_window(emit.form, window) {
            self.send(emit, next);
            window = next + 1;
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_length(out, self.panes.len());
        for pane in &self.panes {
            put_signed(out, pane.index);
            pane.tally.encode(out);
        }
        put_length(out, self.sent.len());
        for sent in &self.sent {
            put_signed(out, sent.window);
            put_unsigned(out, u64::from(sent.revision));
            out.push(sent.why);
        }
    }

    pub(super) fn decode(form: &Form, fields: usize, cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let mut panes = Self { panes: decode_panes(form, fields, cursor)?, ..Self::default() };
        let (least, most) = (form.calendar.pane(0), form.calendar.pane(TIME_MS_MAX));
        if panes.panes.iter().any(|p| !(least..=most).contains(&p.index)) {
            return Err(Corrupt("a pane is out of range"));
        }
        let windows = first_with(form, least)..=last_with(form, most);
        for _ in 0..cursor.length(3)? {
            let (window, revision) = (cursor.time()?, cursor.small()?);
            if panes.sent.last().is_some_and(|s| s.window >= window) || !windows.contains(&window) {
                return Err(Corrupt("windows in disorder"));
            }
            panes.sent.push(Sent { window, revision, why: cursor.byte()? });
        }
        Ok(panes)
    }
}

/// Panes by ascending number.
pub(super) fn decode_panes(
    form: &Form,
    fields: usize,
    cursor: &mut Cursor<'_>,
) -> Result<Vec<Pane>, Corrupt> {
    let mut panes: Vec<Pane> = Vec::new();
    for _ in 0..cursor.length(6)? {
        let index = cursor.time()?;
        if panes.last().is_some_and(|p| p.index >= index) {
            return Err(Corrupt("panes in disorder"));
        }
        panes.push(Pane::new(index, Tally::decode(&form.plan, fields, cursor)?));
    }
    Ok(panes)
}
