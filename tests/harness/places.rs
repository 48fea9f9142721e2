//! Where the harness keeps things: everything below `target/stack/` of the workspace.
//!
//! In: nothing but the workspace's own position. Out: paths, absolute.
//! Guarantees: no path of one machine stands in the sources; nothing is written outside `target/stack/`.
//! On failure: an error that says where the workspace was looked for.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders of the harness.
#[derive(Clone, Debug)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// Finds the workspace: where this crate was compiled, or from the working folder upward.
    pub fn find() -> Result<Self> {
        let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
        if let Some(root) = compiled.parent().filter(|root| is_workspace(root)) {
            return Ok(Self { root: root.to_owned() });
        }
        let here = env::current_dir().context("no working folder")?;
        let root = here.ancestors().find(|folder| is_workspace(folder)).with_context(|| {
            format!("no workspace with tests/harness found from {} upward", here.display())
        })?;
        Ok(Self { root: root.to_owned() })
    }

    /// The workspace's root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Downloaded things, shared by all stacks.
    pub fn dist(&self) -> PathBuf {
        self.root.join("target/stack/dist")
    }

    /// Everything of the stack called `name`.
    pub fn stack(&self, name: &str) -> PathBuf {
        self.root.join("target/stack").join(name)
    }
}

fn is_workspace(folder: &Path) -> bool {
    folder.join("Cargo.toml").is_file() && folder.join("tests/harness").is_dir()
}

/// The last `count` lines of a file, or a word about why there are none.
pub fn last_lines(path: &Path, count: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}
