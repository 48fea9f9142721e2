//! The wiring of `weir-edge`: which stage hands what to which.
//!
//! ```text
//! mqtt ── events ──▶ ingest (decode, journal) ── wake ──▶ forward ──▶ Kafka
//!   ◀── receipts ──────┘   ▲──────── cursor ────────────────┘
//! ```
//! On stop: source and forwarder end first; the ingest stage ends when both have, after a last commit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use weir_shared::admin::{self, Admin, Health};
use weir_shared::clock;
use weir_shared::metrics;
use weir_shared::pulse::Pulse;
use weir_shared::record::StreamId;
use weir_shared::supervise::Supervisor;

use crate::config::Config;
use crate::forward::{self, Forwarder};
use crate::ingest::{self, Ingest};
use crate::journal::writer::Opening;
use crate::journal::{Redelivery, Segments, Writer, recover};
use crate::sources::mqtt;

/// Events on their way to the ingest stage; bytes are bounded by `journal.memory_bytes_max`.
const EVENTS_MAX: usize = 16_384;
/// A commit that takes longer is stuck: the disk does not answer.
const COMMIT_MAX: Duration = Duration::from_secs(60);
/// How long a stop may take.
const STOP: Duration = Duration::from_secs(10);

/// Opens everything, runs it until a signal or a failure, and stops it in order.
///
/// # Errors
/// What could not be opened, or the first failure of a stage.
pub(crate) fn run(config: Config) -> Result<()> {
    let admin = Admin { metrics: metrics::install()?, live: Health::default(), ready: Health::default() };
    let segments = Segments::open(&config.journal_dir)?;
    let mut recovered = recover(&segments)?;
    tracing::info!(
        dir = %config.journal_dir.display(), position = recovered.durable + recovered.tail.len() as u64,
        acknowledged = recovered.cursor.position, cut_bytes = recovered.torn_bytes, "journal opened"
    );
    ::metrics::counter!("weir_edge_journal_cut_bytes_total").increment(recovered.torn_bytes);
    if config.kafka.partitions > 0 {
        let wanted = [config.kafka.partitions; 2];
        let known = recovered.topics.unwrap_or(wanted);
        ensure!(
            known == wanted,
            "kafka.partitions is {wanted:?}, but the journal was numbered for {known:?}"
        );
        recovered.topics = Some(wanted);
    }
    let (topics, cursor, session) = (recovered.topics, recovered.cursor.clone(), recovered.session);
    let mut redelivery = Redelivery::default();
    if let Some((session, _)) = session {
        redelivery.session(session);
        for head in &recovered.messages {
            redelivery.appended(head.packet, head.digest, 0);
        }
    }
    let mut stream = [0; 16];
    getrandom::fill(&mut stream).map_err(|e| anyhow::anyhow!("no random bits for a stream id: {e}"))?;
    let opening = Opening { stream: StreamId(stream), boot: boot_id(), now: clock::now() };
    let writer = Writer::open(segments.clone(), config.ingest.segment_bytes, opening, recovered)?;

    let (events, taken) = flume::bounded(EVENTS_MAX);
    let (receipts, durable) = flume::unbounded();
    let (wake, woken) = flume::bounded(1);
    let (open, opened) = watch::channel(topics.is_some());
    let forwarding = forward::Wiring {
        events: events.clone(),
        wake: woken,
        durable: writer.durable(),
        segments: segments.clone(),
        ready: admin.ready.clone(),
    };
    let forwarder = Forwarder::new(config.kafka, forwarding, writer.stream(), topics, cursor);
    let (pulse, live) = (Pulse::default(), admin.live.clone());
    let ingesting = ingest::Wiring { events: taken, receipts, wake, open, pulse: pulse.clone() };
    let ingest = Ingest::new(config.ingest, config.decoder, writer, redelivery, segments, ingesting);
    let source = mqtt::Wiring { events, durable, session, open: opened, ready: admin.ready.clone() };

    let mut supervisor = Supervisor::new();
    supervisor.spawn("admin", move |stop| admin::serve(config.admin, admin, &stop))?;
    supervisor.spawn("pulse", move |stop| pulse.watch("journal", COMMIT_MAX, &live, &stop))?;
    supervisor.spawn("ingest", move |_| ingest.run())?;
    supervisor.spawn("forward", move |stop| forwarder.run(&stop))?;
    supervisor.spawn("mqtt", move |stop| mqtt::run(&config.mqtt, source, &stop))?;
    supervisor.run(STOP).map_err(|e| anyhow::anyhow!(e)).context("weir-edge stopped")
}

/// Which boot of the machine this is; zero where the kernel does not say.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    StreamId::from_hex(text.replace(['-', '\n'], "").as_bytes()).map_or([0; 16], |id| id.0)
}
