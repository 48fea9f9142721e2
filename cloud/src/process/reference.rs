//! The engine by itself, over one partition after the other: what the fault suite compares the workers with.
//!
//! Comes in: records in the order of their partitions, each with the tables of the version and the rules of the number to
//! use. Goes out: what must be found in the output topics. Guarantees: it is the engine of the workers, one record at a
//! time, each committed.

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
use crate::rules::{RuleRow, RuleSet, Schema};

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

/// Dimension tables as they stood at some version.
pub struct Tables(Arc<Snapshot>);

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// One table: its name, its version, its rows by key, each a JSON object.
    #[must_use]
    pub fn one<'r>(name: &str, version: i64, rows: impl IntoIterator<Item = (&'r str, &'r str)>) -> Self {
        Self(Arc::new(Snapshot::one(name, version.unsigned_abs(), rows)))
    }
}

/// A version of a rule, as it stands in `weir_rules`.
#[derive(Clone, Debug)]
pub struct Version {
    /// Which rule.
    pub id: String,
    /// Which of its versions.
    pub version: u32,
    /// What it does.
    pub kind: String,
    /// How, in JSON.
    pub spec: String,
    /// Its place among those of its kind.
    pub priority: i32,
}

/// The rules of a number of `weir_rules_sets`; they may not look at dimensions.
pub struct Rules(Arc<Loaded>);

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rules").field(&self.0.number).finish()
    }
}

impl Rules {
    /// There has never been a rule.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(Loaded { number: 0, set: Arc::default() }))
    }

    /// These.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn of(number: u64, versions: &[Version]) -> Result<Self, String> {
        let row = |v: &Version| RuleRow {
            id: v.id.clone(),
            version: v.version,
            kind: v.kind.clone(),
            spec: v.spec.clone(),
            priority: v.priority,
            stands: false,
        };
        let rows: Vec<RuleRow> = versions.iter().map(row).collect();
        let (set, refused) = RuleSet::compile(&rows, &Schema::default());
        match refused.first() {
            Some(refused) => {
                Err(format!("rule {} version {}: {}", refused.id, refused.version, refused.reason))
            }
            None => Ok(Self(Arc::new(Loaded { number, set: Arc::new(set) }))),
        }
    }
}

/// The state of all partitions.
pub struct Reference {
    engine: Engine,
    states: HashMap<Place, State>,
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference").finish_non_exhaustive()
    }
}

impl Default for Reference {
    fn default() -> Self {
        // The tables of the reference have a row or none: nothing waits.
        let engine = Engine::new(false, Limits { ms: 0, records_max: 0, bytes_max: 0 });
        Self { engine, states: HashMap::new() }
    }
}

impl Reference {
    /// What becomes of the next record of a partition; nothing when the topic is none that is processed.
    pub fn process(
        &mut self,
        topic: &str,
        partition: i32,
        record: &Record,
        (tables, rules): (&Tables, &Rules),
    ) -> Vec<Output> {
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
        let world = World { tables: Arc::clone(&tables.0), rules: Arc::clone(&rules.0) };
        let mut cycle = self.engine.begin(&world, record.timestamp_ms);
        let done = cycle.process(&incoming, state, &mut Tally::default(), &mut outputs);
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
