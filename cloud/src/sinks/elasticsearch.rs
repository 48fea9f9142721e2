//! Elasticsearch 7: documents under deterministic ids, progress in Kafka.
//!
//! Comes in: a batch. Goes out: one bulk request with the records as they are (id: the identity; index: from the
//! event time), then the offsets, committed to Kafka and acknowledged.
//! Guarantees: a document is there once, however often it is sent: the same record always has the same id in the same
//! index; of a window result the highest revision stays. Progress moves only after every document is in or is a dead letter; dead letters and the progress behind
//! them are one Kafka transaction.
//! On failure: documents refused for a moment (429, 5xx) are sent again, only those; after [`RETRY`] the batch is given
//! up and read again. A document refused for what is in it becomes a dead letter. A reason that concerns the
//! whole store (rights, blocked or closed index, too many shards) makes no dead letters: the sink waits and says why.

mod bulk;
mod document;
pub(super) mod templates;
mod triage;
pub(super) mod witness;

use std::time::Duration;

use elasticsearch::Elasticsearch as Client;
use elasticsearch::auth::Credentials;
use elasticsearch::http::Url;
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use weir_shared::backoff::Backoff;
use weir_shared::clock::Deadline;
use weir_shared::supervise::{Error, Stop};

use super::Failure;
use super::batch::{Batch, Part, Record, Topic};
use super::config::ElasticsearchConfig;
use super::consumer::{Commit, Source};
use super::dead_letters::{DeadLetters, Letter};
use super::drive::Store;
use super::measures::{Count, Receipts, Stored};
use bulk::{Body, Item};
use document::Place;
use triage::Verdict;

use crate::faults::{is_broken, kill_at, kill_during};

/// How long documents that are refused for a moment are sent again before the batch is given up.
const RETRY: Duration = Duration::from_secs(30);
/// Each request.
const ANSWER: Duration = Duration::from_secs(30);

/// The sink's state.
pub(super) struct Elasticsearch {
    client: Client,
    place: Place,
    dead_letters: DeadLetters,
    body: Body,
}

impl Elasticsearch {
    pub(super) fn new(config: &ElasticsearchConfig, dead_letters: DeadLetters) -> Result<Self, Error> {
        Ok(Self { client: client(config)?, place: place(config), dead_letters, body: Body::default() })
    }
}

fn place(config: &ElasticsearchConfig) -> Place {
    Place {
        prefix: config.prefix.clone(),
        accepted_past_ms: config.accepted_past_ms,
        accepted_future_ms: config.accepted_future_ms,
    }
}

fn client(config: &ElasticsearchConfig) -> Result<Client, Error> {
    let pool = SingleNodeConnectionPool::new(Url::parse(&config.url)?);
    let mut builder = TransportBuilder::new(pool).disable_proxy().timeout(ANSWER);
    if !config.user.is_empty() {
        builder = builder.auth(Credentials::Basic(config.user.clone(), config.password.clone()));
    }
    let transport: Transport = builder.build()?;
    Ok(Client::new(transport))
}

impl Store for Elasticsearch {
    async fn positions(
        &mut self,
        source: &Source,
        parts: &[Part],
        _stop: &Stop,
    ) -> Result<Vec<(Part, i64)>, Failure> {
        templates::check(&self.client, &self.place.prefix).await?;
        let start = |part: Part, offset: Option<i64>| {
            let none = || Failure::Store(format!("{part}: no offset to begin at: run `weir-cloud init`"));
            offset.map(|offset| (part, offset)).ok_or_else(none)
        };
        source.committed(parts)?.into_iter().map(|c| start(c.part, c.offset)).collect()
    }

    async fn write(&mut self, source: &Source, batch: &Batch, stop: &Stop) -> Result<Stored, Failure> {
        let mut letters = Vec::new();
        let mut receipts = Receipts::default();
        let mut skipped = Count::default();
        self.body.clear();
        for record in batch.records() {
            match self.place.of(record, batch.value(record)) {
                Ok(None) => skipped.add(record.part.topic),
                Ok(Some(placed)) => {
                    if record.part.topic == Topic::Enriched {
                        receipts.add(placed.received);
                    }
                    self.body.add(*record, &placed, batch.value(record));
                }
                Err(error) => {
                    let (reason, detail) = (error.reason.to_owned(), error.detail);
                    letters.push(Letter { record: *record, reason, detail });
                }
            }
        }
        let end = |range: super::batch::Range| Commit {
            part: range.part,
            offset: range.end,
            metadata: String::new(),
        };
        let progress: Vec<_> = batch.ranges(|part| source.stored(part)).into_iter().map(end).collect();
        if is_broken("bad.es_progress_first") {
            source.commit(&progress)?;
        }
        kill_during("sink.l1");
        let sent_again = self.send_all(&mut letters, stop).await?;
        kill_at("sink.l2");
        if letters.is_empty() {
            source.commit(&progress)?;
        } else {
            self.dead_letters.send(batch, &letters, &progress, source)?;
        }
        kill_at("sink.l3");
        let dead_letters = Count::of(letters.iter().map(|letter| letter.record.part.topic));
        Ok(Stored { receipts, dead_letters, skipped, sent_again })
    }

    async fn idle(&mut self, _source: &Source) -> Result<(), Failure> {
        Ok(())
    }
}

impl Elasticsearch {
    /// Sends the body until each of its documents is in or has a letter: how many were sent again.
    ///
    /// What is refused for now goes again index by index: a server writes each index of a request by itself, at the same
    /// time, and one with a short queue has no room for many.
    async fn send_all(&self, letters: &mut Vec<Letter>, stop: &Stop) -> Result<u64, Failure> {
        let mut sent_again = 0;
        let deadline = Deadline::after(RETRY);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        let mut waiting = self.send(&self.body, letters).await?;
        while !waiting.is_empty() {
            let refused: usize = waiting.iter().map(|body| body.items().len()).sum();
            if deadline.passed() || stop.is_stopped() {
                return Err(Failure::Store(format!("{refused} documents refused for now (429 or 5xx)")));
            }
            tracing::warn!(refused, "documents refused for now; sending those again");
            tokio::time::sleep(backoff.wait().min(deadline.left())).await;
            let mut left = Vec::new();
            for body in waiting {
                sent_again += body.items().len() as u64;
                left.extend(self.send(&body, letters).await?);
            }
            if left.iter().map(|body| body.items().len()).sum::<usize>() < refused {
                backoff.reset();
            }
            waiting = left;
        }
        Ok(sent_again)
    }

    /// Sends a body once: what is to be sent again, if anything.
    async fn send(&self, body: &Body, letters: &mut Vec<Letter>) -> Result<Vec<Body>, Failure> {
        if body.items().is_empty() {
            return Ok(Vec::new());
        }
        let answer = bulk::send(&self.client, body).await?;
        Ok(body.by_index(&sort(body.items(), &answer, letters)?))
    }
}

/// Sorts the answers: those to send again come back, refused ones become letters.
fn sort(items: &[Item], answer: &bulk::Answer, letters: &mut Vec<Letter>) -> Result<Vec<usize>, Failure> {
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
            Verdict::Reject => letters.push(refusal(&item.record, answer)?),
        }
    }
    Ok(again)
}

fn refusal(record: &Record, answer: &bulk::ItemAnswer) -> Result<Letter, Failure> {
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
    let reason = answer.kind().to_owned();
    Ok(Letter { record: *record, reason, detail: answer.reason().to_owned() })
}
