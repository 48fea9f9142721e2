//! How long certificates are valid: a metric, and a warning in time.
//!
//! Comes in: what is spoken to with TLS. Goes out: `…_tls_not_after_seconds{peer}`, when the first certificate of a peer ends
//! (seconds since 1970), and a line in the log each day from two weeks before on. Files are read again each minute.
//! On failure: files that cannot be used change nothing; the connection, and whoever waits for renewed ones, say why.

use std::time::Duration;

use metrics::gauge;

use super::Tls;
use crate::clock::{self, Deadline};
use crate::supervise::{Error, Stop};

const LOOK: Duration = Duration::from_secs(60);
const WARN_SECONDS: i64 = 14 * DAY_SECONDS;
const WARN_EVERY: Duration = Duration::from_secs(86_400);
const DAY_SECONDS: i64 = 86_400;

/// Runs until told to stop. `metric` is the gauge's name.
///
/// # Errors
/// None: it has the shape that a supervisor wants.
pub fn watch(metric: &'static str, peers: &[(String, Tls)], stop: &Stop) -> Result<(), Error> {
    let mut warn = Deadline::after(Duration::ZERO);
    loop {
        let warns = warn.passed();
        for (peer, tls) in peers {
            // With files that cannot be used, those before are: their end stays the figure.
            let Some(not_after) = tls.is_usable().then(|| tls.not_after()).flatten() else { continue };
            gauge!(metric, "peer" => peer.clone()).set(not_after as f64);
            let left = not_after - clock::wall_ms() / 1000;
            if warns && left < WARN_SECONDS {
                warn = Deadline::after(WARN_EVERY);
                tracing::warn!(peer, "{}", left_in_words(left));
            }
        }
        if stop.wait_for(LOOK) {
            return Ok(());
        }
    }
}

fn left_in_words(left: i64) -> String {
    match left {
        ..0 => format!("a certificate ended {} days ago: renew it", -left / DAY_SECONDS),
        _ => format!("a certificate ends in {} days: renew it", left / DAY_SECONDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_how_long() {
        assert_eq!(left_in_words(3 * DAY_SECONDS + 5), "a certificate ends in 3 days: renew it");
        assert_eq!(left_in_words(-2 * DAY_SECONDS), "a certificate ended 2 days ago: renew it");
    }
}
