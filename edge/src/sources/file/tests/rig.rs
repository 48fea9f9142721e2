//! A real folder, and one section of the file source on it with a clock of its own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::watched::QUIET;
use super::super::*;

/// A folder that is removed at the end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("weir-file-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// One section, with what it has handed on, and a clock.
pub(super) struct Run {
    pub(super) watched: Watched,
    pub(super) marks: Marks,
    pub(super) claims: Claims,
    pub(super) now: Duration,
    pub(super) chunks: Vec<(String, Chunk)>,
    pub(super) journaled: HashMap<u64, (u64, u64)>,
}

impl Run {
    pub(super) fn new(folder: &Folder, name: &str, mode: Mode, header: bool) -> Self {
        Self::after(folder, name, mode, header, HashMap::new())
    }

    pub(super) fn after(
        folder: &Folder,
        name: &str,
        mode: Mode,
        header: bool,
        marks: HashMap<u64, (u64, u64)>,
    ) -> Self {
        let pattern = Pattern::new(folder.path(name).to_str().unwrap()).unwrap();
        let config = FileConfig { pattern, mode, header, line_bytes_max: 200_000 };
        let watched = Watched::new(&[config], 0);
        let journaled = Marks::new(marks.clone());
        Self {
            watched,
            marks: journaled,
            claims: Claims::default(),
            now: Duration::ZERO,
            chunks: Vec::new(),
            journaled: marks,
        }
    }

    /// Looks at the folder, and takes chunks until nothing moves, at most `most`.
    pub(super) fn look(&mut self, most: usize) {
        self.watched.look(self.now, &mut self.claims);
        let (chunks, journaled) = (&mut self.chunks, &mut self.journaled);
        let before = chunks.len();
        let mut send = |path: &str, chunk: Chunk, _| {
            if chunks.len() - before == most {
                return Ok(false);
            }
            journaled.insert(chunk.mark.file, (chunk.mark.offset, chunk.mark.row));
            chunks.push((path.rsplit_once('/').unwrap().1.to_owned(), chunk));
            Ok(true)
        };
        while self.watched.pass(self.now, &mut self.marks, &mut send).unwrap() {}
    }

    pub(super) fn quiet(&mut self) {
        self.now += QUIET;
        self.look(usize::MAX);
    }

    /// What was handed on since the last time, as one text.
    pub(super) fn text(&mut self) -> String {
        let texts =
            self.chunks.drain(..).map(|(_, chunk)| String::from_utf8(chunk.payload.to_vec()).unwrap());
        texts.collect()
    }
}
