//! State of windows as it stood on disk.

#![no_main]

#[path = "../window_state.rs"]
mod window_state;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| window_state::window_state(bytes));
