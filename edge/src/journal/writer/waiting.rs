//! What waits for a commit: one batch in the making.
//!
//! Comes in: frames. Goes out: the same as bytes, or only the urgent ones. Guarantees: the order of the urgent frames
//! among themselves stays, and that of the others too. Pure.

use std::ops::Range;

use super::super::format::{self, BATCH_HEADER, FrameHead, Record};

/// What waits for a commit.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Room for the header, then the frames.
    pub(super) batch: Vec<u8>,
    pub(super) frames: u32,
    /// Frames from sources.
    pub(super) messages: usize,
    pub(super) urgent: u32,
    /// Where the frames are that hold control records or are urgent.
    pub(super) noted: Vec<Noted>,
}

#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub(super) bytes: Range<usize>,
    pub(super) urgent: bool,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self { batch: vec![0; BATCH_HEADER], frames: 0, messages: 0, urgent: 0, noted: Vec::new() }
    }

    pub(super) fn clear(&mut self) {
        self.batch.truncate(BATCH_HEADER);
        self.noted.clear();
        (self.frames, self.messages, self.urgent) = (0, 0, 0);
    }

    /// Appends a frame.
    pub(super) fn frame<'r>(
        &mut self,
        head: &FrameHead,
        urgent: bool,
        records: impl Iterator<Item = Record<'r>>,
    ) {
        let start = format::begin_frame(&mut self.batch, head);
        let mut count = 0;
        let mut noted = urgent;
        for record in records {
            noted |= !matches!(record, Record::Sent { .. } | Record::Kept { .. } | Record::Tick);
            format::write_record(&mut self.batch, &record);
            count += 1;
        }
        format::end_frame(&mut self.batch, start, count, head.arrived.trusted);
        self.frames += 1;
        self.urgent += u32::from(urgent);
        self.messages += usize::from(head.packet != 0);
        if noted {
            self.noted.push(Noted { bytes: start..self.batch.len(), urgent });
        }
    }

    /// The urgent frames, and the others.
    pub(super) fn split(self) -> (Self, Self) {
        let (mut urgent, mut data) = (Self::new(), Self::new());
        let mut at = BATCH_HEADER;
        for noted in self.noted.iter().filter(|noted| noted.urgent) {
            data.batch.extend_from_slice(&self.batch[at..noted.bytes.start]);
            let start = urgent.batch.len();
            urgent.batch.extend_from_slice(&self.batch[noted.bytes.clone()]);
            urgent.noted.push(Noted { bytes: start..urgent.batch.len(), urgent: true });
            at = noted.bytes.end;
        }
        data.batch.extend_from_slice(&self.batch[at..]);
        let mut moved = 0;
        for noted in self.noted {
            if noted.urgent {
                moved += noted.bytes.len();
            } else {
                let bytes = noted.bytes.start - moved..noted.bytes.end - moved;
                data.noted.push(Noted { bytes, urgent: false });
            }
        }
        (urgent.frames, urgent.urgent) = (self.urgent, self.urgent);
        (data.frames, data.messages) = (self.frames - self.urgent, self.messages);
        (urgent, data)
    }

    /// Appends what waits there.
    pub(super) fn append(&mut self, other: &Self) {
        let moved = self.batch.len() - BATCH_HEADER;
        self.batch.extend_from_slice(&other.batch[BATCH_HEADER..]);
        self.noted.extend(other.noted.iter().map(|noted| Noted {
            bytes: noted.bytes.start + moved..noted.bytes.end + moved,
            urgent: noted.urgent,
        }));
        self.frames += other.frames;
        self.messages += other.messages;
        self.urgent += other.urgent;
    }
}
