//! The ClickHouse server as the sink sees it: a table, its deduplication log, and inserts on their way.
//!
//! Comes in: inserts, the KILL of a plan's queries. Goes out: what arrived.
//! Guarantees: an insert is stored whole, with its token, in one step, unless the model says that it may be cut.
//! The months of the records: 0 and 1 lie in one block, 2 in another.

/// Records in the log.
pub(super) const RECORDS: u8 = 3;

/// A set of offsets, one bit each.
pub(super) type Rows = u8;

/// Which offsets belong to which table partition.
const MONTHS: [Rows; 2] = [0b011, 0b100];

/// All offsets before this one.
pub(super) const fn rows_before(end: u8) -> Rows {
    (1 << end) - 1
}

/// A range whose end was written down, or would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Plan {
    pub(super) start: u8,
    pub(super) end: u8,
}

impl Plan {
    pub(super) fn rows(self) -> Rows {
        rows_before(self.end) & !rows_before(self.start)
    }

    /// One per month, as `blocks.rs` makes them.
    pub(super) fn blocks(self) -> [Rows; 2] {
        MONTHS.map(|month| month & self.rows())
    }
}

/// One insert: what it carries, and by that its token and query id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Insert {
    pub(super) plan: Plan,
    pub(super) rows: Rows,
    /// Under a token of its own: what is missing of a block.
    pub(super) is_rest: bool,
}

/// An insert on its way, or running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) insert: Insert,
    /// Who still waits for the answer.
    pub(super) sender: Option<u8>,
    /// The server has it: `KILL QUERY` can see it.
    pub(super) is_running: bool,
}

/// Table and log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// How often each offset stands in the table; 2 is enough to know.
    pub(super) counts: [u8; RECORDS as usize],
    /// Tokens of earlier inserts, the oldest first.
    tokens: Vec<Insert>,
    /// Sorted: their order means nothing.
    pub(super) requests: Vec<Request>,
    /// What a second replica has, where questions may end up.
    pub(super) replica: Rows,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { counts: [0; RECORDS as usize], tokens: Vec::new(), requests: Vec::new(), replica: 0 }
    }

    /// The offsets in the table.
    pub(super) fn arrived(&self) -> Rows {
        let there = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        there.fold(0, |rows, (offset, _)| rows | 1 << offset)
    }

    pub(super) fn add_request(&mut self, request: Request) {
        self.requests.push(request);
        self.requests.sort_unstable();
    }

    /// Stores `rows` of an insert unless its token is known. `window`: how many tokens are kept, the table's setting;
    /// `None`: the server knows no tokens.
    pub(super) fn store(&mut self, insert: Insert, rows: Rows, window: Option<usize>) {
        if window.is_some() && self.tokens.contains(&insert) {
            return;
        }
        self.remember(insert, window);
        for (offset, count) in self.counts.iter_mut().enumerate() {
            if rows & 1 << offset != 0 {
                *count = (*count + 1).min(2);
            }
        }
    }

    /// Keeps the token.
    pub(super) fn remember(&mut self, insert: Insert, window: Option<usize>) {
        let Some(window) = window else { return };
        if !self.tokens.contains(&insert) {
            self.tokens.push(insert);
        }
        if self.tokens.len() > window {
            self.tokens.remove(0);
        }
        if window == usize::MAX {
            // None is ever forgotten: their order means nothing, and fewer states are the same.
            self.tokens.sort_unstable();
        }
    }

    /// Ends the running inserts of a plan; gives back who waited for them.
    pub(super) fn kill(&mut self, plan: Plan) -> Vec<u8> {
        let is_of_plan = |r: &Request| r.is_running && r.insert.plan == plan;
        let senders = self.requests.iter().filter(|r| is_of_plan(r)).filter_map(|r| r.sender).collect();
        self.requests.retain(|r| !is_of_plan(r));
        senders
    }
}
