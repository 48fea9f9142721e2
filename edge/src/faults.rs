//! Fault points: where the fault tests kill the program, or break a guarantee to see that a test notices.
//!
//! Compiled to nothing without the feature `failpoints`. With it, the environment variable `FAILPOINTS` says what
//! happens where (crate `fail`): `edge.e2=200*off->return` kills at the 201st commit, `bad.skip_fsync=return` breaks.

#[cfg(feature = "failpoints")]
mod points {
    /// Reads `FAILPOINTS`; what it sets up lives as long as the answer.
    pub(crate) fn set_up() -> impl Drop {
        fail::FailScenario::setup()
    }

    /// Dies here, as by kill -9, when the fault point says so.
    pub(crate) fn kill_at(name: &str) {
        fail::fail_point!(name, |_| kill());
    }

    /// Whether this guarantee is to be broken.
    pub(crate) fn is_broken(name: &str) -> bool {
        fail::fail_point!(name, |_| true);
        false
    }

    fn kill() {
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        tracing::error!(?killed, "a fault point could not kill the program");
    }
}

#[cfg(not(feature = "failpoints"))]
mod points {
    /// Nothing.
    pub(crate) const fn set_up() -> Option<()> {
        None
    }

    /// Nothing.
    pub(crate) const fn kill_at(_name: &str) {}

    /// Never.
    pub(crate) const fn is_broken(_name: &str) -> bool {
        false
    }
}

pub(crate) use points::{is_broken, kill_at, set_up};
