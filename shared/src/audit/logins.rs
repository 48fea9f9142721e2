//! Servers that refuse this program, and servers that it refuses: a wrong password, a certificate that nobody trusts or that has
//! ended.
//!
//! Comes in: what stands in the way of the program's work, by the name of who says so, every second. Goes out: an entry `login`
//! in the audit log and one more in `weir_logins_refused_total` when a server begins to refuse, and again each hour that it
//! goes on. Guarantees: who is refused again and again writes no more than that. On failure: as [`Audit::record`].

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::counter;

use super::{Audit, Entry};
use crate::clock::Deadline;

/// One that lasts is written down again.
const AGAIN: Duration = Duration::from_secs(3600);
/// Only who was well for so long begins anew: between two tries a reason may be another.
const WELL: Duration = Duration::from_secs(60);
/// What refusals say: of TLS, Kafka, MQTT, MySQL, Elasticsearch and ClickHouse.
const WORDS: [&str; 10] = [
    "certificate verify failed",
    "certificate expired",
    "certificate required",
    " alert ",
    "uthentication fail",
    "Access denied",
    "security_exception",
    "AUTHENTICATION_FAILED",
    "NotAuthorized",
    "BadUserNamePassword",
];

/// Who is refused, and since when that is known.
#[derive(Default)]
pub(crate) struct Logins {
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

impl Logins {
    /// Those that are to be written down now.
    pub(crate) fn look(&mut self, reasons: Vec<(String, String)>) -> Vec<(String, String)> {
        self.refused.retain(|_, refused| !refused.well.passed());
        reasons.into_iter().filter(|(who, why)| is_refusal(why) && self.is_due(who)).collect()
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
}

/// Counts them and writes them down; may wait for a disk.
pub(crate) fn write(audit: &Audit, refused: &[(String, String)]) {
    let results: Vec<String> = refused.iter().map(|(_, why)| format!("refused: {why}")).collect();
    let entries: Vec<Entry<'_>> = refused
        .iter()
        .zip(&results)
        .map(|((who, _), result)| {
            counter!("weir_logins_refused_total", "peer" => who.clone()).increment(1);
            Entry { action: "login", subject: who, result, ..Entry::default() }
        })
        .collect();
    // Refused either way.
    let _logged = audit.record_all(&entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_when_it_begins_and_other_troubles_never() {
        let mut logins = Logins::default();
        let at = |why: &str| vec![("kafka".to_owned(), why.to_owned())];
        for other in
            ["no partitions assigned", "certificates were renewed", "Connection refused (os error 111)"]
        {
            assert!(logins.look(at(other)).is_empty(), "{other}");
        }
        let sasl = "SASL authentication error: Authentication failed during authentication due to invalid credentials";
        assert_eq!(logins.look(at(sasl)), at(sasl));
        assert!(logins.look(at("ssl/tls alert certificate expired")).is_empty(), "it goes on");
        assert!(logins.look(Vec::new()).is_empty());
        assert!(logins.look(at(sasl)).is_empty(), "it was well for a moment only");
        let mysql = vec![(
            "sink.mysql".to_owned(),
            "ERROR 28000 (1045): Access denied for user 'weir'@'::1'".to_owned(),
        )];
        assert_eq!(logins.look(mysql.clone()), mysql);
    }
}
