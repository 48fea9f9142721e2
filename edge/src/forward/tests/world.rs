//! What is not on a machine: folders, the network, and the cloud.
//!
//! Comes in: what producers sent, in the order in which it reaches each partition. Goes out: whether the cloud took it
//! rightly, by the rule of the marks: a number that is not below the mark of its line is accepted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use weir_shared::record::StreamId;

use crate::journal::format::Sent;

/// Where numbers are without holes.
pub(super) type Line = (StreamId, Sent, u32);
/// What a record is: its line, and its number in it.
pub(super) type Identity = (Line, u64);
/// What was sent to each partition and is not known to have arrived, in order.
pub(super) type Wire = BTreeMap<(Sent, u32), VecDeque<Flying>>;

/// A record that was sent.
pub(super) struct Flying {
    pub(super) identity: Identity,
    pub(super) value: u64,
    pub(super) ticket: usize,
    pub(super) arrived: bool,
}

/// A folder, and what the model knows of it.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    /// What was committed, here or where this was copied from.
    pub(super) stands: BTreeSet<Identity>,
    pub(super) given_up: BTreeSet<Identity>,
}

impl Disk {
    /// As a backup or a clone is made, at any moment between two operations.
    pub(super) fn copy(&self, world: &mut World) -> Self {
        let folder = world.new_folder();
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        Self { folder, stands: self.stands.clone(), given_up: self.given_up.clone() }
    }

    pub(super) fn lose(self) {
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// All that is not on a machine.
pub(super) struct World {
    pub(super) root: PathBuf,
    pub(super) live_first: bool,
    pub(super) folders: u64,
    pub(super) streams: u64,
    pub(super) values: u64,
    /// The value of each record that ever stood on a disk.
    pub(super) numbered: HashMap<Identity, u64>,
    /// On any disk.
    pub(super) given_up: HashSet<Identity>,
    /// What dead producers left on the network.
    pub(super) late: Vec<Wire>,
    /// The marks: the next number of each line.
    pub(super) next: HashMap<Line, u64>,
    pub(super) accepted: HashSet<u64>,
    /// What the cloud has seen.
    pub(super) seen: HashSet<Identity>,
}

impl World {
    pub(super) fn new(live_first: bool) -> Self {
        // In memory where that is possible: an fsync costs nothing there.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let root = parent.join(format!("weir-streams-{}", std::process::id()));
        fs::remove_dir_all(&root).ok();
        Self {
            root,
            live_first,
            folders: 0,
            streams: 0,
            values: 0,
            numbered: HashMap::new(),
            given_up: HashSet::new(),
            late: Vec::new(),
            next: HashMap::new(),
            accepted: HashSet::new(),
            seen: HashSet::new(),
        }
    }

    pub(super) fn new_folder(&mut self) -> PathBuf {
        self.folders += 1;
        self.root.join(self.folders.to_string())
    }

    /// As 128 random bits: never drawn before.
    pub(super) fn draw_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(u128::from(self.streams).to_be_bytes())
    }

    /// The cloud gets a record, by the rule of the marks.
    pub(super) fn arrive(&mut self, identity: Identity, value: u64) {
        let (line, number) = identity;
        self.seen.insert(identity);
        let next = self.next.get(&line).copied().unwrap_or(0);
        if number < next {
            let known = self.accepted.contains(&value) || self.given_up.contains(&identity);
            assert!(known, "new, but taken for a repeat: {identity:?}");
            return;
        }
        for jumped in next..number {
            assert!(self.given_up.contains(&(line, jumped)), "{jumped} is left out before {identity:?}");
        }
        assert!(self.accepted.insert(value), "twice: {identity:?}");
        self.next.insert(line, number + 1);
    }

    /// Of what dead producers left, so many records of each partition arrive, and are forgotten.
    pub(super) fn arrive_late(&mut self, mut count: impl FnMut() -> usize) {
        let mut late = std::mem::take(&mut self.late);
        for flying in late.iter_mut().flat_map(BTreeMap::values_mut) {
            let count = count().min(flying.len());
            for sent in flying.drain(..count).filter(|sent| !sent.arrived) {
                self.arrive(sent.identity, sent.value);
            }
        }
        self.late = late;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}
