//! What one run published, and what of it Mosquitto acknowledged.
//!
//! Comes in: digests before a message is published, its ticket when the PUBACK is there. Goes out: [`Issued`], which
//! the oracle compares with the stores, and live counts.
//! Guarantees: a message stands in the log before its first byte leaves, so that after a kill of the simulator
//! every row in a store can still be judged. On failure: a log that cannot be written ends the run.
//!
//! The **log** (`<run>.log`) is text, one entry per line; a last line without its end is left out when it is read:
//! ```text
//! weir-run 1 <run> <start, ms since 1970>
//! P <topic> <partition> <offset of Kafka at the start>
//! R <number of the first reading> <digest> <digest> …      digests: 16 hex digits
//! B <number> <kind> <ms since 1970>                        a broken message
//! A <number of the first reading> <how many> <number of the broken one, or ->
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail, ensure};

use super::broken::{Broken, Kind};

/// First words of a log.
const MAGIC: &str = "weir-run 1";

/// Where Kafka's topics ended when the run began, by topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

/// One run, as the oracle needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issued {
    /// Its name.
    pub run: String,
    /// When it began, ms since 1970.
    pub started_ms: i64,
    /// Where Kafka's topics ended then.
    pub offsets: Offsets,
    /// Readings, by number.
    pub readings: Vec<Reading>,
    /// Broken messages, by number.
    pub broken: Vec<BrokenMessage>,
}

/// One reading that was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of its content.
    pub digest: u64,
    /// Whether Mosquitto has it for certain.
    pub acked: bool,
}

/// One broken message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenMessage {
    /// What it is.
    pub broken: Broken,
    /// Whether Mosquitto has it for certain.
    pub acked: bool,
}

/// The numbers that one message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Number of its first reading.
    pub first: u64,
    /// How many readings it has.
    pub count: u64,
    /// Its broken part.
    pub broken: Option<Broken>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings published.
    pub issued: u64,
    /// Of these, acknowledged.
    pub acked: u64,
    /// Broken messages acknowledged.
    pub broken_acked: u64,
    /// Messages acknowledged, of both kinds.
    pub messages_acked: u64,
}

/// The growing record of one run, shared by its publishers.
#[derive(Debug)]
pub struct Ledger {
    run: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    issued: Issued,
    counts: Counts,
    log: File,
    line: String,
}

impl Ledger {
    /// Begins a run, with its log at `path`.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn begin(path: &Path, run: &str, started_ms: i64, offsets: Offsets) -> anyhow::Result<Self> {
        ensure!(is_name(run), "{run:?} is no name of a run: letters and digits");
        let mut log = File::create(path).with_context(|| path.display().to_string())?;
        let mut line = format!("{MAGIC} {run} {started_ms}\n");
        for ((topic, partition), offset) in &offsets {
            writeln!(line, "P {topic} {partition} {offset}")?;
        }
        log.write_all(line.as_bytes())?;
        let issued = Issued { run: run.to_owned(), started_ms, offsets, ..Issued::default() };
        Ok(Self {
            run: run.to_owned(),
            inner: Mutex::new(Inner { issued, counts: Counts::default(), log, line }),
        })
    }

    /// The run's name.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Gives a message its numbers and writes it down, before it is published.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn issue(&self, digests: &[u64], broken: Option<(Kind, i64)>) -> std::io::Result<Ticket> {
        let mut inner = self.lock();
        let Inner { issued, counts, log, line } = &mut *inner;
        let ticket = Ticket {
            first: issued.readings.len() as u64,
            count: digests.len() as u64,
            broken: broken.map(|(kind, time_ms)| Broken {
                kind,
                number: issued.broken.len() as u64,
                time_ms,
            }),
        };
        line.clear();
        if !digests.is_empty() {
            line.push_str(&format!("R {}", ticket.first));
            digests.iter().for_each(|digest| line.push_str(&format!(" {digest:016x}")));
            line.push('\n');
        }
        if let Some(Broken { kind, number, time_ms }) = ticket.broken {
            line.push_str(&format!("B {number} {} {time_ms}\n", kind.name()));
        }
        log.write_all(line.as_bytes())?;
        counts.issued += ticket.count;
        issued.readings.extend(digests.iter().map(|&digest| Reading { digest, acked: false }));
        issued.broken.extend(ticket.broken.map(|broken| BrokenMessage { broken, acked: false }));
        Ok(ticket)
    }

    /// Mosquitto acknowledged the message with this ticket.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn acknowledge(&self, ticket: &Ticket) -> std::io::Result<()> {
        let mut inner = self.lock();
        let Inner { issued, counts, log, line } = &mut *inner;
        line.clear();
        let broken = ticket.broken.map_or_else(|| "-".to_owned(), |b| b.number.to_string());
        line.push_str(&format!("A {} {} {broken}\n", ticket.first, ticket.count));
        log.write_all(line.as_bytes())?;
        issued.acknowledge(ticket.first, ticket.count, ticket.broken.map(|b| b.number));
        counts.acked += ticket.count;
        counts.broken_acked += u64::from(ticket.broken.is_some());
        counts.messages_acked += 1;
        Ok(())
    }

    /// How far it is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Everything so far.
    #[must_use]
    pub fn issued(&self) -> Issued {
        self.lock().issued.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The edge may run on a machine of its own, whose clock is behind ours by at most this.
const CLOCKS_APART_MS: i64 = 60_000;

impl Issued {
    /// What the stores have of this run was received no earlier, by whatever clock.
    #[must_use]
    pub const fn received_since_ms(&self) -> i64 {
        self.started_ms - CLOCKS_APART_MS
    }

    /// Reads a run's log.
    ///
    /// # Errors
    /// When it cannot be read or holds what no run writes.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // What follows the last line's end was cut short by a kill.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines().enumerate();
        let first =
            lines.next().and_then(|(_, line)| line.strip_prefix(MAGIC)).context("not the log of a run")?;
        let (run, started) = first.trim().split_once(' ').context("line 1: run or start is missing")?;
        let mut issued = Self { run: run.to_owned(), started_ms: started.parse()?, ..Self::default() };
        for (n, line) in lines {
            issued.take_line(line).with_context(|| format!("line {}: {line:?}", n + 1))?;
        }
        Ok(issued)
    }

    fn take_line(&mut self, line: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["P", topic, partition, offset] => {
                self.offsets.insert((topic.to_owned(), partition.parse()?), offset.parse()?);
            }
            ["R", first, ref digests @ ..] => {
                ensure!(first.parse() == Ok(self.readings.len()), "readings are missing before it");
                for digest in digests {
                    let digest = u64::from_str_radix(digest, 16)?;
                    self.readings.push(Reading { digest, acked: false });
                }
            }
            ["B", number, kind, time_ms] => {
                ensure!(number.parse() == Ok(self.broken.len()), "broken messages are missing before it");
                let kind = Kind::from_name(kind).context("unknown kind")?;
                let broken = Broken { kind, number: number.parse()?, time_ms: time_ms.parse()? };
                self.broken.push(BrokenMessage { broken, acked: false });
            }
            ["A", first, count, broken] => {
                let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
                let broken = if broken == "-" { None } else { Some(broken.parse::<u64>()?) };
                ensure!(
                    first.saturating_add(count) <= self.readings.len() as u64,
                    "acknowledged before issued"
                );
                ensure!(broken.is_none_or(|b| b < self.broken.len() as u64), "acknowledged before issued");
                self.acknowledge(first, count, broken);
            }
            _ => bail!("not an entry"),
        }
        Ok(())
    }

    fn acknowledge(&mut self, first: u64, count: u64, broken: Option<u64>) {
        let index = |n: u64| usize::try_from(n).expect("a number below a length");
        for reading in &mut self.readings[index(first)..index(first + count)] {
            reading.acked = true;
        }
        if let Some(number) = broken {
            self.broken[index(number)].acked = true;
        }
    }

    /// Number of the reading with this id, when it is one of this run's.
    #[must_use]
    pub fn number(&self, id: &str) -> Option<usize> {
        let digits = id.strip_prefix(self.run.as_str())?.strip_prefix('-')?;
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        digits.parse().ok().filter(|&n: &usize| canonical && n < self.readings.len())
    }
}

/// The id of a reading, which travels as the tag `id`.
#[must_use]
pub fn id(run: &str, number: u64) -> String {
    format!("{run}-{number}")
}

fn is_name(run: &str) -> bool {
    !run.is_empty() && run.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("weir-ledger-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_was_written_is_read_back_and_a_cut_log_is_a_shorter_run() {
        let path = folder().join("r1.log");
        let offsets = Offsets::from([(("weir.enriched".to_owned(), 2), 17)]);
        let ledger = Ledger::begin(&path, "r1", 1000, offsets).unwrap();
        let first = ledger.issue(&[1, 2], None).unwrap();
        let second = ledger.issue(&[3], Some((Kind::OneOfSeveral, 5))).unwrap();
        ledger.issue(&[], Some((Kind::Empty, 6))).unwrap();
        ledger.acknowledge(&second).unwrap();
        assert_eq!((first.first, second.first, second.count), (0, 2, 1));
        assert_eq!(ledger.counts(), Counts { issued: 3, acked: 1, broken_acked: 1, messages_acked: 1 });
        let issued = ledger.issued();
        assert_eq!(Issued::read(&path).unwrap(), issued);
        assert_eq!(issued.readings.iter().map(|r| r.acked).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(issued.broken.iter().map(|b| b.acked).collect::<Vec<_>>(), [true, false]);

        let text = std::fs::read_to_string(&path).unwrap();
        let header = text.find('\n').unwrap();
        for end in 0..text.len() {
            assert_eq!(Issued::parse(&text[..end]).is_ok(), end > header, "cut at {end}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn ids_are_only_those_of_the_run() {
        let issued =
            Issued { run: "r1".to_owned(), readings: vec![Reading::default(); 11], ..Issued::default() };
        assert_eq!(issued.number(&id("r1", 10)), Some(10));
        for foreign in ["r1-11", "r1-010", "r1-+1", "r1-", "r10-1", "r1-broken-1", "", "r2-1"] {
            assert_eq!(issued.number(foreign), None, "{foreign}");
        }
    }
}
