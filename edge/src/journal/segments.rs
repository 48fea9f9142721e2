//! The files of the journal, shared by its one writer and its readers.
//!
//! Comes in: base positions. Goes out: which file holds a position. Guarantees: a segment appears whole (written
//! beside, fsynced, renamed) and the folder is fsynced before anything relies on it; what a crash left beside is
//! removed at start, as nothing in it was acknowledged. On failure: a segment without a valid header is damage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, format};

const ENDING: &str = "wj";
const UNFINISHED: &str = "new";

/// The segments by base position. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    dir: Arc<PathBuf>,
    bases: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Segments {
    /// Lists the segments of a folder, which is made if need be.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let mut bases = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
            let path = entry.map_err(Error::io(dir))?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some(UNFINISHED) => fs::remove_file(&path).map_err(Error::io(&path))?,
                Some(ENDING) => {
                    let bytes = fs::metadata(&path).map_err(Error::io(&path))?.len();
                    bases.insert(read_header(&path)?, bytes);
                }
                _ => {}
            }
        }
        Ok(Self { dir: Arc::new(dir.to_owned()), bases: Arc::new(Mutex::new(bases)) })
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All base positions, ascending.
    pub(crate) fn bases(&self) -> Vec<u64> {
        self.lock().keys().copied().collect()
    }

    /// The base of the segment that holds `position`, and where that segment ends, if another follows.
    pub(crate) fn holding(&self, position: u64) -> Option<(u64, Option<u64>)> {
        let bases = self.lock();
        let (base, _) = bases.range(..=position).next_back()?;
        let next = bases.range(position + 1..).next().map(|(next, _)| *next);
        Some((*base, next))
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().values().sum()
    }

    /// The file with this base.
    pub(super) fn path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("{base:020}.{ENDING}"))
    }

    /// Makes a segment that holds `batches` and has room up to `bytes`; durable when this returns. Replaces a segment
    /// with the same base at once.
    pub(super) fn create(&self, base: u64, batches: &[u8], bytes: u64) -> Result<File, Error> {
        let path = self.path(base);
        let unfinished = path.with_extension(UNFINISHED);
        let mut file = File::create(&unfinished).map_err(Error::io(&unfinished))?;
        let written = (format::SEGMENT_HEADER + batches.len()) as u64;
        let room = bytes.max(written);
        // A file system that cannot preallocate costs speed, not safety.
        if let Err(error) = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, room) {
            if error == rustix::io::Errno::NOSPC {
                return Err(Error::io(&unfinished)(error.into()));
            }
            file.set_len(room).map_err(Error::io(&unfinished))?;
        }
        file.write_all(&format::segment_header(base)).map_err(Error::io(&unfinished))?;
        file.write_all(batches).map_err(Error::io(&unfinished))?;
        file.sync_all().map_err(Error::io(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(Error::io(&path))?;
        self.sync_dir()?;
        self.lock().insert(base, room);
        Ok(file)
    }

    /// Removes a segment that nobody needs any more.
    pub(super) fn remove(&self, base: u64) -> Result<(), Error> {
        let path = self.path(base);
        self.lock().remove(&base);
        fs::remove_file(&path).map_err(Error::io(&path))?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), Error> {
        File::open(&*self.dir).and_then(|d| d.sync_all()).map_err(Error::io(&self.dir))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_header(path: &Path) -> Result<u64, Error> {
    let mut header = Vec::with_capacity(format::SEGMENT_HEADER);
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(format::SEGMENT_HEADER as u64).read_to_end(&mut header).map_err(Error::io(path))?;
    let named = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
    match format::read_segment_header(&header) {
        Some((_, version)) if version != format::VERSION => {
            Err(Error::Version { path: path.to_owned(), version })
        }
        Some((base, _)) if named == Some(base) => Ok(base),
        _ => Err(Error::Damaged { path: path.to_owned(), offset: 0, position: named.unwrap_or(0) }),
    }
}
