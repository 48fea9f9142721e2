//! The log on standard error: one line per event, with time and level, filtered by `WEIR_LOG` (default `info`).
//!
//! On failure: a second call is ignored, a bad filter falls back to `info`.

use tracing_subscriber::EnvFilter;

/// Starts logging for this process.
pub fn init() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
}
