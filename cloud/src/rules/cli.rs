//! `weir-cloud rules …`: looking at the rules and changing them, each change with author and note.
//!
//! Comes in: a command and the database of `[rules]`. Goes out: text or JSON on standard output; rows of `weir_rules`,
//! `weir_rules_active` and `weir_rules_changes`.
//! Guarantees: a command does all it says in one transaction, or nothing; two at the same time never make the same
//! version number. What is made active has been compiled before.
//! On failure: [`Failed::Usage`] (exit code 64) or [`Failed::Failed`] (1), with the way out.

mod apply;
mod change;
mod diff;
mod file;
mod read;
mod show;
mod wait;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use mysql_async::Conn;

use super::store::config::RulesConfig;
use super::store::tables::{self, Failure};
use super::{RuleRow, RuleSet, Schema};

/// What can be done.
#[derive(Subcommand)]
pub(crate) enum RulesCommand {
    /// All rules: what is active, and what the processes say of it
    Ls {
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// One version of a rule; without --version the active one, else the newest
    Show {
        id: String,
        #[arg(long)]
        version: Option<u32>,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// What differs between two versions; without A and B the active one and the newest, or the last two
    Diff { id: String, a: Option<u32>, b: Option<u32> },
    /// Make new versions of what changed in a file (TOML or JSON) and make them active
    Apply {
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// How many seconds to wait for the processes to say what they make of it; 0: not at all
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
        wait: u64,
        #[command(flatten)]
        who: Who,
    },
    /// Make an older version active; without --to the one below the active one
    Rollback {
        id: String,
        #[arg(long)]
        to: Option<u32>,
        #[command(flatten)]
        who: Who,
    },
    /// Make a rule active again: the version it had before it was disabled, else the newest
    Enable {
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Switch a rule off
    Disable {
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Versions and changes in the order of time
    History {
        id: Option<String>,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

/// Who changes, and why.
#[derive(Args)]
pub(crate) struct Who {
    /// Who changes it; default: $USER
    #[arg(long)]
    author: Option<String>,
    /// Why
    #[arg(long, default_value = "")]
    note: String,
}

/// A change's author and note, checked.
#[derive(Clone, Debug)]
struct Signed {
    author: String,
    note: String,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It was not called right.
    #[error("{0}")]
    Usage(String),
    /// It was, and could not be done.
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Failed(format!("the database of the rules: {failure}"))
    }
}

/// Longest author and note, in characters, as the tables have them.
const AUTHOR_CHARS_MAX: usize = 255;
const NOTE_CHARS_MAX: usize = 1000;

/// Dimension tables as far as they are known here.
pub(crate) struct Dims {
    /// Tables with their columns.
    pub(crate) known: Vec<(String, Vec<String>)>,
    /// Tables of which the columns are not known: rules that name them are only checked by the processes.
    pub(crate) open: Vec<String>,
}

/// Which way a rule is turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To an older version.
    Rollback,
    /// On.
    Enable,
    /// Off.
    Disable,
}

impl Direction {
    /// As in `weir_rules_changes`.
    const fn word(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }
}

/// What somebody wants of a rule.
pub(crate) struct Change {
    pub(crate) direction: Direction,
    pub(crate) id: String,
    pub(crate) to: Option<u32>,
    pub(crate) author: String,
    pub(crate) note: String,
}

/// Turns a rule; gives the version that was active, and the one that is.
///
/// # Errors
/// See [`Failed`].
pub(crate) fn change(
    config: &RulesConfig,
    dims: Dims,
    change: &Change,
) -> Result<(Option<u32>, Option<u32>), Failed> {
    let signed = sign(&Who { author: Some(change.author.clone()), note: change.note.clone() })?;
    let (id, to) = (change.id.as_str(), change.to);
    within(config, dims, async |connection, schema, _| {
        turn(connection, schema, change.direction, (id, to), &signed).await
    })
}

/// Runs one command.
///
/// # Errors
/// See [`Failed`].
pub(crate) fn run(config: &RulesConfig, dims: Dims, command: &RulesCommand) -> Result<(), Failed> {
    within(config, dims, async |connection, schema, open| dispatch(connection, schema, open, command).await)
}

/// Does something with a connection to the tables.
fn within<T>(
    config: &RulesConfig,
    dims: Dims,
    work: impl AsyncFnOnce(&mut Conn, &Schema, &[String]) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let Some(server) = &config.server else {
        return Err(Failed::Usage(
            "there are no rules: set rules.url to a database (mysql://user:password@host:3306/database)"
                .to_owned(),
        ));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failed::Failed(e.to_string()))?;
    let schema = config.schema(dims.known);
    runtime.block_on(async {
        let mut connection = tables::connect(server).await?;
        tables::check(&mut connection).await?;
        let done = Box::pin(work(&mut connection, &schema, &dims.open)).await;
        tables::disconnect(connection).await;
        done
    })
}

async fn dispatch(
    connection: &mut Conn,
    schema: &Schema,
    open: &[String],
    command: &RulesCommand,
) -> Result<(), Failed> {
    match command {
        RulesCommand::Ls { json } => {
            let listed = read::list(connection).await?;
            say(&if *json { show::list_json(&listed) } else { show::list(&listed) })
        }
        RulesCommand::Show { id, version, json } => {
            let rule = one(connection, id).await?;
            let version = version.or(rule.active_version()).unwrap_or(rule.newest());
            let (shown, reports) = (rule.version(version)?, read::reports(connection, Some(id)).await?);
            say(&match json {
                true => show::version_json(&rule, shown, &reports),
                false => show::version(&rule, shown, &reports),
            })
        }
        RulesCommand::Diff { id, a, b } => {
            let rule = one(connection, id).await?;
            let (a, b) = rule.to_compare(*a, *b)?;
            say(&diff::versions(rule.version(a)?, rule.version(b)?))
        }
        RulesCommand::Apply { file, dry_run, wait, who } => {
            apply::run(connection, (schema, open), file, (*dry_run, *wait), who).await
        }
        RulesCommand::Rollback { id, to, who } => {
            let changed = turn(connection, schema, Direction::Rollback, (id, *to), &sign(who)?).await?;
            say(&change::told(id, changed))
        }
        RulesCommand::Enable { id, who } => {
            let changed = turn(connection, schema, Direction::Enable, (id, None), &sign(who)?).await?;
            say(&change::told(id, changed))
        }
        RulesCommand::Disable { id, who } => {
            let changed = turn(connection, schema, Direction::Disable, (id, None), &sign(who)?).await?;
            say(&change::told(id, changed))
        }
        RulesCommand::History { id, json } => {
            if let Some(id) = id {
                one(connection, id).await?;
            }
            let events = read::history(connection, id.as_deref()).await?;
            say(&if *json { show::history_json(&events) } else { show::history(&events) })
        }
    }
}

/// Makes another version active, or none; gives the one before and the one after.
async fn turn(
    connection: &mut Conn,
    schema: &Schema,
    direction: Direction,
    (id, to): (&str, Option<u32>),
    signed: &Signed,
) -> Result<(Option<u32>, Option<u32>), Failed> {
    let rule = one(connection, id).await?;
    let version = match direction {
        Direction::Disable => None,
        Direction::Rollback => Some(rule.below(to)?),
        Direction::Enable => {
            let before = match rule.active_version() {
                Some(version) => Some(version),
                None => read::before_off(connection, id).await?,
            };
            Some(before.unwrap_or(rule.newest()))
        }
    };
    if let Some(version) = version {
        check(rule.version(version)?, schema)?;
    }
    Ok(change::activate(connection, direction.word(), id, version, signed).await?)
}

/// The rule with all its versions.
async fn one(connection: &mut Conn, id: &str) -> Result<read::Rule, Failed> {
    let rule = read::rule(connection, id, "").await?;
    rule.ok_or_else(|| Failed::Failed(format!("there is no rule {id:?}; `weir-cloud rules ls` shows all")))
}

/// Refuses to make active what the processes would refuse.
fn check(version: &read::Version, schema: &Schema) -> Result<(), Failed> {
    let row = RuleRow {
        id: version.id.clone(),
        version: version.version,
        kind: version.kind.clone(),
        spec: version.spec.to_string(),
        priority: version.priority,
        stands: false,
    };
    RuleSet::check(&row, schema).map_err(|refused| {
        Failed::Failed(format!(
            "{} version {} cannot be used: {}",
            refused.id, refused.version, refused.reason
        ))
    })
}

fn sign(who: &Who) -> Result<Signed, Failed> {
    let author = who.author.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let author = author.trim().to_owned();
    if author.is_empty() {
        return Err(Failed::Usage("who changes it is not known: --author NAME".to_owned()));
    }
    for (what, text, max) in [("--author", &author, AUTHOR_CHARS_MAX), ("--note", &who.note, NOTE_CHARS_MAX)]
    {
        if text.chars().count() > max {
            return Err(Failed::Usage(format!("{what} must have at most {max} characters")));
        }
    }
    Ok(Signed { author, note: who.note.clone() })
}

/// Writes to standard output.
fn say(text: &str) -> Result<(), Failed> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = std::io::stdout().lock();
    write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(|e| Failed::Failed(format!("output: {e}")))
}
