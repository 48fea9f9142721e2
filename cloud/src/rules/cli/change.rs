//! Changing what is active.
//!
//! Comes in: what is wanted, signed. Goes out: rows, and a sentence.
//! Guarantees: one transaction; who meets another one there tries again from the start, so that each decides on what
//! the other left. On failure: nothing is changed.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params};
use weir_shared::backoff::Backoff;

use super::Signed;
use crate::rules::store::tables::{Failure, answer};

/// How often a transaction that meets others is tried.
const TRIES_MAX: usize = 50;

const LOCK: &str = "SELECT version FROM weir_rules_active WHERE id = ? FOR UPDATE";
const SET: &str = "INSERT INTO weir_rules_active (id, version, author, note, changed_at) \
    VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP(3)) ON DUPLICATE KEY UPDATE version = VALUES(version), \
    author = VALUES(author), note = VALUES(note), changed_at = VALUES(changed_at)";
const NOTE: &str = "INSERT INTO weir_rules_changes (action, id, version_before, version_after, author, note) \
    VALUES (?, ?, ?, ?, ?, ?)";

/// Runs a transaction until it goes through or cannot.
pub(super) async fn transaction<T>(
    connection: &mut Conn,
    work: impl AsyncFn(&mut Conn) -> Result<(T, bool), Failure>,
) -> Result<T, Failure> {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    let mut tries = 0;
    loop {
        answer(connection.query_drop("START TRANSACTION")).await?;
        tries += 1;
        match work(connection).await {
            Ok((done, commit)) => {
                let end = if commit { "COMMIT" } else { "ROLLBACK" };
                answer(connection.query_drop(end)).await?;
                return Ok(done);
            }
            Err(failure) => {
                answer(connection.query_drop("ROLLBACK")).await?;
                if !failure.is_passing() || tries == TRIES_MAX {
                    return Err(failure);
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

/// Makes a version active (`None`: switches the rule off); gives the one before, and this one.
pub(super) async fn activate(
    connection: &mut Conn,
    action: &str,
    id: &str,
    version: Option<u32>,
    signed: &Signed,
) -> Result<(Option<u32>, Option<u32>), Failure> {
    let before = transaction(connection, async |connection| {
        let before: Option<Option<u32>> = answer(connection.exec_first(LOCK, (id,))).await?;
        let before = before.flatten();
        set(connection, (action, id), (before, version), signed).await?;
        Ok((before, true))
    })
    .await?;
    Ok((before, version))
}

/// In a sentence.
pub(super) fn told(id: &str, change: (Option<u32>, Option<u32>)) -> String {
    match change {
        (None, None) => format!("{id}: was off already"),
        (Some(before), None) => format!("{id}: version {before} → off"),
        (None, Some(after)) => format!("{id}: off → version {after}"),
        (Some(before), Some(after)) if before == after => {
            format!("{id}: version {after} again: where it was tripped, it comes back")
        }
        (Some(before), Some(after)) => format!("{id}: version {before} → version {after}"),
    }
}

/// Sets what is active, with the line in the log; within a transaction.
pub(super) async fn set(
    connection: &mut Conn,
    (action, id): (&str, &str),
    (before, after): (Option<u32>, Option<u32>),
    signed: &Signed,
) -> Result<(), Failure> {
    let params = Params::from((id, after, &signed.author, &signed.note));
    answer(connection.exec_drop(SET, params)).await?;
    let params = Params::from((action, id, before, after, &signed.author, &signed.note));
    answer(connection.exec_drop(NOTE, params)).await
}
