//! Servers that refuse this program, and servers that it refuses: a wrong password, a certificate that nobody trusts or that has
//! ended.
//!
//! Comes in: what went wrong, by the name of who says so: every second what stands in the way of the program's work, and each
//! failed try at the databases of rules and dimensions. Goes out: an entry `login` in the audit log and one more in
//! `weir_logins_refused_total` when a server begins to refuse, and again each hour that it goes on. Guarantees: who is refused
//! again and again writes no more than that; other troubles write nothing. On failure: as [`Audit::record`], and again after a
//! minute.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use metrics::counter;

use super::{Audit, Entry};
use crate::clock::Deadline;

/// One that lasts is written down again.
const AGAIN: Duration = Duration::from_secs(3600);
/// Only who was well for so long begins anew: between two tries a reason may be another.
const WELL: Duration = Duration::from_secs(60);
/// What refusals say: of TLS, Kafka, MQTT, MySQL, Elasticsearch and ClickHouse.
const WORDS: [&str; 13] = [
    "certificate verify failed",
    "certificate expired",
    "certificate required",
    "ssl/tls alert",
    "sslv3 alert",
    "tlsv1 alert",
    "tlsv13 alert",
    "uthentication fail",
    "Access denied",
    "security_exception",
    "AUTHENTICATION_FAILED",
    "NotAuthorized",
    "BadUserNamePassword",
];

/// Who is refused, and since when that is known.
#[derive(Default)]
pub(super) struct Logins {
    refused: BTreeMap<String, Refused>,
}

struct Refused {
    /// When it counts as well, unless it is seen refused before.
    well: Deadline,
    again: Deadline,
}

/// Whether this is a matter of passwords and certificates.
fn is_refusal(why: &str) -> bool {
    WORDS.iter().any(|word| why.contains(word))
}

impl Audit {
    /// Counts and writes down those among these troubles that are refused logins, where that is due. Does not wait for the disk;
    /// call it in a tokio runtime.
    pub fn note_logins(&self, troubles: &[(String, String)]) {
        let refused = self.logins().look(troubles);
        if refused.is_empty() {
            return;
        }
        for (who, _) in &refused {
            counter!("weir_logins_refused_total", "peer" => who.clone()).increment(1);
        }
        let audit = self.clone();
        drop(tokio::task::spawn_blocking(move || audit.write_logins(&refused)));
    }

    fn write_logins(&self, refused: &[(String, String)]) {
        let results: Vec<String> = refused.iter().map(|(_, why)| format!("refused: {why}")).collect();
        let entries: Vec<Entry<'_>> = refused
            .iter()
            .zip(&results)
            .map(|((who, _), result)| Entry { action: "login", subject: who, result, ..Entry::default() })
            .collect();
        if self.record_all(&entries).is_err() {
            self.logins().tell_sooner(refused);
        }
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.0.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logins {
    /// Those that are to be written down now.
    fn look(&mut self, troubles: &[(String, String)]) -> Vec<(String, String)> {
        self.refused.retain(|_, refused| !refused.well.passed());
        troubles.iter().filter(|(who, why)| is_refusal(why) && self.is_due(who)).cloned().collect()
    }

    fn is_due(&mut self, who: &str) -> bool {
        let again = match self.refused.get(who) {
            Some(refused) if !refused.again.passed() => Some(refused.again),
            _ => None,
        };
        let refused = Refused { well: Deadline::after(WELL), again: again.unwrap_or(Deadline::after(AGAIN)) };
        self.refused.insert(who.to_owned(), refused);
        again.is_none()
    }

    /// These could not be written down.
    fn tell_sooner(&mut self, refused: &[(String, String)]) {
        for (who, _) in refused {
            if let Some(refused) = self.refused.get_mut(who) {
                refused.again = Deadline::after(WELL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_when_it_begins_and_other_troubles_never() {
        let mut logins = Logins::default();
        let at = |why: &str| vec![("kafka".to_owned(), why.to_owned())];
        for other in [
            "no partitions assigned",
            "certificates were renewed",
            "Connection refused (os error 111)",
            "the alert too-hot is longer than the column",
        ] {
            assert!(logins.look(&at(other)).is_empty(), "{other}");
        }
        let sasl = "SASL authentication error: Authentication failed during authentication due to invalid credentials";
        assert_eq!(logins.look(&at(sasl)), at(sasl));
        assert!(logins.look(&at("ssl/tls alert certificate expired")).is_empty(), "it goes on");
        assert!(logins.look(&[]).is_empty());
        assert!(logins.look(&at(sasl)).is_empty(), "it was well for a moment only");
        let mysql = vec![(
            "sink.mysql".to_owned(),
            "ERROR 28000 (1045): Access denied for user 'weir'@'::1'".to_owned(),
        )];
        assert_eq!(logins.look(&mysql), mysql);
    }
}
