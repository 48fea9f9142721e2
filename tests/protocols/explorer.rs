//! Tries every order of events of a protocol, breadth first.
//!
//! Comes in: a [`Protocol`]. Goes out: how many states there are, and for each kind of [`Harm`] that can be done the
//! shortest way to it.
//! Guarantees: all states that can be reached are visited once, also those behind a harm; a state at rest is one in
//! which nothing happens any more unless something new goes wrong; from every state such a rest must be within reach
//! without further faults. Same protocol, same result.
//! On failure: a model outside of its expected size panics: one that became trivial proves nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::RangeInclusive;

mod tests;

/// What a protocol must never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// A row stands twice.
    Doubled,
    /// An older revision replaced a newer one.
    Altered,
    /// Progress lies beyond a row that is not stored.
    Ahead,
    /// Progress moved back.
    WentBack,
    /// All is at rest and a row is missing.
    Lost,
    /// The faults stopped and the end of the log cannot be reached.
    Stuck,
}

/// One event and where it leads.
pub(crate) struct Step<P: Protocol + ?Sized> {
    pub(crate) action: P::Action,
    /// Something goes wrong; it may also never happen.
    pub(crate) is_fault: bool,
    pub(crate) next: P::State,
}

/// A protocol with its surroundings.
pub(crate) trait Protocol {
    type State: Clone + Eq + Hash;
    /// The name of an event.
    type Action: Copy + fmt::Display;

    fn initial(&self) -> Self::State;

    /// All that can happen in this state.
    fn steps(&self, state: &Self::State) -> Vec<Step<Self>>;

    /// What is wrong with a state, whatever comes after it.
    fn harms(&self, state: &Self::State) -> Vec<Harm>;

    /// What is wrong with a state if nothing comes after it.
    fn harm_at_rest(&self, state: &Self::State) -> Option<Harm>;
}

/// Those of these harms that are done.
pub(crate) fn done<const N: usize>(harms: [(Harm, bool); N]) -> Vec<Harm> {
    harms.into_iter().filter(|(_, is_done)| *is_done).map(|(harm, _)| harm).collect()
}

/// The result of an exploration.
#[derive(Debug)]
pub(crate) struct Found {
    states: usize,
    steps: usize,
    at_rest: usize,
    /// Each kind of harm once, with the shortest way there.
    harms: Vec<(Harm, Vec<String>)>,
}

impl Found {
    /// The kinds of harm are exactly these.
    #[track_caller]
    pub(crate) fn assert_harms(&self, wanted: &[Harm]) {
        let mut kinds: Vec<Harm> = self.harms.iter().map(|(harm, _)| *harm).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, wanted, "{self}");
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} states, {} steps, {} states at rest", self.states, self.steps, self.at_rest)?;
        for (harm, trace) in &self.harms {
            writeln!(f, "{harm:?} after {} events:", trace.len())?;
            for (number, event) in trace.iter().enumerate() {
                writeln!(f, "  {:2}. {event}", number + 1)?;
            }
        }
        Ok(())
    }
}

/// Explores everything, and shows what it found; the number of states must lie in `size`.
#[track_caller]
pub(crate) fn explore<P: Protocol>(protocol: &P, size: RangeInclusive<usize>) -> Found {
    let mut explorer = Explorer::new(protocol);
    while let Some(index) = explorer.queue.pop_front() {
        explorer.visit(protocol, index);
        let states = explorer.parents.len();
        assert!(states <= *size.end(), "more than {} states", size.end());
    }
    explorer.look_for_stuck();
    let found = Found {
        states: explorer.parents.len(),
        steps: explorer.steps,
        at_rest: explorer.at_rest.len(),
        harms: explorer.harms.iter().map(|(harm, index)| (*harm, explorer.trace(*index))).collect(),
    };
    eprintln!("{found}");
    assert!(found.states >= *size.start(), "only {} states", found.states);
    found
}

/// Number of a state.
type Index = u32;

struct Explorer<P: Protocol> {
    indices: HashMap<P::State, Index, BuildHasherDefault<Mixer>>,
    queue: VecDeque<(P::State, Index)>,
    /// From where and by what each state was reached first; nothing for the initial one.
    parents: Vec<Option<(Index, P::Action)>>,
    /// Steps that are no faults, from and to.
    edges: Vec<(Index, Index)>,
    at_rest: Vec<Index>,
    steps: usize,
    harms: Vec<(Harm, Index)>,
}

impl<P: Protocol> Explorer<P> {
    fn new(protocol: &P) -> Self {
        let mut explorer = Self {
            indices: HashMap::default(),
            queue: VecDeque::new(),
            parents: Vec::new(),
            edges: Vec::new(),
            at_rest: Vec::new(),
            steps: 0,
            harms: Vec::new(),
        };
        explorer.index_of(protocol.initial(), None);
        explorer
    }

    /// Looks a state up; a new one is queued.
    fn index_of(&mut self, state: P::State, parent: Option<(Index, P::Action)>) -> Index {
        if let Some(index) = self.indices.get(&state) {
            return *index;
        }
        let index = Index::try_from(self.parents.len()).expect("explorations are far smaller");
        self.indices.insert(state.clone(), index);
        self.parents.push(parent);
        self.queue.push_back((state, index));
        index
    }

    fn visit(&mut self, protocol: &P, (state, index): (P::State, Index)) {
        for harm in protocol.harms(&state) {
            self.note(harm, index);
        }
        let mut is_at_rest = true;
        for step in protocol.steps(&state) {
            self.steps += 1;
            let next = self.index_of(step.next, Some((index, step.action)));
            if !step.is_fault {
                is_at_rest = false;
                self.edges.push((index, next));
            }
        }
        if is_at_rest {
            self.at_rest.push(index);
            if let Some(harm) = protocol.harm_at_rest(&state) {
                self.note(harm, index);
            }
        }
    }

    /// Breadth first, so the first of a kind is the nearest.
    fn note(&mut self, harm: Harm, index: Index) {
        if !self.harms.iter().any(|(known, _)| *known == harm) {
            self.harms.push((harm, index));
        }
    }

    /// The nearest state from which no rest can be reached, if there is one.
    fn look_for_stuck(&mut self) {
        self.edges.sort_unstable_by_key(|(_, to)| *to);
        let mut comes_to_rest = vec![false; self.parents.len()];
        let mut open = self.at_rest.clone();
        while let Some(to) = open.pop() {
            if std::mem::replace(&mut comes_to_rest[to as usize], true) {
                continue;
            }
            let first = self.edges.partition_point(|edge| edge.1 < to);
            open.extend(self.edges[first..].iter().take_while(|edge| edge.1 == to).map(|edge| edge.0));
        }
        if let Some(stuck) = comes_to_rest.iter().position(|comes| !comes) {
            let stuck = Index::try_from(stuck).expect("it came from an index");
            self.note(Harm::Stuck, stuck);
        }
    }

    fn trace(&self, index: Index) -> Vec<String> {
        let mut trace = Vec::new();
        let mut at = index;
        while let Some((parent, action)) = &self.parents[at as usize] {
            trace.push(action.to_string());
            at = *parent;
        }
        trace.reverse();
        trace
    }
}

/// A fast hash for small states: multiply and rotate, as in Firefox and rustc.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        // The table takes its place from the low bits, the multiplication fills the high ones.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(word.into());
    }

    fn write_isize(&mut self, word: isize) {
        self.mix(word.cast_unsigned() as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}
