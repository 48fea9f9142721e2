//! The binlog of a server as a stream of events.
//!
//! Comes in: where to begin. Goes out: events. Guarantees: a server that says nothing for [`SILENCE`] counts as dead;
//! it was asked for a heartbeat every [`HEARTBEAT`]. On failure: a reason to load afresh.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream as _;
use mysql_async::binlog::events::Event;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest};

use super::super::load::{answered, connect};
use super::super::tail::Position;
use super::Broken;
use crate::database::Server;

/// How often a server without events says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Longest wait for an event or a heartbeat.
const SILENCE: Duration = Duration::from_secs(5);
/// MySQL's error for a binlog that it cannot send: purged, reset, or asked for by two with the same number.
const FATAL_READING: u16 = 1236;

/// Events of a server.
pub(super) struct Stream(BinlogStream);

impl Stream {
    /// From a place between two transactions on.
    pub(super) async fn open(server: &Server, file: &str, from: Position) -> Result<Self, Broken> {
        let mut conn = connect(server).await?;
        let period = HEARTBEAT.as_nanos();
        // The second name is MySQL's since 8.4; the third asks MariaDB not to rewrite its own events.
        let ask = format!(
            "SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}, @mariadb_slave_capability = 4"
        );
        answered(conn.query_drop(ask)).await?;
        let request =
            BinlogStreamRequest::new(server_id()?).with_filename(file.as_bytes()).with_pos(from.offset);
        Ok(Self(answered(conn.get_binlog_stream(request)).await?))
    }

    /// The next event. May be dropped while it waits; nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Event, Broken> {
        let next = poll_fn(|context| Pin::new(&mut self.0).poll_next(context));
        match tokio::time::timeout(SILENCE, next).await {
            Err(_) => {
                Err(Broken::new("silence", format!("the server said nothing for {} s", SILENCE.as_secs())))
            }
            Ok(None) => Err(Broken::new("connection", "the server ended the binlog")),
            Ok(Some(Ok(event))) => Ok(event),
            Ok(Some(Err(mysql_async::Error::Server(error)))) if error.code == FATAL_READING => {
                Err(Broken::new("binlog_lost", error.to_string()))
            }
            Ok(Some(Err(error))) => Err(Broken::new("connection", error.to_string())),
        }
    }
}

/// A replica's number, unlike those that people give, and another one each time: two with the same would end each other.
fn server_id() -> Result<u32, Broken> {
    let random = getrandom::u32().map_err(|error| Broken::new("connection", error.to_string()))?;
    Ok(random | 1 << 31)
}
