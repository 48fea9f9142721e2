//! The file source: CSV and JSON lines, files read whole or followed, each line exactly once.
//!
//! Comes in: files whose names match. Goes out: messages of whole lines, each with a [`Mark`]: how far its file is read
//! when the message is. The ingest stage journals both together, and gives the marks back at the next start; so there
//! is nothing to acknowledge and nothing is read twice. A file is known by its inode and its first bytes: renamed or
//! rotated it is the same, truncated or written anew it is another one.
//! A file that several patterns match is read once, by the section that stands first (or, under several names, that saw
//! it first); that is logged and counted.
//! Guarantees: memory is bounded by one chunk and one line; a line that is too long is handed on cut, as such; what
//! the process cannot hand on yet stays in the file.
//! `whole`: file after file by name; the last line may lack its end once the file has not grown for 2 s.
//! `tail`: all files side by side, for ever; a line counts when its end is there, or when its file was rotated away.
//! On failure: a file that cannot be read is said on `/ready` and counted, tried again, and holds up no other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use weir_shared::admin::Health;
use weir_shared::clock::{self, Deadline};
use weir_shared::supervise::{Error, Stop};

use super::{Message, Origin, Receipt};
use crate::events::Event;

mod claims;
mod config;
mod folder;
mod identity;
mod measures;
mod reader;
mod watched;

use claims::Claims;
pub(crate) use config::read;
use folder::Pattern;
use identity::Marks;
use reader::Chunk;
use watched::Watched;

/// How long a full stage downstream is waited for before looking whether to stop.
const WAIT: Duration = Duration::from_millis(20);
/// How often folders are looked at: for files read whole, and for followed ones.
const LOOK_WHOLE: Duration = Duration::from_secs(1);
const LOOK_TAIL: Duration = Duration::from_millis(100);
/// Memory is counted in units of this.
pub(crate) const MEMORY_UNIT_BYTES: usize = 64;

/// How far a file is read, to be journaled together with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which file.
    pub file: u64,
    /// Everything before this byte is read.
    pub offset: u64,
    /// Lines before it.
    pub row: u64,
}

/// When a file has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// At its end.
    Whole,
    /// Never.
    Tail,
}

/// Which files, and how their lines are handed on.
#[derive(Clone, Debug)]
pub(crate) struct FileConfig {
    /// Folder, and pattern of the names in it.
    pub pattern: Pattern,
    /// When a file has been read.
    pub mode: Mode,
    /// The first line names the columns: it goes before each message.
    pub header: bool,
    /// Longest line in bytes.
    pub line_bytes_max: usize,
}

/// What the source is connected to inside the process.
pub(crate) struct Wiring {
    /// To the ingest stage.
    pub events: flume::Sender<Event>,
    /// From the journal: how far each file is read, as offset and row; of a file that is told twice, the last.
    pub marks: HashMap<u64, (u64, u64)>,
    /// Bounds the bytes on their way to the journal, in [`MEMORY_UNIT_BYTES`].
    pub memory: Arc<Semaphore>,
    /// True once readings can be numbered.
    pub open: watch::Receiver<bool>,
    /// Where to complain.
    pub ready: Health,
}

/// Runs until told to stop.
pub(crate) fn run(configs: &[FileConfig], wiring: Wiring, stop: &Stop) -> Result<(), Error> {
    while !*wiring.open.borrow() {
        if stop.wait_for(WAIT) {
            return Ok(());
        }
    }
    let Wiring { events, marks, memory, ready, .. } = wiring;
    let (mut marks, mut claims) = (Marks::new(marks), Claims::default());
    let mut all: Vec<_> = (0..configs.len()).map(|at| (Watched::new(configs, at), None)).collect();
    let most = memory.available_permits();
    let mut send = |path: &str, chunk: Chunk, format: usize| {
        let Some(memory) = reserve(&memory, most, chunk.payload.len() + path.len(), stop) else {
            return Ok(false);
        };
        hand_on(&events, message(path, chunk, format, memory), stop)
    };
    let interval = if configs.iter().any(|c| c.mode == Mode::Tail) { LOOK_TAIL } else { LOOK_WHOLE };
    let begun = clock::instant();
    loop {
        let mut moved = false;
        for (watched, look) in &mut all {
            let due = look.as_ref().is_none_or(|deadline: &Deadline| deadline.passed());
            if due {
                let wait = if watched.mode() == Mode::Tail { LOOK_TAIL } else { LOOK_WHOLE };
                *look = Some(Deadline::after(wait));
                watched.look(clock::since(begun), &mut claims);
                watched.report(&ready);
            }
            moved |= watched.pass(clock::since(begun), &mut marks, &mut send)?;
            if stop.is_stopped() {
                return Ok(());
            }
        }
        if !moved && stop.wait_for(interval) {
            return Ok(());
        }
    }
}

/// Room for a chunk; `None` when told to stop first.
fn reserve(memory: &Arc<Semaphore>, most: usize, bytes: usize, stop: &Stop) -> Option<OwnedSemaphorePermit> {
    let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT_BYTES).min(most)).unwrap_or(u32::MAX);
    loop {
        if let Ok(permit) = Arc::clone(memory).try_acquire_many_owned(units) {
            return Some(permit);
        }
        if stop.wait_for(WAIT) {
            return None;
        }
    }
}

/// False when told to stop first.
fn hand_on(events: &flume::Sender<Event>, message: Message, stop: &Stop) -> Result<bool, Error> {
    let mut event = Event::Message(message);
    loop {
        event = match events.send_timeout(event, WAIT) {
            Ok(()) => return Ok(true),
            Err(flume::SendTimeoutError::Disconnected(_)) => return Err("the ingest stage has ended".into()),
            Err(flume::SendTimeoutError::Timeout(_)) if stop.is_stopped() => return Ok(false),
            Err(flume::SendTimeoutError::Timeout(event)) => event,
        };
    }
}

fn message(path: &str, chunk: Chunk, format: usize, memory: OwnedSemaphorePermit) -> Message {
    Message {
        receipt: Receipt { connection: 0, packet: 0, count: 0 },
        again: false,
        session: 0,
        topic: path.to_owned(),
        payload: chunk.payload,
        arrived: clock::now(),
        origin: Origin::File { format, first_row: chunk.first_row, mark: chunk.mark },
        memory: Some(memory),
    }
}

#[cfg(test)]
mod tests;
