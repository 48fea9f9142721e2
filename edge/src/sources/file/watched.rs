//! The files of one section: which there are, whose turn it is, and when one is read.
//!
//! Comes in: the time since the start (it is an argument: this file reads no clock), and what stands in the folder.
//! Goes out: chunks, through a function that says whether to go on. Guarantees: see [`super`]. On failure: the file is
//! left alone until the next look at the folder, the problem is kept for `/ready`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use weir_shared::admin::Health;
use weir_shared::supervise::Error;

use super::claims::{Claims, Key};
use super::folder::{Pattern, Seen};
use super::identity::Marks;
use super::measures::Measures;
use super::reader::{CHUNK_BYTES, Chunk, Lines, Next, Position, Reader};
use super::{FileConfig, Mark, Mode};

/// After this long without growth a file is taken as it is.
pub(super) const QUIET: Duration = Duration::from_secs(2);
/// Most files that are followed: each is kept open.
const FOLLOWED_MAX: usize = 256;

/// One file.
#[derive(Debug)]
struct Known {
    seen: Seen,
    /// Since when it looks like that.
    since: Duration,
    /// It was seen to have changed, and what was read of it may be gone.
    changed: bool,
    /// Nothing to do before it changes.
    done: bool,
    /// Nothing to do before the next look.
    failed: bool,
    /// No name leads to it any more.
    gone: bool,
    /// Something of it was read by this process.
    read: bool,
    position: Option<Position>,
    reader: Option<Reader>,
}

/// What a turn of one file came to.
enum Turn {
    /// It moved on.
    Moved,
    /// Nothing to do now.
    Idle,
    /// It waits for more, or for quiet.
    Waiting,
    /// The process stops.
    Stop,
}

/// The files of one section.
pub(super) struct Watched {
    config: FileConfig,
    format: usize,
    /// Of the sections before it, whose files are not for this one.
    earlier: Vec<Pattern>,
    /// Files left to another section, as of the last look.
    left: HashSet<Key>,
    files: Vec<Known>,
    buffer: Vec<u8>,
    problem: Option<String>,
    /// The problem that was logged last.
    told: Option<String>,
    measures: Measures,
}

type Sink<'s> = dyn FnMut(&str, Chunk, usize) -> Result<bool, Error> + 's;

impl Watched {
    /// The section at this index.
    pub(super) fn new(configs: &[FileConfig], format: usize) -> Self {
        let config = configs[format].clone();
        let measures = Measures::new(&config.pattern.shown());
        Self {
            config,
            format,
            earlier: configs[..format].iter().map(|config| config.pattern.clone()).collect(),
            left: HashSet::new(),
            files: Vec::new(),
            buffer: Vec::new(),
            problem: None,
            told: None,
            measures,
        }
    }

    pub(super) const fn mode(&self) -> Mode {
        self.config.mode
    }

    /// What is wrong, since the last look.
    #[cfg(test)]
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Says on `/ready` what is wrong, and in the metrics how far it is.
    pub(super) fn report(&self, ready: &Health) {
        let who = format!("file {}", self.config.pattern.shown());
        match &self.problem {
            Some(why) => ready.bad(&who, why.as_str()),
            None => ready.good(&who),
        }
        let behind = self.files.iter().map(|f| f.seen.size.saturating_sub(f.offset())).sum();
        self.measures.standing(self.files.len(), behind);
    }

    /// Looks at the folder. What another section holds is left to it.
    pub(super) fn look(&mut self, now: Duration, claims: &mut Claims) {
        // What failed when it was last tried still fails, for all we know; trying again clears it.
        let failed = self.files.iter().any(|file| file.failed);
        if !failed {
            self.problem = None;
        }
        let listed = match self.config.pattern.files() {
            Ok(listed) => listed,
            Err(error) => return self.complain(&self.config.pattern.shown(), &error),
        };
        let mut at: HashMap<u64, usize> =
            self.files.iter().enumerate().map(|(i, file)| (file.seen.inode, i)).collect();
        for file in &mut self.files {
            file.gone = true;
        }
        let mut left = HashSet::new();
        for seen in listed {
            let held = at.contains_key(&seen.inode);
            if self.earlier.iter().any(|pattern| pattern.takes(&seen.path)) && !held
                || !claims.take(&seen, self.format)
            {
                self.leave(&seen);
                left.insert(seen.key());
                continue;
            }
            let followed = self.files.len();
            match at.get(&seen.inode) {
                Some(i) => {
                    self.files[*i].gone = false;
                    self.files[*i].see(seen, now);
                }
                None if self.config.mode == Mode::Tail && followed >= FOLLOWED_MAX => {
                    self.problem = Some(format!("more than {FOLLOWED_MAX} files match, the others are left"));
                }
                None => {
                    at.insert(seen.inode, followed);
                    self.files.push(Known::new(seen, now));
                }
            }
        }
        for file in self.files.iter_mut().filter(|file| file.gone) {
            if let Some(Ok(seen)) = file.reader.as_ref().map(|reader| reader.seen(&file.seen.path)) {
                file.see(seen, now);
            }
        }
        self.left = left;
        self.files.retain(|file| !file.gone || (file.reader.is_some() && !file.done));
        let held: HashSet<Key> = self.files.iter().map(|file| file.seen.key()).collect();
        claims.release(self.format, |key| held.contains(key));
        self.files.sort_by(|a, b| (!a.gone, &a.seen.path).cmp(&(!b.gone, &b.seen.path)));
    }

    /// Says once that a file is another section's.
    fn leave(&self, seen: &Seen) {
        if self.left.contains(&seen.key()) {
            return;
        }
        self.measures.overlaps.increment(1);
        let (path, pattern) = (seen.path.display(), self.config.pattern.shown());
        tracing::warn!(%path, pattern, "file: matches another [[file]] too, which reads it; here it is left out");
    }

    /// Gives files their turn; true when one of them moved on.
    pub(super) fn pass(
        &mut self,
        now: Duration,
        marks: &mut Marks,
        send: &mut Sink<'_>,
    ) -> Result<bool, Error> {
        let mut moved = false;
        let mut blocked: Vec<PathBuf> = Vec::new();
        for i in 0..self.files.len() {
            let file = &self.files[i];
            if file.done && !file.changed || file.failed || blocked.contains(&file.seen.path) {
                continue;
            }
            let turn = match self.turn(i, now, marks, send) {
                Ok(turn) => turn?,
                Err(error) => {
                    let path = self.files[i].seen.path.display().to_string();
                    self.complain(&path, &error);
                    self.files[i].failed = true;
                    self.files[i].reader = None;
                    continue;
                }
            };
            let file = &self.files[i];
            if file.gone && !file.done {
                // What was rotated away goes before what took its name.
                blocked.push(file.seen.path.clone());
            }
            match (turn, self.config.mode) {
                (Turn::Stop, _) => return Ok(false),
                (Turn::Moved, Mode::Whole) => return Ok(true),
                (Turn::Moved, Mode::Tail) => moved = true,
                (Turn::Waiting, Mode::Whole) => break,
                (Turn::Waiting, Mode::Tail) | (Turn::Idle, _) => {}
            }
        }
        self.buffer.shrink_to(CHUNK_BYTES);
        Ok(moved)
    }

    /// The inner error is the process's, the outer one the file's.
    fn turn(
        &mut self,
        i: usize,
        now: Duration,
        marks: &mut Marks,
        send: &mut Sink<'_>,
    ) -> io::Result<Result<Turn, Error>> {
        let lines = Lines { header: self.config.header, bytes_max: self.config.line_bytes_max };
        let file = &mut self.files[i];
        if file.open(lines, marks)? {
            self.measures.truncated.increment(1);
            tracing::info!(path = %file.seen.path.display(), "file: written anew, read from its start");
        }
        let Some(reader) = &mut file.reader else { return Ok(Ok(Turn::Idle)) };
        let before = reader.position();
        let mut next = reader.next(&mut self.buffer, false)?;
        let left = file.seen.size > reader.position().offset;
        let quiet = now.saturating_sub(file.since) >= QUIET;
        let ends = file.gone || self.config.mode == Mode::Whole;
        if matches!(next, Next::End)
            && left
            && quiet
            && ends
            && reader.seen(&file.seen.path)?.size == file.seen.size
        {
            next = reader.next(&mut self.buffer, true)?;
        }
        let path = file.seen.path.to_string_lossy();
        let turn = match next {
            Next::Chunk(chunk) => {
                let (bytes, mark) = (chunk.payload.len(), chunk.mark);
                let rows = mark.row + 1 - chunk.first_row;
                let digest = reader.digest_before(mark.offset)?;
                match send(&path, chunk, self.format) {
                    Ok(true) => {
                        file.read = true;
                        marks.note(mark, digest);
                        self.measures.bytes.increment(bytes as u64);
                        self.measures.rows.increment(rows);
                        Turn::Moved
                    }
                    Ok(false) => {
                        reader.go_to(before);
                        Turn::Stop
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            Next::More => Turn::Moved,
            Next::End if ends && quiet || self.config.mode == Mode::Whole && !left => {
                if file.read {
                    self.measures.finished.increment(1);
                    tracing::info!(%path, rows = reader.position().row, "file: read to its end");
                }
                file.done = true;
                Turn::Idle
            }
            Next::End => Turn::Waiting,
        };
        file.position = Some(reader.position());
        if file.done {
            file.reader = None;
        }
        Ok(Ok(turn))
    }

    fn complain(&mut self, path: &str, error: &io::Error) {
        self.measures.errors.increment(1);
        let why = format!("{path}: {error}");
        if self.told.as_ref() != Some(&why) {
            tracing::warn!(path, %error, "file: cannot be read, will try again");
            self.told = Some(why.clone());
        }
        self.problem = Some(why);
    }
}

impl Known {
    const fn new(seen: Seen, now: Duration) -> Self {
        Self {
            seen,
            since: now,
            changed: false,
            done: false,
            failed: false,
            gone: false,
            read: false,
            position: None,
            reader: None,
        }
    }

    fn see(&mut self, seen: Seen, now: Duration) {
        self.failed = false;
        if (seen.size, seen.modified) != (self.seen.size, self.seen.modified) {
            (self.since, self.changed) = (now, true);
        }
        self.seen = seen;
    }

    fn offset(&self) -> u64 {
        self.position.map_or(0, |position| position.offset)
    }

    /// Opens the file where it goes on; true when it was written anew since.
    fn open(&mut self, lines: Lines, marks: &Marks) -> io::Result<bool> {
        let opened = self.reader.is_none();
        if opened {
            let mut reader = Reader::open(&self.seen.path, lines)?;
            if reader.inode() != self.seen.inode {
                // Another file took its name since the last look, which will tell.
                self.failed = true;
                return Ok(false);
            }
            let known = match self.position {
                Some(position) => Some(position),
                None => {
                    let before = |offset| reader.digest_before(offset);
                    let mark = marks.find(reader.inode(), &reader.head()?, before)?;
                    mark.map(|Mark { file, offset, row }| Position { file: Some(file), offset, row })
                }
            };
            reader.go_to(known.unwrap_or_default());
            self.reader = Some(reader);
        }
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let mut anew = false;
        if opened || self.changed {
            anew = !reader.is_same(self.seen.size)?;
            if anew {
                reader.go_to(Position::default());
            }
            (self.changed, self.done) = (false, false);
        }
        Ok(anew)
    }
}
