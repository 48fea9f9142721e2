//! Elasticsearch and Kafka as the sink sees them: documents, bulk requests on their way, and dead letters.
//!
//! Comes in: bulk requests. Goes out: what became of each document.
//! Guarantees: documents of one id are changed in the order in which they arrive; those of a bulk request in any
//! order, but for two of the same id. The log: a reading, a window result of revision 1, a record that no store can
//! hold, the same window result of revision 2.

/// Records in the log.
pub(super) const RECORDS: u8 = 4;

/// A set of offsets, one bit each.
pub(super) type Records = u8;

pub(super) const READING: Records = 0b0001;
pub(super) const REVISION_1: Records = 0b0010;
pub(super) const POISON: Records = 0b0100;
pub(super) const REVISION_2: Records = 0b1000;

/// All offsets before this one.
pub(super) const fn records_before(end: u8) -> Records {
    (1 << end) - 1
}

/// A bulk request on its way or being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    /// Documents that are not in yet.
    pub(super) open: Records,
    /// Documents refused for now.
    pub(super) refused: Records,
    /// Who still waits for the answer.
    pub(super) sender: Option<u8>,
}

impl Request {
    /// The documents that may be carried out next.
    pub(super) fn next_documents(self) -> impl Iterator<Item = Records> {
        let is_first_of_its_id = move |one: &Records| *one != REVISION_2 || self.open & REVISION_1 == 0;
        [READING, REVISION_1, REVISION_2]
            .into_iter()
            .filter(move |one| self.open & one != 0)
            .filter(is_first_of_its_id)
    }
}

/// All documents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Store {
    /// How many documents the reading made; 2 is enough to know.
    pub(super) readings: u8,
    /// The revision that stands there; 0: none.
    pub(super) revision: u8,
    /// The highest that ever stood there. Known to nobody but the judge.
    pub(super) highest: u8,
    /// Sorted: their order means nothing.
    pub(super) requests: Vec<Request>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { readings: 0, revision: 0, highest: 0, requests: Vec::new() }
    }

    pub(super) fn add_request(&mut self, request: Request) {
        self.requests.push(request);
        self.requests.sort_unstable();
    }

    /// Carries one document out. Without `id`, a reading makes a new document each time; without `version`, a window
    /// result replaces any other of its id.
    pub(super) fn index(&mut self, document: Records, id: bool, version: bool) {
        let revision = match document {
            REVISION_1 => 1,
            REVISION_2 => 2,
            _ => {
                self.readings = if id { 1 } else { (self.readings + 1).min(2) };
                return;
            }
        };
        if revision > self.revision || !version {
            self.revision = revision;
        }
        self.highest = self.highest.max(revision);
    }

    /// Those of the records that are in, or better ones in their place.
    pub(super) fn stored(&self, letters: u8) -> Records {
        let mut stored = 0;
        for (is_there, record) in [
            (self.readings > 0, READING),
            (self.revision >= 1, REVISION_1),
            (letters > 0, POISON),
            (self.revision >= 2, REVISION_2),
        ] {
            if is_there {
                stored |= record;
            }
        }
        stored
    }
}
