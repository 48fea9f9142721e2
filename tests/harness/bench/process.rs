//! How fast the processor is beside Apache Flink, which does the same job on the same topic of the same machine.
//!
//! The job: readings of 150 bytes from 10,000 devices, JSON, deduplicated, joined with a table of 10,000 rows in MySQL,
//! JSON again, exactly once. [`flink`] runs it in two forms: *every* does not deduplicate (less work than Weir does, so
//! faster), *first* does, by `ROW_NUMBER`. Stages: the join alone; the same with ten conditions ([`rules`]); a hundred
//! rules, of which few match (Weir alone). Then how soon a changed rule works ([`live_rules`]), and the memory of Weir at
//! a paced load ([`paced`]).
//!
//! Each stage puts one backlog and gives it to each program in turn, from start to stop. Time and CPU count from the last
//! look at which less than a tenth was done, so that starting, compiling and filling caches are left out, until the
//! last: Weir's by committed offsets, Flink's by what it has written (its last commit, up to a second, is not counted).
//! Guarantees: [`judge`] finds every reading exactly once in each output, read committed, and joined.
//! On failure: an error, with the end of the program's log when it ended.

mod flink;
mod judge;
mod live_rules;
mod paced;
mod profile;
mod restore;
mod rules;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Map, Value, json};
use weir_shared::{clock, wire};

use super::arrivals::Arrivals;
use super::backlog::{self, Backlog, Begin, Lag};
use super::flink::Cluster;
use super::{LOOK_EVERY, seconds, usage, watch};
use crate::install::Flink;
use crate::oracle::Oracle;
use crate::places::last_lines;
use crate::programs::{DEVICES_TABLE, Program, Programs};
use crate::stack::Stack;
use flink::Peer;
use profile::Profile;

const READINGS: u64 = 3_000_000;
const DEVICES: u64 = 10_000;
/// The first tenth is not measured.
const WARM_UP: u64 = READINGS / 10;
const ROUNDS: usize = 2;
const WITHIN: Duration = Duration::from_secs(400);

/// Readings per second of each stage, and how many times Flink's they must be.
const WANTED_JOIN: (u64, f64) = (300_000, 5.0);
const WANTED_TEN_RULES: (u64, f64) = (200_000, 3.0);
const WANTED_HUNDRED_RULES: u64 = 100_000;
const WANTED_PACED_MB: u64 = 512;

/// What is done besides deduplicating and joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Join,
    TenRules,
    HundredRules,
}

/// Which readings Flink passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readings {
    /// All of them: no deduplication.
    Every,
    /// The first of each identity.
    First,
}

/// How fast one program was in one life.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    per_second: u64,
    /// Of the program, and of Kafka meanwhile.
    cpu_seconds_per_million: [f64; 2],
    resident_mb_max: u64,
}

impl Speed {
    /// The faster life; the most memory of both.
    fn best(self, other: Self) -> Self {
        let most = self.resident_mb_max.max(other.resident_mb_max);
        let faster = if other.per_second > self.per_second { other } else { self };
        Self { resident_mb_max: most, ..faster }
    }

    fn figures(self) -> Value {
        json!({
            "per_second": self.per_second,
            "cpu_seconds_per_million": hundredths(self.cpu_seconds_per_million[0]),
            "kafka_cpu_seconds_per_million": hundredths(self.cpu_seconds_per_million[1]),
            "resident_mb_max": self.resident_mb_max,
        })
    }
}

/// One stage of each program.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    weir: Speed,
    every: Speed,
    first: Speed,
}

/// Measures; the cloud is stopped before and after, and the edge must not run. Without `jars` there is no Flink to compare
/// with. `profiled`: also writes where Weir's CPU time goes.
///
/// # Errors
/// When a program's output is not exactly the backlog, or something fails.
pub fn measure(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    jars: Option<Flink>,
    profiled: bool,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    let began = clock::instant();
    oracle.in_mysql(&fill_devices())?;
    let bench = Bench::new(stack, programs, oracle, jars)?;
    let mut figures = Map::new();
    let mut join = Measured::default();
    for round in 1..=ROUNDS {
        let peers = [Readings::Every, Readings::First];
        let measured =
            bench.stage(Stage::Join, &peers, None, &mut |line| tell(&format!("round {round}, {line}")))?;
        join = join.best(measured);
    }
    let mut ok = bench.peer.is_some() && met(&join, WANTED_JOIN);
    figures.insert("join".to_owned(), join.figures(Some(WANTED_JOIN)));
    let ten = bench.stage(Stage::TenRules, &[Readings::Every, Readings::First], None, tell)?;
    let hundred = bench.stage(Stage::HundredRules, &[], None, tell)?;
    ok &= met(&ten, WANTED_TEN_RULES) && hundred.weir.per_second >= WANTED_HUNDRED_RULES;
    figures.insert("ten_rules".to_owned(), ten.figures(Some(WANTED_TEN_RULES)));
    let mut hundred_figures = hundred.weir.figures();
    hundred_figures["wanted"] = json!({"per_second": WANTED_HUNDRED_RULES});
    hundred_figures["ok"] = (hundred.weir.per_second >= WANTED_HUNDRED_RULES).into();
    figures.insert("hundred_rules".to_owned(), hundred_figures);
    bench.put_in_force(Stage::Join)?;
    let live = live_rules::measure(&bench, tell)?;
    ok &= live["ok"] == true;
    figures.insert("live_rules".to_owned(), live);
    let paced = paced::measure(&bench, tell)?;
    ok &= paced["ok"] == true;
    figures.insert("paced".to_owned(), paced);
    if profiled {
        let profile = Profile::new(stack)?;
        bench.stage(Stage::Join, &[], Some(&profile), tell)?;
        let written = profile.report()?;
        tell(&format!("profile: {}", written.display()));
        figures.insert("profile".to_owned(), written.display().to_string().into());
    }
    figures.insert("readings".to_owned(), READINGS.into());
    figures.insert("devices".to_owned(), DEVICES.into());
    figures.insert("took_seconds".to_owned(), json!(seconds(clock::since(began))));
    figures.insert("ok".to_owned(), ok.into());
    Ok(Value::Object(figures))
}

/// Measures how long it takes to have state again; the cloud is stopped before and after.
///
/// # Errors
/// When the state does not come back, or something fails.
pub fn restore(
    stack: &Stack,
    programs: &Programs<'_>,
    oracle: &Oracle,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Value> {
    let bench = Bench::new(stack, programs, oracle, None)?;
    restore::measure(&bench, tell)
}

impl Measured {
    fn best(self, other: Self) -> Self {
        Self {
            weir: self.weir.best(other.weir),
            every: self.every.best(other.every),
            first: self.first.best(other.first),
        }
    }

    fn figures(&self, wanted: Option<(u64, f64)>) -> Value {
        let ratio = |peer: Speed| match peer.per_second {
            0 => Value::Null,
            peer => hundredths(self.weir.per_second as f64 / peer as f64).into(),
        };
        json!({
            "weir": self.weir.figures(),
            "flink_every": self.every.figures(),
            "flink_first": self.first.figures(),
            "weir_to_flink_every": ratio(self.every),
            "weir_to_flink_first": ratio(self.first),
            "wanted": wanted.map(|(per_second, ratio)| json!({"per_second": per_second, "weir_to_flink_first": ratio})),
            "ok": wanted.map(|wanted| met(self, wanted)),
        })
    }
}

/// The ratio is that to Flink's job which does the same; the other, which does less, is shown beside it.
fn met(measured: &Measured, (per_second, ratio): (u64, f64)) -> bool {
    let flink = measured.first.per_second;
    flink > 0
        && measured.weir.per_second >= per_second
        && measured.weir.per_second as f64 >= ratio * flink as f64
}

/// What the stages share.
struct Bench<'a> {
    stack: &'a Stack,
    programs: &'a Programs<'a>,
    oracle: &'a Oracle,
    brokers: String,
    lag: Lag,
    enriched: Arrivals,
    peer: Option<Peer<'a>>,
    kafka: u32,
}

impl<'a> Bench<'a> {
    fn new(
        stack: &'a Stack,
        programs: &'a Programs<'a>,
        oracle: &'a Oracle,
        jars: Option<Flink>,
    ) -> anyhow::Result<Self> {
        let brokers = stack.addresses().kafka;
        let enriched = Arrivals::new(&brokers, wire::ENRICHED)?;
        let partitions = enriched.partitions()?;
        let cluster = jars.map(|jars| Cluster::new(stack, jars)).transpose()?;
        let peer = cluster.map(|cluster| Peer { cluster, partitions });
        let status = stack.status_if_up()?.context("the stack is not up")?;
        let kafka = status.units.iter().find(|unit| unit.name == "kafka").and_then(|unit| unit.pid);
        let kafka = kafka.context("kafka does not run")?;
        Ok(Self { stack, programs, oracle, lag: Lag::new(&brokers)?, enriched, peer, kafka, brokers })
    }

    /// One backlog, one life of each program.
    fn stage(
        &self,
        stage: Stage,
        peers: &[Readings],
        profile: Option<&Profile>,
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Measured> {
        if stage != Stage::Join {
            self.put_in_force(stage)?;
        }
        let backlog = Backlog { readings: READINGS, devices: DEVICES, per_second: 0, value: reading };
        let begin = backlog::put(&self.brokers, &backlog)?;
        let mut measured = Measured { weir: self.weir(profile)?, ..Measured::default() };
        tell(&format!("{stage:?}, weir: {:?}", measured.weir));
        for (&readings, peer) in peers.iter().zip(std::iter::repeat(self.peer.as_ref())) {
            let Some(peer) = peer else { break };
            let speed = self.flink(peer, stage, readings, &begin)?;
            tell(&format!("{stage:?}, flink, {readings:?}: {speed:?}"));
            match readings {
                Readings::Every => measured.every = speed,
                Readings::First => measured.first = speed,
            }
        }
        Ok(measured)
    }

    fn weir(&self, profile: Option<&Profile>) -> anyhow::Result<Speed> {
        let before = self.enriched.ends()?;
        self.programs.start_role(&["process"])?;
        let pid = self.programs.pid(Program::Cloud)?.context("weir-cloud ended")?;
        let recording = profile.map(|profile| self.recording(profile, pid)).transpose()?;
        let log = self.stack.log_of(Program::Cloud.name());
        let speed = self.steady(pid, &log, || Ok(READINGS - self.lag.records()?.min(READINGS)))?;
        self.programs.stop_one(Program::Cloud)?;
        recording.map(profile::Recording::end).transpose()?;
        judge::exactly(&self.brokers, wire::ENRICHED, &before, &Begin::new(), READINGS)?;
        Ok(speed)
    }

    /// Begins when it is ready: threads that start while perf looks for them would be left out.
    fn recording(&self, profile: &Profile, pid: u32) -> anyhow::Result<profile::Recording> {
        self.programs.wait_ready(Program::Cloud)?;
        profile.record(pid)
    }

    fn flink(
        &self,
        peer: &Peer<'_>,
        stage: Stage,
        readings: Readings,
        begin: &Begin,
    ) -> anyhow::Result<Speed> {
        let life = peer.start(stage, readings, begin)?;
        let before = life.output.ends()?;
        let first = if readings == Readings::Every { begin.clone() } else { Begin::new() };
        let measured = self.steady(life.pid, &peer.cluster.log(), || life.output.count()).and_then(|speed| {
            judge::exactly(&self.brokers, &life.topic, &before, &first, READINGS)?;
            Ok(speed)
        });
        peer.cluster.stop()?;
        measured
    }

    /// Watches a program that has just been started until `done` says that it has all.
    fn steady(&self, pid: u32, log: &Path, done: impl Fn() -> anyhow::Result<u64>) -> anyhow::Result<Speed> {
        let look = || anyhow::Ok([usage::of(pid)?, usage::of(self.kafka)?]);
        let mut before = look()?;
        let drained = watch(READINGS - WARM_UP, WITHIN, LOOK_EVERY, || {
            let measured = done()?.saturating_sub(WARM_UP);
            if measured == 0 {
                before = look()?;
            }
            Ok(Some(measured))
        });
        let drained = drained.with_context(|| format!("{}:\n{}", log.display(), last_lines(log, 20)))?;
        let after = look()?;
        let cpu =
            |at: usize| (after[at].cpu_seconds - before[at].cpu_seconds) * 1e6 / (READINGS - WARM_UP) as f64;
        Ok(Speed {
            per_second: drained.per_second(),
            cpu_seconds_per_million: [cpu(0), cpu(1)],
            resident_mb_max: after[0].resident_mb_max,
        })
    }

    fn put_in_force(&self, stage: Stage) -> anyhow::Result<()> {
        for statement in rules::statements(&rules::of(stage)) {
            self.oracle.in_mysql(&statement)?;
        }
        Ok(())
    }
}

/// All devices of the load, in the table that has those of the demo already.
fn fill_devices() -> String {
    let mut sql = format!("REPLACE INTO {DEVICES_TABLE} (device, site, line, area_m2, commissioned) VALUES ");
    for n in 0..DEVICES {
        let comma = if n == 0 { "" } else { "," };
        let site = ["Graz", "Zürich", "Gent"][(n % 3) as usize];
        write!(sql, "{comma}('{}','{site}',{},{}.25,'2021-03-04')", backlog::device(n), n % 40, 100 + n)
            .expect("a String takes everything");
    }
    sql
}

/// 149 bytes.
fn reading(value: &mut String, device: &str, n: u64, now: i64) {
    write!(
        value,
        r#"{{"device":"{device}","time":{now},"values":{{"t":{}.{},"p":1.0135,"rpm":{}}},"tags":{{"line":"3"}},"received":{now},"clock":"trusted"}}"#,
        20 + n % 10,
        n % 90 + 10,
        1400 + n % 200
    )
    .expect("a String takes everything");
}

fn hundredths(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}
