//! How the untrusted times in the journal are to be read, shared by all who read it.
//!
//! Comes in: for each boot of the machine, once, what its monotonic clock means. Goes out: the time of a frame, and a
//! reading with its times mended. Guarantees: what was settled for a boot never changes, so a reading that is sent
//! twice is the same twice; only readings that took their time from the edge's clock get another one.
//! On failure: a boot of which nothing is known keeps the times it wrote, marked untrusted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use weir_shared::clock::Now;
use weir_shared::timeline::Mending;

/// What is known; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    settled: HashMap<u32, Mending>,
    waiting: Option<u32>,
}

impl Clocks {
    /// The times of this boot are not known yet, but will be.
    pub(crate) fn wait_for(&self, boot: u32) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = Some(boot).filter(|boot| !state.settled.contains_key(boot));
    }

    /// How the untrusted times of a boot are to be read; what came first counts.
    pub(crate) fn settle(&self, boot: u32, mending: Mending) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.settled.entry(boot).or_insert(mending);
        state.waiting = state.waiting.filter(|waiting| *waiting != boot);
    }

    /// The time of a frame of this boot; `None` when it is to be waited for.
    pub(crate) fn read(&self, boot: u32, arrived: &Now) -> Option<Now> {
        if arrived.trusted {
            return Some(*arrived);
        }
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.settled.get(&boot) {
            Some(mending) if mending.known => {
                let wall_ms = (arrived.mono_ns / 1_000_000).cast_signed() + mending.offset_ms;
                Some(Now { wall_ms, trusted: true, ..*arrived })
            }
            None if state.waiting == Some(boot) => None,
            _ => Some(*arrived),
        }
    }
}

/// The JSON of a reading that was written at `arrived`, as it is right at `mended`.
pub(crate) fn mend<'v>(value: &'v [u8], arrived: &Now, mended: &Now) -> Cow<'v, [u8]> {
    if arrived.wall_ms == mended.wall_ms && arrived.trusted == mended.trusted {
        return Cow::Borrowed(value);
    }
    let old = format!(",\"received\":{},\"clock\":\"untrusted\"}}", arrived.wall_ms);
    let Some(body) = value.strip_suffix(old.as_bytes()) else { return Cow::Borrowed(value) };
    let own_time = format!(",\"time\":{},\"values\":", arrived.wall_ms);
    let mut out = Vec::with_capacity(value.len() + 16);
    match find(body, own_time.as_bytes()) {
        Some(at) => {
            out.extend_from_slice(&body[..at]);
            out.extend_from_slice(format!(",\"time\":{},\"values\":", mended.wall_ms).as_bytes());
            out.extend_from_slice(&body[at + own_time.len()..]);
        }
        None => out.extend_from_slice(body),
    }
    out.extend_from_slice(format!(",\"received\":{},\"clock\":\"mended\"}}", mended.wall_ms).as_bytes());
    Cow::Owned(out)
}

/// Where the first `part` is. A device cannot hold it: its quotes would be escaped.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Now = Now { wall_ms: 9_000, mono_ns: 9_000_000_000, trusted: false };

    #[test]
    fn times_wait_are_mended_once_and_never_change() {
        let clocks = Clocks::default();
        assert_eq!(clocks.read(7, &OLD), Some(OLD), "of another boot");
        clocks.wait_for(7);
        assert_eq!(clocks.read(7, &OLD), None);
        clocks.settle(7, Mending { known: true, offset_ms: 1_000_000 });
        clocks.settle(7, Mending { known: true, offset_ms: 5 });
        let mended = Now { wall_ms: 1_009_000, trusted: true, ..OLD };
        assert_eq!(clocks.read(7, &OLD), Some(mended));
        clocks.wait_for(7);
        assert_eq!(clocks.read(7, &OLD), Some(mended));
        clocks.settle(8, Mending { known: false, offset_ms: 5 });
        assert_eq!(clocks.read(8, &OLD), Some(OLD));
    }

    #[test]
    fn only_its_own_times_are_mended() {
        let mended = Now { wall_ms: 1_009_000, trusted: true, ..OLD };
        let own = br#"{"device":"a","time":9000,"values":{"t":9000},"tags":{},"received":9000,"clock":"untrusted"}"#;
        let right = br#"{"device":"a","time":1009000,"values":{"t":9000},"tags":{},"received":1009000,"clock":"mended"}"#;
        assert_eq!(mend(own, &OLD, &mended), &right[..]);
        let device =
            br#"{"device":"a","time":77,"values":{"t":1},"tags":{},"received":9000,"clock":"untrusted"}"#;
        let right =
            br#"{"device":"a","time":77,"values":{"t":1},"tags":{},"received":1009000,"clock":"mended"}"#;
        assert_eq!(mend(device, &OLD, &mended), &right[..]);
        assert_eq!(mend(own, &OLD, &OLD), &own[..]);
    }
}
