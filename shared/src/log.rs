//! The log on standard error: one line per event, with time and level, filtered by `WEIR_LOG` (default `info`).
//!
//! Guarantees: what the audit log says is said here too, whatever the filter is.
//! On failure: a second call is ignored, a bad filter falls back to `info`, and that is said.

use std::sync::OnceLock;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry, reload};

/// Asks and changes the filter of this process: the new one comes in, the one before goes out.
type Change = Box<dyn Fn(EnvFilter) -> Result<String, String> + Send + Sync>;

/// Longest filter.
const FILTER_BYTES_MAX: usize = 2_000;

static FILTER: OnceLock<Change> = OnceLock::new();

/// Starts logging for this process.
pub fn init() {
    let wanted = std::env::var("WEIR_LOG").unwrap_or_else(|_| "info".to_owned());
    let (filter, wrong) = match parsed(&wanted) {
        Ok(filter) => (filter, None),
        Err(why) => (EnvFilter::new("info"), Some(why)),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_filter(with_audit(filter));
    if registry().with(lines).try_init().is_err() {
        tracing::debug!("logging was already started");
        return;
    }
    if let Some(why) = wrong {
        tracing::warn!("WEIR_LOG: {why}; it is info now");
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
    if let Some(word) = filter.split(',').map(str::trim).find(|word| is_no_level(word)) {
        return Err(format!("{word:?} is no level: there are off, error, warn, info, debug and trace"));
    }
    let parsed = EnvFilter::builder().with_regex(false).parse(filter);
    parsed.map_err(|e| format!("{filter:?} is no filter: {e}"))
}

/// A word alone would be the name of a part of the program, of which all is logged, and of the rest nothing.
fn is_no_level(word: &str) -> bool {
    let is_level = !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_part =
        ["weir", "rdkafka", "rumqtt", "mysql", "hyper", "reqwest"].iter().any(|part| word.starts_with(part));
    !is_level && !is_part && !word.contains(['=', '[', ':'])
}

/// A directive in the filter itself could be outdone by a more special one.
fn with_audit<S: Subscriber>(filter: impl Filter<S>) -> impl Filter<S> {
    let audit = filter_fn(|event| event.target() == "weir_audit" && *event.level() <= Level::INFO);
    filter.or(audit.with_max_level_hint(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_filter_hides_the_audit_log() {
        for filter in
            ["off", "info", "error,weir_cloud=debug", "weir_audit=off", "info,weir_audit[{message}]=off"]
        {
            let said = Said::default();
            let writer = said.clone();
            let lines = fmt::layer()
                .with_writer(move || writer.clone())
                .with_filter(with_audit(parsed(filter).unwrap()));
            tracing::subscriber::with_default(registry().with(lines), || {
                tracing::info!(target: "weir_audit", "an entry");
                tracing::debug!("no entry");
            });
            let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
            assert!(said.contains("an entry") && !said.contains("no entry"), "{filter}: {said}");
        }
    }

    #[test]
    fn no_filter_takes_all_memory_and_no_typo_silences_all() {
        for typo in ["", "inof", "info,dbug"] {
            assert!(parsed(typo).unwrap_err().contains("is no level"), "{typo:?}");
        }
        assert!(parsed("info,rdkafka").is_ok() && parsed("WARN,tokio=debug").is_ok());
        assert!(parsed("a=b=c").unwrap_err().contains("is no filter"));
        assert!(parsed(&"a,".repeat(FILTER_BYTES_MAX)).is_err());
        let began = crate::clock::instant();
        let _either = parsed(
            "[{x=(a|b)*a(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)}]",
        );
        assert!(crate::clock::since(began).as_secs() < 1);
    }
}
