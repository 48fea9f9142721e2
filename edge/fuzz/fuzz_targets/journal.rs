//! A segment of the journal, read by recovery and by the reader.
//!
//! Checksums would stop nearly every mutation at the door, so after a mutation most inputs get lengths, positions and
//! checksums that are right again (the layout stands in `journal/format.rs`); the rest stay as they are.

#![no_main]

const SEGMENT_HEADER: usize = 24;
const BATCH_HEADER: usize = 52;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_edge::fuzzing::journal(bytes));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    if seed % 8 != 0 {
        seal(&mut data[..size]);
    }
    size
});

/// Makes whatever stands behind a "WBCH" a whole batch up to the next one.
fn seal(segment: &mut [u8]) {
    if segment.len() < SEGMENT_HEADER {
        return;
    }
    segment[..12].copy_from_slice(b"WEIRJRNL\x01\0\0\0");
    let base = u64::from_le_bytes(segment[12..20].try_into().expect("eight bytes"));
    let crc = crc32c::crc32c(&segment[..20]);
    segment[20..24].copy_from_slice(&crc.to_le_bytes());
    let body = &segment[SEGMENT_HEADER..];
    let mut starts: Vec<usize> = body
        .windows(4)
        .enumerate()
        .filter(|(_, w)| w == b"WBCH")
        .map(|(at, _)| at + SEGMENT_HEADER)
        .collect();
    starts.push(segment.len());
    for pair in starts.windows(2) {
        let position = base.wrapping_add((pair[0] - SEGMENT_HEADER) as u64);
        seal_batch(&mut segment[pair[0]..pair[1]], position);
    }
}

fn seal_batch(batch: &mut [u8], position: u64) {
    if batch.len() < BATCH_HEADER {
        return;
    }
    let length = (batch.len() - BATCH_HEADER) as u32;
    let (head, frames) = batch.split_at_mut(BATCH_HEADER);
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..16].copy_from_slice(&position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..48]), frames);
    head[48..].copy_from_slice(&crc.to_le_bytes());
}
