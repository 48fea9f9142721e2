//! Records to bytes and back; the layout is told in [`super::record`].
//!
//! Guarantees: what is written is read back as it was; any bytes give a record or [`None`], never a panic. Pure.

use weir_shared::record::StreamId;

use super::record::{
    Acknowledged, Correction, Cursor, FileMark, Numbers, Partitions, Place, Record, Seen, Sent,
};

const TICK: u8 = 4;
const CONTROL: u8 = 6;
const KEPT: u8 = 8;
/// Added to the kind of a sent record: it is a control record for the cloud.
const CLOSING: u8 = 16;
/// Bytes of kind and length.
pub(super) const HEAD: usize = 5;
/// Bytes of kind, partition and number.
const PLACE: usize = 13;

pub(super) fn read_record(kind: u8, body: &[u8]) -> Option<Record<'_>> {
    if let Some(sent) = Sent::from_byte(kind & !CLOSING) {
        let (head, rest) = body.split_at_checked(12)?;
        let place = Place { kind: sent, partition: u32_at(head, 0), number: u64_at(head, 4) };
        let (key, value) = split_key(rest)?;
        return Some(Record::Sent { place, closing: kind & CLOSING != 0, key, value });
    }
    match kind {
        TICK => Some(Record::Tick),
        KEPT => split_key(body).map(|(key, value)| Record::Kept { key, value }),
        CONTROL => read_control(body),
        _ => None,
    }
}

fn split_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_le_bytes([length[0], length[1]])))
}

fn read_control(body: &[u8]) -> Option<Record<'_>> {
    let (what, body) = body.split_first()?;
    match (what, body.len()) {
        (1, 24) => Some(Record::StreamOpened {
            boot: body[..16].try_into().ok()?,
            wall_ms: u64_at(body, 16).cast_signed(),
        }),
        (2, 16) => Some(Record::Session { session: u64_at(body, 0), subscriptions: u64_at(body, 8) }),
        (3, _) => {
            let mut topics = Partitions::default();
            for entry in body.chunks_exact(5) {
                if let Some(kind) = Sent::from_byte(entry[0]) {
                    topics[kind.index()] = u32_at(entry, 1);
                }
            }
            Some(Record::Topics(topics))
        }
        (5, 8) => Some(Record::Proven(u64_at(body, 0))),
        (6, 8) => Some(Record::Results(u64_at(body, 0))),
        (7, 16..) => {
            let next = body[16..].chunks_exact(PLACE).map(read_place).collect::<Option<_>>()?;
            Some(Record::Numbers(Numbers { stream: StreamId(body[..16].try_into().ok()?), next }))
        }
        (8, _) => std::str::from_utf8(body).ok().map(Record::Rules),
        (9, 0) => Some(Record::Resumed),
        (10, 13) => Some(Record::Clock(Correction {
            boot: u32_at(body, 0),
            known: body[4] != 0,
            offset_ms: u64_at(body, 5).cast_signed(),
        })),
        (11, 24) => Some(Record::File(FileMark {
            file: u64_at(body, 0),
            offset: u64_at(body, 8),
            rows: u64_at(body, 16),
        })),
        (12, 16) => Some(Record::GivenUp { from: u64_at(body, 0), to: u64_at(body, 8) }),
        (13, 16..) => {
            Some(Record::Seen(Seen { below: u64_at(body, 0), session: u64_at(body, 8), keys: &body[16..] }))
        }
        (4, 8..) => {
            let prefixes = body[8..].chunks_exact(16 + PLACE).map(read_prefix).collect::<Option<_>>()?;
            Some(Record::Cursor(Cursor { position: u64_at(body, 0), prefixes }))
        }
        _ => None,
    }
}

fn read_prefix(b: &[u8]) -> Option<Acknowledged> {
    let stream = StreamId(b[..16].try_into().ok()?);
    Some(Acknowledged { stream, next: read_place(&b[16..])? })
}

fn read_place(b: &[u8]) -> Option<Place> {
    Some(Place { kind: Sent::from_byte(b[0])?, partition: u32_at(b, 1), number: u64_at(b, 5) })
}

fn write_place(out: &mut Vec<u8>, place: &Place) {
    out.push(place.kind as u8);
    out.extend_from_slice(&place.partition.to_le_bytes());
    out.extend_from_slice(&place.number.to_le_bytes());
}

/// Appends a record; keys are at most 65,535 bytes (devices and topics are cut to 255).
pub(crate) fn write_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend_from_slice(&[CONTROL, 0, 0, 0, 0]);
    match record {
        Record::Sent { place, closing, key, value } => {
            out[start] = place.kind as u8 | if *closing { CLOSING } else { 0 };
            out.extend_from_slice(&place.partition.to_le_bytes());
            out.extend_from_slice(&place.number.to_le_bytes());
            write_key(out, key, value);
        }
        Record::Kept { key, value } => {
            out[start] = KEPT;
            write_key(out, key, value);
        }
        Record::Tick => out[start] = TICK,
        control => write_control(out, control),
    }
    let length = u32::try_from(out.len() - start - HEAD).expect("a record is far below 4 GiB");
    out[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
}

fn write_key(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let length = u16::try_from(key.len()).expect("keys are cut to 255 bytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

fn write_control(out: &mut Vec<u8>, record: &Record<'_>) {
    match record {
        Record::StreamOpened { boot, wall_ms } => {
            out.push(1);
            out.extend_from_slice(boot);
            out.extend_from_slice(&wall_ms.to_le_bytes());
        }
        Record::Session { session, subscriptions } => {
            out.push(2);
            out.extend_from_slice(&session.to_le_bytes());
            out.extend_from_slice(&subscriptions.to_le_bytes());
        }
        Record::Topics(partitions) => {
            out.push(3);
            for (kind, count) in Sent::ALL.iter().zip(partitions) {
                out.push(*kind as u8);
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        Record::Cursor(cursor) => {
            out.push(4);
            out.extend_from_slice(&cursor.position.to_le_bytes());
            for prefix in &cursor.prefixes {
                out.extend_from_slice(&prefix.stream.0);
                write_place(out, &prefix.next);
            }
        }
        Record::Proven(position) => {
            out.push(5);
            out.extend_from_slice(&position.to_le_bytes());
        }
        Record::Results(position) => {
            out.push(6);
            out.extend_from_slice(&position.to_le_bytes());
        }
        Record::Numbers(numbers) => {
            out.push(7);
            out.extend_from_slice(&numbers.stream.0);
            numbers.next.iter().for_each(|place| write_place(out, place));
        }
        Record::Rules(text) => {
            out.push(8);
            out.extend_from_slice(text.as_bytes());
        }
        Record::Resumed => out.push(9),
        Record::Clock(correction) => {
            out.push(10);
            out.extend_from_slice(&correction.boot.to_le_bytes());
            out.push(u8::from(correction.known));
            out.extend_from_slice(&correction.offset_ms.to_le_bytes());
        }
        Record::File(mark) => {
            out.push(11);
            [mark.file, mark.offset, mark.rows].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        }
        Record::GivenUp { from, to } => {
            out.push(12);
            [from, to].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        }
        Record::Seen(seen) => {
            out.push(13);
            out.extend_from_slice(&seen.below.to_le_bytes());
            out.extend_from_slice(&seen.session.to_le_bytes());
            out.extend_from_slice(seen.keys);
        }
        Record::Sent { .. } | Record::Kept { .. } | Record::Tick | Record::Unknown => {}
    }
}

/// Gives a record that is to be sent another number.
pub(super) fn renumber(record: &mut [u8], next: &mut impl FnMut(Sent, u32) -> u64) {
    if let Some(sent) = Sent::from_byte(record[0] & !CLOSING) {
        let number = next(sent, u32_at(record, HEAD));
        record[HEAD + 4..HEAD + 12].copy_from_slice(&number.to_le_bytes());
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
