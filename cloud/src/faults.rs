//! Fault points: where the fault tests kill the program, or break a guarantee to see that a test notices.
//!
//! Compiled to nothing without the feature `failpoints`. With it, the environment variable `FAILPOINTS` says what
//! happens where (crate `fail`): `cloud.s2=200*off->return` kills in the 201st cycle, `bad.skip_restore=return` breaks.

#[cfg(feature = "failpoints")]
mod points {
    /// Reads `FAILPOINTS`; what it sets up lives as long as the answer.
    pub(crate) fn set_up() -> impl Drop {
        fail::FailScenario::setup()
    }

    /// Dies here, as by kill -9, when the fault point says so. Counted first, so that a test knows when one is held here.
    pub(crate) fn kill_at(name: &'static str) {
        metrics::counter!("weir_cloud_fault_point_total", "point" => name).increment(1);
        fail::fail_point!(name, |_| kill());
    }

    /// Dies a moment later, in the middle of what comes next, when the fault point says so.
    pub(crate) fn kill_during(name: &str) {
        fail::fail_point!(name, |_| {
            std::thread::spawn(|| {
                std::thread::sleep(std::time::Duration::from_micros(300));
                kill();
            });
        });
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
    pub(crate) const fn kill_at(_name: &'static str) {}

    /// Nothing.
    pub(crate) const fn kill_during(_name: &str) {}

    /// Never.
    pub(crate) const fn is_broken(_name: &str) -> bool {
        false
    }
}

pub(crate) use points::{is_broken, kill_at, kill_during, set_up};
