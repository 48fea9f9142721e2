//! `dlq retry`: dead letters go through again, each once.
//!
//! Comes in: dead letters, by position or by what they say. Goes out: their records once more, under the identity they
//! have, and a mark for each; both in one transaction.
//! Guarantees: a dead letter with a mark is not sent again, and the marks are read after the transactions of every other
//! retry have ended: [`SLOT`] is one for all, so two retries fence each other. Whatever ends this program, wherever: what was
//! sent has its mark, what has no mark was not sent, and the same command goes on where this one stopped.
//! On failure: the open transaction is aborted, by this program or by the next retry.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use weir_shared::clock::{self, Deadline};
use weir_shared::supervise::Error;
use weir_shared::wire;

use super::letter::{Again, Counts, Letter};
use super::log::{self, Log};
use super::marks::{Mark, Marks, Until};
use super::select::{Filter, Position};
use crate::faults;
use crate::kafka::{KafkaConfig, queue};

/// Its transactional id.
const SLOT: &str = "weir-dlq-retry";
/// How long the transaction of another retry may take to end.
const TAKE_OVER: Duration = Duration::from_secs(20);
/// Each step of a transaction.
const STEP: Duration = Duration::from_secs(10);
/// Most dead letters of one transaction.
const BATCH_LETTERS_MAX: usize = 500;
/// Most bytes of one transaction, but for one record that is larger.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Most dead letters that are named one by one when they are not sent.
const NAMED_MAX: u64 = 20;

/// What is wanted.
pub(super) struct Wanted<'a> {
    pub(super) positions: &'a [Position],
    /// When there are no positions.
    pub(super) filter: &'a Filter,
    pub(super) dry_run: bool,
    /// Do not ask.
    pub(super) yes: bool,
}

/// What happened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Sent (or, in a dry run, to be sent).
    pub(super) sent: u64,
    /// Sent by an earlier retry.
    pub(super) already: u64,
    /// Cannot be sent, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

impl Report {
    /// One line.
    pub(super) fn text(&self, dry_run: bool) -> String {
        let verb = if dry_run { "to be sent again" } else { "sent again" };
        let refused: u64 = self.refused.values().sum();
        let reasons: Vec<_> = self.refused.iter().map(|(word, n)| format!("{word} {n}")).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        format!("{} {verb}, {} were already, {refused} cannot be{reasons}", self.sent, self.already)
    }
}

/// A dead letter that goes.
struct Going {
    position: Position,
    key: Option<Vec<u8>>,
    again: Again,
    mark: Mark,
}

/// Sends what is wanted.
pub(super) fn run(kafka: &KafkaConfig, wanted: &Wanted<'_>) -> Result<Report, Error> {
    let since = wanted.filter.since.map(|since| since.at(clock::wall_ms()));
    // Opened once: what the retry itself brings to `weir.rejected` lies behind its end.
    let mut log = Log::open(kafka, since)?;
    let counts = log.counts()?;
    if wanted.dry_run || (wanted.positions.is_empty() && !wanted.yes) {
        let Some(marks) = Marks::read(kafka, Until::Stable)? else { return Err(no_marks()) };
        let mut pass = Pass {
            marks,
            counts: counts.clone(),
            producer: None,
            batch: Vec::new(),
            bytes: 0,
            report: Report::default(),
            who: who(),
        };
        pass.all(&mut log, wanted, since)?;
        if wanted.dry_run || pass.report.sent == 0 || !agreed(&pass.report)? {
            return Ok(pass.report);
        }
    }
    let producer: BaseProducer = kafka.transactional_producer(SLOT).create()?;
    producer.init_transactions(TAKE_OVER).map_err(|e| format!("taking over from another retry: {e}"))?;
    let Some(marks) = Marks::read(kafka, Until::Settled)? else { return Err(no_marks()) };
    let producer = Some(producer);
    let mut pass =
        Pass { marks, counts, producer, batch: Vec::new(), bytes: 0, report: Report::default(), who: who() };
    pass.all(&mut log, wanted, since)?;
    Ok(pass.report)
}

fn no_marks() -> Error {
    format!("there is no topic {}: run `weir-cloud init`", wire::RETRIED).into()
}

/// Who is named in the marks.
fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

fn agreed(report: &Report) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(format!("{}: say --yes to send them", report.text(true)).into());
    }
    write!(std::io::stdout(), "{}. Send them? [y/N] ", report.text(true))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(true);
    }
    Err("nothing was sent".into())
}

/// One pass over what is wanted; without a producer it only looks.
struct Pass {
    marks: Marks,
    counts: Counts,
    producer: Option<BaseProducer>,
    batch: Vec<Going>,
    bytes: usize,
    report: Report,
    who: String,
}

impl Pass {
    fn all(&mut self, log: &mut Log, wanted: &Wanted<'_>, since: Option<i64>) -> Result<(), Error> {
        if wanted.positions.is_empty() {
            log.read(|message| {
                let value = message.payload().unwrap_or_default();
                let recent = since.is_none_or(|since| log::time(message) >= since);
                // What is no dead letter says nothing that a filter could take.
                match Letter::read(value) {
                    Ok(letter) if recent && wanted.filter.takes(&letter) => {
                        self.one(log::position(message), log::time(message), message.key(), value)
                    }
                    _ => Ok(()),
                }
            })?;
        }
        for position in wanted.positions {
            log.read_one(*position, |message| {
                self.one(*position, log::time(message), message.key(), message.payload().unwrap_or_default())
            })?;
        }
        self.commit()
    }

    fn one(&mut self, position: Position, time: i64, key: Option<&[u8]>, value: &[u8]) -> Result<(), Error> {
        if let Some(mark) = self.marks.of(position, time) {
            self.report.already += 1;
            let when = super::select::shown(mark.at);
            return self.name(
                self.report.already,
                &format!("{position}: was sent again already, {when} by {}", mark.by),
            );
        }
        // The same position twice on the command line.
        if self.batch.iter().any(|going| going.position == position) {
            return Ok(());
        }
        let again = Letter::read(value).and_then(|letter| letter.again()?.has_place(&self.counts));
        match again {
            Ok(again) => {
                self.report.sent += 1;
                self.bytes += again.value.len();
                let mark = Mark { at: clock::wall_ms(), by: self.who.clone(), of: time };
                self.batch.push(Going { position, key: key.map(<[u8]>::to_vec), again, mark });
                if self.batch.len() >= BATCH_LETTERS_MAX || self.bytes >= BATCH_BYTES_MAX {
                    self.commit()?;
                }
                Ok(())
            }
            Err(why) => {
                let count = self.report.refused.entry(why.word()).or_default();
                *count += 1;
                let (count, why) = (*count, why.to_string().replace("{position}", &position.to_string()));
                self.name(count, &format!("{position}: not sent again: {why}"))
            }
        }
    }

    fn name(&self, count: u64, what: &str) -> Result<(), Error> {
        match count {
            ..=NAMED_MAX => writeln!(std::io::stderr(), "{}", super::list::printable(what))?,
            n if n == NAMED_MAX + 1 => writeln!(std::io::stderr(), "(and others like it)")?,
            _ => {}
        }
        Ok(())
    }

    /// Sends what was collected, with its marks: all or nothing.
    fn commit(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let Some(producer) = &self.producer else { return Ok(()) };
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = transact(producer, &batch) {
            if let Err(error) = producer.abort_transaction(STEP) {
                tracing::debug!("dlq: the next retry will end this transaction: {error}");
            }
            let sent = self.report.sent - batch.len() as u64;
            return Err(format!(
                "{error}; {sent} were sent again before, and it is not sure of {} more: the same command goes on \
                 from here, and sends none twice",
                batch.len()
            )
            .into());
        }
        for going in batch {
            self.marks.note(going.position, going.mark);
        }
        Ok(())
    }
}

fn transact(producer: &BaseProducer, batch: &[Going]) -> Result<(), Error> {
    producer.begin_transaction().map_err(|e| explained(&e))?;
    for going in batch {
        let mut headers = OwnedHeaders::new();
        for (name, value) in &going.again.headers {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(going.again.topic).payload(&going.again.value[..]).headers(headers);
        if let Some(key) = &going.key {
            record = record.key(key);
        }
        if let Some(partition) = going.again.partition {
            record = record.partition(partition);
        }
        queue(producer, record, Deadline::after(STEP)).map_err(|error| explained(&error))?;
        let (key, value) = (going.position.to_string(), serde_json::to_vec(&going.mark)?);
        let mark = BaseRecord::to(wire::RETRIED).partition(0).key(key.as_bytes()).payload(&value);
        queue(producer, mark, Deadline::after(STEP)).map_err(|error| explained(&error))?;
    }
    faults::kill_at("dlq.sent");
    let deadline = Deadline::after(STEP * 2);
    faults::kill_during("dlq.commit");
    loop {
        match producer.commit_transaction(STEP) {
            Ok(()) => break,
            // Asked again as the same commit.
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !deadline.passed() => {
                tracing::debug!("dlq: commit again: {error}");
            }
            Err(error) => return Err(explained(&error)),
        }
    }
    faults::kill_at("dlq.committed");
    Ok(())
}

fn explained(error: &KafkaError) -> Error {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => {
            "another `weir-cloud dlq retry` was started and took over".into()
        }
        _ => format!("kafka: {error}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() -> Pass {
        let (marks, counts, batch) = (Marks::default(), Counts::from([(wire::READINGS, 4)]), Vec::new());
        let (report, who) = (Report::default(), "anna".to_owned());
        Pass { marks, counts, producer: None, batch, bytes: 0, report, who }
    }

    fn letter(stage: &str) -> Vec<u8> {
        format!(
            r#"{{"weir":{{"stream":"000102030405060708090a0b0c0d0e0f","partition":3,"number":17,"edge":"gw",
            "topic":"weir.readings","offset":9}},"stage":"{stage}","reason":"r","bytes":1,"raw":"YQ=="}}"#
        )
        .into_bytes()
    }

    #[test]
    fn each_letter_is_counted_in_one_way() {
        let mut pass = pass();
        let at = |offset| Position { partition: 0, offset };
        pass.marks.note(at(1), Mark { at: 1, by: "anna".to_owned(), of: 50 });
        for (offset, stage) in
            [(0, "process"), (1, "process"), (2, "edge.decode"), (3, "rule"), (4, "edge.x"), (0, "process")]
        {
            pass.one(at(offset), 50, Some(b"k"), &letter(stage)).unwrap();
        }
        // Another letter at the same position: the topic was made anew.
        pass.one(at(1), 60, None, &letter("process")).unwrap();
        pass.one(at(5), 50, None, b"{").unwrap();
        // Of a topic that was made anew with fewer partitions.
        let gone =
            String::from_utf8(letter("process")).unwrap().replace("\"partition\":3", "\"partition\":4");
        pass.one(at(6), 50, None, gone.as_bytes()).unwrap();
        let elsewhere = gone.replace("weir.readings", "weir.gaps");
        pass.one(at(7), 50, None, elsewhere.as_bytes()).unwrap();
        let refused = BTreeMap::from([("edge", 2), ("rule", 1), ("no_letter", 1), ("unknown_partition", 2)]);
        assert_eq!(pass.report, Report { sent: 2, already: 1, refused });
        assert_eq!(pass.batch.iter().map(|going| going.position).collect::<Vec<_>>(), [at(0), at(1)]);
        assert_eq!((pass.batch[0].mark.of, pass.batch[0].key.as_deref()), (50, Some(&b"k"[..])));
        let line =
            "2 sent again, 1 were already, 6 cannot be (edge 2, no_letter 1, rule 1, unknown_partition 2)";
        assert_eq!(pass.report.text(false), line);
    }
}
