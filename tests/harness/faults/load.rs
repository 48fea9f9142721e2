//! Publishes a run in the background, at a rate, until it is told to stop.
//!
//! Comes in: the broker, a [`Run`]. Goes out: readings over one QoS 1 connection, in the order of their numbers; in the
//! run what the broker acknowledged. On failure: the error is given by [`Load::stop`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::anyhow;

use crate::judge::run::Run;
use crate::simulator::Pace;
use crate::simulator::publisher::{self, Connection, Next};

const IN_FLIGHT: u16 = 500;
/// How long a paused load waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// A running publisher.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    /// Publishing goes on up to this number.
    until: Arc<AtomicU64>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    /// Starts to publish `rate` readings per second (0: as fast as it goes).
    #[must_use]
    pub fn start(mqtt: &(String, u16), run: &Arc<Run>, rate: u64) -> Self {
        let (stop, until) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(u64::MAX)));
        let (stopped, limit, run) = (Arc::clone(&stop), Arc::clone(&until), Arc::clone(run));
        let connection = connection(mqtt, &format!("load-{}", run.name()));
        let thread = std::thread::spawn(move || {
            let mut pace = Pace::new(rate as f64);
            let next = || {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(Next::End);
                }
                if run.issued() >= limit.load(Ordering::Relaxed) {
                    return Ok(Next::Wait(PAUSE));
                }
                if let Some(wait) = pace.wait() {
                    return Ok(Next::Wait(wait.min(PAUSE)));
                }
                pace.sent(1);
                let number = run.next();
                Ok(Next::Send { topic: run.topic(number), payload: run.payload(number), token: number })
            };
            publisher::publish(&connection, next, |number| {
                run.acknowledge(number);
                Ok(())
            })
        });
        Self { stop, until, thread: Some(thread) }
    }

    /// Publishes no number from here on, until told otherwise.
    pub fn pause_at(&self, number: u64) {
        self.until.store(number, Ordering::Relaxed);
    }

    /// Ends the load when the broker has acknowledged everything.
    ///
    /// # Errors
    /// What failed while it ran.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), |t| t.join().map_err(|_| anyhow!("the publisher panicked"))?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _told_by_stop = self.end();
    }
}

/// Publishes these numbers of the run now, and returns when the broker has them.
///
/// # Errors
/// When the broker does not take them.
pub fn publish(mqtt: &(String, u16), run: &Run, numbers: &[u64]) -> anyhow::Result<()> {
    let messages = numbers.iter().map(|&n| (run.topic(n), run.payload(n), n)).collect();
    publish_raw(mqtt, &format!("canary-{}", run.name()), messages, |number| run.acknowledge(number))
}

/// Publishes any messages, each with a token that comes back with its acknowledgement.
///
/// # Errors
/// When the broker does not take them.
pub fn publish_raw<T>(
    mqtt: &(String, u16),
    client_id: &str,
    messages: Vec<(String, Vec<u8>, T)>,
    mut acked: impl FnMut(T),
) -> anyhow::Result<()> {
    let mut messages = messages.into_iter();
    let next = || {
        Ok(messages.next().map_or(Next::End, |(topic, payload, token)| Next::Send { topic, payload, token }))
    };
    publisher::publish(&connection(mqtt, client_id), next, |token| {
        acked(token);
        Ok(())
    })
}

fn connection(mqtt: &(String, u16), client_id: &str) -> Connection {
    Connection { host: mqtt.0.clone(), port: mqtt.1, client_id: client_id.to_owned(), in_flight: IN_FLIGHT }
}
