//! `weir-cloud dlq`: the dead letters of `weir.rejected`: listed, shown, and sent through again.
//!
//! Comes in: the command line and the configuration. Goes out: text or JSON on standard output; for a retry, records in Kafka.
//! The parts: [`select`] says which are meant, [`log`] reads them, [`letter`] understands one; [`list`] and [`mod@show`] are
//! for people; [`retry`] sends again, and [`marks`] keeps what was sent.
//! Guarantees: a dead letter goes through again at most once, under the identity that it has, whatever is killed when.
//! On failure: an error that says what was done; the same command may be given again.

mod letter;
mod list;
mod log;
mod marks;
mod retry;
mod select;
mod show;

use std::io::Write as _;

use clap::Subcommand;
use rdkafka::message::Message;
use weir_shared::clock;
use weir_shared::supervise::Error;

use crate::kafka::KafkaConfig;
use letter::Letter;
use list::Summary;
use marks::{Marks, Until};
use retry::Wanted;
pub(crate) use select::Since;
use select::{Filter, Position};

/// Most dead letters that `ls` names.
const NEWEST_MAX: i64 = 100_000;
const NAME_THEM: &str = "name the dead letters: PARTITION:OFFSET …, or --stage and --reason";

/// What to do with dead letters.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// How many of which stage, reason and edge, and the newest
    Ls {
        #[command(flatten)]
        filter: Filter,
        /// How many of the newest are named
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=NEWEST_MAX))]
        limit: u32,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Everything that one says
    Show {
        /// As `ls` shows it
        #[arg(value_name = "PARTITION:OFFSET")]
        position: Position,
        /// Only the bytes of the rejected record, as they came
        #[arg(long)]
        raw: bool,
    },
    /// Send dead letters through again, each once, under the identity they have
    Retry {
        /// As `ls` shows them; instead of these: --stage and --reason
        #[arg(value_name = "PARTITION:OFFSET", required_unless_present_any = ["stage", "reason"], conflicts_with_all = ["stage", "reason", "edge", "since"])]
        positions: Vec<Position>,
        #[command(flatten)]
        filter: Filter,
        /// Only say how many would be sent
        #[arg(long)]
        dry_run: bool,
        /// Do not ask before those of a stage and reason are sent
        #[arg(long)]
        yes: bool,
    },
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It was not called right.
    #[error("{0}")]
    Usage(&'static str),
    /// It was, and could not be done.
    #[error("{0}")]
    Failed(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Does it.
///
/// # Errors
/// What is missing or wrong, with the way out.
pub(crate) fn run(kafka: &KafkaConfig, command: Command) -> Result<(), Failed> {
    match command {
        Command::Ls { filter, limit, json } => Ok(ls(kafka, &filter, limit as usize, json)?),
        Command::Show { position, raw } => Ok(show(kafka, position, raw)?),
        Command::Retry { positions, filter, dry_run, yes } => {
            named(&positions, &filter)?;
            let wanted = Wanted { positions: &positions, filter: &filter, dry_run, yes };
            let report = retry::run(kafka, &wanted)?;
            writeln!(std::io::stdout(), "{}", report.text(dry_run)).map_err(Error::from)?;
            let refused: u64 = report.refused.values().sum();
            if positions.is_empty() || refused == 0 {
                return Ok(());
            }
            Err(Failed::Failed(format!("{refused} of those named cannot be sent again").into()))
        }
    }
}

/// Refuses a retry that could mean more than somebody thought of.
fn named(positions: &[Position], filter: &Filter) -> Result<(), Failed> {
    if positions.is_empty() && (filter.stage.is_none() || filter.reason.is_none()) {
        return Err(Failed::Usage(NAME_THEM));
    }
    Ok(())
}

fn ls(kafka: &KafkaConfig, filter: &Filter, limit: usize, json: bool) -> Result<(), Error> {
    let since = filter.since.map(|since| since.at(clock::wall_ms()));
    let mut log = log::Log::open(kafka, since)?;
    let marks = Marks::read(kafka, Until::Stable)?.unwrap_or_default();
    let mut summary = Summary::new(limit);
    log.read(|message| {
        let (position, time) = (log::position(message), log::time(message));
        if since.is_some_and(|since| time < since) {
            return Ok(());
        }
        match Letter::read(message.payload().unwrap_or_default()) {
            Ok(letter) if filter.takes(&letter) => {
                let retried = marks.of(position, time).is_some();
                summary.add(position, time, message.key(), &letter, retried);
            }
            Ok(_) => {}
            Err(_) if filter.is_by_content() => {}
            Err(_) => summary.unreadable(),
        }
        Ok(())
    })?;
    let shown = if json { summary.json() + "\n" } else { summary.text() };
    Ok(std::io::stdout().write_all(shown.as_bytes())?)
}

fn show(kafka: &KafkaConfig, position: Position, raw: bool) -> Result<(), Error> {
    let log = log::Log::open(kafka, None)?;
    let marks = Marks::read(kafka, Until::Stable)?.unwrap_or_default();
    let shown = log.read_one(position, |message| {
        let letter = Letter::read(message.payload().unwrap_or_default())?;
        if raw {
            return Ok(letter.shown()?);
        }
        let time = log::time(message);
        let mark = marks.of(position, time);
        Ok(show::text(position, time, message.key(), &letter, mark)?.into_bytes())
    })?;
    Ok(std::io::stdout().write_all(&shown)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_of_positions_or_of_a_stage_and_reason() {
        let word = || Some("r".to_owned());
        let position = Position { partition: 0, offset: 1 };
        let of = |stage, reason| Filter { stage, reason, ..Filter::default() };
        for filter in [of(None, None), of(word(), None), of(None, word())] {
            assert!(matches!(named(&[], &filter), Err(Failed::Usage(NAME_THEM))), "{filter:?}");
            assert!(named(&[position], &filter).is_ok(), "{filter:?}");
        }
        assert!(named(&[], &of(word(), word())).is_ok());
    }
}
