//! The state of a partition, and how it stands in its changelog `weir.state.<topic>` (same partition number).
//!
//! Format: JSON values, whole for their key; no value is a tombstone.
//! - `mark/<stream, 32 hex digits>`: `{"next":n,"at":ms,"closed":true}`: the next number expected of the stream, Kafka's
//!   time of its last record, and whether it was closed (left out when not);
//! - `seen`: `{"rules":n,"versions":{"devices":n}}`: the newest rule set and dimension versions that were applied here;
//! - `topic`: `{"id":"…"}`: Kafka's id of the input topic;
//! - `rule/["<rule>",<version>,"<key>"]`: `{"kept":ms,"state":{…}}`: Kafka's time when it was written, and the state of the
//!   threshold (`crate::rules`);
//! - `held/["<device>",<offset>]`: a reading that waits for a row of a dimension:
//!   `{"at":ms,"timestamp":ms,"stream":"<32 hex digits>","number":n,"edge":"…","backlog":true,"body":"…"}`: since when, by
//!   the wall clock; Kafka's time of it; its identity and edge; whether it was a backlog (left out when not); its JSON as
//!   a JSON text, unmasked. A tombstone when it waits no longer.
//!
//! A key of another kind is left to versions that know it.
//! Guarantees: [`entry`] reads what [`State::staged`] writes; an entry that cannot be read is an error and never
//! skipped, since a lost mark would let repeats through. Changes wait for the commit of their cycle. Pure; reading it
//! back is in [`restore`].

pub(super) mod held;
pub(super) mod restore;
pub(super) mod rules;
pub(super) mod staged;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_shared::record::StreamId;

use super::dedupe::{Mark, Marks};
use held::{Held, HeldReading};
use rules::{Kept, RuleStates};

const MARK: &[u8] = b"mark/";
const SEEN: &[u8] = b"seen";
const TOPIC: &[u8] = b"topic";
const RULE: &[u8] = b"rule/";
const HELD: &[u8] = b"held/";
/// How often old marks are looked for, in the time of the records.
const EXPIRE_EVERY_MS: i64 = 3_600_000;

/// The newest versions that were applied to a partition: a worker with older ones must not go on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Number of the rule set; 0 is none.
    #[serde(default)]
    pub(super) rules: u64,
    /// Version of each dimension.
    #[serde(default)]
    pub(super) versions: BTreeMap<Box<str>, u64>,
}

impl Seen {
    /// Whether one of these is newer.
    fn lacks(&self, rules: u64, versions: &[(Box<str>, u64)]) -> bool {
        let newer = |(name, version): &(Box<str>, u64)| self.versions.get(name).is_none_or(|v| v < version);
        rules > self.rules || versions.iter().any(newer)
    }

    /// Takes up what is newer.
    fn raise(&mut self, rules: u64, versions: &[(Box<str>, u64)]) {
        self.rules = self.rules.max(rules);
        for (name, version) in versions {
            let seen = self.versions.entry(name.clone()).or_default();
            *seen = (*seen).max(*version);
        }
    }

    /// The first thing of which this has a newer version than what is at hand, if any.
    pub(super) fn ahead_of(&self, rules: u64, versions: &[(Box<str>, u64)]) -> Option<String> {
        if self.rules > rules {
            return Some(format!("rule set {} (here: {rules})", self.rules));
        }
        versions.iter().find_map(|(name, version)| {
            let seen = self.versions.get(name).filter(|seen| **seen > *version)?;
            Some(format!("version {seen} of dimension {name} (here: {version})"))
        })
    }
}

/// All that is known of a partition.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Which records are new.
    pub(super) marks: Marks,
    /// Of thresholds.
    pub(super) rules: RuleStates,
    /// Readings that wait for a row.
    pub(super) held: Held,
    seen: Seen,
    seen_staged: Option<Seen>,
    topic: String,
    topic_staged: Option<String>,
    /// Kafka's time of the newest record, ms since 1970.
    now: i64,
    expired_at: i64,
}

impl State {
    /// Notes the versions that this cycle applies.
    pub(super) fn applies(&mut self, rules: u64, versions: &[(Box<str>, u64)]) {
        if self.seen.lacks(rules, versions) {
            let mut seen = self.seen.clone();
            seen.raise(rules, versions);
            self.seen_staged = Some(seen);
        }
    }

    /// The database was set back: what was seen says nothing any more.
    pub(super) fn forget_seen(&mut self) {
        self.seen = Seen::default();
    }

    /// The newest versions that were applied here.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Kafka's id of the input topic as it was when this state was written; empty when that is not known.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Notes Kafka's id of the input topic.
    pub(super) fn set_topic(&mut self, id: &str) {
        if self.topic != id && !id.is_empty() {
            self.topic_staged = Some(id.to_owned());
        }
    }

    /// A record of this time was processed.
    #[inline]
    pub(super) fn passes(&mut self, time_ms: i64) {
        self.now = self.now.max(time_ms);
        self.rules.passes(time_ms);
    }

    /// Lets go of what is old, now and then.
    pub(super) fn tidy(&mut self) {
        if self.now.saturating_sub(self.expired_at) >= EXPIRE_EVERY_MS {
            self.expired_at = self.now;
            self.marks.expire(self.now);
            self.rules.tidy();
        } else if self.rules.is_untidy() {
            self.rules.tidy();
        }
    }

    /// The entries of the changelog that this cycle changes: key, value.
    pub(super) fn staged(&self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        let marks = self.marks.staged().map(|(stream, mark)| (mark_key(stream), mark.map(mark_value)));
        let seen = self.seen_staged.iter().map(|seen| (SEEN.to_vec(), Some(json(seen))));
        let topic =
            self.topic_staged.iter().map(|id| (TOPIC.to_vec(), Some(json(&Topic { id: id.clone() }))));
        let rules = self
            .rules
            .staged()
            .map(|(id, version, key, state)| ([RULE, &json(&(id, version, key))].concat(), state.map(json)));
        let held = self.held.staged().map(|(device, offset, reading)| {
            ([HELD, &json(&(device, offset))].concat(), reading.map(held_value))
        });
        marks.chain(seen).chain(topic).chain(rules).chain(held)
    }

    /// The transaction that carries the staged entries has been committed.
    pub(super) fn commit(&mut self) {
        self.marks.commit();
        self.rules.commit();
        self.held.commit();
        if let Some(seen) = self.seen_staged.take() {
            self.seen = seen;
        }
        if let Some(topic) = self.topic_staged.take() {
            self.topic = topic;
        }
    }

    /// The transaction was aborted. What is not in the changelog yet (the topic's id) stays staged.
    pub(super) fn abort(&mut self) {
        self.marks.abort();
        self.rules.abort();
        self.held.abort();
        self.seen_staged = None;
    }

    /// Takes up an entry of the changelog.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        match entry(key, value)? {
            Entry::Mark(stream, mark) => self.marks.restore(stream, mark),
            Entry::Seen(seen) => self.seen = seen,
            Entry::Topic(id) => self.topic = id,
            Entry::Rule((id, version, key), state) => self.rules.restore(&id, version, &key, state),
            Entry::Held((device, offset), reading) => self.held.restore(&device, offset, reading),
            Entry::Unknown => {}
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct MarkJson {
    next: u64,
    /// Missing in entries of the first version: such a mark is not let go before its stream is heard again.
    #[serde(default = "never")]
    at: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

const fn never() -> i64 {
    i64::MAX
}

#[derive(Serialize, Deserialize)]
struct Topic {
    id: String,
}

/// One entry of a changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// The mark of a stream; `None` was deleted.
    Mark(StreamId, Option<Mark>),
    /// Versions that were applied.
    Seen(Seen),
    /// Id of the input topic.
    Topic(String),
    /// The state of a threshold: rule, version, key.
    Rule((String, u32, String), Option<Kept>),
    /// A reading that waits: device, offset.
    Held((String, i64), Option<HeldReading>),
    /// Written by a version that keeps more.
    Unknown,
}

fn mark_key(stream: StreamId) -> Vec<u8> {
    [MARK, &stream.to_hex()].concat()
}

fn mark_value(mark: Mark) -> Vec<u8> {
    json(&MarkJson { next: mark.next, at: mark.at, closed: mark.closed })
}

#[derive(Serialize, Deserialize)]
struct HeldJson<'a> {
    at: i64,
    timestamp: i64,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    number: u64,
    #[serde(borrow)]
    edge: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    backlog: bool,
    #[serde(borrow)]
    body: Cow<'a, str>,
}

fn held_value(reading: &HeldReading) -> Vec<u8> {
    json(&HeldJson {
        at: reading.at,
        timestamp: reading.timestamp_ms,
        stream: reading.stream.to_string().into(),
        number: reading.number,
        edge: (&*reading.edge).into(),
        backlog: reading.backlog,
        body: (&*reading.body).into(),
    })
}

fn held((device, offset): (String, i64), value: Option<&[u8]>) -> Result<Entry, String> {
    let reading = |value: &[u8]| {
        let held: HeldJson<'_> = parse(value)?;
        Ok::<_, String>(HeldReading {
            device: device.as_str().into(),
            offset,
            at: held.at,
            timestamp_ms: held.timestamp,
            stream: StreamId::from_hex(held.stream.as_bytes()).ok_or("stream is no stream id")?,
            number: held.number,
            edge: held.edge.into(),
            backlog: held.backlog,
            body: held.body.into(),
        })
    };
    let reading = value.map(reading).transpose()?;
    Ok(Entry::Held((device, offset), reading))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, texts and maps of them are JSON")
}

fn parse<'v, T: Deserialize<'v>>(value: &'v [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

/// Reads an entry; the error says what is wrong with it.
fn entry(key: &[u8], value: Option<&[u8]>) -> Result<Entry, String> {
    let wrong = |what: &str| format!("entry {:?}: {what}", String::from_utf8_lossy(key));
    if let Some(hex) = key.strip_prefix(MARK) {
        let stream = StreamId::from_hex(hex).ok_or_else(|| wrong("the key has no stream id"))?;
        let mark = value.map(parse::<MarkJson>).transpose().map_err(|e| wrong(&e))?;
        return Ok(Entry::Mark(stream, mark.map(|m| Mark { next: m.next, at: m.at, closed: m.closed })));
    }
    if let Some(rule) = key.strip_prefix(RULE) {
        let rule = parse(rule).map_err(|e| wrong(&e))?;
        return Ok(Entry::Rule(rule, value.map(parse).transpose().map_err(|e| wrong(&e))?));
    }
    if let Some(place) = key.strip_prefix(HELD) {
        return parse(place).and_then(|place| held(place, value)).map_err(|e| wrong(&e));
    }
    match (key, value) {
        (SEEN, value) => Ok(Entry::Seen(value.map_or(Ok(Seen::default()), parse).map_err(|e| wrong(&e))?)),
        (TOPIC, None) => Ok(Entry::Topic(String::new())),
        (TOPIC, Some(value)) => Ok(Entry::Topic(parse::<Topic>(value).map_err(|e| wrong(&e))?.id)),
        _ => Ok(Entry::Unknown),
    }
}

#[cfg(test)]
mod tests;
