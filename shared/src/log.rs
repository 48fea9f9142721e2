//! The log on standard error: one line per event, with time and level, filtered by `WEIR_LOG` (default `info`).
//!
//! On failure: a second call is ignored, a bad filter falls back to `info`.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// Asks and changes the filter of this process: the new one comes in, the one before goes out.
type Change = Box<dyn Fn(EnvFilter) -> Result<String, String> + Send + Sync>;

static FILTER: OnceLock<Change> = OnceLock::new();

/// Starts logging for this process.
pub fn init() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if builder.try_init().is_err() {
        tracing::debug!("logging was already started");
        return;
    }
    let change = move |filter| {
        let before = handle.with_current(ToString::to_string).map_err(|e| e.to_string())?;
        handle.reload(filter).map_err(|e| e.to_string())?;
        Ok(before)
    };
    let _first = FILTER.set(Box::new(change));
}

/// Changes the filter until the process ends; gives the one before.
///
/// # Errors
/// What is wrong with it.
pub fn set(filter: &str) -> Result<String, String> {
    let parsed = EnvFilter::try_new(filter).map_err(|e| format!("{filter:?} is no filter: {e}"))?;
    FILTER.get().map_or_else(|| Err("this process does not log".to_owned()), |change| change(parsed))
}
