//! The test harness: real servers on loopback ports, owned by one supervisor per stack.
//!
//! The flow: [`stack`] (what tests and `weir-stack` use) installs what is missing ([`install`]) and starts
//! the [`supervisor`], which runs each [`server`] as a child `process`, asks it for `readiness`, and
//! listens for requests on its [`control`] socket. [`addresses`] and [`places`] say where everything is.
//!
//! On failure: `anyhow` errors that say what to do next; a missing server fails, it never skips.

pub mod stack;

pub mod install;
pub mod supervisor;

mod server;

mod process;
mod readiness;

pub mod control;

pub mod addresses;
pub mod certificates;
pub mod places;

pub mod browser;
pub mod devices;
pub mod figures;
pub mod patience;
pub mod programs;
pub mod stream;

pub mod simulator;

pub mod oracle;

pub mod faults;
pub mod judge;
pub mod tls_front;

pub mod bench;
