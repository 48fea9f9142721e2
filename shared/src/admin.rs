//! The admin port: `/metrics`, `/live`, `/ready`.
//!
//! Comes in: the address and the checks of the program. Goes out: HTTP on loopback by default.
//! Guarantees: `/live` answers 200 while the threads make progress, `/ready` while the program does its job; both
//! answer 503 with the reasons, one per line. On failure: an address in use ends the process at start.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::machine::Machine;
use crate::supervise::{Error, Stop};

/// Why something is not ready (or alive), by the name of who says so. Cheap to clone; no reason means yes.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<std::collections::BTreeMap<String, String>>>);

impl Health {
    /// `who` says why not.
    pub fn bad(&self, who: &str, why: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who.to_owned(), why.into());
    }

    /// `who` has no complaint.
    pub fn good(&self, who: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }

    /// Whether nobody complains.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.is_empty() {
            return "ok".to_owned();
        }
        let line = reasons.iter().map(|(who, why)| format!("{who}: {why}")).collect::<Vec<_>>().join("; ");
        line.replace(char::is_control, " ")
    }

    fn answer(&self) -> (StatusCode, String) {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.is_empty() {
            return (StatusCode::OK, "ok\n".to_owned());
        }
        let text = reasons.iter().map(|(who, why)| format!("{who}: {why}\n")).collect();
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// Renders the metrics page.
    pub metrics: PrometheusHandle,
    /// Reasons against `/live`.
    pub live: Health,
    /// Reasons against `/ready`.
    pub ready: Health,
}

/// Serves until told to stop.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(address: SocketAddr, admin: Admin, stop: &Stop) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|e| format!("admin port {address}: {e}; choose another with admin.listen"))?;
        let handle = admin.metrics.clone();
        let upkeep = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                handle.run_upkeep();
            }
        };
        let machine = Machine::default();
        let router = Router::new()
            .route(
                "/metrics",
                get(move |State(a): State<Admin>| {
                    machine.collect(&a.live, &a.ready);
                    std::future::ready(a.metrics.render())
                }),
            )
            .route("/live", get(|State(a): State<Admin>| async move { a.live.answer() }))
            .route("/ready", get(|State(a): State<Admin>| async move { a.ready.answer() }))
            .with_state(admin);
        tokio::select! {
            served = async { axum::serve(listener, router).await } => served.map_err(Error::from),
            () = upkeep => Ok(()),
            () = stop.wait() => Ok(()),
        }
    })
}
