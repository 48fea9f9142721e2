//! What stands in the tables, for people.
//!
//! Comes in: a connection. Goes out: rules with their versions, what processes report, the history. Times are UTC.
//! Guarantees: changes nothing. Only processes seen within [`LIVE_SECONDS`] count. On failure: the server's error.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde_json::Value;

use super::Failed;
use crate::rules::store::tables::{Failure, answer};

/// A process that was not seen for this long does not count.
pub(super) const LIVE_SECONDS: u64 = 30;

const LIST: &str = "SELECT n.id, n.newest, a.version, COALESCE(r.kind, ''), COALESCE(r.priority, 0), \
    COALESCE(a.author, r.author, ''), COALESCE(a.note, r.note, '') \
    FROM (SELECT x.id, MAX(x.version) AS newest FROM (SELECT id, version FROM weir_rules \
    UNION ALL SELECT id, 0 FROM weir_rules_active) x GROUP BY x.id) n \
    LEFT JOIN weir_rules_active a ON a.id = n.id \
    LEFT JOIN weir_rules r ON r.id = n.id AND r.version = COALESCE(a.version, n.newest) ORDER BY n.id";
const VERSIONS: &str = "SELECT version, kind, spec, priority, author, note, CAST(effective_at AS CHAR), \
    CAST(created_at AS CHAR) FROM weir_rules WHERE id = ? ORDER BY version";
const ACTIVE: &str =
    "SELECT version, author, note, CAST(changed_at AS CHAR) FROM weir_rules_active WHERE id = ?";
const REPORTS: &str = "SELECT s.id, s.version, s.slot, s.state, s.reason, CAST(s.since AS CHAR), \
    COALESCE(s.since >= a.changed_at, 0) FROM weir_rules_status s \
    JOIN weir_rules_processes p ON p.slot = s.slot \
    LEFT JOIN weir_rules_active a ON a.id = s.id AND a.version = s.version \
    WHERE p.seen_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND AND (? IS NULL OR s.id = ?) \
    ORDER BY s.id, s.version, s.slot";
const PROCESSES: &str = "SELECT slot FROM weir_rules_processes \
    WHERE seen_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND ORDER BY slot";
const BEFORE_OFF: &str = "SELECT version_before FROM weir_rules_changes \
    WHERE id = ? AND version_after IS NULL AND version_before IS NOT NULL ORDER BY number DESC LIMIT 1";
const MADE: &str = "SELECT CAST(created_at AS CHAR), id, version, author, note FROM weir_rules \
    WHERE ? IS NULL OR id = ? ORDER BY created_at, id, version";
const CHANGES: &str = "SELECT CAST(at AS CHAR), id, action, version_before, version_after, author, note \
    FROM weir_rules_changes WHERE ? IS NULL OR id = ? ORDER BY number";

/// A line of the list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) newest: u32,
    pub(super) active: Option<u32>,
    pub(super) kind: String,
    pub(super) priority: i32,
    pub(super) author: String,
    pub(super) note: String,
    /// What processes say of the active version.
    pub(super) reports: Vec<Report>,
}

/// A version of a rule.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) kind: String,
    pub(super) spec: Value,
    pub(super) priority: i32,
    pub(super) author: String,
    pub(super) note: String,
    pub(super) effective_at: Option<String>,
    pub(super) created_at: String,
}

/// Which version of a rule is wanted.
#[derive(Clone, Debug)]
pub(super) struct Active {
    /// `None`: it is off.
    pub(super) version: Option<u32>,
    pub(super) author: String,
    pub(super) note: String,
    pub(super) changed_at: String,
}

/// A rule with all its versions, of which there is at least one.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) versions: Vec<Version>,
    pub(super) active: Option<Active>,
}

/// What a process says of a version.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) slot: String,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) since: String,
    /// Whether it was said after the rule was last changed.
    pub(super) of_this: bool,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: String,
    pub(super) id: String,
    pub(super) what: What,
    pub(super) author: String,
    pub(super) note: String,
}

/// What it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A version was made.
    Made(u32),
    /// Another version became active.
    Changed { action: String, before: Option<u32>, after: Option<u32> },
}

impl Rule {
    pub(super) fn newest(&self) -> u32 {
        self.versions.iter().map(|v| v.version).max().unwrap_or(0)
    }

    pub(super) fn active_version(&self) -> Option<u32> {
        self.active.as_ref().and_then(|active| active.version)
    }

    pub(super) fn version(&self, version: u32) -> Result<&Version, Failed> {
        self.versions.iter().find(|v| v.version == version).ok_or_else(|| {
            let all = self.versions.iter().map(|v| v.version.to_string()).collect::<Vec<_>>().join(", ");
            Failed::Failed(format!("{} has no version {version}; there are {all}", self.id))
        })
    }

    /// Which version a rollback makes active.
    pub(super) fn below(&self, to: Option<u32>) -> Result<u32, Failed> {
        if let Some(to) = to {
            return self.version(to).map(|v| v.version);
        }
        let from = self.active_version().unwrap_or(u32::MAX);
        self.versions.iter().map(|v| v.version).filter(|v| *v < from).max().ok_or_else(|| {
            Failed::Failed(format!(
                "{} has no version below {from}; `rules disable {}` ends it",
                self.id, self.id
            ))
        })
    }

    /// Which two versions `diff` compares.
    pub(super) fn to_compare(&self, a: Option<u32>, b: Option<u32>) -> Result<(u32, u32), Failed> {
        let (active, newest) = (self.active_version(), self.newest());
        match (a, b) {
            (Some(a), Some(b)) => Ok((a, b)),
            (Some(a), None) => Ok((a, active.unwrap_or(newest))),
            (None, _) => match active {
                Some(active) if active != newest => Ok((active, newest)),
                _ => {
                    let before = self.versions.iter().map(|v| v.version).filter(|v| *v < newest).max();
                    let before = before
                        .ok_or_else(|| Failed::Failed(format!("{} has only version {newest}", self.id)))?;
                    Ok((before, newest))
                }
            },
        }
    }
}

/// All rules.
pub(super) async fn list(connection: &mut Conn) -> Result<Vec<Listed>, Failure> {
    let reports = reports(connection, None).await?;
    type Line = (String, u32, Option<u32>, String, i32, String, String);
    let lines: Vec<Line> = answer(connection.query(LIST)).await?;
    let listed = lines.into_iter().map(|(id, newest, active, kind, priority, author, note)| {
        let mine = reports.iter().filter(|r| r.id == id && Some(r.version) == active && r.of_this);
        let reports = mine.cloned().collect();
        Listed { id, newest, active, kind, priority, author, note, reports }
    });
    Ok(listed.collect())
}

/// One rule; `lock` is added to what is asked (` FOR UPDATE`).
pub(super) async fn rule(connection: &mut Conn, id: &str, lock: &str) -> Result<Option<Rule>, Failure> {
    type Active4 = (Option<u32>, String, String, String);
    let active: Option<Active4> = answer(connection.exec_first(format!("{ACTIVE}{lock}"), (id,))).await?;
    let active =
        active.map(|(version, author, note, changed_at)| Active { version, author, note, changed_at });
    type Row = (u32, String, String, i32, String, String, Option<String>, String);
    let rows: Vec<Row> = answer(connection.exec(format!("{VERSIONS}{lock}"), (id,))).await?;
    let mut versions = Vec::with_capacity(rows.len());
    for (version, kind, spec, priority, author, note, effective_at, created_at) in rows {
        // A spec that is not JSON can only stand where the server has no such type; it is shown as it is.
        let spec = serde_json::from_str(&spec).unwrap_or(Value::String(spec));
        let id = id.to_owned();
        versions.push(Version { id, version, kind, spec, priority, author, note, effective_at, created_at });
    }
    Ok((!versions.is_empty()).then(|| Rule { id: id.to_owned(), versions, active }))
}

/// What live processes report, of one rule or of all.
pub(super) async fn reports(connection: &mut Conn, id: Option<&str>) -> Result<Vec<Report>, Failure> {
    type Row = (String, u32, String, String, String, String, bool);
    let rows: Vec<Row> = answer(connection.exec(REPORTS, (LIVE_SECONDS, id, id))).await?;
    let report = |(id, version, slot, state, reason, since, of_this)| Report {
        id,
        version,
        slot,
        state,
        reason,
        since,
        of_this,
    };
    Ok(rows.into_iter().map(report).collect())
}

/// The slots of the live processes.
pub(super) async fn processes(connection: &mut Conn) -> Result<Vec<String>, Failure> {
    answer(connection.exec(PROCESSES, (LIVE_SECONDS,))).await
}

/// Which version a rule had before it was switched off.
pub(super) async fn before_off(connection: &mut Conn, id: &str) -> Result<Option<u32>, Failure> {
    answer(connection.exec_first(BEFORE_OFF, (id,))).await
}

/// Versions and changes, in the order of time.
pub(super) async fn history(connection: &mut Conn, id: Option<&str>) -> Result<Vec<Event>, Failure> {
    type Made = (String, String, u32, String, String);
    let made: Vec<Made> = answer(connection.exec(MADE, (id, id))).await?;
    type Changed = (String, String, String, Option<u32>, Option<u32>, String, String);
    let changes: Vec<Changed> = answer(connection.exec(CHANGES, (id, id))).await?;
    let made = made.into_iter().map(|(at, id, version, author, note)| Event {
        at,
        id,
        what: What::Made(version),
        author,
        note,
    });
    let changes = changes.into_iter().map(|(at, id, action, before, after, author, note)| Event {
        at,
        id,
        what: What::Changed { action, before, after },
        author,
        note,
    });
    let mut events: Vec<Event> = made.chain(changes).collect();
    // Stable: a version comes before the change that made it active.
    events.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(events)
}
