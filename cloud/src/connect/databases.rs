//! The databases of dimension tables and rules: whether each can be used as its follower would use it.
//!
//! On failure: a database that does not answer is one finding; its other checks are left out. What is refused is said in the
//! follower's own words.

use mysql_async::prelude::Queryable;

use weir_shared::doctor::Finding;

use super::grants;
use crate::database::Server;
use crate::process::join::{self, DimensionConfig, Probe};
use crate::rules::store::tables;

/// Rights of the whole server that following its binlog takes.
const FOLLOW: [&str; 2] = ["REPLICATION SLAVE", "REPLICATION CLIENT"];
/// Rights that processes and `weir-cloud rules` work with.
const RULES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
/// What the database of the rules is called here.
pub(super) const RULES_NAME: &str = "rules";

/// What a dimension is called here.
pub(super) fn name(config: &DimensionConfig) -> String {
    format!("dimension {}", config.name)
}

/// All of one dimension.
pub(super) async fn check(config: &DimensionConfig) -> Vec<Finding> {
    let (what, at) = (name(config), config.server.target());
    match join::probe(config).await {
        Ok(probe) => dimension(config, &what, &at, probe),
        Err(why) => {
            let way_out = "start the database, or mend the `url` of this dimension";
            vec![Finding::fail(what, format!("no connection to {at}: {why}"), way_out)]
        }
    }
}

fn dimension(config: &DimensionConfig, what: &str, at: &str, probe: Probe) -> Vec<Finding> {
    let mut found = vec![Finding::ok(what, format!("{at}, version {}", probe.version))];
    let table = format!("{what} table {}", config.table);
    found.push(match probe.table {
        Ok(columns) => {
            let key = config.key.join(", ");
            Finding::ok(table, format!("there, its key {key} is unique, {columns} columns shown"))
        }
        // The way out is part of it, but for the server's own words.
        Err(why) => {
            let way_out = if why.contains("denied") || why.contains("there is no table") {
                format!("make the table, or GRANT SELECT ON {} TO this user", config.quoted())
            } else {
                String::new()
            };
            Finding::fail(table, why, way_out)
        }
    });
    let Some(binlog) = probe.binlog else { return found };
    found.push(match binlog {
        Ok((file, offset)) => Finding::ok(format!("{what} binlog"), format!("ends at {file}:{offset}")),
        Err(why) => {
            let way_out =
                if why.contains("denied") { "GRANT REPLICATION CLIENT ON *.* TO this user" } else { "" };
            Finding::fail(format!("{what} binlog"), why, way_out)
        }
    });
    let missing = grants::missing(&probe.grants, None, &FOLLOW);
    found.push(if missing.is_empty() {
        Finding::ok(format!("{what} rights"), "to follow the binlog, as far as SHOW GRANTS shows them")
    } else {
        let missing = missing.join(", ");
        let way_out = format!("GRANT {missing} ON *.* TO this user, or set mode = \"poll\"");
        Finding::fail(format!("{what} rights"), format!("missing: {missing}"), way_out)
    });
    found
}

/// The database of the rules.
pub(super) async fn rules(server: &Server) -> Vec<Finding> {
    let at = server.target();
    let asked = async {
        let mut conn = tables::connect(server).await?;
        let version: Option<String> = tables::answer(conn.query_first("SELECT VERSION()")).await?;
        let lines: Vec<String> = tables::answer(conn.query("SHOW GRANTS")).await?;
        let checked = tables::check(&mut conn).await;
        tables::disconnect(conn).await;
        Ok::<_, tables::Failure>((version.unwrap_or_default(), lines, checked))
    };
    let (version, lines, checked) = match asked.await {
        Ok(all) => all,
        Err(why) => {
            let way_out = "start the database, or mend rules.url";
            return vec![Finding::fail(RULES_NAME, format!("no connection to {at}: {why}"), way_out)];
        }
    };
    let mut found = vec![Finding::ok(RULES_NAME, format!("{at}, version {version}"))];
    found.push(match checked {
        Ok(()) => Finding::ok("rules tables", "there, and fit"),
        // The way out is part of it.
        Err(why) => Finding::fail("rules tables", why.to_string(), ""),
    });
    let database = server.database().unwrap_or_default();
    let missing = grants::missing(&lines, Some(database), &RULES);
    found.push(if missing.is_empty() {
        Finding::ok("rules rights", "as far as SHOW GRANTS shows them")
    } else {
        let missing = missing.join(", ");
        let way_out = format!("GRANT {missing} ON `{database}`.* TO this user");
        Finding::fail("rules rights", format!("missing: {missing}"), way_out)
    });
    found
}
