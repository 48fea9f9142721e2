//! A batch on its way: several bulk requests at a time until each document is in or has a letter.
//!
//! Comes in: the documents of a batch. Goes out: requests, at most so many at a time as [`Pace`] allows; the letters of what is
//! refused for good.
//! Guarantees: documents of one id go one after the other, in their order, but for those refused for now, which come later;
//! only these are sent again.
//! On failure: after [`RETRY`] of refusals, or when one request fails as a whole, the batch is given up; what else is on
//! its way may still arrive, and is the same again.

use std::collections::VecDeque;
use std::time::Duration;

use elasticsearch::Elasticsearch as Client;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use weir_shared::backoff::Backoff;
use weir_shared::clock::Deadline;
use weir_shared::supervise::Stop;

use super::super::batch::{Record, Topic};
use super::super::config::ElasticsearchConfig;
use super::super::dead_letters::{Letter, Letters};
use super::super::own::{self, OwnTables, Target};
use super::super::{Failure, SinkName};
use super::bulk::{self, Body, Item, Lane};
use super::pace::Pace;
use super::triage::{self, Verdict};
use crate::faults::is_broken;

/// How long documents that are refused for a moment are sent again before the batch is given up.
const RETRY: Duration = Duration::from_secs(30);
/// A request has at least this much to carry before another goes beside it.
const LANE_BYTES_LEAST: usize = 128 << 10;

/// How requests are sent.
#[derive(Debug)]
pub(super) struct Flight {
    compression: bool,
    bulk_bytes_max: usize,
    pace: Pace,
    tables: OwnTables,
}

impl Flight {
    pub(super) fn new(config: &ElasticsearchConfig, tables: OwnTables) -> Self {
        let pace = Pace::new(config.concurrency_max);
        Self { compression: config.compression, bulk_bytes_max: config.bulk_bytes_max, pace, tables }
    }

    /// Sends the documents until each of them is in or has a letter: how many were sent again.
    ///
    /// What is refused for now goes again index by index: a server writes each index of a request by itself, at the same
    /// time, and one with a short queue has no room for many.
    pub(super) async fn send_all(
        &mut self,
        client: &Client,
        body: &Body,
        letters: &mut Letters,
        stop: &Stop,
    ) -> Result<u64, Failure> {
        let mut sent_again = 0;
        let deadline = Deadline::after(RETRY);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        let lanes = (body.bytes().len() / LANE_BYTES_LEAST).clamp(1, self.pace.allowed());
        let mut waiting = self.send(client, body.lanes(lanes, self.bulk_bytes_max), letters).await?;
        while !waiting.items().is_empty() {
            let refused = waiting.items().len();
            if deadline.passed() || stop.is_stopped() {
                return Err(Failure::Store(format!("{refused} documents refused for now (429 or 5xx)")));
            }
            tracing::warn!(refused, "documents refused for now; sending those again");
            tokio::time::sleep(backoff.wait().min(deadline.left())).await;
            sent_again += refused as u64;
            waiting = self.send(client, waiting.lanes_by_index(self.bulk_bytes_max), letters).await?;
            if waiting.items().len() < refused {
                backoff.reset();
            }
        }
        Ok(sent_again)
    }

    /// Sends each request once: what is to be sent again.
    async fn send(
        &mut self,
        client: &Client,
        lanes: Vec<Lane>,
        letters: &mut Letters,
    ) -> Result<Body, Failure> {
        let compression = self.compression;
        let mut waiting = VecDeque::from(lanes);
        let (mut flying, mut refused) = (FuturesUnordered::new(), Body::default());
        loop {
            while flying.len() < self.pace.allowed()
                && let Some(mut lane) = waiting.pop_front()
            {
                let Some(body) = lane.pop_front() else { continue };
                let allowed = self.pace.allowed();
                flying.push(async move {
                    let answer = bulk::send(client, &body, compression).await;
                    (lane, body, allowed, answer)
                });
            }
            let Some((lane, body, allowed, answer)) = flying.next().await else { return Ok(refused) };
            if matches!(answer, Err(Failure::Late(_))) {
                self.pace.refused(allowed);
            }
            let again = sort(body.items(), &answer?, letters, self.tables)?;
            if again.is_empty() {
                self.pace.taken();
            } else {
                self.pace.refused(allowed);
            }
            again.iter().for_each(|at| refused.add_of(&body, &body.items()[*at]));
            waiting.push_back(lane);
        }
    }
}

/// Sorts the answers: those to send again come back, refused ones become letters.
fn sort(
    items: &[Item],
    answer: &bulk::Answer,
    letters: &mut Letters,
    tables: OwnTables,
) -> Result<Vec<usize>, Failure> {
    if answer.items.len() != items.len() {
        let (sent, got) = (items.len(), answer.items.len());
        return Err(Failure::Store(format!("{sent} documents sent, {got} answers")));
    }
    let mut again = Vec::new();
    for (index, (item, answer)) in items.iter().zip(&answer.items).enumerate() {
        match triage::verdict(item.versioned, answer.status, answer.kind(), answer.reason()) {
            Verdict::Stored => {}
            Verdict::Again if is_broken("bad.es_ignore_items") => {}
            Verdict::Again => again.push(index),
            Verdict::Store => {
                return Err(Failure::Store(format!(
                    "{}: {} {}",
                    answer.status,
                    answer.kind(),
                    answer.reason()
                )));
            }
            Verdict::Reject => match item.own {
                Some(own) => own::refuse(letters, own, &item.record, answer.kind(), answer.reason()),
                None => letters.add(refusal(&item.record, answer, tables)?),
            },
        }
    }
    Ok(again)
}

fn refusal(record: &Record, answer: &bulk::ItemAnswer, tables: OwnTables) -> Result<Letter, Failure> {
    if record.part.topic == Topic::Rejected {
        // A dead letter of a dead letter would go round for ever.
        return Err(Failure::Store(format!(
            "{} at {} is refused: {} {}",
            record.part,
            record.offset,
            answer.kind(),
            answer.reason()
        )));
    }
    let (reason, detail) = (answer.kind().to_owned(), answer.reason().to_owned());
    let partly = tables.has(record.part.topic, SinkName::Elasticsearch);
    let tables = vec![Target::Fixed(record.part.topic).name()];
    Ok(Letter { record: *record, reason, detail, tables, partly })
}
