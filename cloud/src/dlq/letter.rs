//! One dead letter, and what is sent when it goes through again. Pure.
//!
//! Comes in: the value of a record of `weir.rejected` (format: `weir_shared::wire`). Goes out: its members; or the
//! record to produce once more.
//! Guarantees: what is produced carries the identity that the rejected record had, and its bytes: those of a record that
//! the processor refused as they came, those of a record that a store refused with `stores` put into its `weir` object.
//! On failure: a [`Refused`] that says why a letter cannot be sent again, and what can be done instead.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use weir_shared::record::{Identity, StreamId};
use weir_shared::wire;

use crate::process::Input;
use crate::sinks::SinkName;

/// What the processor's dead letters say in `stage`.
const PROCESS: &str = "process";
/// What those of a rule say.
const RULE: &str = "rule";
/// How `stage` begins in the dead letters of an edge.
const EDGE_PREFIX: &str = "edge.";
/// How it begins in those of a sink.
const SINK_PREFIX: &str = "sink.";
/// The topics that sinks read.
const OUTPUTS: [&str; 5] = [wire::ENRICHED, wire::AGGREGATES, wire::LOSSES, wire::ALERTS, wire::REJECTED];

/// A dead letter.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Letter<'a> {
    #[serde(borrow, default)]
    pub(super) weir: Origin<'a>,
    #[serde(borrow)]
    pub(super) stage: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) detail: Cow<'a, str>,
    /// Where an edge had it from, for example `mqtt`.
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    /// Topic at the source, for example MQTT's.
    #[serde(borrow, default)]
    pub(super) topic: Cow<'a, str>,
    /// Ms since 1970.
    #[serde(default)]
    pub(super) received: i64,
    /// Length of the whole rejected record.
    pub(super) bytes: Option<u64>,
    /// Rows of the record may stand in the store that refused it.
    #[serde(default)]
    partly: bool,
    /// In base64, maybe only its first part.
    #[serde(borrow, default)]
    raw: Cow<'a, str>,
}

/// Where the rejected record stood, and who it was.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Origin<'a> {
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    pub(super) partition: Option<i32>,
    number: Option<u64>,
    #[serde(borrow, default)]
    pub(super) edge: Cow<'a, str>,
    /// Kafka's.
    #[serde(borrow, default)]
    pub(super) topic: Cow<'a, str>,
    pub(super) offset: Option<i64>,
}

/// Why a dead letter cannot be sent through again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is no dead letter: {0}")]
    NoLetter(String),
    #[error(
        "it has no identity, so nothing would tell it from others: mend what it came from, and let that send it anew"
    )]
    NoIdentity,
    #[error(
        "it holds only the first {kept} of {bytes} bytes: mend what it came from, and let that send it anew"
    )]
    CutShort { kept: usize, bytes: u64 },
    #[error(
        "its {bytes} bytes were withheld, as masks were in force: mend what it came from, and let that send it anew"
    )]
    Withheld { bytes: u64 },
    #[error(
        "only an edge can decode it: mend the edge's decoder or the message (`weir-cloud dlq show {{position}} --raw` \
         gives its bytes), and publish it at the edge's source again"
    )]
    Edge,
    #[error(
        "the record itself was passed on, only a rule failed on it: mend the rule; it holds for records to come"
    )]
    Rule,
    #[error(
        "other rows of its record may stand in that store ([[sink.table]]), and would stand there twice: mend the table's \
         description; it holds for records to come"
    )]
    Partly,
    #[error("nothing is known of the stage {0:?}: it was written by another version")]
    Stage(String),
    #[error("it came from the topic {0:?}, from which nothing can be sent again")]
    Topic(String),
    #[error(
        "it came from partition {partition} of {topic}, which has {count} now: mend what it came from, and let that send \
         it anew"
    )]
    Partition { topic: &'static str, partition: i32, count: i32 },
    #[error("the record in it is none that `weir-cloud` made: it is no JSON object with a member `weir`")]
    NoOutput,
}

impl Refused {
    /// The word for it, in sums.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::NoLetter(_) => "no_letter",
            Self::NoIdentity => "no_identity",
            Self::CutShort { .. } => "cut_short",
            Self::Withheld { .. } => "withheld",
            Self::Edge => "edge",
            Self::Rule => "rule",
            Self::Partly => "partly",
            Self::Stage(_) => "unknown_stage",
            Self::Topic(_) => "unknown_topic",
            Self::Partition { .. } => "unknown_partition",
            Self::NoOutput => "no_output",
        }
    }
}

/// How many partitions each topic has to which letters of the processor go back.
pub(super) type Counts = BTreeMap<&'static str, i32>;

/// What is to be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Again {
    pub(super) topic: &'static str,
    /// `None`: where its key puts it.
    pub(super) partition: Option<i32>,
    pub(super) value: Vec<u8>,
    /// Header names and values.
    pub(super) headers: Vec<(&'static str, Vec<u8>)>,
}

impl Again {
    /// Refuses one for a partition that is not there any more; `counts` are the partitions of the topics.
    pub(super) fn has_place(self, counts: &Counts) -> Result<Self, Refused> {
        let (topic, count) = (self.topic, counts.get(self.topic).copied().unwrap_or(0));
        match self.partition {
            Some(partition) if partition >= count => Err(Refused::Partition { topic, partition, count }),
            _ => Ok(self),
        }
    }
}

impl<'a> Letter<'a> {
    /// Reads the value of a record of `weir.rejected`.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Refused> {
        sonic_rs::from_slice(json).map_err(|e| {
            // sonic-rs adds a picture of the input below its message.
            Refused::NoLetter(e.to_string().lines().next().unwrap_or_default().to_owned())
        })
    }

    /// Who the rejected record was.
    pub(super) fn identity(&self) -> Option<Identity> {
        let stream = StreamId::from_hex(self.weir.stream.as_deref()?.as_bytes())?;
        let partition = self.weir.partition.filter(|p| *p >= 0)?;
        Some(Identity { stream, partition, number: self.weir.number? })
    }

    /// Its bytes, maybe only the first part.
    pub(super) fn raw(&self) -> Result<Vec<u8>, Refused> {
        BASE64.decode(&*self.raw).map_err(|e| Refused::NoLetter(format!("raw is not base64: {e}")))
    }

    /// The same, unless masks withhold all of them.
    pub(super) fn shown(&self) -> Result<Vec<u8>, Refused> {
        let raw = self.raw()?;
        match self.bytes {
            Some(bytes) if raw.is_empty() && bytes > 0 => Err(Refused::Withheld { bytes }),
            _ => Ok(raw),
        }
    }

    /// The device, where the record's key is one.
    pub(super) fn device<'k>(&self, key: Option<&'k [u8]>) -> Option<&'k str> {
        let keyed = [wire::READINGS, wire::ENRICHED].contains(&&*self.weir.topic);
        std::str::from_utf8(key.filter(|_| keyed)?).ok()
    }

    /// What is to be produced to send it through again.
    pub(super) fn again(&self) -> Result<Again, Refused> {
        let stage = &*self.stage;
        if stage == RULE {
            return Err(Refused::Rule);
        }
        if stage.starts_with(EDGE_PREFIX) {
            self.shown()?;
            return Err(Refused::Edge);
        }
        let sink = stage.strip_prefix(SINK_PREFIX);
        let sink = sink.and_then(|name| SinkName::ALL.into_iter().find(|sink| sink.name() == name));
        if stage != PROCESS && sink.is_none() {
            return Err(Refused::Stage(stage.to_owned()));
        }
        if self.partly {
            return Err(Refused::Partly);
        }
        let raw = self.shown()?;
        let bytes = self.bytes.unwrap_or(raw.len() as u64);
        if bytes > raw.len() as u64 {
            return Err(Refused::CutShort { kept: raw.len(), bytes });
        }
        match sink {
            Some(sink) => self.to_store(sink, &raw),
            None => self.to_processor(raw),
        }
    }

    fn to_processor(&self, value: Vec<u8>) -> Result<Again, Refused> {
        let unknown = || Refused::Topic(self.weir.topic.clone().into_owned());
        let input = Input::ALL.into_iter().find(|input| input.topic() == self.weir.topic);
        let topic = input.ok_or_else(unknown)?.topic();
        let identity = self.identity().filter(|_| !self.weir.edge.is_empty()).ok_or(Refused::NoIdentity)?;
        let headers = vec![
            (wire::EDGE, self.weir.edge.as_bytes().to_vec()),
            (wire::STREAM, identity.stream.to_hex().to_vec()),
            (wire::NUMBER, identity.number.to_string().into_bytes()),
            // Newer ones of its device went before it.
            (wire::BACKLOG, Vec::new()),
            (wire::RETRY, Vec::new()),
        ];
        Ok(Again { topic, partition: Some(identity.partition), value, headers })
    }

    fn to_store(&self, sink: SinkName, raw: &[u8]) -> Result<Again, Refused> {
        let topic = OUTPUTS.into_iter().find(|topic| *topic == self.weir.topic);
        let topic = topic.ok_or_else(|| Refused::Topic(self.weir.topic.clone().into_owned()))?;
        let value = for_store(raw, sink.name())?;
        Ok(Again { topic, partition: None, value, headers: Vec::new() })
    }
}

/// The record of an output topic with `"stores":["<name>"]` in its `weir` object, and every other byte as it was.
fn for_store(raw: &[u8], name: &str) -> Result<Vec<u8>, Refused> {
    #[derive(Deserialize)]
    struct Output<'a> {
        #[serde(borrow)]
        weir: &'a RawValue,
    }
    /// Whether it says who the record is, and where `stores` stands.
    #[derive(Deserialize)]
    struct Weir<'a> {
        stream: Option<String>,
        number: Option<u64>,
        topic: Option<String>,
        offset: Option<i64>,
        #[serde(borrow, default, deserialize_with = "as_it_stands")]
        stores: Option<&'a RawValue>,
    }
    /// Even `null` is a value that stands somewhere.
    fn as_it_stands<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
        <&RawValue>::deserialize(from).map(Some)
    }
    let output: Output<'_> = serde_json::from_slice(raw).map_err(|_| Refused::NoOutput)?;
    let object = output.weir.get();
    let weir: Weir<'_> = serde_json::from_str(object).map_err(|_| Refused::NoOutput)?;
    // What the cloud itself found missing has no number: it is known by where it was found.
    let is_known =
        (weir.stream.is_some() && weir.number.is_some()) || (weir.topic.is_some() && weir.offset.is_some());
    if !is_known {
        return Err(Refused::NoIdentity);
    }
    let place = |part: &str| part.as_ptr().addr() - raw.as_ptr().addr();
    let (from, to, text) = if let Some(stores) = weir.stores {
        let from = place(stores.get());
        (from, from + stores.get().len(), format!("[\"{name}\"]"))
    } else {
        // Before the brace that ends the object; it has members already.
        let end = place(object) + object.len() - 1;
        (end, end, format!(",\"stores\":[\"{name}\"]"))
    };
    Ok([&raw[..from], text.as_bytes(), &raw[to..]].concat())
}

#[cfg(test)]
mod tests;
