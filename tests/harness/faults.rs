//! The fault laboratory: what hurts an edge or a processor, on one machine, as root.
//!
//! The flow: [`load`] publishes a run; a [`proxy`] stands between broker and [`edge`] and sees every acknowledgement;
//! below the edge lie a [`disk`] that can be photographed or filled, and a [`shim`] that makes it fail or slow; [`net`]
//! cuts the way, [`clock`] turns the time. For a processor ([`cloud`]) a [`fleet`] of edges is played into Kafka, and a
//! [`kafka_proxy`] loses replies; a [`relay`] cuts the way to one server.
//! Guarantees: what is mounted, filtered or started is undone when its guard is dropped; what a killed run left behind
//! is undone by [`disk::sweep`] and [`net::sweep`].

pub mod clock;
pub mod cloud;
pub mod dice;
pub mod disk;
pub mod edge;
pub mod fleet;
pub mod kafka_proxy;
pub mod load;
pub mod net;
pub mod proxy;
pub mod relay;
pub mod shim;
pub mod subject;

use std::process::Command;

use anyhow::{Context, ensure};

/// Runs a command to its end; an error with its output when it fails.
fn run(argv: &[&str]) -> anyhow::Result<()> {
    let (program, arguments) = argv.split_first().context("nothing to run")?;
    let output = Command::new(crate::install::program(program)?).args(arguments).output()?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{} failed ({}): {words}", argv.join(" "), output.status);
    Ok(())
}
