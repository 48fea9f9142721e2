//! ClickHouse: planned inserts, and asking what arrived.
//!
//! Comes in: a batch over any partitions. Goes out: for each partition first the plan (the end of the range,
//! committed to Kafka as metadata of its start), then one insert of one block per month, then the end as the new
//! offset, with the dead letters of the range in the same Kafka transaction if there are any.
//! Guarantees: a row is there once. What is sent again is the same range under the same token; only an owner of the
//! partition can write a plan or move on, because the group fences commits.
//! On failure (no answer, refused, killed): the plan stays open. Whoever owns the partition next ends the queries of
//! the plan, reads its range again, asks the table what arrived and sends what is missing, until nothing is.
//! An insert that the server refuses concerns the whole store: the sink waits and says why.
//! An older server (18.16) knows no tokens: there only asking keeps rows from doubling.

mod blocks;
mod columns;
mod fingerprint;
mod older;
mod plan;
mod rowbinary;
mod server;
pub(super) mod tables;
pub(super) mod witness;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use weir_shared::supervise::{Error, Stop};

use super::batch::{Batch, Part, Range, Topic};
use super::config::ClickhouseConfig;
use super::consumer::{Commit, Source};
use super::dead_letters::{DeadLetters, Letter};
use super::drive::Store;
use super::measures::{Count, Receipts, Stored};
use super::reread::Reread;
use super::{Failure, SinkName};
use blocks::{Block, Blocks, encode};
use fingerprint::fingerprint;
use plan::{Missing, Plan, missing};
use server::Server;
use tables::Tables;

use crate::faults::{is_broken, kill_at, kill_during};

/// How often a range is asked about and mended before the store gets a pause.
const ROUNDS_MAX: u32 = 3;
/// Between two such rounds.
const ROUND: Duration = Duration::from_millis(300);
/// On a server without tokens: what a sender that died had handed to its kernel has so long to show among the queries.
const SETTLED: Duration = Duration::from_secs(1);

/// The sink's state: none that matters; all is in Kafka and in the table.
pub(super) struct Clickhouse {
    server: Server,
    tables: Tables,
    dead_letters: DeadLetters,
    reread: Reread,
    /// Inserts run here, one at a time, while the next block is encoded.
    inserts: Runtime,
}

impl Clickhouse {
    pub(super) fn new(
        config: &ClickhouseConfig,
        dead_letters: DeadLetters,
        reread: Reread,
    ) -> Result<Self, Error> {
        let inserts = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clickhouse-inserts")
            .enable_all()
            .build()?;
        let (server, tables) = (Server::new(config)?, Tables::default());
        Ok(Self { server, tables, dead_letters, reread, inserts })
    }
}

impl Store for Clickhouse {
    async fn positions(
        &mut self,
        source: &Source,
        parts: &[Part],
        stop: &Stop,
    ) -> Result<Vec<(Part, i64)>, Failure> {
        self.tables = tables::check(&self.server).await?;
        self.server.learn_settings().await?;
        let (mut positions, mut starts, mut plans) =
            (Vec::with_capacity(parts.len()), Vec::new(), Vec::new());
        for committed in source.committed(parts)? {
            let part = committed.part;
            let start = committed.offset.ok_or_else(|| {
                Failure::Store(format!("{part}: no offset to begin at: run `weir-cloud init`"))
            })?;
            let plan = Plan::parse(part, start, &committed.metadata).map_err(|()| {
                let text = &committed.metadata;
                Failure::Store(format!("{part}: {text:?} committed at {start} is no plan of this version"))
            })?;
            positions.push((part, plan.map_or(start, |plan| plan.range.end)));
            match plan {
                None => starts.push((part, start)),
                Some(plan) => plans.push(plan),
            }
        }
        self.check_starts(&starts).await?;
        self.take_over(source, &plans, stop).await?;
        Ok(positions)
    }

    async fn write(&mut self, source: &Source, batch: &Batch, _stop: &Stop) -> Result<Stored, Failure> {
        let ranges = batch.ranges(|part| source.stored(part));
        let plans: Vec<Plan> = ranges.iter().map(|range| Plan::new(*range)).collect();
        let open = |p: &Plan| Commit { part: p.range.part, offset: p.range.start, metadata: p.text() };
        if !is_broken("bad.ch_no_plan") {
            source.commit(&plans.iter().map(open).collect::<Vec<_>>())?;
        }
        kill_at("sink.c1");
        let mut receipts = Receipts::default();
        let mut letters = Vec::new();
        let mut skipped = Count::default();
        // Dropped when anything fails, which ends the insert that is on its way.
        let mut on_its_way = JoinSet::new();
        for plan in &plans {
            let part = plan.range.part;
            let encoded = encode(batch, part, self.tables.format(part.topic), |_| true, &mut receipts);
            letters.extend(encoded.letters);
            skipped += encoded.skipped;
            for block in encoded.blocks {
                kill_during("sink.c2");
                arrived(&mut on_its_way).await?;
                on_its_way.spawn_on(self.send(plan, block), self.inserts.handle());
            }
        }
        arrived(&mut on_its_way).await?;
        kill_at("sink.c3");
        self.finish(source, batch, &letters, &ranges)?;
        kill_at("sink.c4");
        let dead_letters = Count::of(letters.iter().map(|letter| letter.record.part.topic));
        Ok(Stored { receipts, dead_letters, skipped, sent_again: 0 })
    }

    async fn idle(&mut self, _source: &Source) -> Result<(), Failure> {
        Ok(())
    }
}

/// Waits for the insert that is on its way, if any.
async fn arrived(on_its_way: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    match on_its_way.join_next().await {
        Some(Ok(inserted)) => inserted,
        Some(Err(error)) => Err(Failure::Store(format!("insert not awaited: {error}"))),
        None => Ok(()),
    }
}

impl Clickhouse {
    /// Offsets that the group has not reached yet and that stand in the table were lost by the group, or belong to
    /// another topic of the same name: going on would double rows.
    async fn check_starts(&self, starts: &[(Part, i64)]) -> Result<(), Failure> {
        for topic in Topic::ALL {
            let starts: Vec<(Part, i64)> =
                starts.iter().filter(|(part, _)| part.topic == topic).copied().collect();
            if starts.is_empty() {
                continue;
            }
            let beyond = self.server.beyond(topic, &starts).await?;
            let is_of = |(part, _): &&(Part, i64)| beyond.first().is_some_and(|(n, _)| part.partition == *n);
            let (Some((_, highest)), Some((part, start))) = (beyond.first(), starts.iter().find(is_of))
            else {
                continue;
            };
            let group = SinkName::Clickhouse.group();
            return Err(Failure::Store(format!(
                "{part}: the group {group} is to begin at {start}, but rows up to {highest} stand in the table. If the \
                 group lost its offsets, set this one to {}; if the topic was made anew, rename the old tables and run \
                 `weir-cloud init`",
                highest + 1
            )));
        }
        Ok(())
    }

    /// Sends a block as planned.
    fn send(&self, plan: &Plan, block: Block) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let token = plan.token(SinkName::Clickhouse.group(), block.month);
        let query_id = format!("{}{}", plan.query_prefix(&self.server.database), block.month);
        self.insert(plan, &token, &query_id, block.body)
    }

    /// Sends the rows of a block that did not arrive with the rest of it.
    async fn send_rest(&self, plan: &Plan, block: Block) -> Result<(), Failure> {
        let (first, rows) = (block.offsets.first().copied().unwrap_or(0), block.offsets.len());
        let rest = format!(
            "{}|rest|{first}|{rows}|{:016x}",
            block.month,
            fingerprint(block.offsets.iter().flat_map(|o| o.to_le_bytes()))
        );
        let token = format!("{}|{rest}", plan.token(SinkName::Clickhouse.group(), block.month));
        let query_id = format!("{}{rest}", plan.query_prefix(&self.server.database));
        self.insert(plan, &token, &query_id, block.body).await
    }

    fn insert(
        &self,
        plan: &Plan,
        token: &str,
        query_id: &str,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let topic = plan.range.part.topic;
        self.server.insert(topic, token, query_id, (self.tables.format(topic), body))
    }

    /// Brings open plans to their end, whoever began them: those that arrived whole together, with one question for each
    /// table, the others one after the other.
    async fn take_over(&mut self, source: &Source, plans: &[Plan], stop: &Stop) -> Result<(), Failure> {
        if plans.is_empty() {
            return Ok(());
        }
        for Plan { range, mapping } in plans {
            let Range { part, start, end } = *range;
            tracing::info!(%part, start, end, "open plan: asking what arrived");
            if *mapping != Plan::new(*range).mapping {
                tracing::warn!(%part, start, end, "planned with other columns; what is missing gets today's");
            }
        }
        if !self.server.has_tokens() {
            tokio::time::sleep(SETTLED).await;
        }
        let prefixes: Vec<_> = plans.iter().map(|plan| plan.query_prefix(&self.server.database)).collect();
        self.server.kill(&prefixes).await?;
        let ranges: Vec<Range> = plans.iter().map(|plan| plan.range).collect();
        let batch = self.reread.read(&ranges, stop)?;
        let arrived = self.server.arrived(&ranges).await?;
        kill_at("sink.r3");
        let (mut whole, mut letters, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            let encoded = self.encoded(&batch, plan.range.part);
            let nothing = BTreeSet::new();
            let arrived = arrived.get(&plan.range.part).unwrap_or(&nothing);
            if encoded.are_all_in(arrived) && !is_broken("bad.ch_no_asking") {
                let Range { part, start, end } = plan.range;
                tracing::info!(%part, start, end, rows = arrived.len(), "all of the plan arrived");
                whole.push(plan.range);
                letters.extend(encoded.letters);
            } else {
                open.push(plan);
            }
        }
        self.finish(source, &batch, &letters, &whole)?;
        for plan in open {
            self.mend(source, plan, &batch).await?;
        }
        Ok(())
    }

    /// The rows of a partition once more; they were counted when they were first sent.
    fn encoded(&self, batch: &Batch, part: Part) -> Blocks {
        encode(batch, part, self.tables.format(part.topic), |_| true, &mut Receipts::default())
    }

    /// Brings an open plan to its end, none of whose queries runs. Asks again: an insert may have come meanwhile.
    async fn mend(&mut self, source: &Source, plan: &Plan, batch: &Batch) -> Result<(), Failure> {
        let range = plan.range;
        let Range { part, start, end } = range;
        if !self.server.has_tokens() {
            self.server.kill(&[plan.query_prefix(&self.server.database)]).await?;
        }
        let mut arrived_before = None;
        for _ in 0..ROUNDS_MAX {
            let mut arrived = self.server.arrived(&[range]).await?.remove(&part).unwrap_or_default();
            kill_at("sink.r3");
            let forgets = is_broken("bad.ch_no_asking") && arrived_before.is_none();
            if forgets {
                arrived.clear();
            }
            let encoded = self.encoded(batch, part);
            if encoded.are_all_in(&arrived) {
                tracing::info!(%part, start, end, rows = arrived.len(), "all of the plan arrived");
                return self.finish(source, batch, &encoded.letters, &[range]);
            }
            if arrived_before.is_some() {
                tokio::time::sleep(ROUND).await;
            }
            // The token swallowed the same insert though its rows are gone: only another token brings them back. Where there
            // are several copies the one that answers may lag, and another token would double what the others have.
            let swallowed =
                arrived_before.as_ref() == Some(&arrived) && !self.tables.replicated.contains(&part.topic);
            for block in encoded.blocks {
                match missing(&block.offsets, &arrived) {
                    Missing::Nothing => {}
                    Missing::All if !swallowed && !forgets => self.send(plan, block).await?,
                    Missing::All => self.send_rest(plan, block).await?,
                    Missing::Some(offsets) => self.send_missing(plan, batch, &offsets, block.month).await?,
                }
            }
            arrived_before = Some(arrived);
        }
        Err(Failure::Store(format!(
            "{part}: rows of {start}..{end} are still missing after {ROUNDS_MAX} inserts"
        )))
    }

    async fn send_missing(
        &self,
        plan: &Plan,
        batch: &Batch,
        offsets: &BTreeSet<i64>,
        month: u32,
    ) -> Result<(), Failure> {
        let part = plan.range.part;
        tracing::warn!(%part, missing = offsets.len(), month, "only a part of an insert arrived");
        let format = self.tables.format(part.topic);
        let rest = encode(batch, part, format, |offset| offsets.contains(&offset), &mut Receipts::default());
        for block in rest.blocks {
            self.send_rest(plan, block).await?;
        }
        Ok(())
    }

    /// Closes plans: their ends become the committed offsets.
    fn finish(
        &mut self,
        source: &Source,
        batch: &Batch,
        letters: &[Letter],
        ranges: &[Range],
    ) -> Result<(), Failure> {
        if ranges.is_empty() {
            return Ok(());
        }
        let end = |r: &Range| Commit { part: r.part, offset: r.end, metadata: String::new() };
        let progress: Vec<Commit> = ranges.iter().map(end).collect();
        if letters.is_empty() {
            return source.commit(&progress);
        }
        self.dead_letters.send(batch, letters, &progress, source)
    }
}
