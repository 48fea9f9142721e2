//! Claiming partitions: fence off whoever wrote them before, then read how far it came.
//!
//! Comes in: partitions that the consumer group gave us. Goes out: for each, the epoch under which we may write and
//! the offset to read from.
//! Guarantees: when this returns, no earlier connection can commit anything for these partitions: it was killed, its
//! transaction is over (its row lock was waited for), and its epoch no longer fits. Nothing is refused: the group
//! decides who owns a partition, the epoch only keeps the previous owner out. But a topic of another id than the progress
//! was made for is refused: its offsets mean other records.
//! On failure: nothing is claimed; the caller tries again on a new connection.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row};

use super::super::batch::Part;
use super::super::consumer::{Committed, Source};
use super::super::{Failure, SinkName};
use super::answer;
use crate::faults::is_broken;

const READ: &str = "SELECT topic_id, next_offset, owner_epoch, connection_id FROM weir_progress \
    WHERE sink = ? AND topic = ? AND `partition` = ?";
const ADD: &str = "INSERT INTO weir_progress \
    (sink, topic, `partition`, topic_id, next_offset, owner_epoch, connection_id) \
    VALUES (?, ?, ?, ?, ?, ?, CONNECTION_ID())";
const TAKE: &str = "UPDATE weir_progress SET topic_id = ?, owner_epoch = ?, connection_id = CONNECTION_ID() \
    WHERE sink = ? AND topic = ? AND `partition` = ?";
/// Ids start anew when the server does, so only a session of the same user on the same database is ended.
const ALIVE: &str = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = ? AND ID <> CONNECTION_ID() \
    AND USER = SUBSTRING_INDEX(USER(), '@', 1) AND DB = DATABASE()";

/// A partition that may be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) part: Part,
    pub(super) epoch: i64,
    pub(super) next_offset: i64,
}

/// A row of `weir_progress`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    /// Empty where it was never known.
    topic_id: String,
    next_offset: i64,
    owner_epoch: i64,
    connection_id: u64,
}

/// What to do with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    /// The first claim ever: begin at the group's first offset.
    Add(Claim),
    /// Raise the epoch.
    Take(Claim),
    /// Nobody says where to begin.
    NoStart,
    /// The topic was made anew.
    OtherTopic,
}

/// `topic_id`: what the topic has now; empty where the brokers know none.
fn decide(part: Part, progress: Option<Progress>, committed: Option<i64>, topic_id: &str) -> Decision {
    let other = |p: &Progress| ![p.topic_id.as_str(), topic_id].contains(&"") && p.topic_id != topic_id;
    match (progress, committed) {
        (Some(p), _) if other(&p) => Decision::OtherTopic,
        (Some(p), _) => Decision::Take(Claim { part, epoch: p.owner_epoch + 1, next_offset: p.next_offset }),
        (None, Some(next_offset)) => Decision::Add(Claim { part, epoch: 1, next_offset }),
        (None, None) => Decision::NoStart,
    }
}

/// Claims the partitions, in the order given (always the same order, so that two claimants cannot deadlock for long).
pub(super) async fn claim(
    connection: &mut Conn,
    source: &Source,
    parts: &[Part],
) -> Result<Vec<Claim>, Failure> {
    let mut old = Vec::new();
    let mut unknown = Vec::new();
    for &part in parts {
        match read(connection, part, "").await? {
            Some(progress) => old.push(progress.connection_id),
            None => unknown.push(part),
        }
    }
    old.sort_unstable();
    old.dedup();
    for id in old {
        end_session(connection, id).await?;
    }
    let committed = if unknown.is_empty() { Vec::new() } else { source.committed(&unknown)? };
    let ids = source.topic_ids(parts)?;
    answer(connection.query_drop("START TRANSACTION")).await?;
    let mut claims = Vec::with_capacity(parts.len());
    for &part in parts {
        let id = ids.iter().find(|(topic, _)| *topic == part.topic).map_or("", |(_, id)| id);
        claims.push(claim_one(connection, part, &committed, id).await?);
    }
    answer(connection.query_drop("COMMIT")).await?;
    Ok(claims)
}

async fn claim_one(
    connection: &mut Conn,
    part: Part,
    committed: &[Committed],
    topic_id: &str,
) -> Result<Claim, Failure> {
    let (sink, topic) = (SinkName::Mysql.group(), part.topic.name());
    // Waits for the lock of a transaction that is just ending.
    let progress = read(connection, part, " FOR UPDATE").await?;
    let start = committed.iter().find(|c| c.part == part).and_then(|c| c.offset);
    match decide(part, progress, start, topic_id) {
        Decision::Add(claim) => {
            let params =
                Params::from((sink, topic, part.partition, topic_id, claim.next_offset, claim.epoch));
            answer(connection.exec_drop(ADD, params)).await?;
            Ok(claim)
        }
        Decision::Take(claim) => {
            let params = Params::from((topic_id, claim.epoch, sink, topic, part.partition));
            answer(connection.exec_drop(TAKE, params)).await?;
            Ok(claim)
        }
        Decision::NoStart => {
            Err(Failure::Store(format!("{part}: no offset to begin at: run `weir-cloud init`")))
        }
        Decision::OtherTopic => Err(Failure::Store(format!(
            "{topic} was deleted and made again: its offsets are not those that weir_progress counts. To store the new \
             one from its beginning: DELETE FROM weir_progress WHERE sink = '{sink}' AND topic = '{topic}', then \
             `weir-cloud init`"
        ))),
    }
}

async fn read(connection: &mut Conn, part: Part, lock: &str) -> Result<Option<Progress>, Failure> {
    let params = Params::from((SinkName::Mysql.group(), part.topic.name(), part.partition));
    let row: Option<Row> = answer(connection.exec_first(format!("{READ}{lock}"), params)).await?;
    Ok(row.map(|row| {
        let (topic_id, next_offset, owner_epoch, connection_id) =
            mysql_async::from_row::<(String, i64, i64, u64)>(row);
        Progress { topic_id, next_offset, owner_epoch, connection_id }
    }))
}

async fn end_session(connection: &mut Conn, id: u64) -> Result<(), Failure> {
    let alive: Option<u64> = answer(connection.exec_first(ALIVE, (id,))).await?;
    if alive.unwrap_or(0) == 0 || is_broken("bad.mysql_ignore_fence") {
        return Ok(());
    }
    tracing::info!(connection = id, "ending the session that held the claim before");
    answer(async {
        match connection.query_drop(format!("KILL {id}")).await {
            // 1094: no such thread; it ended by itself.
            Err(mysql_async::Error::Server(error)) if error.code == 1094 => Ok(()),
            other => other,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::Topic;
    use super::*;

    const PART: Part = Part { topic: Topic::Enriched, partition: 3 };

    fn progress(topic_id: &str) -> Option<Progress> {
        Some(Progress { topic_id: topic_id.to_owned(), next_offset: 40, owner_epoch: 7, connection_id: 1 })
    }

    #[test]
    fn the_database_decides_where_to_begin_and_kafka_only_the_first_time() {
        let take = Decision::Take(Claim { part: PART, epoch: 8, next_offset: 40 });
        assert_eq!(decide(PART, progress("a"), Some(90), "a"), take);
        assert_eq!(decide(PART, progress("a"), None, "a"), take);
        let add = Decision::Add(Claim { part: PART, epoch: 1, next_offset: 12 });
        assert_eq!(decide(PART, None, Some(12), "a"), add);
        assert_eq!(decide(PART, None, None, "a"), Decision::NoStart);
    }

    #[test]
    fn a_topic_that_was_made_anew_is_refused_where_ids_are_known() {
        let take = Decision::Take(Claim { part: PART, epoch: 8, next_offset: 40 });
        assert_eq!(decide(PART, progress("a"), Some(0), "b"), Decision::OtherTopic);
        assert_eq!(decide(PART, progress(""), None, "b"), take);
        assert_eq!(decide(PART, progress("a"), None, ""), take);
    }
}
