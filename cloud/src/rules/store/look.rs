//! What the tables say, and what we say in them.
//!
//! Comes in: a connection. Goes out: a [`Fingerprint`] that differs when anything that matters does; the [`Picture`]
//! behind it, read in one snapshot; rows of `weir_rules_sets`, `weir_rules_status` and `weir_rules_processes`.
//! Guarantees: content is compared, not only times: two changes within a millisecond, and those of an analyst who sets
//! no time, are seen. Whether a rule is due is asked of the server's clock, which is the same for all.
//! On failure: the error; nothing is half written, each statement stands alone.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};

use super::decide::{self, Force, Key, Rows, State, Wanted};
use super::tables::{Failure, answer};
use crate::rules::RuleRow;

/// 64 bits of MD5 of each active row with its content, combined whatever the order.
const FINGERPRINT: &str = "SELECT COUNT(*), CAST(COALESCE(BIT_XOR(CAST(CONV(LEFT(MD5(CONCAT_WS('/', \
    HEX(a.id), a.version, a.changed_at, HEX(r.kind), r.priority, r.effective_at, r.effective_at > UTC_TIMESTAMP(3), \
    MD5(r.spec))), 16), 16, 10) AS UNSIGNED)), 0) AS CHAR), \
    (SELECT COALESCE(MAX(number), 0) FROM weir_rules_sets) \
    FROM weir_rules_active a LEFT JOIN weir_rules r ON r.id = a.id AND r.version = a.version \
    WHERE a.version IS NOT NULL";
const WANTED: &str = "SELECT a.id, a.version, CAST(a.changed_at AS CHAR), CAST(r.effective_at AS CHAR), \
    COALESCE(r.effective_at <= UTC_TIMESTAMP(3), 1), r.kind, r.spec, r.priority \
    FROM weir_rules_active a LEFT JOIN weir_rules r ON r.id = a.id AND r.version = a.version \
    WHERE a.version IS NOT NULL ORDER BY a.id";
const AUTHORS: &str = "SELECT id, author FROM weir_rules_active";
const STORED: &str = "SELECT kind, spec, priority FROM weir_rules WHERE id = ? AND version = ?";
const LATEST: &str = "SELECT number, rules, hash, wanted FROM weir_rules_sets ORDER BY number DESC LIMIT 1";
const MINE: &str = "SELECT s.id, s.version, s.state, s.reason, COALESCE(s.since >= a.changed_at, 0) \
    FROM weir_rules_status s LEFT JOIN weir_rules_active a ON a.id = s.id AND a.version = s.version \
    WHERE s.slot = ?";
const ADD_SET: &str =
    "INSERT INTO weir_rules_sets (rules, hash, wanted, previous, slot) VALUES (?, ?, ?, ?, ?)";
const SAME_SET: &str = "UPDATE weir_rules_sets SET wanted = ? WHERE number = ? AND wanted = ?";
const SAY: &str = "REPLACE INTO weir_rules_status (id, slot, version, state, reason) VALUES (?, ?, ?, ?, ?)";
const UNSAY: &str = "DELETE FROM weir_rules_status WHERE id = ? AND slot = ? AND version = ?";
const HERE: &str = "REPLACE INTO weir_rules_processes (slot, number) VALUES (?, ?)";
/// A process that tripped a rule keeps it tripped when it is started again.
const GONE: [&str; 2] = [
    "DELETE FROM weir_rules_status WHERE slot = ? AND state <> 'tripped'",
    "DELETE FROM weir_rules_processes WHERE slot = ?",
];

/// Equal as long as nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) active: u64,
    pub(super) content: String,
    /// Latest row of `weir_rules_sets`.
    pub(super) number: u64,
}

/// The latest row of `weir_rules_sets`; all empty when there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    pub(super) number: u64,
    pub(super) force: Force,
    pub(super) hash: String,
    pub(super) wanted: String,
}

/// What this slot has said of a version.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) state: String,
    pub(super) reason: String,
    /// Whether it was said of the row of `weir_rules_active` as it stands.
    pub(super) of_this: bool,
}

/// All tables in one snapshot.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) wanted: Vec<Wanted>,
    /// The versions wanted and those in force.
    pub(super) rows: Rows,
    pub(super) latest: Latest,
    pub(super) mine: BTreeMap<Key, Said>,
}

/// The cheap look.
pub(super) async fn fingerprint(connection: &mut Conn) -> Result<Fingerprint, Failure> {
    let row: Option<(u64, String, u64)> = answer(connection.query_first(FINGERPRINT)).await?;
    let (active, content, number) = row.ok_or_else(|| Failure::Wrong("no answer".to_owned()))?;
    Ok(Fingerprint { active, content, number })
}

/// The whole look.
pub(super) async fn picture(connection: &mut Conn, slot: &str) -> Result<Picture, Failure> {
    answer(connection.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT")).await?;
    let picture = read(connection, slot).await;
    answer(connection.query_drop("COMMIT")).await?;
    picture
}

type WantedRow = (String, u32, String, Option<String>, bool, Option<String>, Option<String>, Option<i32>);

async fn read(connection: &mut Conn, slot: &str) -> Result<Picture, Failure> {
    let (mut wanted, mut rows) = (Vec::new(), Rows::new());
    let found: Vec<WantedRow> = answer(connection.query(WANTED)).await?;
    for (id, version, changed_at, effective_at, due, kind, spec, priority) in found {
        if let (Some(kind), Some(spec), Some(priority)) = (kind, spec, priority) {
            rows.insert(
                (id.clone(), version),
                RuleRow { id: id.clone(), version, kind, spec, priority, stands: false },
            );
        }
        wanted.push(Wanted { id, version, changed_at, effective_at, due });
    }
    let latest = latest(connection).await?;
    for (id, version) in &latest.force {
        let key = (id.clone(), *version);
        if !rows.contains_key(&key)
            && let Some((kind, spec, priority)) = answer(connection.exec_first(STORED, (id, version))).await?
        {
            rows.insert(
                key,
                RuleRow { id: id.clone(), version: *version, kind, spec, priority, stands: false },
            );
        }
    }
    let said: Vec<(String, u32, String, String, bool)> = answer(connection.exec(MINE, (slot,))).await?;
    let mine = said
        .into_iter()
        .map(|(id, version, state, reason, of_this)| ((id, version), Said { state, reason, of_this }))
        .collect();
    Ok(Picture { wanted, rows, latest, mine })
}

async fn latest(connection: &mut Conn) -> Result<Latest, Failure> {
    let row: Option<(u64, String, String, String)> = answer(connection.query_first(LATEST)).await?;
    let Some((number, rules, hash, wanted)) = row else { return Ok(Latest::default()) };
    let force = decide::from_json(&rules)
        .map_err(|e| Failure::Wrong(format!("weir_rules_sets.rules of number {number}: {e}")))?;
    Ok(Latest { number, force, hash, wanted })
}

/// Adds a set after `latest` and gives its number; `None` when another process was faster.
pub(super) async fn add_set(
    connection: &mut Conn,
    latest: &Latest,
    force: &Force,
    hashes: (&str, &str),
    slot: &str,
) -> Result<Option<u64>, Failure> {
    let params = Params::from((decide::to_json(force), hashes.0, hashes.1, latest.number, slot));
    match answer(connection.exec_drop(ADD_SET, params)).await {
        Ok(()) => Ok(connection.last_insert_id()),
        Err(failure) if failure.is_duplicate() => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Notes that `latest` is also the answer to what is wanted now; false when another process was faster.
pub(super) async fn same_set(
    connection: &mut Conn,
    latest: &Latest,
    hash_of_wanted: &str,
) -> Result<bool, Failure> {
    let params = (hash_of_wanted, latest.number, &latest.wanted);
    answer(connection.exec_drop(SAME_SET, params)).await?;
    Ok(connection.affected_rows() == 1)
}

/// Makes the rows of this slot say what is true; those that say it already keep their time.
pub(super) async fn say(
    connection: &mut Conn,
    slot: &str,
    mine: &BTreeMap<Key, Said>,
    verdicts: &BTreeMap<Key, (State, String)>,
) -> Result<(), Failure> {
    for ((id, version), (state, reason)) in verdicts {
        let said = mine.get(&(id.clone(), *version));
        if said.is_some_and(|said| said.of_this && said.state == state.word() && said.reason == *reason) {
            continue;
        }
        answer(connection.exec_drop(SAY, (id, slot, version, state.word(), reason))).await?;
    }
    for (id, version) in mine.keys().filter(|key| !verdicts.contains_key(*key)) {
        answer(connection.exec_drop(UNSAY, (id, slot, version))).await?;
    }
    Ok(())
}

/// Who is said to have changed each rule last.
pub(super) async fn authors(connection: &mut Conn) -> Result<BTreeMap<String, String>, Failure> {
    let authors: Vec<(String, String)> = answer(connection.query(AUTHORS)).await?;
    Ok(authors.into_iter().collect())
}

/// Says that this process is there, with the set it has in force.
pub(super) async fn here(connection: &mut Conn, slot: &str, number: u64) -> Result<(), Failure> {
    answer(connection.exec_drop(HERE, (slot, number))).await
}

/// Says that it is not any more.
pub(super) async fn gone(connection: &mut Conn, slot: &str) -> Result<(), Failure> {
    for statement in GONE {
        answer(connection.exec_drop(statement, (slot,))).await?;
    }
    Ok(())
}
