//! Elasticsearch and OpenSearch: documents under deterministic ids, progress in Kafka.
//!
//! Comes in: a batch. Goes out: bulk requests with the records as they are (id: the identity; index: from the
//! event time), some at the same time, then the offsets, committed to Kafka and acknowledged.
//! Guarantees: a document is there once, however often it is sent: the same record always has the same id in the same
//! index; of a window result the highest revision stays. Progress moves only after every document is in or is a dead letter; dead letters and the progress behind
//! them are one Kafka transaction.
//! On failure: documents refused for a moment (429, 5xx) are sent again, only those; after half a minute the batch is given
//! up and read again. A document refused for what is in it becomes a dead letter. A reason that concerns the
//! whole store (rights, blocked or closed index, too many shards) makes no dead letters: the sink waits and says why.

mod bulk;
mod document;
mod flight;
mod pace;
mod retention;
pub(super) mod templates;
mod triage;
pub(super) mod witness;

use std::time::Duration;

use elasticsearch::Elasticsearch as Client;
use elasticsearch::auth::Credentials;
use elasticsearch::http::Url;
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use weir_shared::supervise::{Error, Stop};

use super::Failure;
use super::batch::{Batch, Part, Topic};
use super::config::ElasticsearchConfig;
use super::consumer::{Commit, Source};
use super::dead_letters::{DeadLetters, Letter};
use super::drive::Store;
use super::measures::{Count, Receipts, Stored};
use bulk::Body;
use document::Place;
use flight::Flight;

use crate::faults::{is_broken, kill_at, kill_during};

/// Each request.
const ANSWER: Duration = Duration::from_secs(30);

/// The sink's state.
pub(super) struct Elasticsearch {
    client: Client,
    place: Place,
    dead_letters: DeadLetters,
    body: Body,
    flight: Flight,
}

impl Elasticsearch {
    pub(super) fn new(config: &ElasticsearchConfig, dead_letters: DeadLetters) -> Result<Self, Error> {
        let (client, flight) = (client(config)?, Flight::new(config));
        Ok(Self { client, place: place(config), dead_letters, body: Body::default(), flight })
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
        let sent_again = self.flight.send_all(&self.client, &self.body, &mut letters, stop).await?;
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
