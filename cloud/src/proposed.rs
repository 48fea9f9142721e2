//! What `init --dry-run` would do: on standard output, so that it can be kept in a file; what else there is to say is in the log.

use std::fmt::Arguments;
use std::io::Write as _;

/// Shows some of it.
pub(crate) fn show(what: Arguments<'_>) {
    // Nobody reads it any more.
    let _closed = writeln!(std::io::stdout(), "{what}");
}
