//! Nothing runs unsupervised: the one place that starts threads.
//!
//! Comes in: named functions. Goes out: the first failure, or the wish to stop (SIGTERM, SIGINT, SIGHUP).
//! Guarantees: when any thread ends with an error or a panic, all are told to stop, and the process ends with that
//! failure; a second signal, or the deadline, ends it at once.
//! A thread that returns `Ok` before it was told to stop has failed too: nothing ends in silence.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::watch;

use crate::clock::Deadline;

/// How often it is looked for a signal.
const LOOK: Duration = Duration::from_millis(200);

/// What a supervised function may fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The wish to stop, shared by all threads of the process.
#[derive(Clone, Debug)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug)]
struct StopInner {
    stopped: Mutex<bool>,
    wake: Condvar,
    asynchronous: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// Not stopped yet.
    #[must_use]
    pub fn new() -> Self {
        let (asynchronous, _) = watch::channel(false);
        Self(Arc::new(StopInner { stopped: Mutex::new(false), wake: Condvar::new(), asynchronous }))
    }

    /// Tells everybody to stop.
    pub fn trigger(&self) {
        // First what `is_stopped` reads: whoever was woken must see it.
        self.0.asynchronous.send_replace(true);
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.wake.notify_all();
    }

    /// Whether everybody has been told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.asynchronous.borrow()
    }

    /// Blocks until told to stop, at most `wait`; true when told.
    #[must_use]
    pub fn wait_for(&self, wait: Duration) -> bool {
        let guard = self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) =
            self.0.wake.wait_timeout_while(guard, wait, |s| !*s).unwrap_or_else(PoisonError::into_inner);
        *guard
    }

    /// Completes when told to stop.
    pub async fn wait(&self) {
        let mut receiver = self.0.asynchronous.subscribe();
        // The sender lives as long as `self`, so the only way out is the wish to stop.
        if receiver.wait_for(|s| *s).await.is_err() {
            tracing::debug!("stop channel closed");
        }
    }
}

/// Starts threads and ends the process when one of them fails.
pub struct Supervisor {
    stop: Stop,
    ended: (mpsc::Sender<Ended>, mpsc::Receiver<Ended>),
    running: Vec<String>,
}

struct Ended {
    name: String,
    result: Result<(), Error>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// No threads yet.
    #[must_use]
    pub fn new() -> Self {
        Self { stop: Stop::new(), ended: mpsc::channel(), running: Vec::new() }
    }

    /// The wish to stop that all threads of this supervisor get.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs `work` on a thread of its own.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn spawn<F>(&mut self, name: &str, work: F) -> std::io::Result<()>
    where
        F: FnOnce(Stop) -> Result<(), Error> + Send + 'static,
    {
        let (stop, ended, owned) = (self.stop.clone(), self.ended.0.clone(), name.to_owned());
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| work(stop.clone())));
            let result = match result {
                Ok(Ok(())) if !stop.is_stopped() => Err("ended before it was told to".into()),
                Ok(result) => result,
                Err(panic) => Err(format!("panicked: {}", panic_text(&*panic)).into()),
            };
            if ended.send(Ended { name: owned, result }).is_err() {
                tracing::debug!("a thread ended after the supervisor");
            }
        })?;
        self.running.push(name.to_owned());
        Ok(())
    }

    /// Waits for a signal or a failure, then for all threads to stop, at most `deadline`.
    ///
    /// # Errors
    /// The first failure of a thread, or that some did not stop in time.
    pub fn run(mut self, deadline: Duration) -> Result<(), Error> {
        let signal = Arc::new(AtomicBool::new(false));
        for kind in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register_conditional_shutdown(kind, 1, Arc::clone(&signal))?;
            signal_hook::flag::register(kind, Arc::clone(&signal))?;
        }
        let mut failure = None;
        while failure.is_none() && !signal.load(Ordering::Relaxed) && !self.stop.is_stopped() {
            if let Ok(ended) = self.ended.1.recv_timeout(LOOK) {
                failure = self.note(ended);
            }
        }
        tracing::info!("stopping");
        self.stop.trigger();
        let deadline = Deadline::after(deadline);
        while !self.running.is_empty() {
            match self.ended.1.recv_timeout(deadline.left()) {
                Ok(ended) => failure = failure.or(self.note(ended)),
                Err(_) => {
                    let late = format!("did not stop in time: {}", self.running.join(", "));
                    return Err(failure.unwrap_or_else(|| late.into()));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn note(&mut self, ended: Ended) -> Option<Error> {
        self.running.retain(|name| *name != ended.name);
        match ended.result {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(thread = ended.name, %error, "thread failed");
                Some(format!("{}: {error}", ended.name).into())
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_stops_the_others_and_is_reported() {
        let mut s = Supervisor::new();
        s.spawn("waits", |stop| {
            while !stop.wait_for(Duration::from_secs(5)) {}
            Ok(())
        })
        .unwrap();
        s.spawn("breaks", |_| panic!("on purpose")).unwrap();
        let error = s.run(Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("breaks: panicked: on purpose"), "{error}");
    }

    #[test]
    fn ending_early_is_a_failure_and_a_straggler_is_named() {
        let mut s = Supervisor::new();
        s.spawn("early", |_| Ok(())).unwrap();
        s.spawn("straggler", |_| {
            std::thread::park();
            Ok(())
        })
        .unwrap();
        let error = s.run(Duration::from_millis(100)).unwrap_err().to_string();
        assert!(error.contains("early: ended before"), "{error}");
    }
}
