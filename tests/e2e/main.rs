//! End to end, on real servers: from MQTT to all three stores, judged by the oracle; and the oracle judged itself.
//!
//! All tests share one stack (`test`: its own ports and folder) and one run of the simulated devices, with a kill -9
//! of each program in mid-stream; the first test that needs the run makes it. What they read afterwards does not
//! change any more, except in [`damage`], which waits for the others: they only look at what the run left behind.
//! [`admin`], [`dashboards`], [`outputs`], [`dlq`], [`mysql`], [`own_tables`] and [`secured`] start the programs again, one
//! after the other, with records of their own, of no run.
//! [`old_clickhouse`] has servers of its own: a sink has one consumer group, and its progress belongs to one store.
//! A server or program that is missing fails the tests; nothing is skipped, nothing is tried again.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod admin;
mod books;
mod containers;
mod damage;
mod dashboards;
mod dlq;
mod first_light;
mod mid_stream;
mod mysql;
mod old_clickhouse;
mod outputs;
mod own_tables;
mod prometheus;
mod rules;
mod secured;
mod standing_table;
mod started;
mod status_page;
mod systemd;

/// Whoever starts programs holds this: there is one of each.
fn alone() -> MutexGuard<'static, ()> {
    static PROGRAMS: Mutex<()> = Mutex::new(());
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}
