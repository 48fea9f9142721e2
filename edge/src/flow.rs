//! A flow: which messages, in which journal, how much of it on disk, and what is sent.
//!
//! Pure data, agreed on by configuration, ingest stage and forwarder.

use std::path::PathBuf;

/// What is sent to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    /// Readings and the results of the windows.
    Both,
    /// Readings alone; windows are not computed.
    Readings,
    /// Results alone; readings stay in the journal for the windows.
    Windows,
}

/// What happens when the budget is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing more is taken from the sources.
    Block,
    /// The oldest records go, and gaps say which.
    DropOldest,
    /// The same, and the readings among them are rolled up to windows of this many ms.
    RollUp(i64),
}

/// One flow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Its name, `default` for the one that takes what no other takes.
    pub name: String,
    /// Topic filters.
    pub topics: Vec<String>,
    /// The folder of its journal.
    pub dir: PathBuf,
    /// Most bytes on disk, journal and window state together; 0 for no limit but the disk's.
    pub budget_bytes: u64,
    /// Acknowledged journal that is kept at least.
    pub retain_bytes: u64,
    /// When the budget is reached.
    pub policy: Policy,
    /// What is sent.
    pub forward: Forward,
    /// Whether what is held waits behind what is new.
    pub live_first: bool,
}

impl Flow {
    /// Name of the flow without filters.
    pub(crate) const DEFAULT: &str = "default";

    /// Whether it takes messages of this topic.
    pub(crate) fn takes(&self, topic: &str) -> bool {
        self.topics.iter().any(|filter| rumqttc::matches(topic, filter))
    }
}
