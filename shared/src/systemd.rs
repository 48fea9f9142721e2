//! What systemd hears of a program of `Type=notify`.
//!
//! Comes in: what the program knows of itself. Goes out: messages to the socket that systemd named.
//! Guarantees: says nothing where nobody named a socket. On failure: a line in the log, once; systemd then ends a program that
//! it hears nothing of, as it would a frozen one.

use sd_notify::{NotifyState, notify};

/// The way to systemd.
#[derive(Debug, Default)]
pub struct Systemd {
    status: String,
    failed: bool,
}

impl Systemd {
    /// All is started.
    pub fn ready(&mut self) {
        self.tell(NotifyState::Ready);
    }

    /// Work goes on: the watchdog's time starts anew.
    pub fn alive(&mut self) {
        self.tell(NotifyState::Watchdog);
    }

    /// What `systemctl status` shows; told when it has changed.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.tell(NotifyState::Status(status));
        }
    }

    /// It ends in order.
    pub fn stopping(&mut self) {
        self.tell(NotifyState::Stopping);
    }

    fn tell(&mut self, what: NotifyState<'_>) {
        let told = notify(&[what]);
        if let Err(error) = &told
            && !self.failed
        {
            tracing::warn!(%error, "systemd does not hear this program: see NotifyAccess= of its unit");
        }
        self.failed = told.is_err();
    }
}
