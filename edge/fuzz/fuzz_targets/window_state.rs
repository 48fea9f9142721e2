//! State of windows as it stood on disk.

#![no_main]

#[path = "../engines.rs"]
mod engines;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| engines::window_state(bytes));
