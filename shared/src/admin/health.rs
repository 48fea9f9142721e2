//! Whether a process does its job, and who says that it does not.
//!
//! Guarantees: no reason means yes; a reason stays until who gave it takes it back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;

/// Why something is not ready (or alive), by the name of who says so. Cheap to clone; no reason means yes.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, String>>>);

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

    /// Each with its reason.
    #[must_use]
    pub fn reasons(&self) -> Vec<(String, String)> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(who, why)| (who.clone(), why.clone())).collect()
    }

    pub(super) fn answer(&self) -> (StatusCode, String) {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.is_empty() {
            return (StatusCode::OK, "ok\n".to_owned());
        }
        let text = reasons.iter().map(|(who, why)| format!("{who}: {why}\n")).collect();
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}
