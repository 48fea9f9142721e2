//! `weir-edge` as it is measured.
//!
//! Comes in: its programs. Goes out: it runs with the harness's configuration and a window per device; what it has
//! acknowledged by its own counters, which must come to exactly what was published; what Kafka has of it.
//! On failure: an error.

use std::fs;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;
use weir_shared::wire;

use super::Contender;
use crate::bench::arrivals::Arrivals;
use crate::programs::{Program, Programs, Samples};
use crate::stack::Stack;

const NAME: &str = "weir-edge";
/// Whether the edge computes windows, and has the command that measures them alone.
const WINDOWS: bool = true;
/// Appended to the edge's configuration.
const WINDOW: &str = r#"
[[window]]
name = "avg-10s"
kind = "tumbling"
size = "10s"
fields = ["*"]
aggregates = ["count", "mean", "min", "max", "stddev"]
"#;
/// Decoding and windows alone, on one thread; prints JSON.
const DECODE_ALONE: [&str; 3] = ["bench-decode", "--seconds", "3"];
const DECODED_PER_SECOND: &str = "readings_per_second";

pub(super) struct Weir<'a> {
    programs: &'a Programs<'a>,
    readings: Arrivals,
    windows: Option<Arrivals>,
}

impl<'a> Weir<'a> {
    pub(super) fn new(stack: &Stack, programs: &'a Programs<'a>) -> anyhow::Result<Self> {
        let brokers = stack.addresses().kafka;
        let windows = WINDOWS.then(|| Arrivals::new(&brokers, wire::WINDOWS)).transpose()?;
        if WINDOWS {
            let path = programs.config(Program::Edge);
            let config = fs::read_to_string(&path)?;
            fs::write(&path, config + WINDOW)?;
        }
        Ok(Self { programs, readings: Arrivals::new(&brokers, wire::READINGS)?, windows })
    }

    /// Readings decoded and put into windows per second of one core, without any I/O.
    pub(super) fn decode_alone(&self) -> anyhow::Result<Option<u64>> {
        if !WINDOWS {
            return Ok(None);
        }
        let own = std::env::current_exe().context("cannot find the running program")?;
        let output = Command::new(own.with_file_name(NAME)).args(DECODE_ALONE).output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let figures: Value = serde_json::from_str(printed.trim()).with_context(|| {
            format!("weir-edge {}: {}", DECODE_ALONE[0], String::from_utf8_lossy(&output.stderr))
        })?;
        let per_second = figures[DECODED_PER_SECOND].as_f64().context(DECODED_PER_SECOND)?;
        Ok(Some(per_second.round() as u64))
    }
}

impl Contender for Weir<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self) -> anyhow::Result<()> {
        self.programs.start(Program::Edge)?;
        self.programs.wait_ready(Program::Edge)
    }

    fn stop(&self) -> anyhow::Result<()> {
        self.programs.stop_one(Program::Edge).map(drop)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.programs.pid(Program::Edge)?.context("weir-edge ended")
    }

    fn topic_root(&self) -> &'static str {
        "sensors"
    }

    /// New messages that are durable and were acknowledged; those that came again are not new.
    fn taken(&self) -> anyhow::Result<Option<u64>> {
        let sum = |m: &Samples, name| m.sum(name, "").round() as u64;
        Ok(self.programs.metrics(Program::Edge).map(|m| {
            let acknowledged = sum(&m, "weir_edge_messages_acknowledged_total");
            acknowledged.saturating_sub(sum(&m, "weir_edge_messages_redelivered_total"))
        }))
    }

    fn delivered(&self) -> anyhow::Result<u64> {
        self.readings.count()
    }

    fn windows(&self) -> anyhow::Result<Option<u64>> {
        self.windows.as_ref().map(Arrivals::count).transpose()
    }
}
