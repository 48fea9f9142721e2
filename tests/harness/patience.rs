//! Waiting for what comes in its own time: looked at again and again, and never longer than is said.

use std::time::Duration;

use weir_shared::clock::Deadline;

/// Looks so often until this holds; whether it did in time.
///
/// # Errors
/// The first of a look.
pub fn holds_within(
    patience: Duration,
    every: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    let deadline = Deadline::after(patience);
    loop {
        if holds()? {
            return Ok(true);
        }
        if deadline.passed() {
            return Ok(false);
        }
        std::thread::park_timeout(every.min(deadline.left()));
    }
}
