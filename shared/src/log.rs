//! The log on standard error: one line per event, with time and level, filtered by `WEIR_LOG` (default `info`).
//!
//! On failure: a second call is ignored, a bad filter falls back to `info`.

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// Asks and changes the filter of this process: the new one comes in, the one before goes out.
type Change = Box<dyn Fn(EnvFilter) -> Result<String, String> + Send + Sync>;

/// Longest filter.
const FILTER_BYTES_MAX: usize = 2_000;

static FILTER: OnceLock<Change> = OnceLock::new();

/// Starts logging for this process.
pub fn init() {
    let wanted = std::env::var("WEIR_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = parsed(&wanted).unwrap_or_else(|_| with_audit(EnvFilter::new("info")));
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
    let parsed = parsed(filter)?;
    FILTER.get().map_or_else(|| Err("this process does not log".to_owned()), |change| change(parsed))
}

/// Without patterns of values: compiling a hostile one takes all memory.
fn parsed(filter: &str) -> Result<EnvFilter, String> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(format!("{} bytes are too many for a filter", filter.len()));
    }
    let parsed = EnvFilter::builder().with_regex(false).parse(filter);
    parsed.map(with_audit).map_err(|e| format!("{filter:?} is no filter: {e}"))
}

/// What the audit log says is always said here too.
fn with_audit(filter: EnvFilter) -> EnvFilter {
    filter.add_directive("weir_audit=info".parse().expect("a directive; a test reads it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_hides_the_audit_log_and_none_takes_all_memory() {
        for filter in ["off", "info", "error,weir_cloud=debug"] {
            assert!(parsed(filter).unwrap().to_string().contains("weir_audit=info"), "{filter}");
        }
        assert!(parsed("a=b=c").unwrap_err().contains("is no filter"));
        assert!(parsed(&"a,".repeat(FILTER_BYTES_MAX)).is_err());
        let began = crate::clock::instant();
        let _either = parsed(
            "[{x=(a|b)*a(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)}]",
        );
        assert!(crate::clock::since(began).as_secs() < 1);
    }
}
