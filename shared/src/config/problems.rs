//! What is wrong with a configuration.
//!
//! Comes in: problems as they are found. Goes out: one line for each, with file, line and column, for people.

use std::fmt;

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and the way out.
    pub message: String,
    /// Whether it is a file that the configuration names: that may come right by itself.
    pub is_of_file: bool,
}

/// All that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub(super) file: String,
    pub(super) list: Vec<Problem>,
}

impl Problems {
    /// The problems in the order of their lines.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether a file that the configuration names cannot be used: it may still come, and the other problems may follow from it
    /// (a url without its password names no database).
    #[must_use]
    pub fn are_of_files(&self) -> bool {
        self.list.iter().any(|problem| problem.is_of_file)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.list {
            writeln!(f, "{}:{}:{}: {}", self.file, p.line, p.column, p.message)?;
        }
        let n = self.list.len();
        write!(f, "{n} problem{} in {}", if n == 1 { "" } else { "s" }, self.file)
    }
}

impl std::error::Error for Problems {}
