//! The audit log: who changed what, before and after, each entry bound to the one before it.
//!
//! Format: `<name>.audit.jsonl`, a JSON object per line:
//!
//! ```text
//! {"n":17,"time":"2026-11-22T20:15:00.123Z","who":"anna","role":"admin","action":"rules.rollback","subject":"from 10.0.0.7",
//!  "before":{"limit-t":4},"after":{"limit-t":3},"result":"done","previous":"<64 hex>","hash":"<64 hex>"}
//! ```
//! `hash` is the SHA-256 of the line's bytes up to `,"hash"`; `previous` is the hash of the entry before, or 64 zeros. A file
//! that has become large is renamed to `<name>.<n of its first entry>.audit.jsonl`, and the chain goes on in a new one.
//! Files put aside may be archived and removed, the oldest first: [`verify`] is then told what the first one left is bound to.
//! Guarantees: an entry is on disk before [`Audit::record`] returns; one that was altered, added or taken out is found by
//! [`verify`]; entries cut off at the end are, when a head that was seen later is known: every entry is in the program's log
//! too, with its number and hash, and that log is usually kept elsewhere.
//! On failure: `record` says why. When the file is taken away under the program, the chain goes on in a new one, whose first entry
//! is bound to what is gone. In place of a line that a power cut tore stands, from the next entry on, one that holds what
//! was left of it. A log whose last entry cannot be read is not written on: it must be moved away first.

pub mod cli;
mod logins;
pub mod settings;
pub mod verify;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};
use serde_json::{Value, json};

use crate::clock;
use crate::config::Section;
use crate::record::hex;
use logins::Logins;

/// A file that has become larger is put aside.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// `previous` of the first entry.
const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What files of the log are called behind their name.
const ENDING: &str = ".audit.jsonl";
/// Longest text of a value in an entry, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Longest line about an entry in the program's log, in characters.
const TOLD_CHARS_MAX: usize = 600;

/// What somebody did, or tried to.
#[derive(Clone, Debug, Default)]
pub struct Entry<'e> {
    /// Who; empty: not known.
    pub who: &'e str,
    /// As what.
    pub role: &'e str,
    /// What was done: `rules.rollback`, `config`.
    pub action: &'e str,
    /// To what.
    pub subject: &'e str,
    /// What was.
    pub before: Value,
    /// What is.
    pub after: Value,
    /// What became of it: `done`, `refused: …`, `failed: …`.
    pub result: &'e str,
}

/// The audit log of a process. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    log: Mutex<Inner>,
    /// Apart, as who looks here must not wait for a disk.
    logins: Mutex<Logins>,
}

struct Inner {
    /// Without one, entries are in the program's log alone.
    place: Option<Place>,
    open: Option<Open>,
    entries: Counter,
    failing: Gauge,
}

#[derive(Clone, Debug)]
struct Place {
    folder: PathBuf,
    name: String,
}

struct Open {
    file: File,
    /// Up to here entries stand.
    bytes: u64,
    /// What a failed write is cut back to: behind entries and what a torn one left.
    kept: u64,
    /// Number of its first entry, where it has one.
    first: Option<u64>,
    next: u64,
    previous: String,
}

/// Where the log of a program is: `audit.directory`, else `audit` in the folder that systemd keeps for it, else nowhere.
#[must_use]
pub fn directory(root: &Section<'_>) -> Option<PathBuf> {
    let configured = root.section("audit").string("directory");
    if !configured.is_empty() {
        return Some(PathBuf::from(configured));
    }
    std::env::var_os("STATE_DIRECTORY").map(|state| PathBuf::from(state).join("audit"))
}

impl Audit {
    /// The log of `name` in this folder; nothing is opened yet.
    #[must_use]
    pub fn new(folder: Option<PathBuf>, name: &str) -> Self {
        let fits = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' };
        let name = name.chars().map(fits).collect();
        let place = folder.map(|folder| Place { folder, name });
        let (entries, failing) = (counter!("weir_audit_entries_total"), gauge!("weir_audit_failing"));
        failing.set(0.0);
        let log = Mutex::new(Inner { place, open: None, entries, failing });
        Self(Arc::new(Shared { log, logins: Mutex::default() }))
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// Why it is not on disk. What it is about should then not be done.
    pub fn record(&self, entry: &Entry<'_>) -> Result<(), String> {
        self.record_all(std::slice::from_ref(entry))
    }

    /// Writes several entries, which become durable together.
    ///
    /// # Errors
    /// As [`Audit::record`]; then none of them is there.
    pub fn record_all(&self, entries: &[Entry<'_>]) -> Result<(), String> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut inner = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        let written = inner.write(entries);
        inner.failing.set(f64::from(u8::from(written.is_err())));
        match &written {
            Ok(()) => inner.entries.increment(entries.len() as u64),
            Err(why) => {
                inner.open = None;
                for Entry { who, action, subject, .. } in entries {
                    tracing::error!("audit: {why}; not written: {who} {action} {subject}");
                }
            }
        }
        written
    }

    /// The newest entry with this action: its `after`.
    #[must_use]
    pub fn last_of(&self, action: &str) -> Option<Value> {
        let inner = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        let place = inner.place.as_ref()?;
        let of = |file: PathBuf| {
            let text = std::fs::read_to_string(file).ok()?;
            let mut entries = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            entries.find(|entry| entry["action"] == action).map(|mut entry| entry["after"].take())
        };
        files(&place.folder, Some(&place.name)).ok()?.into_iter().rev().find_map(of)
    }
}

impl Inner {
    fn write(&mut self, entries: &[Entry<'_>]) -> Result<(), String> {
        let Some(place) = &self.place else {
            for entry in entries {
                tracing::info!(target: "weir_audit", "{}", told(entry));
            }
            return Ok(());
        };
        if self.open.is_none() {
            self.open = Some(Open::new(place)?);
        }
        let open = self.open.as_mut().expect("opened above");
        if !open.stands(place) {
            open.go_on(place)?;
        }
        if open.bytes >= FILE_BYTES_MAX {
            open.put_aside(place)?;
        }
        open.append(entries)
    }
}

impl Open {
    fn new(place: &Place) -> Result<Self, String> {
        let path = place.path();
        let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        std::fs::create_dir_all(&place.folder)
            .map_err(|e| format!("{}: {e}; set audit.directory", place.folder.display()))?;
        let mut file = place.open().map_err(|e| failed(&e))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|e| failed(&e))?;
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let torn = String::from_utf8_lossy(&text[whole..]).into_owned();
        let kept = text.len() as u64;
        text.truncate(whole);
        let mut lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let first = lines.next();
        let last = lines.next_back().or(first);
        let line = match last {
            Some(line) => Some(last_of(&path, line)?),
            None => place.newest_before()?,
        };
        let (next, previous) = line.map_or_else(|| (1, FIRST.to_owned()), |line| (line.n + 1, line.hash));
        let first = first.and_then(|line| verify::Line::read(line).ok()).map(|line| line.n);
        let mut open = Self { file, bytes: whole as u64, kept, first, next, previous };
        if !torn.is_empty() {
            let entry = Entry {
                action: "audit.torn",
                before: json!(torn),
                result: "done",
                subject: "the last line, not written whole",
                ..Entry::default()
            };
            // It is longer than what it is written over, if that is not very long.
            open.append(&[entry])?;
            open.file.set_len(open.bytes).map_err(|e| failed(&e))?;
        }
        Ok(open)
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> Result<(), String> {
        let (time, mut lines, mut hashes): (_, Vec<u8>, Vec<String>) = (time(), Vec::new(), Vec::new());
        for (n, entry) in (self.next..).zip(entries) {
            let (line, hash) = line(n, &time, entry, hashes.last().unwrap_or(&self.previous));
            lines.extend(line);
            hashes.push(hash);
        }
        let written = self.file.seek(SeekFrom::Start(self.bytes)).and_then(|_| self.file.write_all(&lines));
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Half a line must not stand before the next one.
            if let Err(error) = self.file.set_len(self.kept) {
                tracing::debug!("audit: {error}");
            }
            return Err(format!("the audit log cannot be written: {error}"));
        }
        self.bytes += lines.len() as u64;
        self.kept = self.bytes;
        self.first.get_or_insert(self.next);
        for (entry, hash) in entries.iter().zip(hashes) {
            tracing::info!(target: "weir_audit", "{} {hash}: {}", self.next, told(entry));
            self.next += 1;
            self.previous = hash;
        }
        Ok(())
    }

    /// Whether its name still leads to it.
    fn stands(&self, place: &Place) -> bool {
        let which = |of: std::io::Result<std::fs::Metadata>| of.map(|of| (of.dev(), of.ino())).ok();
        which(std::fs::metadata(place.path())) == which(self.file.metadata())
    }

    /// Somebody took the file away while it was written: the chain goes on in a new one, which shows that there was more.
    fn go_on(&mut self, place: &Place) -> Result<(), String> {
        let path = place.path();
        tracing::error!(
            "audit: {} was removed or moved away; entry {} begins a new file",
            path.display(),
            self.next
        );
        if path.metadata().is_ok_and(|other| other.len() > 0) {
            *self = Self::new(place)?;
            return Ok(());
        }
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        std::fs::create_dir_all(&place.folder).map_err(failed)?;
        self.file = place.open().map_err(failed)?;
        (self.bytes, self.kept, self.first) = (0, 0, None);
        Ok(())
    }

    /// The chain goes on in a new file.
    fn put_aside(&mut self, place: &Place) -> Result<(), String> {
        let path = place.path();
        let aside =
            place.folder.join(format!("{}.{:012}{ENDING}", place.name, self.first.unwrap_or_default()));
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        if aside.exists() {
            return Err(format!("{} is there already: move it away", aside.display()));
        }
        std::fs::rename(&path, aside).map_err(failed)?;
        self.file = place.open().map_err(failed)?;
        (self.bytes, self.kept, self.first) = (0, 0, None);
        Ok(())
    }
}

impl Place {
    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}{ENDING}", self.name))
    }

    fn open(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        let file = options.open(self.path())?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(std::io::Error::other("another process has it")),
            // A file system without locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // The name of a new file must be there after a power cut.
        File::open(&self.folder)?.sync_all()?;
        Ok(file)
    }

    /// The last entry of the newest file that was put aside.
    fn newest_before(&self) -> Result<Option<verify::Line>, String> {
        let own = self.path();
        let all = files(&self.folder, Some(&self.name));
        let all = all.map_err(|e| format!("{}: {e}", self.folder.display()))?;
        let Some(older) = all.into_iter().rfind(|file| *file != own) else { return Ok(None) };
        let text = std::fs::read(&older).map_err(|e| format!("{}: {e}", older.display()))?;
        let last = text.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
        last_of(&older, last).map(Some)
    }
}

/// The last line of a file: what comes is bound to it.
fn last_of(file: &Path, line: &[u8]) -> Result<verify::Line, String> {
    verify::Line::read(line).map_err(|why| {
        let file = file.display();
        format!("{file}: its last line {why}: look at it by `audit verify`, and move the file away")
    })
}

/// Files of the log, oldest first; of one name, or of all.
fn files(folder: &Path, name: Option<&str>) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.file_name();
        let Some(stem) = file.to_str().and_then(|file| file.strip_suffix(ENDING)) else { continue };
        let (of, part) = match stem.rsplit_once('.') {
            Some((of, part)) => (of, part.parse().unwrap_or(u64::MAX)),
            None => (stem, u64::MAX),
        };
        if name.is_none_or(|name| name == of) {
            found.push((of.to_owned(), part, folder.join(&file)));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// The bytes of an entry, with the line's end, and its hash.
fn line(n: u64, time: &str, entry: &Entry<'_>, previous: &str) -> (Vec<u8>, String) {
    let Entry { who, role, action, subject, before, after, result } = entry;
    let text = |value: &Value| {
        let text = value.to_string();
        if text.len() <= TEXT_BYTES_MAX {
            return value.clone();
        }
        let kept = text.char_indices().take_while(|(at, _)| *at < TEXT_BYTES_MAX).count();
        json!(text.chars().take(kept).chain("… (cut)".chars()).collect::<String>())
    };
    let members: [(&str, Value); 10] = [
        ("n", json!(n)),
        ("time", json!(time)),
        ("who", json!(who)),
        ("role", json!(role)),
        ("action", json!(action)),
        ("subject", json!(subject)),
        ("before", text(before)),
        ("after", text(after)),
        ("result", json!(result)),
        ("previous", json!(previous)),
    ];
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let start = format!("{{{}", members.join(","));
    let hash = hex(&openssl::sha::sha256(start.as_bytes()));
    (format!("{start},\"hash\":\"{hash}\"}}\n").into_bytes(), hash)
}

fn time() -> String {
    let now = jiff::Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default();
    format!("{now:.3}")
}

fn told(entry: &Entry<'_>) -> String {
    let who = if entry.who.is_empty() { "somebody" } else { entry.who };
    let changed = match (&entry.before, &entry.after) {
        (Value::Null, Value::Null) => String::new(),
        (before, after) => format!(", {before} → {after}"),
    };
    let text = format!("{who} {} {}{changed}: {}", entry.action, entry.subject, entry.result);
    let shown: String = text.chars().take(TOLD_CHARS_MAX).collect();
    let cut = if shown.len() < text.len() { " …" } else { "" };
    shown.replace(char::is_control, " ") + cut
}

#[cfg(test)]
mod tests;
