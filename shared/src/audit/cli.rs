//! `weir-edge audit …`, `weir-cloud audit …`.
//!
//! Comes in: the command and the folder of the settings. Goes out: what is right, as text; an error says what is wrong.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::verify::{Place, verify};

/// What can be asked of the audit log.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// Look whether the log is as it was written: nothing altered, put in or taken out
    Verify {
        /// An entry that must be there, as the program's log or an earlier `verify` showed it
        #[arg(long, value_name = "N:HASH", value_parser = place)]
        head: Option<Place>,
        /// The last entry of the files that were archived: the oldest that is left must be bound to it
        #[arg(long, value_name = "N:HASH", value_parser = place)]
        base: Option<Place>,
        /// Where it is; default: audit.directory of the configuration
        #[arg(long)]
        directory: Option<PathBuf>,
    },
}

fn place(text: &str) -> Result<Place, String> {
    let (n, hash) = text.split_once(':').ok_or("must be a number, a colon and a hash")?;
    let n = n.trim().parse().map_err(|e| format!("{n:?} is no number: {e}"))?;
    Ok((n, hash.trim().to_ascii_lowercase()))
}

impl AuditCommand {
    /// Whether it says itself where the log is: no settings are needed then, on another machine say.
    #[must_use]
    pub const fn has_directory(&self) -> bool {
        let Self::Verify { directory, .. } = self;
        directory.is_some()
    }
}

/// Does it.
///
/// # Errors
/// What is wrong with the log, or where it should be looked for.
pub fn run(command: &AuditCommand, configured: Option<&Path>) -> Result<String, String> {
    let AuditCommand::Verify { head, base, directory } = command;
    let folder = directory.as_deref().or(configured).ok_or(
        "audit.directory is not set: give --directory; under systemd it is audit in /var/lib/weir-edge or /var/lib/weir-cloud",
    )?;
    verify(folder, base.as_ref(), head.as_ref())
}
