//! What the three models share: the consumer group, and how much may go wrong.
//!
//! Guarantees: at most one worker holds the membership with which Kafka takes commits; it can lose it at any moment,
//! without knowing. Generation and member id of the real group are both in this one place: a worker that joins
//! (again) gets a new one, and whoever had it before is a stranger from then on.

/// The two workers.
pub(crate) const WORKERS: [u8; 2] = [0, 1];

/// Who holds the membership under which the partition is assigned and commits are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    member: Option<u8>,
}

impl Group {
    /// The first worker owns the partition.
    pub(crate) fn new() -> Self {
        Self { member: Some(WORKERS[0]) }
    }

    pub(crate) fn has(self, worker: u8) -> bool {
        self.member == Some(worker)
    }

    /// Nobody: the next one to join gets the partition.
    pub(crate) fn is_empty(self) -> bool {
        self.member.is_none()
    }

    /// From now on, nobody else's commits are taken.
    pub(crate) fn join(&mut self, worker: u8) {
        self.member = Some(worker);
    }

    /// The worker gave its membership up, or it died and the group noticed.
    pub(crate) fn leave(&mut self, worker: u8) {
        if self.has(worker) {
            self.member = None;
        }
    }
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Trouble {
    /// A worker dies.
    pub(crate) crashes: u8,
    /// An answer is lost, or comes too late, or a server fails.
    pub(crate) faults: u8,
    /// The group takes a worker for dead that is not.
    pub(crate) takeovers: u8,
}

impl Trouble {
    /// One crash less, if there is one left; the same for the others.
    pub(crate) fn crash(self) -> Option<Self> {
        Some(Self { crashes: self.crashes.checked_sub(1)?, ..self })
    }

    pub(crate) fn fault(self) -> Option<Self> {
        Some(Self { faults: self.faults.checked_sub(1)?, ..self })
    }

    pub(crate) fn takeover(self) -> Option<Self> {
        Some(Self { takeovers: self.takeovers.checked_sub(1)?, ..self })
    }
}
