//! Where followers put what they know, and workers look.
//!
//! Comes in: contents of dimensions, from the followers of several servers. Goes out: one snapshot of all of them.
//! Guarantees: a snapshot is made when something changed, not when one is asked for; there is none before every
//! dimension was loaded once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use weir_shared::clock;

use super::snapshot::{Content, Dimension, Snapshot};

/// All dimensions.
#[derive(Debug)]
pub(super) struct Board {
    dimensions: Vec<Arc<Dimension>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    places: Vec<Place>,
    current: Option<Arc<Snapshot>>,
    #[cfg(test)]
    reloads: Vec<&'static str>,
    #[cfg(test)]
    loads: usize,
}

#[derive(Clone, Debug, Default)]
struct Place {
    content: Option<Content>,
    /// When it was last known to be up to date.
    known: Option<Instant>,
}

impl Board {
    /// Nothing is loaded yet.
    pub(super) fn new(dimensions: Vec<Dimension>) -> Self {
        let dimensions: Vec<_> = dimensions.into_iter().map(Arc::new).collect();
        let places = vec![Place::default(); dimensions.len()];
        let current = dimensions.is_empty().then(Arc::default);
        let mut state = State::default();
        (state.places, state.current) = (places, current);
        Self { dimensions, state: Mutex::new(state) }
    }

    /// The dimension at a place.
    pub(super) fn dimension(&self, place: usize) -> &Dimension {
        &self.dimensions[place]
    }

    /// What is in force; `None` until everything was loaded.
    pub(super) fn current(&self) -> Option<Arc<Snapshot>> {
        self.lock().current.clone()
    }

    /// Puts contents in force, all at once.
    pub(super) fn publish(&self, contents: impl Iterator<Item = (usize, Content)>) {
        let mut state = self.lock();
        for (i, content) in contents {
            let measures = &self.dimensions[i].measures;
            measures.rows.set(content.table.rows() as f64);
            measures.bytes.set(content.table.bytes() as f64);
            measures.version.set(content.version as f64);
            state.places[i].content = Some(content);
        }
        let contents: Option<Vec<Content>> = state.places.iter().map(|place| place.content.clone()).collect();
        if let Some(contents) = contents {
            let tables = self.dimensions.iter().cloned().zip(contents).collect();
            state.current = Some(Arc::new(Snapshot::new(tables)));
        }
    }

    /// These are up to date now.
    pub(super) fn known(&self, places: &[usize]) {
        let now = Some(clock::instant());
        let mut state = self.lock();
        places.iter().for_each(|i| state.places[*i].known = now);
    }

    /// What was loaded is in force.
    pub(super) fn fresh(&self, places: &[usize]) {
        self.known(places);
        for i in places {
            self.dimensions[*i].measures.stale.set(0);
        }
        #[cfg(test)]
        {
            self.lock().loads += 1;
        }
    }

    /// How often something was loaded and is in force.
    #[cfg(test)]
    pub(super) fn loads(&self) -> usize {
        self.lock().loads
    }

    /// What was in force has to be loaded afresh.
    pub(super) fn reload(&self, places: &[usize], reason: &'static str) {
        for i in places {
            let measures = &self.dimensions[*i].measures;
            measures.reload(reason);
            measures.stale.set(1);
        }
        #[cfg(test)]
        self.lock().reloads.push(reason);
    }

    /// Why rows were loaded afresh, in order.
    #[cfg(test)]
    pub(super) fn reloads(&self) -> Vec<&'static str> {
        self.lock().reloads.clone()
    }

    /// Shows how old everything is.
    pub(super) fn show_ages(&self) {
        let now = clock::instant();
        for (dimension, place) in self.dimensions.iter().zip(&self.lock().places) {
            if let Some(known) = place.known {
                dimension.measures.age.set(now.saturating_duration_since(known).as_secs_f64());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
