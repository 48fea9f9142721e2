//! A disk that can fail and forget, on a real folder.
//!
//! It remembers what was written or renamed and not yet fsynced, so that a crash can take any part of it back: of file
//! contents each write by itself, whole or torn; of names the last ones. A failed fsync leaves its writes in doubt for
//! ever, whatever a later fsync of the same file says.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// No faults at all, unless it was made by [`Faults::new`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Option<Arc<Mutex<State>>>);

#[derive(Debug)]
struct State {
    side: PathBuf,
    saved: u32,
    log: Vec<Op>,
    /// The next operations that go well, then how it fails.
    fails: Option<(u32, Failure)>,
    full: bool,
    dead: bool,
    random: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One operation fails.
    Once,
    /// One operation finds no room.
    NoRoom,
    /// From now on nothing works: the machine goes down.
    Crash,
}

#[derive(Debug)]
enum Op {
    Write { file: File, inode: u64, offset: u64, old: Vec<u8>, new: Vec<u8>, in_doubt: bool },
    Create(PathBuf),
    Rename { from: PathBuf, to: PathBuf, replaced: Option<PathBuf> },
    Remove { path: PathBuf, saved: PathBuf },
}

impl Faults {
    pub(super) fn new(side: &Path) -> Self {
        fs::remove_dir_all(side).ok();
        fs::create_dir_all(side).unwrap();
        Self(Some(Arc::new(Mutex::new(State {
            side: side.to_owned(),
            saved: 0,
            log: Vec::new(),
            fails: None,
            full: false,
            dead: false,
            random: 1,
        }))))
    }

    pub(super) fn fail_after(&self, operations: u32, failure: Failure) {
        self.state().unwrap().fails = Some((operations, failure));
    }

    pub(super) fn full(&self, full: bool) {
        self.state().unwrap().full = full;
    }

    /// The machine goes down and comes up: any part of what was not fsynced is gone.
    pub(super) fn crash(&self, random: u64) {
        let mut state = self.state().unwrap();
        state.random = random | 1;
        let names = state.log.iter().filter(|op| !matches!(op, Op::Write { .. })).count() as u64;
        let kept = state.below(names + 1);
        let mut left = names;
        for op in std::mem::take(&mut state.log).into_iter().rev() {
            if !matches!(op, Op::Write { .. }) {
                left -= 1;
                if left < kept {
                    continue;
                }
            }
            state.take_back(op);
        }
        (state.dead, state.fails) = (false, None);
    }

    /// The process ends and the machine does not: nothing is taken back, and the page cache is as it was.
    pub(super) fn restart(&self) {
        let mut state = self.state().unwrap();
        (state.dead, state.fails) = (false, None);
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.0.as_ref().map(|state| state.lock().unwrap())
    }

    pub(crate) fn creating(&self, path: &Path) -> io::Result<()> {
        let Some(mut state) = self.state() else { return Ok(()) };
        state.step()?;
        if state.full {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        state.log.push(Op::Create(path.to_owned()));
        Ok(())
    }

    pub(crate) fn writing(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(mut state) = self.state() else { return Ok(()) };
        let result = state.step();
        let done = if result.is_ok() { bytes.len() } else { state.below(bytes.len() as u64 + 1) as usize };
        let mut old = vec![0; bytes.len()];
        let read = file.read_at(&mut old, offset).unwrap();
        assert_eq!(read, old.len(), "there is room");
        let inode = file.metadata().unwrap().ino();
        let (handle, new) = (file.try_clone().unwrap(), bytes[..done].to_vec());
        old.truncate(done);
        file.write_all_at(&new, offset).unwrap();
        state.log.push(Op::Write { file: handle, inode, offset, old, new, in_doubt: false });
        result
    }

    /// Whether that is all: a real fsync would only cost time.
    pub(crate) fn syncing(&self, file: &File) -> io::Result<bool> {
        let Some(mut state) = self.state() else { return Ok(false) };
        let synced = file.metadata().unwrap().ino();
        if let Err(error) = state.step() {
            for op in &mut state.log {
                if let Op::Write { inode, in_doubt, .. } = op {
                    *in_doubt |= *inode == synced;
                }
            }
            return Err(error);
        }
        state.log.retain(|op| !matches!(op, Op::Write { inode, in_doubt: false, .. } if *inode == synced));
        Ok(true)
    }

    pub(crate) fn renaming(&self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(mut state) = self.state() else { return Ok(()) };
        state.step()?;
        let replaced = to.exists().then(|| state.save(to));
        state.log.push(Op::Rename { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    pub(crate) fn removing(&self, path: &Path) -> io::Result<()> {
        let Some(mut state) = self.state() else { return Ok(()) };
        state.step()?;
        if path.exists() {
            let saved = state.save(path);
            state.log.push(Op::Remove { path: path.to_owned(), saved });
        }
        Ok(())
    }

    pub(crate) fn syncing_dir(&self) -> io::Result<bool> {
        let Some(mut state) = self.state() else { return Ok(false) };
        state.step()?;
        state.log.retain(|op| matches!(op, Op::Write { .. }));
        Ok(true)
    }
}

impl State {
    /// One more operation: whether it goes well.
    fn step(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let Some((left, failure)) = self.fails else { return Ok(()) };
        if left > 0 {
            self.fails = Some((left - 1, failure));
            return Ok(());
        }
        self.fails = None;
        self.dead = failure == Failure::Crash;
        Err(io::Error::from_raw_os_error(if failure == Failure::NoRoom { ENOSPC } else { EIO }))
    }

    fn save(&mut self, path: &Path) -> PathBuf {
        self.saved += 1;
        let saved = self.side.join(self.saved.to_string());
        fs::hard_link(path, &saved).unwrap();
        saved
    }

    fn take_back(&mut self, op: Op) {
        match op {
            Op::Write { file, offset, old, new, .. } => {
                let kept = match self.below(3) {
                    0 => 0,
                    1 => new.len(),
                    _ => self.below(new.len() as u64 + 1) as usize,
                };
                // A file that was trimmed since does not grow again.
                let length =
                    file.metadata().unwrap().len().saturating_sub(offset).min(old.len() as u64) as usize;
                if kept < length {
                    file.write_all_at(&old[kept..length], offset + kept as u64).unwrap();
                }
            }
            Op::Create(path) => drop(fs::remove_file(path)),
            Op::Rename { from, to, replaced } => {
                fs::rename(&to, from).ok();
                if let Some(replaced) = replaced {
                    fs::rename(replaced, to).unwrap();
                }
            }
            Op::Remove { path, saved } => fs::rename(saved, path).unwrap(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }
}
