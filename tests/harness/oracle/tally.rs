//! Counting: what one store holds of a run, compared with what the run published.
//!
//! Comes in: the run ([`Issued`]), then every row of the store that belongs to it, in any order. Goes out: a
//! [`Judgement`]. Guarantees: each row counts in exactly one way; a reading that was published but never
//! acknowledged may be there once or not at all. Pure.

use std::collections::HashSet;

use crate::simulator::broken;
use crate::simulator::content::Content;
use crate::simulator::ledger::Issued;

/// How many rows are shown as examples of what is wrong.
const EXAMPLES: usize = 5;

/// One dead letter as a store holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// MQTT topic that the message came from.
    pub topic: String,
    /// Why it was refused.
    pub reason: String,
    /// Length of the message.
    pub bytes: u64,
    /// The message, or its first part.
    pub raw: Vec<u8>,
}

/// What is right and what is wrong in one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Judgement {
    /// Readings that the broker acknowledged.
    pub acked: u64,
    /// Of all readings published, those that are there at least once.
    pub found: u64,
    /// Acknowledged, not there.
    pub lost: u64,
    /// Rows beyond the first of a reading, and identities that two rows share.
    pub doubled: u64,
    /// Rows that do not say what was published.
    pub altered: u64,
    /// Rows with this run's name that nobody published.
    pub unexpected: u64,
    /// The same for dead letters.
    pub letters: Letters,
    /// A few of the rows that are wrong, in words.
    #[serde(skip)]
    pub examples: Vec<String>,
}

/// What is right and what is wrong among the dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Letters {
    /// Broken messages that the broker acknowledged.
    pub acked: u64,
    /// Of all broken messages published, those that are there.
    pub found: u64,
    /// Acknowledged, not there.
    pub lost: u64,
    /// Rows beyond the first.
    pub doubled: u64,
    /// Another reason, length or bytes than expected.
    pub altered: u64,
    /// Dead letters of this run that no broken message explains.
    pub unexpected: u64,
}

impl Judgement {
    /// Whether the store holds what it must, and nothing else.
    #[must_use]
    pub fn is_right(&self) -> bool {
        let l = &self.letters;
        [self.lost, self.doubled, self.altered, self.unexpected, l.lost, l.doubled, l.altered, l.unexpected]
            .iter()
            .all(|&n| n == 0)
    }

    /// Whether nothing is missing any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost == 0 && self.letters.lost == 0
    }
}

/// The rows of one store, counted one by one.
pub struct Tally<'a> {
    issued: &'a Issued,
    rows: Vec<u8>,
    letters: Vec<u8>,
    identities: HashSet<(String, i64, i64)>,
    judgement: Judgement,
}

impl<'a> Tally<'a> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(issued: &'a Issued) -> Self {
        Self {
            issued,
            rows: vec![0; issued.readings.len()],
            letters: vec![0; issued.broken.len()],
            identities: HashSet::new(),
            judgement: Judgement::default(),
        }
    }

    /// One row with this run's name.
    pub fn reading(&mut self, id: &str, content: &Content) {
        let Some(n) = self.issued.number(id) else {
            self.judgement.unexpected += 1;
            return self.example(format!("unexpected: id {id:?}, device {:?}", content.device));
        };
        self.rows[n] = self.rows[n].saturating_add(1);
        if self.rows[n] > 1 {
            self.judgement.doubled += 1;
            self.example(format!("doubled: id {id:?}"));
        }
        if content.digest() != self.issued.readings[n].digest {
            self.judgement.altered += 1;
            self.example(format!("altered: id {id:?}, now {content:?}"));
        }
    }

    /// The identity of a row, where doubles are counted by it too.
    pub fn identity(&mut self, stream: &str, partition: i64, number: i64) {
        if !self.identities.insert((stream.to_owned(), partition, number)) {
            self.judgement.doubled += 1;
            self.example(format!("identity twice: {stream} {partition} {number}"));
        }
    }

    /// A row that is not readable as a reading at all.
    pub fn unreadable(&mut self, what: &str) {
        self.judgement.unexpected += 1;
        self.example(format!("unreadable: {what}"));
    }

    /// One dead letter since the run began, of this run or of another.
    pub fn dead_letter(&mut self, letter: &DeadLetter) {
        let run = &self.issued.run;
        let number =
            letter.topic.strip_prefix(&broken::topic_prefix(run)).and_then(|n| n.parse::<usize>().ok());
        let Some((n, issued)) = number.and_then(|n| Some((n, self.issued.broken.get(n)?))) else {
            // Not under the topic of a broken message: of this run only if its name stands in it.
            if letter.topic.contains(run) || contains(&letter.raw, run.as_bytes()) {
                self.judgement.letters.unexpected += 1;
                let start = String::from_utf8_lossy(&letter.raw[..letter.raw.len().min(200)]);
                self.example(format!("dead letter of a good message: {} {start}", letter.reason));
            }
            return;
        };
        self.letters[n] = self.letters[n].saturating_add(1);
        if self.letters[n] > 1 {
            self.judgement.letters.doubled += 1;
            self.example(format!("dead letter twice: {}", letter.topic));
        }
        let expected = issued.broken.bytes(run);
        let is_prefix = !letter.raw.is_empty() || expected.is_empty();
        let same = is_prefix
            && expected.starts_with(&letter.raw)
            && letter.bytes == expected.len() as u64
            && letter.reason == issued.broken.kind.reason();
        if !same {
            self.judgement.letters.altered += 1;
            let (reason, bytes, raw) = (&letter.reason, letter.bytes, letter.raw.len());
            let kind = issued.broken.kind;
            self.example(format!("dead letter of {kind:?}: {reason}, {bytes} bytes, {raw} of them in raw"));
        }
    }

    /// The sum of it.
    #[must_use]
    pub fn judge(self) -> Judgement {
        let mut judgement = self.judgement;
        for (reading, (&rows, n)) in self.issued.readings.iter().zip(self.rows.iter().zip(0..)) {
            judgement.acked += u64::from(reading.acked);
            judgement.found += u64::from(rows > 0);
            if reading.acked && rows == 0 {
                judgement.lost += 1;
                example(&mut judgement.examples, format!("lost: {}-{n}", self.issued.run));
            }
        }
        for (message, &rows) in self.issued.broken.iter().zip(&self.letters) {
            judgement.letters.acked += u64::from(message.acked);
            judgement.letters.found += u64::from(rows > 0);
            if message.acked && rows == 0 {
                judgement.letters.lost += 1;
                example(&mut judgement.examples, format!("dead letter lost: {:?}", message.broken));
            }
        }
        judgement
    }

    fn example(&mut self, words: String) {
        example(&mut self.judgement.examples, words);
    }
}

fn example(examples: &mut Vec<String>, words: String) {
    if examples.len() < EXAMPLES {
        examples.push(words);
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::broken::{Broken, Kind};
    use crate::simulator::ledger::{BrokenMessage, Reading};

    fn content(n: i64) -> Content {
        Content { device: "d".to_owned(), time_ms: n, source_time: String::new(), values: [].into() }
    }

    fn letter(broken: Broken) -> DeadLetter {
        let raw = broken.bytes("r1");
        let reason = broken.kind.reason().to_owned();
        DeadLetter { topic: broken.topic("r1"), reason, bytes: raw.len() as u64, raw }
    }

    /// Ten readings, the last never acknowledged; two broken messages.
    fn issued() -> Issued {
        let broken = |number, kind| Broken { kind, number, time_ms: 1 };
        Issued {
            run: "r1".to_owned(),
            readings: (0..10).map(|n| Reading { digest: content(n).digest(), acked: n < 9 }).collect(),
            broken: [broken(0, Kind::Empty), broken(1, Kind::TooLarge)]
                .map(|broken| BrokenMessage { broken, acked: true })
                .to_vec(),
            ..Issued::default()
        }
    }

    fn judge(change: impl FnOnce(&mut Vec<(String, Content)>, &mut Vec<DeadLetter>)) -> Judgement {
        let issued = issued();
        let mut rows = (0..9).map(|n| (format!("r1-{n}"), content(n))).collect();
        let mut letters = issued.broken.iter().map(|m| letter(m.broken)).collect();
        change(&mut rows, &mut letters);
        let mut tally = Tally::new(&issued);
        rows.iter().for_each(|(id, content)| tally.reading(id, content));
        letters.iter().for_each(|letter| tally.dead_letter(letter));
        tally.judge()
    }

    #[test]
    fn a_store_that_holds_everything_once_is_right() {
        let right = judge(|_, _| ());
        assert!(right.is_right() && right.is_complete(), "{right:?}");
        assert_eq!((right.acked, right.found, right.letters.found), (9, 9, 2));
        let unacknowledged_too = judge(|rows, _| rows.push(("r1-9".to_owned(), content(9))));
        assert!(unacknowledged_too.is_right());
        assert_eq!(unacknowledged_too.found, 10);
    }

    #[test]
    fn each_wrong_row_counts_in_its_own_way() {
        let kinds = |j: &Judgement| (j.lost, j.doubled, j.altered, j.unexpected);
        let lost = judge(|rows, _| drop(rows.remove(3)));
        assert_eq!(kinds(&lost), (1, 0, 0, 0));
        assert!(!lost.is_complete() && !lost.is_right());
        let doubled = judge(|rows, _| rows.push(rows[3].clone()));
        assert_eq!(kinds(&doubled), (0, 1, 0, 0));
        let altered = judge(|rows, _| rows[3].1.time_ms += 1);
        assert_eq!(kinds(&altered), (0, 0, 1, 0));
        let unexpected = judge(|rows, _| rows.push(("r1-10".to_owned(), content(3))));
        assert_eq!(kinds(&unexpected), (0, 0, 0, 1));
    }

    #[test]
    fn dead_letters_are_counted_the_same_way() {
        let kinds =
            |j: Judgement| (j.letters.lost, j.letters.doubled, j.letters.altered, j.letters.unexpected);
        assert_eq!(kinds(judge(|_, letters| drop(letters.pop()))), (1, 0, 0, 0));
        assert_eq!(kinds(judge(|_, letters| letters.push(letters[0].clone()))), (0, 1, 0, 0));
        assert_eq!(kinds(judge(|_, letters| letters[1].reason.clear())), (0, 0, 1, 0));
        assert_eq!(kinds(judge(|_, letters| letters[1].raw[7] ^= 1)), (0, 0, 1, 0));
        assert_eq!(kinds(judge(|_, letters| letters[1].raw.truncate(1000))), (0, 0, 0, 0));
        assert_eq!(kinds(judge(|_, letters| letters[1].raw.clear())), (0, 0, 1, 0));
        let good = |topic: &str, raw: &[u8]| DeadLetter {
            topic: topic.to_owned(),
            raw: raw.to_vec(),
            ..DeadLetter::default()
        };
        let refused = good("sensors/shuttle-00", br#"{"tags":{"run":"r1"}}"#);
        assert_eq!(kinds(judge(|_, letters| letters.push(refused))), (0, 0, 0, 1));
        let foreign = good("sensors/broken/r0/1", b"r0");
        assert_eq!(kinds(judge(|_, letters| letters.push(foreign))), (0, 0, 0, 0));
    }

    #[test]
    fn an_identity_counts_once() {
        let issued = issued();
        let mut tally = Tally::new(&issued);
        for number in [1, 2, 1] {
            tally.identity("s", 0, number);
        }
        assert_eq!(tally.judge().doubled, 1);
    }
}
