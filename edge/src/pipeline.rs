//! The wiring of `weir-edge`: which stage hands what to which.
//!
//! ```text
//! mqtt, files ── events ──▶ ingest (decode, journals) ── wake ──▶ per flow: windows, forward ──▶ Kafka
//!   ◀── receipts ──────────────┘   ▲───── notes: results, ticks, cursors ──────┘
//! ```
//! On stop: sources, windows and forwarders end first; the ingest stage ends when all have, after a last commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::{Semaphore, watch};
use weir_shared::admin::{self, Admin, Feed, Health};
use weir_shared::audit::{Audit, settings};
use weir_shared::clock::{self, Now};
use weir_shared::metrics;
use weir_shared::pulse::{Pulse, Pulses};
use weir_shared::record::StreamId;
use weir_shared::supervise::Supervisor;
use weir_shared::timeline::{Mending, Timeline};
use weir_shared::tls::expiry;

use crate::clocks::Clocks;
use crate::config::Config;
use crate::events::{Event, Note};
use crate::flow::{Flow, Forward};
use crate::forward::{self, Forwarder};
use crate::ingest::lane::{self, Lane};
use crate::ingest::{self, Ingest, Time};
use crate::journal::format::{Sent, boot_of};
use crate::journal::lock::Lock;
use crate::journal::writer::Opening;
use crate::journal::{
    self, RESERVE_BYTES, Recovered, Redelivery, Segments, Writer, WriterConfig, random_stream, recover,
};
use crate::sources::{file, mqtt};
use crate::windows::{self, Windows, rules};

/// Events on their way to the ingest stage; bytes are bounded by `journal.memory_bytes_max`.
const EVENTS_MAX: usize = 4_096;
/// A round of a thread that takes longer is stuck: the disk does not answer, say.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// Most bytes of files on their way to the journal: little, so that MQTT does not queue behind them.
const FILES_BYTES_MAX: usize = 1 << 20;
/// How long a process that is being replaced may take to end.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long a stop may take.
const STOP: Duration = Duration::from_secs(10);

/// What the stages of one flow are made of, once its journal is open.
struct Opened {
    lane: Lane,
    forwarder: Forwarder,
    windows: Option<Windows>,
}

/// What all flows share.
struct Common<'a> {
    config: &'a Config,
    events: flume::Sender<Event>,
    clocks: Clocks,
    connected: Arc<AtomicBool>,
    boot: [u8; 16],
    now: Now,
    ready: Health,
}

/// Opens everything, runs it until a signal or a failure, and stops it in order.
///
/// # Errors
/// What could not be opened, or the first failure of a stage.
pub(crate) fn run(config: Config, file: &str, shown: &str) -> Result<()> {
    let admin = admin(&config)?;
    settings::record(&admin.audit, file, shown);
    let (events, taken) = flume::bounded(EVENTS_MAX);
    let (receipts, durable) = flume::unbounded();
    let (open, opened) = watch::channel(false);
    let _locks = locks(&config.flows)?;
    let recovered = recover_all(&config.flows)?;
    let newest_ms = recovered.iter().filter_map(|(_, found)| found.wall_ms_max).max().unwrap_or(0);
    let looked = clock::now();
    let synchronized = config.clock.synchronized_file.exists();
    let mut line = Timeline::new(config.clock.limits, &looked, synchronized, newest_ms);
    let (now, _) = line.clone().stamp(&looked, synchronized);
    let boot = boot_id();
    let clocks = clocks(&recovered, boot);
    let (redelivery, session) = redelivery(&recovered);
    let marks = marks(&recovered);
    let common = Common {
        config: &config,
        events: events.clone(),
        clocks: clocks.clone(),
        connected: Arc::default(),
        boot,
        now,
        ready: admin.ready.clone(),
    };
    let mut flows = Vec::new();
    let mut pulses = Pulses::default();
    let pulse = pulses.add("journal", ROUND_MAX);
    for (at, (flow, (segments, found))) in config.flows.iter().zip(recovered).enumerate() {
        flows.push(open_flow(&common, at, flow, segments, found, &mut pulses)?);
    }
    let mqtt_pulse =
        if config.mqtt.topics.is_empty() { Pulse::default() } else { pulses.add("mqtt", ROUND_MAX) };
    let connected = Arc::clone(&common.connected);
    // Its sender of events would keep the ingest stage waiting for ever.
    drop(common);
    let mut supervisor = Supervisor::new();
    let live = admin.live.clone();
    let ready = admin.ready.clone();
    watch_certificates(&mut supervisor, &config)?;
    supervisor.spawn("admin", move |stop| admin::serve(config.admin, admin, &stop))?;
    let mut lanes = Vec::new();
    for Opened { lane, forwarder, windows } in flows {
        let name = lane.flow.name.clone();
        supervisor.spawn(&format!("forward {name}"), move |stop| forwarder.run(&stop))?;
        if let Some(windows) = windows {
            supervisor.spawn(&format!("windows {name}"), move |stop| windows.run(&stop))?;
        }
        lanes.push(lane);
    }
    line.stamp(&looked, synchronized);
    let time = Time { line, boot: boot_of(&boot), synchronized_file: config.clock.synchronized_file };
    let wiring = ingest::Wiring { events: taken, receipts, open, pulse, clocks, ready: ready.clone() };
    let ingest = Ingest::new(config.ingest, config.decoder, lanes, redelivery, time, wiring);
    supervisor.spawn("ingest", move |_| ingest.run())?;
    let (waiting, shown) = (events.clone(), ready.clone());
    supervisor.spawn("pulse", move |stop| {
        // Full: there is enough to do.
        let nudge = || drop(waiting.try_send(Event::Nudge));
        pulses.watch(&live, &shown, nudge, &stop)
    })?;
    let source = mqtt::Wiring { events, durable, session, open: opened, connected, ready, pulse: mqtt_pulse };
    spawn_sources(&mut supervisor, config.files, config.mqtt, marks, source)?;
    supervisor.run(STOP).map_err(|e| anyhow::anyhow!(e)).context("weir-edge stopped")
}

/// What the admin port shows.
fn admin(config: &Config) -> Result<Admin> {
    Ok(Admin {
        program: "weir-edge",
        name: config.kafka.edge.clone(),
        metrics: metrics::install()?,
        live: Health::default(),
        ready: Health::default(),
        feed: Feed::default(),
        audit: Audit::new(config.audit.clone(), &config.kafka.edge),
        actions: Vec::new(),
    })
}

/// Tells when certificates end, where there are some.
fn watch_certificates(supervisor: &mut Supervisor, config: &Config) -> Result<()> {
    let Config { mqtt, kafka, admin, .. } = config;
    let peers = [("mqtt", &mqtt.tls), ("kafka", &kafka.security.tls), ("admin", &admin.tls)];
    let peers: Vec<_> =
        peers.into_iter().filter_map(|(name, tls)| Some((name.to_owned(), tls.clone()?))).collect();
    if !peers.is_empty() {
        supervisor.spawn("certificates", move |stop| {
            expiry::watch("weir_edge_tls_not_after_seconds", &peers, &stop)
        })?;
    }
    Ok(())
}

/// Starts the sources that have something to read; the senders of events of the others end here.
fn spawn_sources(
    supervisor: &mut Supervisor,
    files: Vec<file::FileConfig>,
    topics: mqtt::MqttConfig,
    marks: HashMap<u64, (u64, u64)>,
    mqtt: mqtt::Wiring,
) -> Result<()> {
    if !files.is_empty() {
        let memory = Arc::new(Semaphore::new(FILES_BYTES_MAX / file::MEMORY_UNIT_BYTES));
        let (events, open, ready) = (mqtt.events.clone(), mqtt.open.clone(), mqtt.ready.clone());
        let wiring = file::Wiring { events, marks, memory, open, ready };
        supervisor.spawn("files", move |stop| file::run(&files, wiring, &stop))?;
    }
    if topics.topics.is_empty() {
        mqtt.connected.store(true, std::sync::atomic::Ordering::Relaxed);
    } else {
        supervisor.spawn("mqtt", move |stop| mqtt::run(&topics, mqtt, &stop))?;
    }
    Ok(())
}

/// What the journals hold, in the order of the flows.
fn recover_all(flows: &[Flow]) -> Result<Vec<(Segments, Recovered)>, journal::Error> {
    let one = |flow: &Flow| {
        let segments = Segments::open(&flow.dir)?;
        let found = recover(&segments)?;
        Ok((segments, found))
    };
    flows.iter().map(one).collect()
}

/// No other process has the journals while these are there.
fn locks(flows: &[Flow]) -> Result<Vec<Lock>, journal::Error> {
    flows.iter().map(|flow| Lock::take(&flow.dir, HANDOVER)).collect()
}

/// Opens the journal of a flow and all that works on it.
fn open_flow(
    common: &Common<'_>,
    at: usize,
    flow: &Flow,
    segments: Segments,
    mut found: Recovered,
    pulses: &mut Pulses,
) -> Result<Opened> {
    let config = common.config;
    let position = found.end();
    tell_opened(flow, &found);
    check_partitions(config, &mut found)?;
    let rules = rules_of(config, flow);
    let rules_before = found.controls.rules.clone().unwrap_or_default();
    let has_windows = !rules.is_empty() || !rules_before.is_empty();
    let state = has_windows.then(|| windows::open(&flow.dir.join("windows"), &mut found)).transpose()?;
    tell_lost(common, at, &found)?;
    let (topics, cursor) = (found.controls.topics, found.controls.cursor.clone());
    let (first_position, results) = (found.first_position, found.controls.results);
    let opening =
        Opening { stream: random_stream().map_err(anyhow::Error::msg)?, boot: common.boot, now: common.now };
    let mut writer = Writer::open(segments.clone(), sizes(config, flow), opening, found)?;
    if rules != rules_before {
        writer.rules(&rules, common.now);
    }
    let (wake_forward, woken_forward) = flume::bounded(1);
    let (wake_windows, woken_windows) = flume::bounded(1);
    let shared = windows::Shared::default();
    let start =
        forward::Start { stream: opening.stream, position, topics, cursor, live_first: flow.live_first };
    let forwarding = forward::Wiring {
        lane: at,
        flow: flow.name.clone(),
        who: if flow.name == Flow::DEFAULT { "kafka".to_owned() } else { format!("kafka ({})", flow.name) },
        events: common.events.clone(),
        wake: woken_forward,
        durable: writer.durable(),
        segments: segments.clone(),
        clocks: common.clocks.clone(),
        ready: common.ready.clone(),
        pulse: pulses.add(&format!("forward {}", flow.name), ROUND_MAX),
    };
    let forwarder = Forwarder::new(config.kafka.clone(), forwarding, start);
    let mut wake = vec![wake_forward];
    let windows = state.map(|state| {
        wake.push(wake_windows);
        let wiring = windows::Wiring {
            lane: at,
            flow: flow.name.clone(),
            events: common.events.clone(),
            wake: woken_windows,
            durable: writer.durable(),
            segments,
            clocks: common.clocks.clone(),
            connected: Arc::clone(&common.connected),
            shared: shared.clone(),
            pulse: pulses.add(&format!("windows {}", flow.name), ROUND_MAX),
        };
        Windows::new(state, wiring, first_position, results)
    });
    if windows.is_none() {
        shared.needed_from.store(u64::MAX, std::sync::atomic::Ordering::Release);
    }
    let wiring = lane::Wiring { wake, shared };
    let lane = Lane::new(config.kafka.edge.clone(), flow.clone(), writer, wiring);
    Ok(Opened { lane, forwarder, windows })
}

/// The window rules of a flow, as its journal keeps them.
fn rules_of(config: &Config, flow: &Flow) -> String {
    match flow.forward {
        Forward::Readings => String::new(),
        Forward::Both | Forward::Windows => rules::text(&config.rules, &flow.name),
    }
}

/// How large a flow's journal may be.
fn sizes(config: &Config, flow: &Flow) -> WriterConfig {
    WriterConfig {
        segment_bytes: config.ingest.segment_bytes,
        budget_bytes: flow.budget_bytes,
        retain_bytes: flow.retain_bytes,
        reserve_bytes: RESERVE_BYTES,
    }
}

/// Tells the ingest stage what is lost of the journal's end. Nobody takes events yet, but there is room for one of each flow.
fn tell_lost(common: &Common<'_>, at: usize, found: &Recovered) -> Result<()> {
    if let Some((from, to)) = found.lost {
        let told = common.events.try_send(Event::Lane(at, Note::EndLost { from, to }));
        ensure!(told.is_ok(), "more flows than events on their way to the ingest stage");
    }
    Ok(())
}

fn tell_opened(flow: &Flow, found: &Recovered) {
    tracing::info!(
        flow = flow.name, dir = %flow.dir.display(), position = found.end(),
        acknowledged = found.controls.cursor.position, cut_bytes = found.torn_bytes,
        damaged = found.damage.len(), "journal opened"
    );
    ::metrics::counter!("weir_edge_journal_cut_bytes_total").increment(found.torn_bytes);
}

/// Partition counts that are configured must be those of the journal.
fn check_partitions(config: &Config, found: &mut Recovered) -> Result<()> {
    if config.kafka.partitions > 0 {
        let wanted = [config.kafka.partitions; Sent::ALL.len()];
        let known = found.controls.topics.unwrap_or(wanted);
        let same = known.iter().zip(wanted).all(|(known, wanted)| *known == 0 || *known == wanted);
        ensure!(same, "kafka.partitions is {wanted:?}, but the journal was numbered for {known:?}");
        found.controls.topics = Some(wanted);
    }
    Ok(())
}

/// What the journals know of untrusted times; those of this boot are waited for unless they are known.
fn clocks(recovered: &[(Segments, Recovered)], boot: [u8; 16]) -> Clocks {
    let clocks = Clocks::default();
    for correction in recovered.iter().flat_map(|(_, found)| &found.controls.corrections) {
        let mending = Mending { known: correction.known, offset_ms: correction.offset_ms };
        clocks.settle(correction.boot, mending);
    }
    clocks.wait_for(boot_of(&boot));
    clocks
}

/// What the source may send again, from all journals, and its session.
fn redelivery(recovered: &[(Segments, Recovered)]) -> (Redelivery, Option<(u64, u64)>) {
    let mut redelivery = Redelivery::default();
    let session = recovered.iter().find_map(|(_, found)| found.controls.session);
    if let Some((session, _)) = session {
        redelivery.session(session);
        for (_, found) in
            recovered.iter().filter(|(_, found)| found.controls.session.map(|s| s.0) == Some(session))
        {
            found.messages.iter().for_each(|head| redelivery.appended(head.packet, head.digest, 0));
        }
    }
    (redelivery, session)
}

/// How far each file is read, in any journal.
fn marks(recovered: &[(Segments, Recovered)]) -> HashMap<u64, (u64, u64)> {
    let mut marks: HashMap<u64, (u64, u64)> = HashMap::new();
    for mark in recovered.iter().flat_map(|(_, found)| found.controls.files.oldest_first()) {
        let known = marks.entry(mark.file).or_default();
        *known = (*known).max((mark.offset, mark.rows));
    }
    marks
}

/// Which boot of the machine this is; zero where the kernel does not say.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    StreamId::from_hex(text.replace(['-', '\n'], "").as_bytes()).map_or([0; 16], |id| id.0)
}

#[cfg(test)]
mod tests;
