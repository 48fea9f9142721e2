//! ClickHouse: planned inserts, and asking what arrived.
//!
//! Comes in: a batch over any partitions. Goes out: for each partition first the plan (the end of the range,
//! committed to Kafka as metadata of its start), then one insert of one block per table and month, then the end as the new
//! offset, with the dead letters of the range in the same Kafka transaction if there are any.
//! Guarantees: a row is there once. What is sent again is the same range under the same token; only an owner of the
//! partition can write a plan or move on, because the group fences commits.
//! On failure (no answer, refused, killed): the plan stays open. Whoever owns the partition next ends the queries of
//! the plan, reads its range again, asks the table what arrived and sends what is missing, until nothing is.
//! A table that keeps the latest row of each key is not asked, as merges take rows away: it gets all rows of an open plan
//! once more, which changes nothing.
//! An insert that the server refuses concerns the whole store: the sink waits and says why.
//! An older server (18.16) knows no tokens: there only asking keeps rows from doubling.

mod blocks;
mod columns;
mod fingerprint;
mod inserts;
mod older;
mod plan;
mod rowbinary;
mod schema;
mod server;
pub(super) mod tables;
pub(super) mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use weir_shared::supervise::{Error, Stop};

use super::batch::{Batch, Part, Range, Topic};
use super::config::ClickhouseConfig;
use super::consumer::{Commit, Source};
use super::dead_letters::{DeadLetters, Letter};
use super::drive::Store;
use super::measures::{Count, Receipts, Stored};
use super::own::{OwnTables, Target};
use super::reread::Reread;
use super::{Failure, SinkName};
use blocks::{Arrived, Block, Blocks, Format, encode};
use fingerprint::fingerprint;
use inserts::Inserts;
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
    own: OwnTables,
    tables: Tables,
    dead_letters: DeadLetters,
    reread: Reread,
    /// Inserts run here while the next block is encoded.
    inserts: Runtime,
}

impl Clickhouse {
    pub(super) fn new(
        config: &ClickhouseConfig,
        dead_letters: DeadLetters,
        reread: Reread,
        own: OwnTables,
    ) -> Result<Self, Error> {
        let inserts = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("clickhouse-inserts")
            .enable_all()
            .build()?;
        let (server, tables) = (Server::new(config)?, Tables::default());
        Ok(Self { server, own, tables, dead_letters, reread, inserts })
    }
}

impl Store for Clickhouse {
    async fn positions(
        &mut self,
        source: &Source,
        parts: &[Part],
        stop: &Stop,
    ) -> Result<Vec<(Part, i64)>, Failure> {
        self.server.renew()?;
        self.tables = tables::check(&self.server, self.own).await?;
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
        let plans: Vec<Plan> = ranges.iter().map(|range| Plan::new(*range, self.own)).collect();
        let open = |p: &Plan| Commit { part: p.range.part, offset: p.range.start, metadata: p.text() };
        if !is_broken("bad.ch_no_plan") {
            source.commit(&plans.iter().map(open).collect::<Vec<_>>())?;
        }
        kill_at("sink.c1");
        let mut receipts = Receipts::default();
        let mut letters = Vec::new();
        let mut skipped = Count::default();
        let mut inserts = Inserts::on(self.inserts.handle());
        for plan in &plans {
            let part = plan.range.part;
            let encoded = encode(batch, part, &self.targets(part.topic), |_| true, &mut receipts);
            letters.extend(encoded.letters.into_list());
            skipped += encoded.skipped;
            for block in encoded.blocks {
                kill_during("sink.c2");
                inserts.push(block.body.len(), self.send(plan, block)).await?;
            }
        }
        inserts.arrive().await?;
        kill_at("sink.c3");
        self.finish(source, batch, &letters, &ranges)?;
        kill_at("sink.c4");
        let dead_letters = Count::of(letters.iter().map(|letter| letter.record.part.topic));
        Ok(Stored { receipts, dead_letters, skipped, sent_again: 0 })
    }

    async fn idle(&mut self, _source: &Source) -> Result<(), Failure> {
        self.server.renew()
    }
}

impl Clickhouse {
    /// The tables that records of a topic go to.
    fn targets(&self, topic: Topic) -> Vec<(Target, Format)> {
        let targets = self.own.targets(topic, SinkName::Clickhouse);
        targets.map(|target| (target, self.tables.format(target))).collect()
    }

    /// Those of them that keep every row.
    fn kept(&self, topic: Topic) -> impl Iterator<Item = Target> + use<> {
        self.own.targets(topic, SinkName::Clickhouse).filter(|target| !target.is_latest())
    }

    /// Offsets that the group has not reached yet and that stand in the table were lost by the group, or belong to
    /// another topic of the same name: going on would double rows.
    async fn check_starts(&self, starts: &[(Part, i64)]) -> Result<(), Failure> {
        for topic in self.own.topics(SinkName::Clickhouse) {
            let starts: Vec<(Part, i64)> =
                starts.iter().filter(|(part, _)| part.topic == topic).copied().collect();
            if starts.is_empty() {
                continue;
            }
            // The highest of each partition, and its table.
            let mut beyond: BTreeMap<i32, (i64, &str)> = BTreeMap::new();
            for target in self.kept(topic) {
                for (partition, highest) in self.server.beyond(target, &starts).await? {
                    let found = beyond.entry(partition).or_default();
                    *found = (*found).max((highest, target.name()));
                }
            }
            let found = |(part, start): &(Part, i64)| Some((*part, *start, beyond.get(&part.partition)?));
            let Some((part, start, (highest, table))) = starts.iter().find_map(found) else { continue };
            let group = SinkName::Clickhouse.group();
            return Err(Failure::Store(format!(
                "{part}: the group {group} is to begin at {start}, but rows up to {highest} stand in {table}. If the \
                 group lost its offsets, set this one to {}; if the topic was made anew, rename the old tables and run \
                 `weir-cloud init`",
                highest + 1
            )));
        }
        Ok(())
    }

    /// Sends a block as planned.
    fn send(&self, plan: &Plan, block: Block) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let token = plan.token(SinkName::Clickhouse.group(), block.target, block.month);
        let query_id = plan.query_id(self.server.database(), block.target, block.month);
        self.insert(block.target, Some(&token), &query_id, block.body)
    }

    /// Sends a block whose rows may be there: they replace themselves. Without a token, which could be known though the
    /// rows are gone.
    async fn send_again(&self, plan: &Plan, block: Block) -> Result<(), Failure> {
        let query_id = format!("{}|again", plan.query_id(self.server.database(), block.target, block.month));
        self.insert(block.target, None, &query_id, block.body).await
    }

    /// Sends the rows of a block that did not arrive with the rest of it.
    async fn send_rest(&self, plan: &Plan, block: Block) -> Result<(), Failure> {
        let (first, rows) = (block.offsets.first().copied().unwrap_or(0), block.offsets.len());
        let rest = format!(
            "|rest|{first}|{rows}|{:016x}",
            fingerprint(block.offsets.iter().flat_map(|o| o.to_le_bytes()))
        );
        let (target, month) = (block.target, block.month);
        let token = format!("{}|{month}{rest}", plan.token(SinkName::Clickhouse.group(), target, month));
        let query_id = format!("{}{rest}", plan.query_id(self.server.database(), target, month));
        self.insert(target, Some(&token), &query_id, block.body).await
    }

    fn insert(
        &self,
        target: Target,
        token: Option<&str>,
        query_id: &str,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        self.server.insert(target, token, query_id, (self.tables.format(target), body))
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
            if *mapping != Plan::new(*range, self.own).mapping {
                tracing::warn!(%part, start, end, "planned with other columns; what is missing gets today's");
            }
        }
        if !self.server.has_tokens() {
            tokio::time::sleep(SETTLED).await;
        }
        let prefixes: Vec<_> = plans.iter().map(|plan| plan.query_prefix(self.server.database())).collect();
        self.server.kill(&prefixes).await?;
        let ranges: Vec<Range> = plans.iter().map(|plan| plan.range).collect();
        let batch = self.reread.read(&ranges, stop)?;
        let arrived = self.arrived(&ranges).await?;
        kill_at("sink.r3");
        let (mut whole, mut letters, mut open) = (Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            let mut encoded = self.encoded(&batch, plan.range.part);
            for block in encoded.take_latest() {
                self.send_again(plan, block).await?;
            }
            let nothing = Arrived::new();
            let arrived = arrived.get(&plan.range.part).unwrap_or(&nothing);
            if encoded.are_all_in(arrived) && !is_broken("bad.ch_no_asking") {
                let Range { part, start, end } = plan.range;
                let rows: usize = arrived.values().map(BTreeSet::len).sum();
                tracing::info!(%part, start, end, rows, "all of the plan arrived");
                whole.push(plan.range);
                letters.extend(encoded.letters.into_list());
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
        encode(batch, part, &self.targets(part.topic), |_| true, &mut Receipts::default())
    }

    /// The offsets of some ranges that stand in the tables that keep every row: one question for each table.
    async fn arrived(&self, ranges: &[Range]) -> Result<BTreeMap<Part, Arrived>, Failure> {
        let mut arrived: BTreeMap<Part, Arrived> = BTreeMap::new();
        for topic in self.own.topics(SinkName::Clickhouse) {
            let ranges: Vec<Range> = ranges.iter().filter(|r| r.part.topic == topic).copied().collect();
            if ranges.is_empty() {
                continue;
            }
            for target in self.kept(topic) {
                for (part, offsets) in self.server.arrived(target, &ranges).await? {
                    arrived.entry(part).or_default().insert(target.name(), offsets);
                }
            }
        }
        Ok(arrived)
    }

    /// Brings an open plan to its end, none of whose queries runs and whose rows that replace others were sent again. Asks
    /// again: an insert may have come meanwhile.
    async fn mend(&mut self, source: &Source, plan: &Plan, batch: &Batch) -> Result<(), Failure> {
        let range = plan.range;
        let Range { part, start, end } = range;
        if !self.server.has_tokens() {
            self.server.kill(&[plan.query_prefix(self.server.database())]).await?;
        }
        let mut arrived_before: Option<Arrived> = None;
        for _ in 0..ROUNDS_MAX {
            let mut arrived = self.arrived(&[range]).await?.remove(&part).unwrap_or_default();
            kill_at("sink.r3");
            let forgets = is_broken("bad.ch_no_asking") && arrived_before.is_none();
            if forgets {
                arrived.clear();
            }
            let mut encoded = self.encoded(batch, part);
            drop(encoded.take_latest());
            if encoded.are_all_in(&arrived) {
                let rows: usize = arrived.values().map(BTreeSet::len).sum();
                tracing::info!(%part, start, end, rows, "all of the plan arrived");
                return self.finish(source, batch, &encoded.letters.into_list(), &[range]);
            }
            if arrived_before.is_some() {
                tokio::time::sleep(ROUND).await;
            }
            let nothing = BTreeSet::new();
            for block in encoded.blocks {
                let table = block.target.name();
                // The token swallowed the same insert though its rows are gone: only another token brings them back. Where there
                // are several copies the one that answers may lag, and another token would double what the others have.
                let swallowed = arrived_before.as_ref().is_some_and(|b| b.get(table) == arrived.get(table))
                    && !self.tables.replicated.contains(&table);
                match missing(&block.offsets, arrived.get(table).unwrap_or(&nothing)) {
                    Missing::Nothing => {}
                    Missing::All if !swallowed && !forgets => self.send(plan, block).await?,
                    Missing::All => self.send_rest(plan, block).await?,
                    Missing::Some(offsets) => self.send_missing(plan, batch, &offsets, &block).await?,
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
        block: &Block,
    ) -> Result<(), Failure> {
        let (part, month) = (plan.range.part, block.month);
        tracing::warn!(%part, missing = offsets.len(), month, "only a part of an insert arrived");
        let target = [(block.target, self.tables.format(block.target))];
        let rest = encode(batch, part, &target, |offset| offsets.contains(&offset), &mut Receipts::default());
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
