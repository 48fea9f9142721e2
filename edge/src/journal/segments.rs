//! The files of the journal, shared by its one writer and its readers.
//!
//! Comes in: base positions. Goes out: which file holds a position, and why none does. Guarantees: a segment appears
//! whole (written beside, fsynced, renamed) and the folder is fsynced before anything relies on it; what a crash left
//! beside is removed at start, as nothing in it was acknowledged; a file that is no segment is set aside, never
//! removed. On failure: a segment of a later version is refused, so that nothing of it is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;
use super::reader::{Skipped, Why};
use super::scan::{self, Bytes, Found, Range};
use super::{Error, format, measures, set_aside};
use crate::faults;

const ENDING: &str = "wj";
const UNFINISHED: &str = "new";
/// Digits of a base position in a name.
const DIGITS: usize = 20;
/// Positions stay below, so that sums do not overflow.
pub(super) const POSITION_MAX: u64 = 1 << 62;
/// Places of damage that are remembered, so that each is told once.
const TOLD_MAX: usize = 10_000;

/// The segments by base position. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    dir: Arc<PathBuf>,
    disk: Disk,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Known>,
    /// Where damage was told of.
    told: BTreeSet<u64>,
    /// What was removed by policy, ascending.
    given_up: BTreeMap<u64, u64>,
    /// Base and end of the last segment that was set aside at this start.
    lost: Option<(u64, u64)>,
    set_aside_bytes: u64,
    reserve_bytes: u64,
}

#[derive(Debug)]
struct Known {
    bytes: u64,
    damaged: bool,
}

impl Segments {
    /// Lists the segments of a folder, which is made if need be.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_on(dir, Disk::default())
    }

    pub(super) fn open_on(dir: &Path, disk: Disk) -> Result<Self, Error> {
        measures::register();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let segments = Self { dir: Arc::new(dir.to_owned()), disk, state: Arc::default() };
        for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
            let entry = entry.map_err(Error::io(dir))?;
            let (path, meta) = (entry.path(), entry.metadata().map_err(Error::io(dir))?);
            match path.extension().and_then(|e| e.to_str()) {
                Some(UNFINISHED) if meta.is_file() => {
                    segments.disk.remove(&path).map_err(Error::io(&path))?;
                }
                Some(ENDING) if meta.is_file() => segments.add(&path, meta.len())?,
                _ => {}
            }
        }
        segments.lock().set_aside_bytes = set_aside::bytes(dir);
        Ok(segments)
    }

    /// Takes a file as a segment, or sets it aside.
    fn add(&self, path: &Path, bytes: u64) -> Result<(), Error> {
        let stem = path.file_stem().and_then(|s| s.to_str());
        let digits = stem.filter(|s| s.len() == DIGITS && s.bytes().all(|b| b.is_ascii_digit()));
        let base = digits.and_then(|s| s.parse().ok()).filter(|base| *base < POSITION_MAX);
        let Some(base) = base else { return set_aside::put(&self.disk, &self.dir, path) };
        let file = File::open(path).map_err(Error::io(path))?;
        let mut header = [0; format::SEGMENT_HEADER];
        let length = file.read(&mut header, 0).map_err(Error::io(path))?;
        match format::read_segment_header(&header[..length]) {
            Some((_, version)) if version != format::VERSION => {
                return Err(Error::Version { path: path.to_owned(), version });
            }
            Some((named, _)) if named == base => {
                self.lock().files.insert(base, Known { bytes, damaged: false });
                return Ok(());
            }
            _ => {}
        }
        // The name alone says where it belongs: its batches must say the same.
        let range = Range { base, begin: u64::MAX, end: u64::MAX };
        let found = scan::find(&file, range, base, &mut Vec::new()).map_err(Error::io(path))?;
        if matches!(found, Found::End(_)) {
            self.lock().files.insert(base, Known { bytes, damaged: true });
            return self.lose(base);
        }
        self.lock().files.insert(base, Known { bytes, damaged: true });
        measures::count(measures::DAMAGED_BYTES, format::SEGMENT_HEADER as u64);
        tracing::error!(file = %path.display(), "journal: the header of a segment is damaged; its batches are read");
        Ok(())
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it is written to.
    pub(super) const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// All base positions, ascending.
    pub(crate) fn bases(&self) -> Vec<u64> {
        self.lock().files.keys().copied().collect()
    }

    /// The base of the segment that holds `position`, and where that segment ends, if another follows.
    pub(crate) fn holding(&self, position: u64) -> Option<(u64, Option<u64>)> {
        let state = self.lock();
        let (base, _) = state.files.range(..=position).next_back()?;
        let next = state.files.range(position + 1..).next().map(|(next, _)| *next);
        Some((*base, next))
    }

    /// Where the first segment above `position` begins.
    pub(super) fn next_base(&self, position: u64) -> Option<u64> {
        self.lock().files.range(position..).next().map(|(base, _)| *base)
    }

    /// Bytes of all files: segments, reserve, and what was set aside.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.lock();
        state.files.values().map(|known| known.bytes).sum::<u64>()
            + state.set_aside_bytes
            + state.reserve_bytes
    }

    /// Bytes of the segments and of the reserve: what a budget counts.
    pub(super) fn budgeted_bytes(&self) -> u64 {
        let state = self.lock();
        state.files.values().map(|known| known.bytes).sum::<u64>() + state.reserve_bytes
    }

    /// Bytes of one segment's file.
    pub(super) fn file_bytes(&self, base: u64) -> u64 {
        self.lock().files.get(&base).map_or(0, |known| known.bytes)
    }

    /// How large the reserve is; 0 when there is none.
    pub(super) fn reserve_bytes(&self) -> u64 {
        self.lock().reserve_bytes
    }

    /// Notes how large the reserve is.
    pub(super) fn reserved(&self, bytes: u64) {
        self.lock().reserve_bytes = bytes;
    }

    /// Sets a segment aside that holds no batch.
    pub(super) fn lose(&self, base: u64) -> Result<(), Error> {
        let mut state = self.lock();
        // It may have been longer before it was damaged: as long as any of them.
        let bytes = state.files.values().map(|known| known.bytes).max().unwrap_or(0);
        state.files.remove(&base);
        state.lost = state.lost.max(Some((base, base + bytes)));
        drop(state);
        set_aside::put(&self.disk, &self.dir, &self.path(base))?;
        self.lock().set_aside_bytes = set_aside::bytes(&self.dir);
        Ok(())
    }

    /// Base and end of the last segment that was set aside at this start.
    pub(super) fn lost(&self) -> Option<(u64, u64)> {
        self.lock().lost
    }

    /// The file with this base.
    pub(super) fn path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("{base:0DIGITS$}.{ENDING}"))
    }

    /// Makes a segment that holds `batches` and has room up to `room`; durable when this returns. Replaces a segment
    /// with the same base at once.
    pub(super) fn create(&self, base: u64, batches: &[u8], room: u64) -> Result<File, Error> {
        let unfinished = self.path(base).with_extension(UNFINISHED);
        let file = self.disk.create(&unfinished, room).map_err(Error::io(&unfinished))?;
        self.finish(&unfinished, file, base, batches, room)
    }

    /// Makes a segment of a file that has room already.
    pub(super) fn finish(
        &self,
        from: &Path,
        file: File,
        base: u64,
        batches: &[u8],
        room: u64,
    ) -> Result<File, Error> {
        let mut bytes = Vec::with_capacity(format::SEGMENT_HEADER + batches.len());
        bytes.extend_from_slice(&format::segment_header(base));
        bytes.extend_from_slice(batches);
        self.disk.write(&file, &bytes, 0).map_err(Error::io(from))?;
        self.disk.sync(&file).map_err(Error::io(from))?;
        let path = self.path(base);
        self.disk.rename(from, &path).map_err(Error::io(&path))?;
        // It may have its name from here on, which hides what an older segment holds above its base: no going back, not
        // even for want of room.
        let in_doubt = |error| Error::io(&self.dir)(std::io::Error::other(error));
        self.disk.sync_dir(&self.dir).map_err(in_doubt)?;
        self.lock().files.insert(base, Known { bytes: room, damaged: false });
        Ok(file)
    }

    /// Gives back the room behind the last batch of a segment that nobody writes to any more.
    pub(super) fn trim(&self, base: u64, end: u64) {
        let bytes = scan::offset(base, end);
        let path = self.path(base);
        match File::options().write(true).open(&path).and_then(|file| file.set_len(bytes)) {
            Ok(()) => {
                if let Some(known) = self.lock().files.get_mut(&base) {
                    known.bytes = bytes;
                }
            }
            Err(error) => tracing::warn!(file = %path.display(), %error, "journal: cannot be trimmed"),
        }
    }

    /// Removes a segment that nobody needs any more; a damaged one is set aside.
    pub(super) fn remove(&self, base: u64) -> Result<(), Error> {
        let path = self.path(base);
        if self.lock().files.get(&base).is_some_and(|known| known.damaged) {
            set_aside::put(&self.disk, &self.dir, &path)?;
            self.lock().set_aside_bytes = set_aside::bytes(&self.dir);
        } else {
            self.disk.remove(&path).map_err(Error::io(&path))?;
        }
        self.lock().files.remove(&base);
        self.disk.sync_dir(&self.dir).map_err(Error::io(&self.dir))?;
        faults::kill_at("edge.e9");
        Ok(())
    }

    /// The file of this segment is gone, and this program did not remove it.
    pub(super) fn forget(&self, base: u64) {
        self.lock().files.remove(&base);
    }

    /// These positions are removed by policy.
    pub(super) fn give_up(&self, from: u64, to: u64) {
        let given_up = &mut self.lock().given_up;
        let (mut from, mut to) = (from, to);
        while let Some((&start, &end)) = given_up.range(..=to).next_back().filter(|(_, end)| **end >= from) {
            given_up.remove(&start);
            (from, to) = (from.min(start), to.max(end));
        }
        given_up.insert(from, to);
    }

    /// What was given up above the oldest segment.
    pub(super) fn gaps(&self) -> Vec<(u64, u64)> {
        let state = self.lock();
        let oldest = state.files.keys().next().copied().unwrap_or(0);
        state.given_up.iter().map(|(from, to)| (*from, *to)).filter(|(_, to)| *to > oldest).collect()
    }

    /// Where what was given up ends, if `position` is part of it.
    pub(super) fn given_up(&self, position: u64) -> Option<u64> {
        let state = self.lock();
        let (_, to) = state.given_up.range(..=position).next_back()?;
        (*to > position).then_some(*to)
    }

    /// Tells of damage, once.
    pub(super) fn tell(&self, base: Option<u64>, skipped: &Skipped) {
        if self.given_up(skipped.from).is_some_and(|to| to >= skipped.to) {
            return;
        }
        let mut state = self.lock();
        if let Some(known) = base.and_then(|base| state.files.get_mut(&base))
            && skipped.why == Why::Damaged
        {
            known.damaged = true;
        }
        if state.told.len() >= TOLD_MAX {
            state.told.pop_first();
        }
        if !state.told.insert(skipped.from) {
            return;
        }
        drop(state);
        measures::count(measures::DAMAGED_BYTES, skipped.to - skipped.from);
        let file = base.map_or_else(|| self.dir.to_path_buf(), |base| self.path(base));
        let offset = base.map_or(0, |base| scan::offset(base, skipped.from));
        tracing::error!(
            file = %file.display(), offset, position = skipped.from, to = skipped.to, why = ?skipped.why,
            "journal: damaged; goes on with the next whole batch"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
