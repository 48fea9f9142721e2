//! Windows: readings in, aggregates over pieces of time (or over counts of readings) out.
//!
//! The flow, in the order of the files: a [`Rule`] is checked and made ready (`rule`, `form`); the [`Engine`] does what the
//! clock makes due and gives each reading to every rule (`engine`, `lane`), which finds its key (`key`, `devices`:
//! watermarks) and puts it into that key's windows (`panes`, `sessions`, `counts`), whose aggregates (`tally`, `schema`,
//! `sketch`) are joined where windows overlap (`tree`, over panes of the `calendar`) and written as JSON (`outputs`). State
//! is kept as `entries`, in bytes of `codec`.
//!
//! **Closing.** Each device has its own watermark: its greatest event time less the rule's delay. A key over tags has the
//! least of its devices that are not idle. When all are idle (nothing for `idle_ms` on the clock, not counting the time
//! before [`Engine::resumed`]), the time of the one that sent last goes on with the clock. So a wild device harms
//! only the keys it is in, and a window of a silent one closes when its end + delay have passed since. A window closes
//! when the watermark reaches its end; `end` is never part of it.
//!
//! **Late readings** enter the windows that ended less than `lateness_ms` before the watermark, which are sent again at once
//! with the next revision; late for all of its windows, a reading is an [`Output::Late`]. A filtered reading moves
//! the watermark of its key, no more.
//!
//! Guarantees: pure, deterministic: the same rules and the same calls in the same order give the same outputs, byte for
//! byte, also when the engine was written down and restored in between. Memory is bounded by [`Limits`].
//! On failure: a reading that cannot be taken in is counted in [`Counts`].

use crate::reading::Reading;

mod rule;

mod calendar;
mod form;

mod engine;
mod lane;

mod devices;
mod entry;
mod key;

mod counts;
mod panes;
mod sessions;

mod schema;
mod sketch;
mod tally;
mod tree;

mod outputs;

mod codec;
mod entries;

pub use codec::Corrupt;
pub use engine::Engine;
pub use entries::{Change, RestoreError};
pub use outputs::{Counts, Output, Outputs};
pub use rule::{Aggregate, Basis, Kind, Rule, Span};

/// Whether a reading is wanted; made by the caller of a rule's `filter`. Must depend on the reading alone.
pub type Filter = Box<dyn for<'a, 'b> Fn(&'a Reading<'b>) -> bool + Send>;

/// How much an engine holds. Not part of its state: outputs are the same after a restart only with the same limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most keys of one rule.
    pub keys_max: usize,
    /// Most panes or sessions of one key. A sliding window of 1 h every minute has 60 panes.
    pub windows_per_key_max: usize,
    /// Most devices of one key.
    pub devices_per_key_max: usize,
    /// A key without windows is forgotten when nothing came for so long; what comes later may open its windows anew.
    pub keep_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys_max: 100_000,
            windows_per_key_max: 20_000,
            devices_per_key_max: 10_000,
            keep_ms: 86_400_000,
        }
    }
}

#[cfg(test)]
mod tests;
