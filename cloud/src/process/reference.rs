//! The engine by itself, over one partition after the other: what the fault suite compares the workers with.
//!
//! Comes in: records in the order of their partitions, each with the tables of the version to use. Goes out: what must
//! be found in the output topics. Guarantees: it is the engine of the workers, one record at a time, each committed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Input;
use super::assignment::Place;
use super::engine::{Emit, Engine, Headers, Incoming, Outgoing, World};
use super::join::Snapshot;
use super::measures::Tally;
use super::state::State;
use super::state::held::Limits;
use super::transaction::Failure;
use crate::rules::store::Loaded;

/// A record of an input topic, with the headers that count.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Kafka's timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// Where it stands.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Header `edge`.
    pub edge: Option<Vec<u8>>,
    /// Header `stream`.
    pub stream: Option<Vec<u8>>,
    /// Header `number`.
    pub number: Option<Vec<u8>>,
    /// Header `control`.
    pub control: Option<Vec<u8>>,
    /// Whether it has the header `backlog`.
    pub backlog: bool,
    /// Whether it has the header `retry`.
    pub retry: bool,
}

/// A record of an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its topic.
    pub topic: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Dimension tables as they stood at some version, and no rules.
pub struct Tables(World);

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// One table: its name, its version, its rows by key, each a JSON object.
    #[must_use]
    pub fn one<'r>(name: &str, version: i64, rows: impl IntoIterator<Item = (&'r str, &'r str)>) -> Self {
        let tables = Arc::new(Snapshot::one(name, version.unsigned_abs(), rows));
        Self(World { tables, rules: Arc::new(Loaded { number: 0, set: Arc::default() }) })
    }
}

/// The state of all partitions.
#[derive(Debug, Default)]
pub struct Reference {
    states: HashMap<Place, State>,
}

impl Reference {
    /// What becomes of the next record of a partition; nothing when the topic is none that is processed.
    pub fn process(&mut self, topic: &str, partition: i32, record: &Record, tables: &Tables) -> Vec<Output> {
        let mut outputs = Outputs(Vec::new());
        let Some(input) = Input::from_topic(topic) else { return outputs.0 };
        let state = self.states.entry((input, partition)).or_default();
        let incoming = Incoming {
            input,
            partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: Headers {
                edge: record.edge.as_deref(),
                stream: record.stream.as_deref(),
                number: record.number.as_deref(),
                control: record.control.as_deref(),
                backlog: record.backlog,
                retry: record.retry,
            },
        };
        // The tables of the reference have a row or none: nothing waits.
        let mut engine = Engine::new(false, Limits { ms: 0, records_max: 0, bytes_max: 0 });
        let done = engine.begin(&tables.0, record.timestamp_ms).process(
            &incoming,
            state,
            &mut Tally::default(),
            &mut outputs,
        );
        done.expect("taking results into memory does not fail");
        state.commit();
        outputs.0
    }
}

struct Outputs(Vec<Output>);

impl Emit for Outputs {
    fn emit(&mut self, out: Outgoing<'_>) -> Result<(), Failure> {
        let key = out.key.map(<[u8]>::to_vec);
        self.0.push(Output { topic: out.topic.to_owned(), key, value: out.value.to_vec() });
        Ok(())
    }
}
