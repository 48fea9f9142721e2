//! The stores: whether each answers, and has the tables and templates that its sink asks for at start.
//!
//! On failure: a store that does not answer is one finding. The checks of the tables are the sinks' own.

use weir_shared::doctor::Finding;

use super::{answered, grants};
use crate::sinks::config::SinksConfig;
use crate::sinks::{self, SinkName};

/// Rights that the MySQL sink works with.
const WRITE: [&str; 3] = ["SELECT", "INSERT", "UPDATE"];

/// What a store is called here.
pub(super) fn name(which: SinkName) -> String {
    format!("sink {}", which.name())
}

/// The stores that are configured.
pub(super) fn enabled(config: &SinksConfig) -> Vec<SinkName> {
    SinkName::ALL.into_iter().filter(|which| config.has(*which)).collect()
}

/// All of one store.
pub(super) async fn check(config: &SinksConfig, which: SinkName) -> Vec<Finding> {
    let what = name(which);
    let probe = match answered(sinks::probe(config, which)).await {
        Ok(probe) => probe,
        Err(why) => {
            return vec![Finding::fail(
                what,
                why,
                format!("start the store, or mend [sink.{}]", which.name()),
            )];
        }
    };
    let mut found = vec![Finding::ok(&what, format!("{}, version {}", probe.at, probe.version))];
    let tables = format!("{what} tables");
    found.push(match probe.tables {
        Ok(()) => Finding::ok(tables, "there, and fit"),
        Err(why) => {
            let names_it =
                ["weir-cloud init", "ALTER TABLE", "deploy/", "PUT /"].iter().any(|way| why.contains(way));
            Finding::fail(tables, why, if names_it { "" } else { "run `weir-cloud init`" })
        }
    });
    if let Some((database, lines)) = probe.grants {
        let missing = grants::missing(&lines, Some(&database), &WRITE);
        found.push(if missing.is_empty() {
            Finding::ok(format!("{what} rights"), "as far as SHOW GRANTS shows them")
        } else {
            let missing = missing.join(", ");
            let way_out = format!("GRANT {missing} ON `{database}`.* TO this user");
            Finding::fail(format!("{what} rights"), format!("missing: {missing}"), way_out)
        });
    }
    found
}
