//! What the status page shows: one JSON of all that this process knows of itself, and the newest alerts.
//!
//! Goes out: `{"program", "version", "name", "time_ms", "uptime_seconds", "live": [{"who", "why"}], "ready": […],
//! "samples": [[name, {label: value}, number], …]}`: the samples of the metrics page without buckets, but for those of the
//! latency; what is not finite is null. As events (`text/event-stream`): `status` each second, `alert` for each alert.
//! Guarantees: at most [`ALERTS_MAX`] alerts are kept, the oldest go; who reads slowly misses some, and holds up nobody.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};
use serde_json::{Map, Value, json};

use super::Admin;
use super::health::Health;
use crate::clock;
use crate::metrics::page::{Sample, samples};

/// Alerts that are kept for who looks later.
pub const ALERTS_MAX: usize = 50;
/// Between two events.
const EVERY: Duration = Duration::from_secs(1);
/// Its buckets are shown too.
const LATENCY: &str = "weir_event_latency_seconds_bucket";

/// The newest alerts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Feed(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Number of the next one.
    next: u64,
    alerts: VecDeque<Arc<str>>,
}

impl Feed {
    /// Adds some, as JSON.
    pub fn add(&self, alerts: impl IntoIterator<Item = String>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for alert in alerts {
            kept.next += 1;
            kept.alerts.push_back(alert.into());
            if kept.alerts.len() > ALERTS_MAX {
                kept.alerts.pop_front();
            }
        }
    }

    /// Those from this number on that are still there, and the number of the next one.
    fn from(&self, number: u64) -> (Vec<Arc<str>>, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = kept.next - kept.alerts.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        (kept.alerts.iter().skip(skipped).cloned().collect(), kept.next)
    }
}

/// The JSON.
pub(super) fn json_of(admin: &Admin, page: &str, uptime: Duration) -> Value {
    let reasons = |health: &Health| -> Vec<Value> {
        health.reasons().into_iter().map(|(who, why)| json!({"who": who, "why": why})).collect()
    };
    let shown = |sample: &Sample<'_>| sample.name == LATENCY || !sample.name.ends_with("_bucket");
    let value = |sample: Sample<'_>| {
        let label = |(name, value): &(&str, _)| ((*name).to_owned(), json!(value));
        let labels: Map<String, Value> = sample.labels.iter().map(label).collect();
        json!([sample.name, labels, sample.value])
    };
    json!({
        "program": admin.program,
        "version": env!("CARGO_PKG_VERSION"),
        "name": admin.name,
        "time_ms": clock::wall_ms(),
        "uptime_seconds": uptime.as_secs_f64(),
        "live": reasons(&admin.live),
        "ready": reasons(&admin.ready),
        "samples": samples(page).filter(shown).map(value).collect::<Vec<_>>(),
    })
}

/// The events of one reader, from the alerts that are kept on.
pub(super) fn events(
    feed: Feed,
    status: impl Fn() -> Arc<str> + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    /// What is to be sent, the next alert, and whether it is the first round.
    type State = (VecDeque<Event>, u64, bool);
    let state: State = (VecDeque::new(), 0, true);
    stream::unfold((feed, status, state), |(feed, status, (mut waiting, mut next, first))| async move {
        if waiting.is_empty() {
            if !first {
                tokio::time::sleep(EVERY).await;
            }
            let (alerts, from) = feed.from(next);
            next = from;
            waiting.extend(alerts.iter().map(|alert| Event::default().event("alert").data(alert.as_ref())));
            waiting.push_back(Event::default().event("status").data(status()));
        }
        let event = waiting.pop_front()?;
        Some((Ok(event), (feed, status, (waiting, next, false))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_alerts_are_kept_and_each_is_given_once() {
        let feed = Feed::default();
        assert_eq!(feed.from(0), (vec![], 0));
        feed.add((0..ALERTS_MAX as u64 + 10).map(|n| n.to_string()));
        let (alerts, next) = feed.from(0);
        assert_eq!((alerts.len(), alerts[0].as_ref(), next), (ALERTS_MAX, "10", 60));
        feed.add(["a".to_owned()]);
        assert_eq!(feed.from(next), (vec!["a".into()], 61));
        assert_eq!(feed.from(61).0, []);
    }
}
