//! Reading the lines of one file.
//!
//! Comes in: an open file that others may write to, and the place where to go on. Goes out: chunks of whole lines with
//! the place after them. Guarantees: only what stands before a line end is taken, unless the caller says that nothing
//! more will come; memory is bounded by one chunk or one line. On failure: the error of the file system, with the place
//! unchanged.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::Mark;
use super::folder::Seen;
use super::identity::{self, HEAD_BYTES_MAX};

/// Most bytes of a chunk, unless one line is longer.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Most lines of a chunk.
pub(super) const CHUNK_LINES: usize = 1000;
/// How far a line that is too long is followed before others have their turn.
const SCAN_BYTES: u64 = 16 << 20;
/// How much before a place tells whether it is still that place.
const BEFORE_BYTES: usize = 4096;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Which file; known once something of it was read.
    pub(super) file: Option<u64>,
    /// Everything before this byte is read.
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) row: u64,
}

/// Lines, with the place after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The header, where there is one, and the lines.
    pub(super) payload: Bytes,
    /// The row of the first line, from 1.
    pub(super) first_row: u64,
    /// The place after the last.
    pub(super) mark: Mark,
}

/// What a file has for us.
#[derive(Debug)]
pub(super) enum Next {
    /// Lines.
    Chunk(Chunk),
    /// Nothing yet, but there is more to look at.
    More,
    /// No more line with an end.
    End,
}

/// What lines look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) header: bool,
    pub(super) bytes_max: usize,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    inode: u64,
    lines: Lines,
    header: Vec<u8>,
    position: Position,
    /// No line ends between the position and this byte.
    scanned: u64,
}

impl Reader {
    pub(super) fn open(path: &Path, lines: Lines) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode, lines, header: Vec::new(), position: Position::default(), scanned: 0 })
    }

    pub(super) const fn position(&self) -> Position {
        self.position
    }

    pub(super) fn seen(&self, path: &Path) -> io::Result<Seen> {
        Ok(Seen::new(path.to_owned(), &self.file.metadata()?))
    }

    pub(super) fn go_to(&mut self, position: Position) {
        self.position = position;
        self.scanned = 0;
        self.header.clear();
    }

    /// The first bytes, as far as they count for what file it is.
    pub(super) fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; HEAD_BYTES_MAX];
        let length = self.fill(0, &mut head)?;
        head.truncate(length);
        Ok(head)
    }

    /// A digest of the last bytes before this place.
    pub(super) fn digest_before(&self, offset: u64) -> io::Result<u64> {
        let mut bytes = vec![0; usize::try_from(offset).unwrap_or(usize::MAX).min(BEFORE_BYTES)];
        let length = self.fill(offset - bytes.len() as u64, &mut bytes)?;
        Ok(xxh3_64(&bytes[..length]))
    }

    pub(super) const fn inode(&self) -> u64 {
        self.inode
    }

    /// Whether what was read of it still stands there.
    pub(super) fn is_same(&self, size: u64) -> io::Result<bool> {
        let same = match self.position.file {
            Some(id) => identity::is(id, self.inode, &self.head()?),
            None => true,
        };
        Ok(same && size >= self.position.offset)
    }

    /// The next lines. `last`: nothing more will come, so what is left is a line too.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>, last: bool) -> io::Result<Next> {
        if !self.read_header(buffer)? {
            return Ok(Next::End);
        }
        let start = self.position.offset;
        if self.scanned > start {
            return self.long_line(buffer, last);
        }
        buffer.resize(CHUNK_BYTES, 0);
        let length = self.fill(start, buffer)?;
        let mut ends = buffer[..length].iter().enumerate().filter(|(_, b)| **b == b'\n').take(CHUNK_LINES);
        let found = ends.by_ref().fold((0, 0), |(count, _), (at, _)| (count + 1, at + 1));
        match found {
            (0, _) if length == CHUNK_BYTES => self.long_line(buffer, last),
            (0, _) if length == 0 || !last => Ok(Next::End),
            (0, _) => self.take(&buffer[..length], start + length as u64, 1),
            (count, length) => self.take(&buffer[..length], start + length as u64, count),
        }
    }

    /// One line that is longer than a chunk.
    fn long_line(&mut self, buffer: &mut Vec<u8>, last: bool) -> io::Result<Next> {
        let start = self.position.offset;
        let max = self.lines.bytes_max;
        if self.scanned <= start {
            buffer.resize(max.max(CHUNK_BYTES) + 1, 0);
            let length = self.fill(start, buffer)?;
            let end = buffer[..length].iter().position(|b| *b == b'\n');
            if let Some(end) = end {
                return self.take(&buffer[..=end], start + end as u64 + 1, 1);
            }
            if length <= max {
                let line = &buffer[..length];
                return if last { self.take(line, start + length as u64, 1) } else { Ok(Next::End) };
            }
            self.scanned = start + length as u64;
        }
        let until = self.scanned + SCAN_BYTES;
        buffer.resize(CHUNK_BYTES, 0);
        let end = loop {
            let length = self.fill(self.scanned, buffer)?;
            match buffer[..length].iter().position(|b| *b == b'\n') {
                Some(end) => break self.scanned + end as u64 + 1,
                None if length == 0 && last => break self.scanned,
                None if length == 0 => return Ok(Next::End),
                None => self.scanned += length as u64,
            }
            if self.scanned >= until {
                return Ok(Next::More);
            }
        };
        // Its beginning, one byte longer than what is taken: so it is rejected for what it is.
        buffer.resize(max + 1, 0);
        let length = self.fill(start, buffer)?;
        self.take(&buffer[..length], end, 1)
    }

    fn take(&mut self, lines: &[u8], end: u64, count: u64) -> io::Result<Next> {
        let file = match self.position.file {
            Some(file) => file,
            None => {
                let head = self.head()?;
                identity::of(self.inode, &head[..head.len().min(usize::try_from(end).unwrap_or(usize::MAX))])
            }
        };
        let first_row = self.position.row + 1;
        self.position = Position { file: Some(file), offset: end, row: self.position.row + count };
        self.scanned = 0;
        if lines.trim_ascii().is_empty() {
            return Ok(Next::More);
        }
        let payload = [self.header.as_slice(), lines].concat();
        let mark = Mark { file, offset: end, row: self.position.row };
        Ok(Next::Chunk(Chunk { payload: payload.into(), first_row, mark }))
    }

    /// False while the header has no end.
    fn read_header(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        // Until something was read with it, it may still change.
        if !self.lines.header || (!self.header.is_empty() && self.position.file.is_some()) {
            return Ok(true);
        }
        buffer.resize(self.lines.bytes_max + 1, 0);
        let length = self.fill(0, buffer)?;
        let end = buffer[..length].iter().position(|b| *b == b'\n');
        let first = &buffer[..end.map_or(length, |end| end + 1)];
        if first.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n') {
            // Of a file of such lines nothing would be left: all of it would be the header.
            let why =
                "its first line, the header, holds a CR that no LF follows; lines must end in LF or CRLF";
            return Err(io::Error::other(why));
        }
        let Some(end) = end else {
            let max = self.lines.bytes_max;
            return if length > max {
                Err(io::Error::other(format!("its first line, the header, is longer than {max} bytes")))
            } else {
                Ok(false)
            };
        };
        self.header = buffer[..=end].to_vec();
        if self.position.offset <= end as u64 {
            (self.position.offset, self.position.row) = (end as u64 + 1, 1);
        }
        Ok(true)
    }

    /// Fills the buffer as far as the file goes.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < buffer.len() {
            match self.file.read_at(&mut buffer[length..], offset + length as u64) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(length)
    }
}
