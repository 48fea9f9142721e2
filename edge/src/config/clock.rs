//! What is believed of the wall clock: the section `[clock]`.

use std::path::PathBuf;

use weir_shared::config::Section;
use weir_shared::timeline::Limits;

/// How the clock is judged.
#[derive(Clone, Debug)]
pub(crate) struct ClockConfig {
    /// What is believed, and when.
    pub limits: Limits,
    /// A file that exists once the clock is synchronised.
    pub synchronized_file: PathBuf,
}

pub(super) fn read(s: &Section<'_>) -> ClockConfig {
    let duration = |key| {
        let ms = super::duration_ms(s, key, 0..=86_400_000 * 365);
        std::time::Duration::from_millis(ms.unsigned_abs())
    };
    ClockConfig {
        limits: Limits {
            step_max: duration("step_max"),
            believe_after: duration("believe_after"),
            wait: duration("wait"),
            require_synchronized: s.boolean("require_synchronized"),
        },
        synchronized_file: PathBuf::from(s.string("synchronized_file")),
    }
}
