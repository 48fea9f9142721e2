//! Whether an audit log is as it was written.
//!
//! Comes in: its folder, and perhaps a head that was seen and the last entry of what was archived (both `number:hash`). Goes
//! out: how many entries each chain has and its head, or what is wrong and where. Guarantees: an entry that was altered, put in,
//! moved or taken out is named by file and line. A chain that was cut off at its end, or replaced as a whole, is seen by a head
//! alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{ENDING, FIRST, files};
use crate::record::hex;

/// What binds a line to its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) n: u64,
    pub(super) previous: String,
    pub(super) hash: String,
}

impl Line {
    /// Reads a line, and whether its hash is that of its content.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned())?;
        let entry: Value = serde_json::from_str(text).map_err(|e| format!("is no JSON: {e}"))?;
        let word = |name: &str| entry[name].as_str().map(str::to_owned).ok_or(format!("has no {name:?}"));
        let (hash, previous) = (word("hash")?, word("previous")?);
        let n = entry["n"].as_u64().ok_or("has no \"n\"")?;
        let end = format!(",\"hash\":\"{hash}\"}}");
        let content = text.strip_suffix(&end).ok_or("does not end with its hash")?;
        if hex(&openssl::sha::sha256(content.as_bytes())) != hash {
            return Err("was altered: its hash is not that of its content".to_owned());
        }
        Ok(Self { n, previous, hash })
    }
}

/// An entry's number and hash, as `verify` shows them.
pub type Place = (u64, String);

/// One chain, so far.
#[derive(Default)]
struct Chain {
    entries: u64,
    last: Option<Line>,
}

/// Goes through all chains of a folder; gives what is right, in lines.
///
/// # Errors
/// What is wrong, in lines, and where.
pub fn verify(folder: &Path, base: Option<&Place>, head: Option<&Place>) -> Result<String, String> {
    let found = files(folder, None).map_err(|e| format!("{}: {e}", folder.display()))?;
    if found.is_empty() {
        return Err(format!("{}: there is no audit log (*{ENDING}) here", folder.display()));
    }
    let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
    let (mut problems, mut seen) = (Vec::new(), false);
    for path in found {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = file.trim_end_matches(ENDING);
        let name = stem.rsplit_once('.').map_or(stem, |(name, _)| name);
        let chain = chains.entry(name.to_owned()).or_default();
        let mut text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        // What is being written now, or was torn: the next start says so.
        text.truncate(text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1));
        for (at, line) in text.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let mut wrong = |why: &str| problems.push(format!("{file}:{}: {why}", at + 1));
            match Line::read(line) {
                Ok(line) => {
                    chain.follow(&line, base).unwrap_or_else(|why| wrong(&why));
                    seen |= head.is_some_and(|(n, hash)| (*n, hash) == (line.n, &line.hash));
                    chain.last = Some(line);
                }
                Err(why) => {
                    wrong(&why);
                    chain.pass_over(line);
                }
            }
            chain.entries += 1;
        }
    }
    if let Some((n, hash)) = head.filter(|_| !seen) {
        problems.push(format!("there is no entry {n} with the hash {hash}: the log was cut off or replaced"));
    }
    if !problems.is_empty() {
        let s = if problems.len() == 1 { "" } else { "s" };
        return Err(format!(
            "{}\n{} problem{s} in {}",
            problems.join("\n"),
            problems.len(),
            folder.display()
        ));
    }
    let mut out = String::new();
    for (name, Chain { entries, last }) in chains {
        let head = last.map_or_else(String::new, |last| format!("; head {}:{}", last.n, last.hash));
        writeln!(out, "{name}: {entries} entries, each bound to the one before{head}").expect("a String");
    }
    Ok(out)
}

impl Chain {
    fn follow(&self, line: &Line, base: Option<&Place>) -> Result<(), String> {
        let is_base = |(n, _): &&Place| n + 1 == line.n;
        let (n, previous) = match &self.last {
            Some(last) => (last.n + 1, last.hash.as_str()),
            None => base.filter(is_base).map_or((1, FIRST), |(n, hash)| (n + 1, hash.as_str())),
        };
        if line.n != n && self.last.is_none() {
            return Err(format!(
                "is entry {}, and nothing is before it: if older files were archived, give --base {}:HASH of the last one there",
                line.n,
                line.n.saturating_sub(1)
            ));
        }
        if line.n != n {
            return Err(format!(
                "is entry {}, and {n} should be here: entries were taken out or put in",
                line.n
            ));
        }
        // Unknown behind a line that cannot be read; that one is a problem already.
        if line.previous != previous && !previous.is_empty() {
            return Err("is not bound to the entry before it".to_owned());
        }
        Ok(())
    }

    /// A line that is wrong has a place in the chain all the same, so that the ones behind it are not wrong too.
    fn pass_over(&mut self, line: &[u8]) {
        let hash =
            serde_json::from_slice::<Value>(line).ok().and_then(|e| Some(e["hash"].as_str()?.to_owned()));
        let n = self.last.as_ref().map_or(0, |last| last.n) + 1;
        self.last = Some(Line { n, previous: String::new(), hash: hash.unwrap_or_default() });
    }
}
