//! What `weir-edge` and `weir-cloud` both stand on.
//!
//! The flow, in the order of the modules: a [`reading`] is what was measured, a [`record`] its identity; [`wire`] is how
//! both look in Kafka. [`expr`] and [`window`] compute over readings. [`config`] is read first, then [`log`],
//! [`metrics`], [`pulse`] and [`admin`] show what happens, [`audit`] keeps who changed what, and
//! [`supervise`] runs every thread; [`client`] asks a running process, [`top`] shows it, [`doctor`] says what is wrong with it. [`secret`], [`tls`] and [`kafka_security`] are how other servers are spoken to. [`clock`] and [`backoff`] are the only places that know of time; [`timeline`] says
//! what to believe of it.
//!
//! `reading`, `record`, `wire`, `expr`, `window` and `timeline` are pure: no clock, no network, no threads. `config` reads the
//! files that a configuration names: secrets and certificates.

pub mod reading;
pub mod record;
pub mod wire;

pub mod expr;
pub mod window;

pub mod admin;
pub mod audit;
pub mod backoff;
pub mod client;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod kafka_security;
pub mod log;
mod machine;
pub mod manual;
pub mod metrics;
pub mod pulse;
pub mod secret;
pub mod supervise;
pub mod systemd;
pub mod timeline;
pub mod tls;
pub mod top;
