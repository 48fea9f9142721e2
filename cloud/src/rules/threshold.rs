//! Thresholds: episodes of one value, with hysteresis and duration, in event time.
//!
//! Comes in: the state of a (rule, version, key) and a reading's time, value and identity. Goes out: the next state, and
//! what is to be told. Guarantees: pure; work and state are constant. A state is small JSON, kept for ever:
//! - none: nothing is known, or all is well for long;
//! - `{"at":"calm","last":T}`: recovered at T;
//! - `{"at":"pending","last":T,"since":T,"begun":["<stream>",partition,number],"recovered":T,"suppressed":false}`: beyond
//!   the limit since `since`, not told yet (`recovered`: end of the episode before, or null);
//! - `{"at":"active","last":T,"since":T,"begun":[…],"told":T,"repeat":0,"clearing":T}`: told, last at `told`; back
//!   behind the limit since `clearing`, or null.
//!
//! A reading beyond the limit begins an episode; after `for_ms` without one on this side, `first` is told. `quiet_ms`
//! after a recovery it waits (suppressed, counted once); what is still beyond the limit then is told then. While active,
//! a reading that has not recovered tells `repeat` once `repeat_every_ms` have passed since the last. `recovered` is
//! told when readings have been behind `clear` (without one: not beyond the limit) for `clear_for_ms`. Readings older
//! than the state's `last` are left out, counted. Gaps between readings count as if nothing had changed.
//! On failure: cannot fail; a state that cannot be read is the caller's to report.

use serde::{Deserialize, Serialize};
use weir_shared::expr::{Field, Program};
use weir_shared::record::{Identity, StreamId};
use weir_shared::wire;

use super::alert::Template;
use super::evaluate::AlertKind;

/// How long a recovery is remembered at least, so that late readings begin no new episode, in ms of event time.
const CALM_KEPT_MS: i64 = 3_600_000;

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    High,
    Medium,
    Low,
}

impl Severity {
    /// Topic of its alerts alone.
    pub(crate) const fn topic(self) -> &'static str {
        match self {
            Self::High => wire::ALERTS_HIGH,
            Self::Medium => wire::ALERTS_MEDIUM,
            Self::Low => wire::ALERTS_LOW,
        }
    }

    pub(super) const ALL: [Self; 3] = [Self::High, Self::Medium, Self::Low];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// A compiled threshold.
pub(super) struct Threshold {
    pub(super) value: Program,
    pub(super) limits: Limits,
    pub(super) severity: Severity,
    pub(super) key: Field,
    /// Of the key, where it is not the device.
    pub(super) key_number: Option<u32>,
    pub(super) message: Template,
}

/// When an episode begins, is told, and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Whether more is too much; else less is too little.
    pub(super) above: bool,
    pub(super) limit: f64,
    pub(super) clear: Option<f64>,
    pub(super) for_ms: i64,
    pub(super) clear_for_ms: i64,
    pub(super) repeat_every_ms: i64,
    pub(super) quiet_ms: i64,
}

/// The state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum ThresholdState {
    Calm {
        last: i64,
    },
    Pending {
        last: i64,
        since: i64,
        #[serde(with = "identity")]
        begun: Identity,
        recovered: Option<i64>,
        suppressed: bool,
    },
    Active {
        last: i64,
        since: i64,
        #[serde(with = "identity")]
        begun: Identity,
        told: i64,
        repeat: u32,
        clearing: Option<i64>,
    },
}

impl ThresholdState {
    pub(crate) const fn last(&self) -> i64 {
        match self {
            Self::Calm { last } | Self::Pending { last, .. } | Self::Active { last, .. } => *last,
        }
    }
}

/// What a reading does to a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) state: Option<ThresholdState>,
    /// What is to be told: kind, since when, which reading began it.
    pub(super) told: Option<(AlertKind, i64, Identity)>,
    /// The reading is older than the state.
    pub(super) left_out: bool,
    /// This episode would have been told but for `quiet_ms`; once an episode.
    pub(super) suppressed: bool,
}

impl Limits {
    fn exceeds(&self, value: f64) -> bool {
        if self.above { value > self.limit } else { value < self.limit }
    }

    fn clears(&self, value: f64) -> bool {
        match self.clear {
            Some(clear) if self.above => value < clear,
            Some(clear) => value > clear,
            None => !self.exceeds(value),
        }
    }

    /// The next state.
    pub(super) fn step(&self, state: Option<ThresholdState>, time: i64, value: f64, id: Identity) -> Step {
        if state.is_some_and(|state| time < state.last()) {
            return Step { state, left_out: true, ..Step::default() };
        }
        match state {
            None if !self.exceeds(value) => Step::default(),
            None => self.pending(time, time, id, None, false),
            Some(ThresholdState::Calm { last }) if self.exceeds(value) => {
                self.pending(time, time, id, Some(last), false)
            }
            Some(ThresholdState::Calm { last }) => {
                let over = time.saturating_sub(last) >= self.quiet_ms.max(CALM_KEPT_MS);
                Step { state: if over { None } else { state }, ..Step::default() }
            }
            Some(ThresholdState::Pending { since, begun, recovered, suppressed, .. }) => {
                if self.exceeds(value) {
                    self.pending(time, since, begun, recovered, suppressed)
                } else {
                    let state = recovered.map(|last| ThresholdState::Calm { last });
                    Step { state, ..Step::default() }
                }
            }
            Some(ThresholdState::Active { since, begun, told, repeat, clearing, .. }) => {
                let active = |told, repeat, clearing| {
                    Some(ThresholdState::Active { last: time, since, begun, told, repeat, clearing })
                };
                let tell = |kind| Some((kind, since, begun));
                if self.clears(value) {
                    let from = clearing.unwrap_or(time);
                    if time.saturating_sub(from) >= self.clear_for_ms {
                        let state = Some(ThresholdState::Calm { last: time });
                        return Step { state, told: tell(AlertKind::Recovered), ..Step::default() };
                    }
                    return Step { state: active(told, repeat, Some(from)), ..Step::default() };
                }
                if self.repeat_every_ms > 0 && time.saturating_sub(told) >= self.repeat_every_ms {
                    let repeat = repeat.saturating_add(1);
                    let state = active(time, repeat, None);
                    return Step { state, told: tell(AlertKind::Repeat(repeat)), ..Step::default() };
                }
                Step { state: active(told, repeat, None), ..Step::default() }
            }
        }
    }

    /// Beyond the limit, not told so far.
    fn pending(
        &self,
        time: i64,
        since: i64,
        begun: Identity,
        recovered: Option<i64>,
        suppressed: bool,
    ) -> Step {
        let due = time.saturating_sub(since) >= self.for_ms;
        let quiet = recovered.is_some_and(|at| time.saturating_sub(at) < self.quiet_ms);
        if due && !quiet {
            let state =
                ThresholdState::Active { last: time, since, begun, told: time, repeat: 0, clearing: None };
            return Step {
                state: Some(state),
                told: Some((AlertKind::First, since, begun)),
                ..Step::default()
            };
        }
        let now = due && !suppressed;
        let suppressed = suppressed || due;
        let state = ThresholdState::Pending { last: time, since, begun, recovered, suppressed };
        Step { state: Some(state), suppressed: now, ..Step::default() }
    }
}

/// An identity as `["<32 hex>",partition,number]`.
mod identity {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::{Deserialize, Identity, Serialize, StreamId};

    pub(super) fn serialize<S: Serializer>(id: &Identity, serializer: S) -> Result<S::Ok, S::Error> {
        (id.stream.to_string(), id.partition, id.number).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
        let (stream, partition, number) = <(String, i32, u64)>::deserialize(deserializer)?;
        let stream = StreamId::from_hex(stream.as_bytes()).ok_or_else(|| D::Error::custom("no stream"))?;
        Ok(Identity { stream, partition, number })
    }
}

#[cfg(test)]
mod tests;
