//! Refused requests: counted, and written down, but not each of a flood.
//!
//! Guarantees: for each reason at most one entry in ten seconds goes into the audit log, with how many there were since the
//! one before: who knocks without end cannot fill a disk. Only the writing leaves the runtime, as it may wait for a disk.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::counter;

use super::access::Refusal;
use crate::audit::{Audit, Entry};
use crate::clock::Deadline;

/// Between two entries of one reason.
const EVERY: Duration = Duration::from_secs(10);

/// What was refused lately.
pub(super) struct Refusals {
    audit: Audit,
    /// By reason: when the next may be written, and how many came since.
    lately: Mutex<HashMap<&'static str, (Deadline, u64)>>,
}

impl Refusals {
    pub(super) fn new(audit: Audit) -> Self {
        for reason in ["no_token", "wrong_token", "role", "no_tokens", "host"] {
            counter!("weir_admin_refused_total", "reason" => reason).increment(0);
        }
        Self { audit, lately: Mutex::default() }
    }

    /// One more.
    pub(super) fn note(&self, refusal: &Refusal, peer: SocketAddr, what: &str) {
        let reason = refusal.reason();
        counter!("weir_admin_refused_total", "reason" => reason).increment(1);
        let more = {
            let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            match lately.get_mut(reason) {
                Some((next, more)) if !next.passed() => {
                    *more += 1;
                    return;
                }
                before => {
                    let more = before.map_or(0, |(_, more)| *more);
                    lately.insert(reason, (Deadline::after(EVERY), 0));
                    more
                }
            }
        };
        let (audit, refusal, what) = (self.audit.clone(), refusal.clone(), what.to_owned());
        drop(tokio::task::spawn_blocking(move || write(&audit, &refusal, peer, &what, more)));
    }
}

/// What was asked for is a word of the stranger's: it stands in the subject, where nobody looks for what was done.
fn write(audit: &Audit, refusal: &Refusal, peer: SocketAddr, what: &str, more: u64) {
    let (who, role) = match refusal {
        Refusal::Role { name, is, .. } => (name.as_str(), is.name()),
        _ => ("", ""),
    };
    let more = if more == 0 { String::new() } else { format!("; {more} more before, not written down") };
    let result = format!("refused: {refusal}{more}");
    let subject = format!("{what} from {}", peer.ip());
    let entry =
        Entry { who, role, action: "request", subject: &subject, result: &result, ..Entry::default() };
    // Refused either way.
    let _logged = audit.record(&entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_write_an_entry_of_another_kind() {
        let folder = std::env::temp_dir().join(format!("weir-refusals-{}", std::process::id()));
        let audit = Audit::new(Some(folder.clone()), "x");
        write(&audit, &Refusal::NoToken, SocketAddr::from(([10, 0, 0, 7], 1)), "settings", 0);
        assert_eq!(audit.last_of("settings"), None);
        let text = std::fs::read_to_string(folder.join("x.audit.jsonl")).unwrap();
        assert!(text.contains(r#""action":"request","subject":"settings from 10.0.0.7""#), "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
