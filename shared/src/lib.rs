//! What `weir-edge` and `weir-cloud` both stand on.
//!
//! The flow, in the order of the modules: a [`record`] is one reading with its identity; [`wire`] is how it looks
//! in Kafka. [`config`] is read first, then [`log`], [`metrics`], [`pulse`] and [`admin`] show what happens, and
//! [`supervise`] runs every thread. [`clock`] and [`backoff`] are the only places that know of time.
//!
//! `record`, `reading`, `wire`, `timeline` and `config` are pure: no clock, no network, no threads.

pub mod expr;
pub mod reading;
pub mod record;
pub mod wire;
pub mod window;

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod timeline;
pub mod config;
pub mod log;
pub mod metrics;
pub mod pulse;
pub mod supervise;
