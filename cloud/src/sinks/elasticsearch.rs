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
mod schema;
pub(super) mod templates;
mod triage;
pub(super) mod witness;

use std::time::Duration;

use elasticsearch::Elasticsearch as Client;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::Url;
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use weir_shared::supervise::{Error, Stop};
use weir_shared::tls::Renewals;

use super::batch::{Batch, Part, Record, Topic};
use super::config::ElasticsearchConfig;
use super::consumer::{Commit, Source};
use super::dead_letters::{DeadLetters, Letter, Letters};
use super::drive::Store;
use super::measures::{Count, Receipts, Stored};
use super::own::{self, Decoder, OwnTables, Target};
use super::{Failure, SinkName};
use bulk::Body;
use document::Place;
use flight::Flight;

use crate::faults::{is_broken, kill_at, kill_during};

/// Each request.
const ANSWER: Duration = Duration::from_secs(30);

/// The sink's state.
pub(super) struct Elasticsearch {
    config: ElasticsearchConfig,
    client: Client,
    renewals: Renewals,
    place: Place,
    dead_letters: DeadLetters,
    tables: OwnTables,
    /// One for each table of the user's own.
    decoders: Vec<Decoder>,
    body: Body,
    flight: Flight,
}

impl Elasticsearch {
    pub(super) fn new(
        config: &ElasticsearchConfig,
        dead_letters: DeadLetters,
        tables: OwnTables,
    ) -> Result<Self, Error> {
        let decoders = tables.in_store(SinkName::Elasticsearch).map(Decoder::new).collect();
        let (renewals, client) = (Renewals::of(&config.tls), client(config)?);
        let (place, flight, config) = (place(config), Flight::new(config, tables), config.clone());
        let body = Body::default();
        Ok(Self { config, client, renewals, place, dead_letters, tables, decoders, body, flight })
    }

    /// Speaks with the certificates that there are now.
    fn renew(&mut self) -> Result<(), Failure> {
        if self.renewals.came() {
            self.client = client(&self.config).map_err(|e| Failure::Store(e.to_string()))?;
        }
        Ok(())
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
    if let Some(ca) = &config.tls.ca_file {
        let pem = std::fs::read(ca).map_err(|e| format!("{}: {e}", ca.display()))?;
        builder = builder.cert_validation(CertificateValidation::Full(Certificate::from_pem(&pem)?));
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
        self.renew()?;
        templates::check(&self.client, &self.place.prefix, self.tables).await?;
        let start = |part: Part, offset: Option<i64>| {
            let none = || Failure::Store(format!("{part}: no offset to begin at: run `weir-cloud init`"));
            offset.map(|offset| (part, offset)).ok_or_else(none)
        };
        source.committed(parts)?.into_iter().map(|c| start(c.part, c.offset)).collect()
    }

    async fn write(&mut self, source: &Source, batch: &Batch, stop: &Stop) -> Result<Stored, Failure> {
        let mut letters = Letters::default();
        let mut receipts = Receipts::default();
        let mut skipped = Count::default();
        self.body.clear();
        for record in batch.records() {
            if !self.add(batch, record, &mut receipts, &mut letters) && !letters.has(record) {
                skipped.add(record.part.topic);
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
        kill_at("sink.l0");
        kill_during("sink.l1");
        let sent_again = self.flight.send_all(&self.client, &self.body, &mut letters, stop).await?;
        let letters = letters.into_list();
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
        self.renew()
    }
}

impl Elasticsearch {
    /// Adds the documents of a record to the body: whether there are any.
    fn add(
        &mut self,
        batch: &Batch,
        record: &Record,
        receipts: &mut Receipts,
        letters: &mut Letters,
    ) -> bool {
        let (json, topic) = (batch.value(record), record.part.topic);
        let mut is_document = false;
        if !matches!(topic, Topic::Routed(_)) {
            match self.place.of(record, json) {
                Ok(None) => {}
                Ok(Some(placed)) => {
                    if topic == Topic::Enriched {
                        receipts.add(placed.times);
                    }
                    self.body.add(*record, &placed, json);
                    is_document = true;
                }
                Err(error) => {
                    let (reason, detail) = (error.reason.to_owned(), error.detail);
                    let partly = self.tables.has(topic, SinkName::Elasticsearch);
                    let tables = vec![Target::Fixed(topic).name()];
                    letters.add(Letter { record: *record, reason, detail, tables, partly });
                }
            }
        }
        for decoder in self.decoders.iter_mut().filter(|decoder| decoder.table.topic == topic) {
            let own = decoder.table;
            match decoder.decode(json, SinkName::Elasticsearch) {
                Ok(None) => {}
                Ok(Some(row)) => {
                    let placed = self.place.of_own(own, record, &row);
                    self.body.add_own(*record, own, &placed, &document::document(own, &row));
                    is_document = true;
                }
                Err(error) => own::refuse_row(letters, own, record, &error),
            }
        }
        is_document
    }
}
